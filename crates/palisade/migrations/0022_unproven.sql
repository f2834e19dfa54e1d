alter table users add column unproven flag;
