create table outbox (
    id id not null primary key,
    template text not null,
    sealed bytes,
    created_at instant not null,
    next_try_at instant,
    tries bigint not null,
    sent_at instant,
    failed_at instant,
    problem text
);
create index outbox_due on outbox (next_try_at) where next_try_at is not null;
create index outbox_created_at on outbox (created_at);
