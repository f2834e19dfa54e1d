create table keys (
    kid text not null primary key,
    purpose text not null,
    algorithm text not null,
    version bigint not null,
    wrapped bytes not null,
    created_at instant not null,
    -- A signing key is published from its creation, and signs from this time until `retired_at`.
    signs_from instant not null,
    retired_at instant,
    -- After a compromise: the key verifies nothing from this time on.
    dropped_at instant
);
create unique index keys_version on keys (purpose, algorithm, version);
