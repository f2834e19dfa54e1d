create table keys (
    kid text not null primary key,
    purpose text not null,
    algorithm text not null,
    version bigint not null,
    wrapped bytes not null,
    created_at instant not null,
    retired_at instant
);
create unique index keys_version on keys (purpose, algorithm, version);
