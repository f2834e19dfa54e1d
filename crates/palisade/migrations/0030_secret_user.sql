-- Whoever goes on with a session holds its user first, and finds them without reading the session. Null where a
-- server of an earlier build, still running, wrote the row: then the session tells.
alter table session_secrets add column user_id id;
update session_secrets set user_id = (select s.user_id from sessions s where s.id = session_secrets.session_id);
