create table roles (
    name text not null primary key,
    description text not null
);
insert into roles (name, description) values ('admin', 'May do everything.'), ('user', 'Has an account.');
