create table totp_enrolments (
    user_id id not null primary key references users (id) on delete cascade,
    session_id id not null,
    sealed bytes not null,
    requested_at instant not null
);
create table totp_secrets (
    user_id id not null primary key references users (id) on delete cascade,
    sealed bytes not null,
    used_step bigint not null,
    created_at instant not null,
    last_used_at instant
);
create table recovery_codes (
    digest bytes not null primary key,
    user_id id not null references users (id) on delete cascade,
    created_at instant not null,
    used_at instant
);
create index recovery_codes_user on recovery_codes (user_id);
create table passkeys (
    id id not null primary key,
    user_id id not null references users (id) on delete cascade,
    credential_id bytes not null unique,
    sealed bytes not null,
    name text not null,
    sign_count bigint not null,
    backup_eligible flag not null,
    backed_up flag not null,
    passwordless flag not null,
    aaguid id not null,
    transports text not null,
    created_at instant not null,
    last_used_at instant
);
create index passkeys_user on passkeys (user_id, created_at, id);
