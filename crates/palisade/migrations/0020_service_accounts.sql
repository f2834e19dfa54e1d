alter table users add column service flag;
create index users_service on users (created_at, id) where service is not null;
