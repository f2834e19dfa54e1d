create table lockout_counts (
    account bytes not null,
    client text not null,
    user_id id references users (id) on delete cascade,
    window_began_at instant not null,
    in_window bigint not null,
    in_a_row bigint not null,
    locks bigint not null,
    locked_until instant,
    refused bigint not null,
    last_at instant not null,
    primary key (account, client)
);
create index lockout_counts_user on lockout_counts (user_id, last_at);
create index lockout_counts_last_at on lockout_counts (last_at);
