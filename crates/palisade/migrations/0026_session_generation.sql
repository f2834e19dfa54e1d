alter table sessions add column generation bigint not null default 1;
