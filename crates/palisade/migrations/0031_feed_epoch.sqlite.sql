create table feed_epoch (id id not null primary key);
insert into feed_epoch (id) values (randomblob(16));
create view feed_history as select hex(id) as epoch from feed_epoch limit 1;
