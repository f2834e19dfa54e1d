alter table passwords add column generation bigint not null default 1;
alter table recovery_tokens add column kind text not null default 'reset' check (kind in ('reset', 'invitation'));
alter table recovery_tokens add column password_generation bigint not null default 0;
alter table address_changes add column password_generation bigint not null default 0;
alter table factor_recoveries add column password_generation bigint not null default 0;
