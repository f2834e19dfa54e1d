create table audit_head (
    one bigint not null primary key check (one = 1),
    position bigint not null,
    chain bytes not null,
    mac bytes not null
);
