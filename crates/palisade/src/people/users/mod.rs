//! Users: their details, their rights, and whether they may sign in.
//!
//! # Promises
//!
//! - In every process, cached data about a user is outdated at most until the next notice from the feed arrives.
//! - The last administrator who can sign in can't be disabled or deleted, and can't lose the role.
//! - To act on another user, a user must hold everything that the other user holds; to stop an account, only the
//!   permissions. Users can give only rights that they hold themselves ([`Authority`]).
//! - A service account never signs in, receives no email and doesn't count as the last administrator.
//!
//! Facts that other slices own and every request needs are stored in the user's row ([`set_factors`],
//! [`set_locked_until`]).
//!
//! Tables: `users`, `user_roles`, `role_permissions`.

/// Builds the only query that selects users. Its columns are those of [`UserRow`].
macro_rules! select_users {
    ($which:literal) => {
        concat!(
            "select id, email, email_verified_at, name, disabled_at, created_at, last_login_at, delete_at, service,
                locked_until, has_totp, passkeys, recovery_codes_left,
                (select string_agg(role, ' ' order by role) from user_roles r where r.user_id = u.id),
                (select string_agg(permission, ' ') from role_permissions p
                    join user_roles r on r.role = p.role where r.user_id = u.id)
             from users u ",
            $which
        )
    };
}

mod authority;
mod claims;
mod details;
mod email;
mod http;
mod identity;
mod kept;
mod list;
mod roles;
mod service;
mod standing;
mod user;
mod view;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use palisade_db::{Migration, Sql, Timestamp, args, row_struct};
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;

use crate::app::{App, Change, State, Subscription};
use crate::audit_log;
use crate::cache::{Cached, TombstoneCache};
use crate::error::{Broken, Result};
use crate::id::UserId;
use crate::module::{Module, Permission};
use crate::record::Event;
use crate::visible::is_unseen;

pub use authority::{
    Authority, change_manageable, change_stoppable, exceeds_own, find_manageable, stoppable,
};
pub use claims::hold_for_claims;
pub use details::{email_taken, prove_email, set_email, set_name};
pub use email::Email;
pub use http::absent_or_null;
pub use identity::{find_account, identity};
pub use kept::{set_factors, set_locked_until};
pub use list::page;
pub use roles::{
    Holder, grant_role, has_admin, has_admin_now, revoke_role, set_role_permissions,
    spare_last_admin, strip_role,
};
pub use service::{create_service, service_account, service_page, unreachable};
pub use standing::{
    FirstTime, delete, delete_later, disable, enable, is_due, keep, lock_row, may_sign_in,
    signed_in,
};
pub use user::{Factors, User};
pub use view::UserView;

/// Allows seeing all users.
pub const READ: Permission = Permission { name: "users:read", summary: "See all users" };
/// Allows inviting, changing, disabling and deleting users, ending their sessions and giving them roles.
pub const WRITE: Permission = Permission {
    name: "users:write",
    summary: "Invite, change, disable, sign out and delete users, and give them roles",
};

/// A user was created.
pub const CREATED: Event = Event { name: "users.created", summary: "A user was created" };
/// A user's own details were changed.
pub const CHANGED: Event =
    Event { name: "users.changed", summary: "A user's details were changed" };
/// A user may no longer sign in.
pub const DISABLED: Event = Event { name: "users.disabled", summary: "A user was disabled" };
/// A sign-in canceled a requested deletion.
pub const KEPT: Event =
    Event { name: "users.kept", summary: "A sign-in canceled a requested deletion" };
/// A user was given a role.
pub const ROLE_GRANTED: Event =
    Event { name: "users.role_granted", summary: "A user was given a role" };
/// A role was taken from a user.
pub const ROLE_REVOKED: Event =
    Event { name: "users.role_revoked", summary: "A role was removed from a user" };
