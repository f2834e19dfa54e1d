create table recovery_tokens (
    digest bytes not null primary key,
    user_id id not null references users (id) on delete cascade,
    kind text not null default 'reset' check (kind in ('reset', 'invitation')),
    password_generation bigint not null default 0,
    created_at instant not null,
    expires_at instant not null,
    used_at instant
);
create index recovery_tokens_user on recovery_tokens (user_id);
create index recovery_tokens_expires on recovery_tokens (expires_at);
