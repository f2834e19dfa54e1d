create table passwords (
    user_id id not null primary key references users (id) on delete cascade,
    sealed bytes not null,
    changed_at instant not null
);
