create table factor_recoveries (
    user_id id not null primary key references users (id) on delete cascade,
    digest bytes,
    password_generation bigint not null default 0,
    created_at instant not null,
    ready_at instant not null,
    expires_at instant not null
);
create unique index factor_recoveries_digest on factor_recoveries (digest);
