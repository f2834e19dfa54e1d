create table grants (
    id id not null primary key,
    resource_type text not null,
    resource_id text not null,
    subject text not null,
    user_id id references users (id) on delete cascade,
    role text references roles (name) on delete cascade,
    action text not null,
    expires_at instant
);
create unique index grants_resource on grants (resource_type, resource_id, subject, action);
create index grants_user on grants (user_id, resource_type, action, resource_id);
create index grants_role on grants (role, resource_type, action, resource_id);
create index grants_subject on grants (subject, resource_type, action, resource_id);
create index grants_expires on grants (expires_at);
