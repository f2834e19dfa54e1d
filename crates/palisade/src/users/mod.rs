//! Users: who they are, what they may do, whether they may sign in at all.
//!
//! Promises:
//! - What a request believes of its user is at most one message of the feed old, on every node.
//! - The last administrator who can sign in can't be disabled.
//!
//! Tables: `users`, `user_roles`.

mod email;
mod http;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use palisade_db::{Migration, Sql, Timestamp, args};
use schemars::JsonSchema;
use serde::Serialize;
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;

use crate::app::{App, Change, Parts, Subscription};
use crate::audit::{self, Event};
use crate::error::{Broken, Error, Kind, Result};
use crate::http::{Cursor, List, Paging, Written};
use crate::id::UserId;
use crate::memory::{Recall, Remembered};
use crate::module::{Module, Permission};
use crate::shape;

pub use email::Email;

/// May see all users.
pub const READ: Permission = Permission { name: "users:read", says: "See all users" };
/// May change, disable and enable users and end their sessions.
pub const WRITE: Permission =
    Permission { name: "users:write", says: "Change, disable and sign out users" };

/// A user was made.
pub const CREATED: Event = Event { name: "users.created", says: "A user was created" };
/// A user's own details were changed.
pub const CHANGED: Event = Event { name: "users.changed", says: "A user's details were changed" };
/// A user may no longer sign in.
pub const DISABLED: Event = Event { name: "users.disabled", says: "A user was disabled" };
/// A user may sign in again.
pub const ENABLED: Event = Event { name: "users.enabled", says: "A user was enabled" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "users",
    routes: http::routes,
    permissions: &[READ, WRITE],
    events: &[CREATED, CHANGED, DISABLED, ENABLED],
    subscriptions: &[Subscription {
        topic: NEWS,
        apply: |app, user| memory(app).forget(&UserId(user), app.clock.monotonic()),
        forget_all: |app| memory(app).forget_all(),
    }],
    migrations: &[Migration {
        version: 4,
        name: "users",
        sql: Sql::Both(include_str!("../../migrations/0004_users.sql")),
    }],
    tables: &["users", "user_roles"],
    parts: |_, parts: &mut Parts| {
        parts.put(Known(Remembered::new(100_000)));
        Ok(())
    },
    ..Module::EMPTY
};

/// The topic of everything that changes what a request may believe of a user.
const NEWS: &str = "users.changed";

struct Known(Remembered<UserId, User>);

fn memory(app: &App) -> &Remembered<UserId, User> {
    &app.part::<Known>().0
}

/// The role that holds every permission.
pub const ADMIN: &str = "admin";
/// The role of everybody; it holds no permission.
pub const USER: &str = "user";

/// A person with an account.
#[derive(Debug)]
pub struct User {
    /// Who it is; never given to anybody else.
    pub id: UserId,
    /// The address, as its owner wrote it.
    pub email: String,
    /// Whether its owner proved it.
    pub email_verified: bool,
    /// What the person wants to be called.
    pub name: Option<String>,
    /// Roles, sorted.
    pub roles: Vec<String>,
    /// What the roles allow.
    pub permissions: Arc<BTreeSet<String>>,
    /// Whether signing in is refused.
    pub disabled: bool,
    /// Until when clients that aren't known are refused; may be past.
    pub locked_until: Option<Timestamp>,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When somebody last signed in to it.
    pub last_login_at: Option<Timestamp>,
    /// What the API shows of them, written when it is first asked for.
    written: OnceLock<Written<UserView>>,
}

impl User {
    /// What the API shows.
    ///
    /// # Errors
    /// When it can't be written, which would be a mistake of ours.
    pub fn written(&self, now: Timestamp) -> Result<Written<UserView>> {
        if let Some(written) = self.written.get() {
            return Ok(written.clone());
        }
        let written = Written::new(&UserView::new(self, now))?;
        if self.locked_until.is_some() {
            // What it says ends by itself.
            return Ok(written);
        }
        Ok(self.written.get_or_init(|| written).clone())
    }
}

/// A user, as the API shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub struct UserView {
    id: UserId,
    /// The address, as it was given.
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// Whether the address was proved to be the user's.
    email_verified: bool,
    /// What the user is called.
    name: Option<String>,
    /// Names of roles.
    roles: Vec<String>,
    /// A disabled user can't sign in and has no sessions.
    disabled: bool,
    /// Too many wrong passwords: until then only devices are let in that have signed in before. 9999-12-31
    /// means until an administrator unlocks the account or its password is new.
    #[schemars(with = "Option<shape::DateTime>")]
    locked_until: Option<Timestamp>,
    #[schemars(with = "shape::DateTime")]
    created_at: Timestamp,
    #[schemars(with = "Option<shape::DateTime>")]
    last_login_at: Option<Timestamp>,
}

