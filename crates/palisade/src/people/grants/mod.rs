//! Grants: which users may perform which actions on a resource.
//!
//! A resource is identified by its type and id, which the application chooses. Palisade stores nothing else about it. A
//! grant allows a user, all users with a role, or anyone to perform an action on a resource, with or without a time
//! limit.
//!
//! # Promises
//!
//! - An action is allowed only if it is granted. An expired grant has no effect.
//! - A user with `share` on a resource, but without `resources:write`, can grant only actions that they hold on it
//!   themselves, for no longer than they hold them, and can withdraw only actions that they hold for at least as long
//!   as the subject does.
//! - A resource that the caller may not see looks like one that doesn't exist.
//! - A grant ends when its user or role is deleted.
//! - The resources on which a user may perform an action are found with one statement, which uses an index
//!   ([`visible`]).
//!
//! Tables: `grants`.

mod http;
mod rights;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use palisade_db::{Args, Migration, Sql, Timestamp, args};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::{Answers, App, Change};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::module::{Job, Module, Permission};
use crate::record::{Entry, Event};
use crate::shape;

pub use subject::{Action, Resource, ResourceId, ResourceType, Subject};

/// Allows seeing the grants on every resource and checking the access of every subject.
pub const READ: Permission =
    Permission { name: "resources:read", summary: "See the grants on every resource" };
/// Allows giving and withdrawing grants on every resource.
pub const WRITE: Permission =
    Permission { name: "resources:write", summary: "Grant and withdraw actions on every resource" };

/// Actions on a resource were granted to a subject.
pub const GIVEN: Event =
    Event { name: "grants.given", summary: "Actions on a resource were granted" };
/// A grant was withdrawn.
pub const WITHDRAWN: Event = Event { name: "grants.withdrawn", summary: "A grant was withdrawn" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "grants",
    routes: http::routes,
    permissions: &[READ, WRITE],
    events: &[GIVEN, WITHDRAWN],
    jobs: &[Job {
        name: "grants.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "grants",
        number: 1,
        name: "grants",
        sql: Sql::Both(include_str!("../../../migrations/grants/0001_grants.sql")),
    }],
    tables: &["grants"],
    answers: Answers { rights: Some(rights::ON_RESOURCES), ..Answers::NONE },
    ..Module::EMPTY
};

/// The action that allows a subject to grant what it holds.
pub const SHARE: &str = "share";

/// An action that a subject may perform on a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Grant")]
pub struct GrantView {
    /// The type of the resource.
    #[schemars(with = "ResourceType")]
    pub resource_type: String,
    /// The id of the resource.
    #[schemars(with = "ResourceId")]
    pub resource_id: String,
    /// `user:ID`, `role:NAME` or `anyone`.
    #[schemars(with = "Subject")]
    pub subject: String,
    /// The action that the subject may perform.
    #[schemars(with = "Action")]
    pub action: String,
    /// When the grant expires; null if it does not expire.
    #[schemars(with = "Option<shape::DateTime>")]
    pub expires_at: Option<Timestamp>,
}

type Row = (String, String, String, String, Option<Timestamp>);

fn view((resource_type, resource_id, subject, action, expires_at): Row) -> GrantView {
    GrantView { resource_type, resource_id, subject, action, expires_at }
}

/// Grants exactly these actions on a resource to a subject. They replace the actions that it was granted before.
///
/// # Errors
/// Fails with `grants.no_such_subject`, or if the database fails.
pub async fn put(
    change: &mut Change,
    resource: &Resource,
    subject: &Subject,
    actions: &BTreeSet<Action>,
    expires_at: Option<Timestamp>,
) -> Result<()> {
    if !exists(change, subject).await? {
        let detail = "This user or role does not exist.";
        return Err(Error::new(Kind::Conflict, "grants.no_such_subject", detail));
    }
    clear(change, resource, subject).await?;
    let (user, role) = (subject.user(), subject.role());
    for action in actions {
        let id = change.app().new_id();
        change
            .run(
                "insert into grants (id, resource_type, resource_id, subject, user_id, role, action, expires_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8)",
                args![
                    id,
                    resource.kind.as_str(),
                    resource.id.as_str(),
                    subject.to_string(),
                    user.map(|user| user.0),
                    role,
                    action.as_str(),
                    expires_at
                ],
            )
            .await?;
    }
    let named: Vec<&str> = actions.iter().map(Action::as_str).collect();
    let entry = entry(GIVEN, resource, subject).detail("actions", named.join(" "));
    change.note(entry.detail("until", expires_at.map(|at| at.to_string()).unwrap_or_default()));
    Ok(())
}

