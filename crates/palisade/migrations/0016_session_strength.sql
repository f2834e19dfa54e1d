alter table sessions add column proved_with text not null default 'password';
