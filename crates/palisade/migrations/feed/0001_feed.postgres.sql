create table feed (
    seq bigint not null primary key generated always as identity,
    topic text not null,
    subject id not null,
    origin id not null,
    at instant not null
);
create index feed_at on feed (at);