/// Withdraws everything that a subject was granted on a resource.
///
/// # Errors
/// Fails with 404 if the subject has no grants on the resource, or if the database fails.
pub async fn withdraw(change: &mut Change, resource: &Resource, subject: &Subject) -> Result<()> {
    if clear(change, resource, subject).await? == 0 {
        return Err(Error::not_found());
    }
    change.note(entry(WITHDRAWN, resource, subject));
    Ok(())
}

fn entry(event: Event, resource: &Resource, subject: &Subject) -> Entry {
    let entry = match subject.user() {
        Some(user) => event.about(user),
        None => event.entry(),
    };
    entry
        .detail("resource_type", resource.kind.as_str())
        .detail("resource_id", resource.id.as_str())
        .detail("subject", subject.to_string())
}

async fn clear(change: &mut Change, resource: &Resource, subject: &Subject) -> Result<u64> {
    change
        .run(
            "delete from grants where resource_type = $1 and resource_id = $2 and subject = $3",
            args![resource.kind.as_str(), resource.id.as_str(), subject.to_string()],
        )
        .await
}

async fn exists(change: &mut Change, subject: &Subject) -> Result<bool> {
    let found: Option<(i64,)> = match subject {
        Subject::Anyone => return Ok(true),
        Subject::User(user) => {
            change.maybe("select cast(1 as bigint) from users where id = $1", args![*user]).await?
        }
        Subject::Role(role) => {
            change
                .maybe("select cast(1 as bigint) from roles where name = $1", args![role.as_str()])
                .await?
        }
    };
    Ok(found.is_some())
}

/// Deletes every grant on a resource. Applications call it when they delete the resource itself.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn forget(change: &mut Change, resource: &Resource) -> Result<()> {
    change
        .run(
            "delete from grants where resource_type = $1 and resource_id = $2",
            args![resource.kind.as_str(), resource.id.as_str()],
        )
        .await?;
    Ok(())
}

/// Returns every unexpired grant on a resource, sorted by subject and action.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App, resource: &Resource) -> Result<Vec<GrantView>> {
    let rows: Vec<Row> = app
        .db
        .all(
            "select resource_type, resource_id, subject, action, expires_at from grants
             where resource_type = $1 and resource_id = $2 and (expires_at is null or expires_at > $3)
             order by subject, action",
            args![resource.kind.as_str(), resource.id.as_str(), app.clock.now()],
        )
        .await?;
    Ok(rows.into_iter().map(view).collect())
}

/// Returns every unexpired grant whose subject is this user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn of_user(app: &App, user: UserId) -> Result<Vec<GrantView>> {
    let rows: Vec<Row> = app
        .db
        .all(
            "select resource_type, resource_id, subject, action, expires_at from grants
             where user_id = $1 and (expires_at is null or expires_at > $2)
             order by resource_type, resource_id, action",
            args![user, app.clock.now()],
        )
        .await?;
    Ok(rows.into_iter().map(view).collect())
}

/// Returns the subject whose grant allows a user to perform an action on a resource, or `None` if no grant does.
/// Without a user, only grants to `anyone` count.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn because(
    app: &App,
    user: Option<UserId>,
    resource: &Resource,
    action: &Action,
) -> Result<Option<String>> {
    let row: Option<(String,)> = app
        .db
        .maybe(
            "select subject from grants g
             where resource_type = $1 and resource_id = $2 and action = $3
                and (expires_at is null or expires_at > $4)
                and (subject = 'anyone' or user_id = $5
                    or role in (select role from user_roles where user_id = $5))
             order by case when subject = 'anyone' then 2 when user_id is null then 1 else 0 end, subject
             limit 1",
            args![
                resource.kind.as_str(),
                resource.id.as_str(),
                action.as_str(),
                app.clock.now(),
                user.map(|user| user.0)
            ],
        )
        .await?;
    Ok(row.map(|(subject,)| subject))
}

