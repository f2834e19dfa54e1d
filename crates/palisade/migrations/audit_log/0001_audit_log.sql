create table person_keys (
    user_id id not null primary key,
    wrapped bytes not null
);

create table audit_events (
    id id not null primary key,
    at instant not null,
    event text not null,
    actor_kind text not null,
    actor_id id,
    about_kind text,
    about_id id,
    person_id id,
    record text not null,
    personal bytes,
    mac bytes not null,
    position bigint,
    chain bytes
);
create index audit_events_at on audit_events (at, id);
create index audit_events_actor on audit_events (actor_id, at, id);
create index audit_events_about on audit_events (about_id, at, id);
create unique index audit_events_position on audit_events (position);
create index audit_events_unchained on audit_events (at, id) where position is null;

create table audit_head (
    one bigint not null primary key check (one = 1),
    position bigint not null,
    chain bytes not null,
    mac bytes not null
);
