create table email_changes (
    id id not null primary key,
    user_id id not null references users (id) on delete cascade,
    email text not null,
    old_email text not null,
    old_key text not null,
    digest bytes,
    undo_digest bytes,
    password_generation bigint not null default 0,
    created_at instant not null,
    expires_at instant not null,
    confirmed_at instant,
    undo_until instant,
    undone_at instant
);
create unique index email_changes_digest on email_changes (digest);
create unique index email_changes_undo on email_changes (undo_digest);
create index email_changes_user on email_changes (user_id, created_at);
create index email_changes_old on email_changes (old_key);
create index email_changes_expires on email_changes (expires_at);