/// A user may sign in again.
pub const ENABLED: Event = Event { name: "users.enabled", summary: "A user was enabled" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "users",
    routes: http::routes,
    permissions: &[READ, WRITE],
    events: &[CREATED, CHANGED, DISABLED, ENABLED, KEPT, ROLE_GRANTED, ROLE_REVOKED],
    subscriptions: &[
        Subscription {
            topic: CHANGED_TOPIC,
            apply: |app, user| cache(app).forget(&UserId(user), app.clock.monotonic()),
            forget_all: |app| cache(app).forget_all(),
        },
        Subscription {
            topic: roles::CHANGED_TOPIC,
            apply: |app, _| cache(app).forget_all(),
            forget_all: |app| cache(app).forget_all(),
        },
    ],
    migrations: &[Migration {
        module: "users",
        number: 1,
        name: "users",
        sql: Sql::Each {
            sqlite: include_str!("../../../migrations/users/0001_users.sqlite.sql"),
            postgres: include_str!("../../../migrations/users/0001_users.postgres.sql"),
        },
    }],
    tables: &["users", "user_roles", "role_permissions"],
    state: |_, state: &mut State| {
        state.put(Known(TombstoneCache::new(100_000)));
        Ok(())
    },
    ..Module::EMPTY
};

/// The topic for changes to what processes have cached about a user.
const CHANGED_TOPIC: &str = "users.changed";

struct Known(TombstoneCache<UserId, User>);

fn cache(app: &App) -> &TombstoneCache<UserId, User> {
    &app.state::<Known>().0
}

/// The role that holds every permission.
pub const ADMIN: &str = "admin";
/// The role of all users. It has no permissions at first.
pub const USER: &str = "user";

/// The permissions of all modules, by name.
pub struct AllPermissions(pub Arc<BTreeSet<String>>, pub Vec<Permission>);

/// Checks a person's name: 1 to 200 characters, none of them invisible.
///
/// # Errors
/// Fails with `name.invalid`.
pub fn check_name(text: &str) -> Result<String, Broken> {
    let name: String = text.trim().nfc().collect();
    let count = name.chars().count();
    if count == 0 || count > 200 || name.contains(is_unseen) {
        let detail = "Use a name of 1 to 200 characters, without invisible characters.";
        return Err(Broken::new("name.invalid", detail));
    }
    Ok(name)
}

/// A user to be created.
pub struct NewUser {
    /// The id, if it was assigned earlier; otherwise a new one is generated.
    pub id: Option<UserId>,
    /// Whether the email address is verified.
    pub verified: bool,
    /// The email address.
    pub email: Email,
    /// The name.
    pub name: Option<String>,
    /// Roles in addition to [`USER`]. They must exist.
    pub roles: Vec<String>,
    /// Whether this is a service account.
    pub service: bool,
}

/// Creates a user. Returns `None` if the email address is taken, or is reserved because it may still go back to its
/// former owner.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn create(change: &mut Change, new: &NewUser) -> Result<Option<UserId>> {
    let id = new.id.unwrap_or_else(|| UserId(change.app().new_id()));
    let now = change.now();
    let verified_at = new.verified.then_some(now);
    let made: Option<(Uuid,)> = change
        .maybe(
            "insert into users (id, email, email_key, name, name_key, created_at, email_verified_at, service)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (email_key) do nothing returning id",
            args![
                id,
                new.email.as_str(),
                new.email.key(),
                new.name.clone(),
                new.name.as_deref().map(email::name_key),
                now,
                verified_at,
                new.service.then_some(true)
            ],
        )
        .await?;
    if made.is_none() {
        return Ok(None);
    }
    // SECURITY: checked in a statement after the insert. The insert may have waited for the change that freed the email
    // address, and its own snapshot is older than that change (test: an_email_is_reserved_while_its_change_commits).
    if is_reserved(change, &new.email).await? {
        change.run("delete from users where id = $1", args![id]).await?;
        return Ok(None);
    }
    for role in std::iter::once(USER).chain(new.roles.iter().map(String::as_str)) {
        roles::add(change, id, role).await?;
    }
    audit_log::create_person_key(change, id).await?;
    Ok(Some(id))
}

