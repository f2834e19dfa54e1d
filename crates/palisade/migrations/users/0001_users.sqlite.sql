create table users (
    id id not null primary key,
    email text not null,
    email_key text not null,
    email_verified_at instant,
    unproven flag,
    name text,
    name_key text,
    service flag,
    disabled_at instant,
    delete_at instant,
    -- What every request must know, kept by its owners: the slices of factors and of lockout.
    has_totp flag not null default false,
    passkeys bigint not null default 0,
    recovery_codes_left bigint not null default 0,
    locked_until instant,
    created_at instant not null,
    last_login_at instant
);
create unique index users_email_key on users (email_key);
create index users_name_key on users (name_key, id);
create index users_created_at on users (created_at, id);
create index users_service on users (created_at, id) where service is not null;
create index users_delete_at on users (delete_at);

create table user_roles (
    user_id id not null references users (id) on delete cascade,
    role text not null,
    primary key (user_id, role)
);
create index user_roles_role on user_roles (role);

create table role_permissions (
    role text not null,
    permission text not null,
    primary key (role, permission)
);
