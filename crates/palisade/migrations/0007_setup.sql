create table setup_links (
    digest bytes not null primary key,
    created_at instant not null,
    expires_at instant not null,
    used_at instant
);