impl UserView {
    /// What the API shows of a user at this moment.
    pub fn new(user: &User, now: Timestamp) -> UserView {
        UserView {
            id: user.id,
            email: user.email.clone(),
            email_verified: user.email_verified,
            name: user.name.clone(),
            roles: user.roles.clone(),
            disabled: user.disabled,
            locked_until: user.locked_until.filter(|until| *until > now),
            created_at: user.created_at,
            last_login_at: user.last_login_at,
        }
    }
}

/// The permissions that exist: those of all modules.
pub struct AllPermissions(pub Arc<BTreeSet<String>>);

/// What a person may call themselves: 1 to 200 characters, none of them a control character.
///
/// # Errors
/// `name.invalid`.
pub fn check_name(text: &str) -> Result<String, Broken> {
    let name: String = text.trim().nfc().collect();
    let count = name.chars().count();
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if count == 0 || count > 200 || name.chars().any(unseen) {
        let says = "A name has 1 to 200 characters and no control characters.";
        return Err(Broken::new("name.invalid", says));
    }
    Ok(name)
}

/// A user to be made.
pub struct NewUser {
    /// The id, if it was promised before; else a new one.
    pub id: Option<UserId>,
    /// Whether the owner of the address has proved it.
    pub verified: bool,
    /// The address.
    pub email: Email,
    /// The name.
    pub name: Option<String>,
    /// Roles beside [`USER`].
    pub role: Option<&'static str>,
}

/// Makes a user; none if the address is taken.
///
/// # Errors
/// When the database fails.
pub async fn create(change: &mut Change, new: &NewUser) -> Result<Option<UserId>> {
    let id = new.id.unwrap_or_else(|| UserId(change.app().new_id()));
    let now = change.now();
    let verified_at = new.verified.then_some(now);
    let made: Option<(Uuid,)> = change
        .maybe(
            "insert into users (id, email, email_key, name, created_at, updated_at, email_verified_at)
             values ($1, $2, $3, $4, $5, $5, $6)
             on conflict (email_key) do nothing returning id",
            args![id, new.email.address(), new.email.key(), new.name.clone(), now, verified_at],
        )
        .await?;
    if made.is_none() {
        return Ok(None);
    }
    for role in [Some(USER), new.role].into_iter().flatten() {
        change
            .run(
                "insert into user_roles (user_id, role, granted_at) values ($1, $2, $3)
                 on conflict (user_id, role) do nothing",
                args![id, role, now],
            )
            .await?;
    }
    audit::create_person_key(change, id).await?;
    Ok(Some(id))
}

/// What is believed of a user now; from memory when it is warm.
///
/// # Errors
/// When the database is needed and doesn't answer.
pub async fn current(app: &App, id: UserId) -> Result<Option<Arc<User>>> {
    if let Recall::Known(user) = memory(app).recall(&id) {
        return Ok(Some(user));
    }
    let ticket = memory(app).begin(&id, app.clock.monotonic());
    let Some(user) = find(app, id).await?.map(Arc::new) else { return Ok(None) };
    memory(app).fill(ticket, id, Arc::clone(&user), app.clock.monotonic());
    Ok(Some(user))
}

/// A user, read from the database.
///
/// # Errors
/// When the database fails.
pub async fn find(app: &App, id: UserId) -> Result<Option<User>> {
    let row: Option<Row> = app
        .db
        .maybe(
            "select id, email, email_verified_at, name, disabled_at, created_at, last_login_at,
                (select string_agg(role, ' ' order by role) from user_roles r where r.user_id = u.id),
                (select locked_until from lockout_counts c where c.user_id = u.id and c.client = '')
             from users u where id = $1",
            args![id],
        )
        .await?;
    Ok(row.map(|row| user(app, row)))
}

/// Whether there is such a user, as a change sees it.
///
/// # Errors
/// When the database fails.
pub async fn exists(change: &mut Change, id: UserId) -> Result<bool> {
    let row: Option<(UserId,)> =
        change.maybe("select id from users where id = $1", args![id]).await?;
    Ok(row.is_some())
}

/// The user with this address.
///
/// # Errors
/// When the database fails.
pub async fn find_by_email(app: &App, email: &Email) -> Result<Option<User>> {
    let row: Option<(UserId,)> =
        app.db.maybe("select id from users where email_key = $1", args![email.key()]).await?;
    match row {
        Some((id,)) => find(app, id).await,
        None => Ok(None),
    }
}

/// A page of users, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn page(app: &App, paging: &Paging) -> Result<List<User>> {
    let Cursor(at, id) = paging.after.unwrap_or(Cursor(Timestamp::from_micros(0), Uuid::nil()));
    let rows: Vec<Row> = app
        .db
        .all(
            "select id, email, email_verified_at, name, disabled_at, created_at, last_login_at,
                (select string_agg(role, ' ' order by role) from user_roles r where r.user_id = u.id),
                (select locked_until from lockout_counts c where c.user_id = u.id and c.client = '')
             from users u where (created_at, id) > ($1, $2) order by created_at, id limit $3",
            args![at, id, paging.rows()],
        )
        .await?;
    let users = rows.into_iter().map(|row| user(app, row)).collect();
    Ok(List::page(users, paging, |user| Cursor(user.created_at, user.id.0)))
}

