-- Prefixes are found by an index only where texts are compared byte by byte.
alter table users alter column email_key type text collate "C";
alter table users add column name_key text collate "C";
alter table users add column delete_at instant;
update users set name_key = lower(name);
create index users_name_key on users (name_key, id);
create index users_delete_at on users (delete_at);

create table roles (
    name text not null primary key,
    description text not null
);
create table role_permissions (
    role text not null references roles (name) on delete cascade,
    permission text not null,
    primary key (role, permission)
);
insert into roles (name, description) values ('admin', 'May do everything.'), ('user', 'Has an account.');
