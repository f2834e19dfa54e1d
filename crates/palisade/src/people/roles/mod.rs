//! Roles: named sets of permissions.
//!
//! # Promises
//!
//! - The role `admin` holds every permission and can't be changed. All users have the role `user`.
//! - Users can add to a role, or remove from it, only permissions that they hold themselves. They can give or delete
//!   only roles of which they hold every permission and every other right.
//! - A change takes effect on the next request in this process, and within 250 ms in every other process.
//!
//! The permissions of roles are loaded with each user. The slice `users` stores them (`users::set_role_permissions`).
//!
//! Tables: `roles`.

mod http;

use std::collections::BTreeSet;
use std::str::FromStr;

use palisade_db::{Migration, Sql, args};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::{App, Change, Hold};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::module::{Module, Permission};
use crate::record::Event;
use crate::shape;
use crate::users::{self, ADMIN, AllPermissions, Authority, Holder, USER};

/// Allows seeing roles and permissions.
pub const READ: Permission =
    Permission { name: "roles:read", summary: "See roles and permissions" };
/// Allows creating, changing and deleting roles.
pub const WRITE: Permission =
    Permission { name: "roles:write", summary: "Create, change and delete roles" };

/// A role was created.
pub const CREATED: Event = Event { name: "roles.created", summary: "A role was created" };
/// A role was changed.
pub const CHANGED: Event = Event { name: "roles.changed", summary: "A role was changed" };
/// A role was deleted.
pub const DELETED: Event = Event { name: "roles.deleted", summary: "A role was deleted" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "roles",
    routes: http::routes,
    permissions: &[READ, WRITE],
    events: &[CREATED, CHANGED, DELETED],
    migrations: &[Migration {
        module: "roles",
        number: 1,
        name: "roles",
        sql: Sql::Both(include_str!("../../../migrations/roles/0001_roles.sql")),
    }],
    tables: &["roles"],
    ..Module::EMPTY
};

/// The maximum number of roles with which a user can be created.
const MOST_OF_A_USER: usize = 50;
/// The maximum number of roles.
const MOST: i64 = 1000;

/// The name of a role: 1 to 50 lowercase letters, digits, `-` and `_`, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleName(String);

impl RoleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if first && text.len() <= 50 && text.chars().all(rest) {
            Ok(Self(text.to_owned()))
        } else {
            Err(())
        }
    }
}

impl JsonSchema for RoleName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RoleName".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        shape::Name::json_schema(generator)
    }
}

/// A role.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Role")]
pub struct Role {
    /// The name of the role in requests.
    #[schemars(with = "shape::Name")]
    pub name: String,
    /// What the role is for.
    pub description: String,
    /// The permissions of the role, sorted.
    pub permissions: Vec<String>,
}

/// The properties of a role to be created or changed.
pub struct Wanted {
    /// What the role is for.
    pub description: String,
    /// The permissions of the role. All of them must exist.
    pub permissions: BTreeSet<String>,
}

type Row = (String, String, Option<String>);

fn role(app: &App, (name, description, permissions): Row) -> Role {
    let existing = &app.state::<AllPermissions>().0;
    let permissions = if name == ADMIN {
        existing.iter().cloned().collect()
    } else {
        let named = permissions.unwrap_or_default();
        named
            .split_whitespace()
            .filter(|name| existing.contains(*name))
            .map(str::to_owned)
            .collect()
    };
    Role { name, description, permissions }
}

/// Returns all roles, sorted by name.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App) -> Result<Vec<Role>> {
    let rows: Vec<Row> = app
        .db
        .all(
            "select name, description,
                (select string_agg(permission, ' ' order by permission) from role_permissions p
                    where p.role = r.name)
             from roles r order by name",
            args![],
        )
        .await?;
    Ok(rows.into_iter().map(|row| role(app, row)).collect())
}

/// Returns the role with this name.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(app: &App, name: &RoleName) -> Result<Option<Role>> {
    let row: Option<Row> = app.db.maybe(FIND, args![name.as_str()]).await?;
    Ok(row.map(|row| role(app, row)))
}

/// Returns the role with this name, read within a change.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_now(change: &mut Change, name: &RoleName) -> Result<Option<Role>> {
    let app = change.app().clone();
    // Touched, so that it can't be deleted or changed before this change ends.
    change
        .run("update roles set description = description where name = $1", args![name.as_str()])
        .await?;
    let row: Option<Row> = change.maybe(FIND, args![name.as_str()]).await?;
    Ok(row.map(|row| role(&app, row)))
}

const FIND: &str = "select name, description,
        (select string_agg(permission, ' ' order by permission) from role_permissions p
            where p.role = r.name)
     from roles r where name = $1";

/// Creates a role.
///
/// # Errors
/// Fails with `roles.taken`; `roles.too_many`; `access.exceeds_own`; or if the database fails.
pub async fn create(mut change: Change, name: &RoleName, wanted: Wanted) -> Result<()> {
    let authority = Authority::of(&mut change).await?;
    authority.may_delegate(name.as_str(), wanted.permissions.iter().map(String::as_str))?;
    let (count,): (i64,) = change.one("select count(*) from roles", args![]).await?;
    if count >= MOST {
        let detail = "There are already 1,000 roles. Delete one first.";
        return Err(Error::new(Kind::Conflict, "roles.too_many", detail));
    }
    let made = change
        .run(
            "insert into roles (name, description) values ($1, $2) on conflict (name) do nothing",
            args![name.as_str(), wanted.description],
        )
        .await?;
    if made == 0 {
        let detail = "A role with this name already exists.";
        return Err(Error::new(Kind::Conflict, "roles.taken", detail));
    }
    users::set_role_permissions(&mut change, name.as_str(), &wanted.permissions).await?;
    change.commit(entry(CREATED, name, &wanted.permissions)).await
}

