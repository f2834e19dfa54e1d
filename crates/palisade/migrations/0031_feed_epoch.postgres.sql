create table feed_epoch (id id not null primary key);
insert into feed_epoch (id) values (gen_random_uuid());
-- A restore writes the row again, in another transaction and mostly into another table; a server that was
-- started again, or took over from another, has another time of start.
create view feed_history as
select coalesce(
           (select cast(id as text) || ' ' || cast(xmin as text) || ' ' || cast(tableoid as text)
            from feed_epoch limit 1),
           ''
       ) || ' ' || cast(extract(epoch from pg_postmaster_start_time()) as text) as epoch;
