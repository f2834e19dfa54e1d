create table api_keys (
    id id not null primary key,
    user_id id not null references users (id) on delete cascade,
    digest bytes not null,
    hint text not null,
    name text not null,
    permissions text not null,
    allowed_networks text,
    requests_per_minute bigint,
    made_by id references users (id) on delete set null,
    created_at instant not null,
    expires_at instant not null,
    last_used_at instant,
    warned_at instant,
    revoked_at instant,
    revoked_because text
);
create unique index api_keys_digest on api_keys (digest);
create index api_keys_user on api_keys (user_id, created_at, id);
create index api_keys_made_by on api_keys (made_by);
create index api_keys_expires on api_keys (expires_at);