/// Changes a role. Fields that aren't given stay unchanged.
///
/// # Errors
/// Fails with 404; `roles.built_in`; `access.exceeds_own` if it adds or removes permissions that the caller
/// doesn't hold; or if the database fails.
pub async fn change(
    mut change: Change,
    name: &RoleName,
    description: Option<String>,
    permissions: Option<BTreeSet<String>>,
) -> Result<()> {
    change.must_hold(Hold::Roles)?;
    let role = find_now(&mut change, name).await?.ok_or_else(Error::not_found)?;
    if role.name == ADMIN {
        return Err(built_in());
    }
    // SECURITY: the caller must hold what is added, and also what is removed. Otherwise, the caller could remove a
    // permission for a while to act on the users who hold it (test: only_rights_that_are_held_are_given).
    let now: BTreeSet<String> = role.permissions.into_iter().collect();
    let wanted = permissions.unwrap_or_else(|| now.clone());
    let authority = Authority::of(&mut change).await?;
    authority.may_delegate(&role.name, wanted.symmetric_difference(&now).map(String::as_str))?;
    change
        .run(
            "update roles set description = $2 where name = $1",
            args![name.as_str(), description.unwrap_or(role.description)],
        )
        .await?;
    users::set_role_permissions(&mut change, name.as_str(), &wanted).await?;
    change.commit(entry(CHANGED, name, &wanted)).await
}

fn entry(event: Event, name: &RoleName, permissions: &BTreeSet<String>) -> crate::record::Entry {
    let named: Vec<&str> = permissions.iter().map(String::as_str).collect();
    event.entry().detail("role", name.as_str()).detail("permissions", named.join(" "))
}

/// Deletes a role and takes it from every user.
///
/// # Errors
/// Fails with 404; `roles.built_in`; `access.exceeds_own`; or if the database fails.
pub async fn delete(mut change: Change, name: &RoleName) -> Result<()> {
    if [ADMIN, USER].contains(&name.as_str()) {
        return Err(built_in());
    }
    change.must_hold(Hold::Roles)?;
    let role = find_now(&mut change, name).await?.ok_or_else(Error::not_found)?;
    // SECURITY: the role is taken from everyone, including users with more rights than the caller (test:
    // only_rights_that_are_held_are_given).
    let authority = Authority::of(&mut change).await?;
    may_give(&mut change, &authority, &role).await?;
    users::strip_role(&mut change, name.as_str()).await?;
    let deleted = change.run("delete from roles where name = $1", args![name.as_str()]).await?;
    if deleted == 0 {
        return Err(Error::not_found());
    }
    change.commit(DELETED.entry().detail("role", name.as_str())).await
}

fn built_in() -> Error {
    Error::new(Kind::Conflict, "roles.built_in", "This can't be done with a built-in role.")
}

/// Gives a role to a user.
///
/// # Errors
/// Fails with 404; `access.exceeds_own`; or if the database fails.
pub async fn grant(mut change: Change, user: UserId, name: &RoleName) -> Result<()> {
    let role = find_now(&mut change, name).await?.ok_or_else(Error::not_found)?;
    let authority = Authority::of(&mut change).await?;
    may_give(&mut change, &authority, &role).await?;
    users::grant_role(&mut change, Holder { user, role: &role.name }).await?;
    change.commit_quietly("giving a role records its own event").await
}

/// Returns the holds of a change that takes a role from a user. They make requests in progress lose the role's rights.
pub fn held_for_revoking(user: UserId) -> [Hold; 2] {
    [Hold::Alone(user), Hold::Administrators]
}

/// Takes a role from a user.
///
/// # Errors
/// Fails with 404; `roles.built_in` for the role that all users have; `users.last_admin`; or if the database
/// fails.
pub async fn revoke(mut change: Change, user: UserId, name: &RoleName) -> Result<()> {
    if name.as_str() == USER {
        return Err(built_in());
    }
    change.must_hold(Hold::Alone(user))?;
    users::revoke_role(&mut change, Holder { user, role: name.as_str() }).await?;
    change.commit_quietly("taking a role records its own event").await
}

/// Checks the names of roles for a user to be created.
///
/// # Errors
/// Fails with `roles.unknown` and the position in the list; `roles.too_many_roles`; `access.exceeds_own`; or if the
/// database fails.
pub async fn check_for_new(change: &mut Change, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    if names.len() > MOST_OF_A_USER {
        let detail = "Use at most 50 roles.";
        return Err(Error::bad_field("/roles", "roles.too_many_roles", detail));
    }
    let authority = Authority::of(change).await?;
    // In the order of their names, so that two changes with the same roles can't deadlock.
    let mut numbered: Vec<(usize, &String)> = names.iter().enumerate().collect();
    numbered.sort_by_key(|(_, name)| *name);
    for (number, name) in numbered {
        let role = match name.parse() {
            Ok(name) => find_now(change, &name).await?,
            Err(()) => None,
        };
        let Some(role) = role else {
            let detail = "This role does not exist.";
            return Err(Error::bad_field(&format!("/roles/{number}"), "roles.unknown", detail));
        };
        may_give(change, &authority, &role).await?;
    }
    Ok(())
}

/// Refuses to give a role, or to take it from everyone, if it has permissions or other rights that the caller doesn't
/// hold.
async fn may_give(change: &mut Change, authority: &Authority, role: &Role) -> Result<()> {
    authority.may_delegate(&role.name, role.permissions.iter().map(String::as_str))?;
    let app = change.app().clone();
    for rights in app.answers.iter().filter_map(|answers| answers.rights) {
        if (rights.open_to_role)(change, &role.name).await? {
            authority.gives_what_is_open_to(&role.name, rights)?;
        }
    }
    Ok(())
}
