create table setup_links (
    digest bytes not null primary key,
    expires_at instant not null,
    used_at instant
);

create table registrations (
    id id not null primary key,
    user_id id not null,
    email text not null,
    email_key text not null,
    name text,
    sealed bytes not null,
    digest bytes,
    created_at instant not null,
    expires_at instant not null,
    used_at instant
);
create unique index registrations_digest on registrations (digest);
create index registrations_email_key on registrations (email_key, created_at);
create index registrations_expires on registrations (expires_at);
