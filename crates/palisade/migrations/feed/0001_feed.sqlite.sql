create table feed (
    seq integer not null primary key autoincrement,
    topic text not null,
    subject id not null,
    origin id not null,
    at instant not null
);
create index feed_at on feed (at);