type Row = (
    UserId,
    String,
    Option<Timestamp>,
    Option<String>,
    Option<Timestamp>,
    Timestamp,
    Option<Timestamp>,
    Option<String>,
    Option<Timestamp>,
);

fn user(app: &App, row: Row) -> User {
    let (id, email, verified_at, name, disabled_at, created_at, last_login_at, roles, locked_until) =
        row;
    let roles: Vec<String> =
        roles.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let permissions = if roles.iter().any(|role| role == ADMIN) {
        Arc::clone(&app.part::<AllPermissions>().0)
    } else {
        Arc::default()
    };
    User {
        id,
        email,
        email_verified: verified_at.is_some(),
        name,
        roles,
        permissions,
        disabled: disabled_at.is_some(),
        locked_until,
        created_at,
        last_login_at,
        written: OnceLock::new(),
    }
}

/// Changes what a person is called.
///
/// # Errors
/// When the database fails.
pub async fn rename(mut change: Change, id: UserId, name: Option<String>) -> Result<()> {
    let now = change.now();
    let found = change
        .run("update users set name = $2, updated_at = $3 where id = $1", args![id, name, now])
        .await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    touched(&mut change, id);
    change.commit(CHANGED.about(id).detail("field", "name")).await
}

/// Marks a user as disabled, in a change that also ends the sessions.
///
/// # Errors
/// `users.not_found`; `users.last_admin` for the last administrator who can sign in.
pub async fn disable(change: &mut Change, id: UserId) -> Result<()> {
    let now = change.now();
    // Touching every administrator's row makes two such changes at once wait for each other.
    let admins: Vec<(UserId, Option<Timestamp>)> = change
        .all(
            "update users set updated_at = updated_at
             where id in (select user_id from user_roles where role = $1)
             returning id, disabled_at",
            args![ADMIN],
        )
        .await?;
    let mut enabled = admins.iter().filter(|(_, disabled)| disabled.is_none()).map(|(id, _)| *id);
    if enabled.next() == Some(id) && enabled.next().is_none() {
        return Err(Error::new(
            Kind::Conflict,
            "users.last_admin",
            "This is the last administrator who can sign in; make another one first.",
        ));
    }
    let found = change
        .run(
            "update users set disabled_at = coalesce(disabled_at, $2), updated_at = $2
             where id = $1",
            args![id, now],
        )
        .await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    touched(change, id);
    Ok(())
}

/// Lets a disabled user sign in again; ended sessions stay ended.
///
/// # Errors
/// `users.not_found`.
pub async fn enable(mut change: Change, id: UserId) -> Result<()> {
    let now = change.now();
    let found = change
        .run("update users set disabled_at = null, updated_at = $2 where id = $1", args![id, now])
        .await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    touched(&mut change, id);
    change.commit(ENABLED.about(id)).await
}

/// Notes a sign-in; false if the user was disabled meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn signed_in(change: &mut Change, id: UserId) -> Result<bool> {
    let now = change.now();
    let found = change
        .run(
            "update users set last_login_at = $2 where id = $1 and disabled_at is null",
            args![id, now],
        )
        .await?;
    touched(change, id);
    Ok(found == 1)
}

/// Notes that a user has proved to read the mail of their address.
///
/// # Errors
/// When the database fails.
pub async fn prove_address(change: &mut Change, id: UserId) -> Result<()> {
    let now = change.now();
    change
        .run(
            "update users set email_verified_at = coalesce(email_verified_at, $2), updated_at = $2
             where id = $1",
            args![id, now],
        )
        .await?;
    touched(change, id);
    Ok(())
}

/// Whether there is an administrator.
///
/// # Errors
/// When the database fails.
pub async fn has_admin(app: &App) -> Result<bool> {
    let row: Option<(i64,)> = app.db.maybe(ANY_ADMIN, args![ADMIN]).await?;
    Ok(row.is_some())
}

/// Whether there is an administrator, as a change sees it.
///
/// # Errors
/// When the database fails.
pub async fn has_admin_now(change: &mut Change) -> Result<bool> {
    let row: Option<(i64,)> = change.maybe(ANY_ADMIN, args![ADMIN]).await?;
    Ok(row.is_some())
}

const ANY_ADMIN: &str = "select cast(1 as bigint) from user_roles where role = $1 limit 1";

/// Has every process read this user again: something that it believes of them has changed.
pub fn touched(change: &mut Change, id: UserId) {
    change.tell(NEWS, id.0);
}