/// The actions that a user may perform on a resource, and when each one expires. `None` means no time limit.
pub type Held = BTreeMap<String, Option<Timestamp>>;

/// Returns the actions that a user may perform on a resource.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn held(app: &App, user: UserId, resource: &Resource) -> Result<Held> {
    let now = app.clock.now();
    Ok(latest(app.db.all(HELD, held_args(user, resource, now)).await?))
}

/// Returns the actions that a user may perform on a resource, read within a change, which then holds the grants on the
/// resource.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn held_now(change: &mut Change, user: UserId, resource: &Resource) -> Result<Held> {
    change
        .run(
            "update grants set action = action where resource_type = $1 and resource_id = $2",
            args![resource.kind.as_str(), resource.id.as_str()],
        )
        .await?;
    let now = change.now();
    Ok(latest(change.all(HELD, held_args(user, resource, now)).await?))
}

const HELD: &str = "select action, expires_at from grants
     where resource_type = $1 and resource_id = $2 and (expires_at is null or expires_at > $3)
        and (subject = 'anyone' or user_id = $4
            or role in (select role from user_roles where user_id = $4))";

fn held_args(user: UserId, resource: &Resource, now: Timestamp) -> Args {
    args![resource.kind.as_str(), resource.id.as_str(), now, user]
}

fn latest(rows: Vec<(String, Option<Timestamp>)>) -> Held {
    let mut held = Held::new();
    for (action, until) in rows {
        let longest = held.entry(action).or_insert(until);
        *longest = match (*longest, until) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
    }
    held
}

/// Returns the actions granted to a subject on a resource, read within a change.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn given_now(
    change: &mut Change,
    resource: &Resource,
    subject: &Subject,
) -> Result<Held> {
    let now = change.now();
    let rows = change
        .all(
            "select action, expires_at from grants where resource_type = $1 and resource_id = $2 and subject = $3
                and (expires_at is null or expires_at > $4)",
            args![resource.kind.as_str(), resource.id.as_str(), subject.to_string(), now],
        )
        .await?;
    Ok(latest(rows))
}

/// The criteria of a search for resources.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// The type of the resources.
    pub kind: &'a ResourceType,
    /// The action to perform on the resources.
    pub action: &'a Action,
    /// The id after which the page begins.
    pub after: &'a str,
}

/// Returns the ids of the resources on which a user may perform the action, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn visible(
    app: &App,
    user: UserId,
    looked: Looked<'_>,
    limit: i64,
) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = app
        .db
        .all(
            "select distinct resource_id from grants
             where resource_type = $1 and action = $2 and resource_id > $3
                and (expires_at is null or expires_at > $4)
                and (subject = 'anyone' or user_id = $5
                    or role in (select role from user_roles where user_id = $5))
             order by resource_id limit $6",
            args![
                looked.kind.as_str(),
                looked.action.as_str(),
                looked.after,
                app.clock.now(),
                user,
                limit
            ],
        )
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Deletes grants that have expired.
async fn prune(app: &App) -> Result<()> {
    let upkeep = app.upkeep("expired grants are deleted");
    // The condition is repeated, because a grant may be extended after it is selected.
    let sql = "delete from grants where expires_at < $1 and id in
         (select id from grants where expires_at < $1 limit $2)";
    upkeep.in_batches(sql, args![app.clock.now()]).await?;
    Ok(())
}

/// The cursor of the first page: it sorts before every id.
const FIRST: &str = "";

/// Truncates the ids to one page, and returns them with the cursor of the next page, which is the last id itself.
fn next(mut ids: Vec<String>, size: usize) -> (Vec<String>, Option<String>) {
    let more = ids.len() > size;
    ids.truncate(size);
    let next = if more { ids.last().cloned() } else { None };
    (ids, next)
}
