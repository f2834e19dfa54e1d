create table challenges (
    digest bytes not null primary key,
    purpose text not null check (purpose in ('second_factor', 'sign_in', 'registration', 'step_up')),
    user_id id references users (id) on delete cascade,
    client bytes not null,
    passkey_digest bytes,
    details text not null,
    attempts bigint not null,
    expires_at instant not null,
    used_at instant
);
create index challenges_user on challenges (user_id);
create index challenges_expires on challenges (expires_at);
