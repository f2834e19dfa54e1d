create table sessions (
    id id not null primary key,
    user_id id not null references users (id) on delete cascade,
    transport text not null check (transport in ('token', 'cookie')),
    token_format text not null check (token_format in ('jwt', 'paseto')),
    device_name text,
    -- The device that signed in. Its device token proves it.
    device_id id,
    user_agent text,
    ip text,
    amr text not null,
    proved_with text not null default 'password',
    generation bigint not null default 1,
    created_at instant not null,
    authenticated_at instant not null,
    last_used_at instant not null,
    idle_expires_at instant not null,
    expires_at instant not null,
    ended_at instant,
    ended_because text,
    -- When claims in its access tokens changed that are not outdated yet.
    outdated_at instant
);
create index sessions_outdated on sessions (id) where outdated_at is not null;
create index sessions_user on sessions (user_id, created_at, id);
create index sessions_expires on sessions (expires_at);

create table session_secrets (
    digest bytes not null primary key,
    session_id id not null references sessions (id) on delete cascade,
    -- The user of the session. A refresh locks the user before it reads the session.
    user_id id not null,
    used_at instant,
    successor_digest bytes,
    successor_sealed bytes,
    -- When this secret got a second successor, because the response with the first one was lost.
    recovered_at instant,
    -- When another successor of the same parent replaced this secret, which was unused.
    superseded_at instant
);
create index session_secrets_session on session_secrets (session_id);
create index session_secrets_successor on session_secrets (successor_digest);
create index session_secrets_grace on session_secrets (used_at) where successor_sealed is not null;