/// Returns whether this email address may still go back to a former owner.
async fn is_reserved(change: &mut Change, email: &Email) -> Result<bool> {
    let app = change.app().clone();
    for is_reserved in app.answers.iter().filter_map(|answers| answers.email_is_reserved) {
        if is_reserved(change, email.key()).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a user's current state, from memory if it is cached.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub async fn current(app: &App, id: UserId) -> Result<Option<Arc<User>>> {
    if let Cached::Known(user) = cache(app).get(&id) {
        return Ok(Some(user));
    }
    let ticket = cache(app).begin(&id, app.clock.monotonic());
    let Some(user) = find(app, id).await?.map(Arc::new) else { return Ok(None) };
    cache(app).insert_if_unchanged(ticket, id, Arc::clone(&user), app.clock.monotonic());
    Ok(Some(user))
}

/// Returns a user, read from the database.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(app: &App, id: UserId) -> Result<Option<User>> {
    let row: Option<UserRow> = app.db.maybe(select_users!("where id = $1"), args![id]).await?;
    Ok(row.map(|row| user(app, row)))
}

/// Returns a user, read within a change.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_now(change: &mut Change, id: UserId) -> Result<Option<User>> {
    let row: Option<UserRow> = change.maybe(select_users!("where id = $1"), args![id]).await?;
    Ok(row.map(|row| user(change.app(), row)))
}

/// Returns whether the user exists, read within a change.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn exists(change: &mut Change, id: UserId) -> Result<bool> {
    let row: Option<(UserId,)> =
        change.maybe("select id from users where id = $1", args![id]).await?;
    Ok(row.is_some())
}

/// Returns the user with this email address.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_email(app: &App, email: &Email) -> Result<Option<User>> {
    let row: Option<(UserId,)> =
        app.db.maybe("select id from users where email_key = $1", args![email.key()]).await?;
    match row {
        Some((id,)) => find(app, id).await,
        None => Ok(None),
    }
}

row_struct! {
    /// A user, as selected by `select_users!`.
    struct UserRow {
        id: UserId,
        email: String,
        email_verified_at: Option<Timestamp>,
        name: Option<String>,
        disabled_at: Option<Timestamp>,
        created_at: Timestamp,
        last_login_at: Option<Timestamp>,
        delete_at: Option<Timestamp>,
        service: Option<bool>,
        locked_until: Option<Timestamp>,
        has_totp: bool,
        passkeys: i64,
        recovery_codes_left: i64,
        roles: Option<String>,
        permissions: Option<String>,
    }
}

fn user(app: &App, row: UserRow) -> User {
    let words = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let roles = words(row.roles);
    let existing = &app.state::<AllPermissions>().0;
    let permissions = if roles.iter().any(|role| role == ADMIN) {
        Arc::clone(existing)
    } else {
        // A permission that no module declares any longer doesn't count.
        Arc::new(
            words(row.permissions).into_iter().filter(|name| existing.contains(name)).collect(),
        )
    };
    User {
        id: row.id,
        email: row.email,
        email_verified: row.email_verified_at.is_some(),
        name: row.name,
        roles,
        permissions,
        disabled: row.disabled_at.is_some(),
        locked_until: row.locked_until,
        service: row.service.unwrap_or(false),
        created_at: row.created_at,
        last_login_at: row.last_login_at,
        delete_at: row.delete_at,
        factors: Factors {
            totp: row.has_totp,
            passkeys: row.passkeys,
            recovery_codes_left: row.recovery_codes_left,
        },
        written: OnceLock::new(),
    }
}

/// Records that the user who registered this account has not yet verified its email address.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn await_proof(change: &mut Change, id: UserId) -> Result<()> {
    change.run("update users set unproven = $2 where id = $1", args![id, true]).await?;
    Ok(())
}

/// Returns whether the email address with which this account was registered is still unverified.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn awaits_proof(change: &mut Change, id: UserId) -> Result<bool> {
    let row: Option<(UserId,)> = change
        .maybe("select id from users where id = $1 and unproven = $2", args![id, true])
        .await?;
    Ok(row.is_some())
}

/// Makes every process read this user again, because something that it has cached about them has
/// changed.
pub fn invalidate(change: &mut Change, id: UserId) {
    change.publish(CHANGED_TOPIC, id.0);
}
