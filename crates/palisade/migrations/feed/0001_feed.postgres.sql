create table feed (
    seq bigint not null primary key generated always as identity,
    topic text not null,
    subject id not null,
    origin id not null,
    at instant not null,
    -- For external readers: credentials of the subject before this generation are refused.
    generation bigint
);
create index feed_at on feed (at);
