create table roles (
    name text not null primary key,
    description text not null
);
insert into roles (name, description) values ('admin', 'May do everything.'), ('user', 'Has an account.');

create table role_permissions (
    role text not null references roles (name) on delete cascade,
    permission text not null,
    primary key (role, permission)
);
