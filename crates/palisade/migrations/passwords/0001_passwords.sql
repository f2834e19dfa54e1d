create table passwords (
    user_id id not null primary key references users (id) on delete cascade,
    sealed bytes not null,
    generation bigint not null default 1,
    changed_at instant not null
);

create table password_history (
    id id not null primary key,
    user_id id not null references users (id) on delete cascade,
    sealed bytes not null,
    replaced_at instant not null
);
create index password_history_user on password_history (user_id, replaced_at, id);
