//! The roles that users hold, and the permissions of these roles. The slice `roles` defines which roles exist.

use std::collections::BTreeSet;

use palisade_db::{Timestamp, args};
use uuid::Uuid;

use super::claims::{OF_RIGHTS, claims_changed};
use super::{ADMIN, ROLE_GRANTED, ROLE_REVOKED, User, exists, invalidate};
use crate::app::{App, Change, Hold, Whose};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::settings::TokenClaim;

/// The topic for changes to the permissions of a role.
pub(super) const CHANGED_TOPIC: &str = "roles.changed";

/// A user, and a role that they hold or will hold.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The user.
    pub user: UserId,
    /// The role's name.
    pub role: &'a str,
}

pub(super) async fn add(change: &mut Change, user: UserId, role: &str) -> Result<u64> {
    let added = change
        .run(
            "insert into user_roles (user_id, role) values ($1, $2)
             on conflict (user_id, role) do nothing",
            args![user, role],
        )
        .await?;
    invalidate(change, user);
    Ok(added)
}

/// Gives an existing role to a user. Does nothing if the user already has it.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn grant_role(change: &mut Change, holder: Holder<'_>) -> Result<()> {
    if !exists(change, holder.user).await? {
        return Err(Error::not_found());
    }
    if add(change, holder.user, holder.role).await? == 1 {
        change.note(ROLE_GRANTED.about(holder.user).detail("role", holder.role));
        claims_changed(change, Whose::User(holder.user), &OF_RIGHTS).await?;
    }
    Ok(())
}

/// Takes a role from a user.
///
/// # Errors
/// Fails with 404 if the user doesn't hold it; `users.last_admin`; or if the database fails.
pub async fn revoke_role(change: &mut Change, holder: Holder<'_>) -> Result<()> {
    if holder.role == ADMIN {
        spare_last_admin(change, holder.user).await?;
    }
    let taken = change
        .run(
            "delete from user_roles where user_id = $1 and role = $2",
            args![holder.user, holder.role],
        )
        .await?;
    if taken == 0 {
        return Err(Error::not_found());
    }
    invalidate(change, holder.user);
    change.note(ROLE_REVOKED.about(holder.user).detail("role", holder.role));
    claims_changed(change, Whose::User(holder.user), &OF_RIGHTS).await
}

/// Sets the permissions of a role. They replace the ones that it had before. Does nothing if they are the same.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_role_permissions(
    change: &mut Change,
    role: &str,
    permissions: &BTreeSet<String>,
) -> Result<()> {
    let sql = "select permission from role_permissions where role = $1";
    let before: Vec<(String,)> = change.all(sql, args![role]).await?;
    if before.into_iter().map(|(name,)| name).collect::<BTreeSet<_>>() == *permissions {
        return Ok(());
    }
    change.run("delete from role_permissions where role = $1", args![role]).await?;
    for permission in permissions {
        change
            .run(
                "insert into role_permissions (role, permission) values ($1, $2)",
                args![role, permission.clone()],
            )
            .await?;
    }
    roles_changed(change);
    // SECURITY: a permission may require a second factor of the role's holders, whose tokens then contain no roles
    // (test: a_change_of_what_a_user_must_set_up_outdates_earlier_tokens).
    let roles_too = User::may_need_factor(change.app());
    let changed = if roles_too { &OF_RIGHTS[..] } else { &[TokenClaim::Scope] };
    claims_changed(change, Whose::Role(role), changed).await
}

/// Takes a deleted role from all users, and removes its permissions.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn strip_role(change: &mut Change, role: &str) -> Result<()> {
    // While its holders are known.
    claims_changed(change, Whose::Role(role), &OF_RIGHTS).await?;
    change.run("delete from user_roles where role = $1", args![role]).await?;
    change.run("delete from role_permissions where role = $1", args![role]).await?;
    roles_changed(change);
    Ok(())
}

/// Makes every process reload the permissions of the users that it has cached.
fn roles_changed(change: &mut Change) {
    change.publish(CHANGED_TOPIC, Uuid::nil());
}

/// Refuses a change that would leave no administrator who can sign in.
///
/// # Errors
/// Fails with `users.last_admin`, or if the database fails.
pub async fn spare_last_admin(change: &mut Change, id: UserId) -> Result<()> {
    // Two such changes run one after the other.
    change.must_hold(Hold::Administrators)?;
    type Admin = (UserId, Option<Timestamp>, Option<Timestamp>, Option<bool>);
    let admins: Vec<Admin> = change
        .all(
            "select u.id, u.disabled_at, u.delete_at, u.service from user_roles r join users u on u.id = r.user_id
             where r.role = $1",
            args![ADMIN],
        )
        .await?;
    // SECURITY: no one signs in to a service account (test: a_service_account_is_nobodys_last_administrator).
    let stays = |row: &Admin| {
        let (id, disabled_at, delete_at, service) = *row;
        (disabled_at.is_none() && delete_at.is_none() && service.is_none()).then_some(id)
    };
    let mut staying = admins.iter().filter_map(stays);
    if staying.next() == Some(id) && staying.next().is_none() {
        return Err(Error::new(
            Kind::Conflict,
            "users.last_admin",
            "This is the last administrator who can sign in. Create another administrator first.",
        ));
    }
    Ok(())
}

/// Returns whether there is an administrator. Service accounts don't count.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn has_admin(app: &App) -> Result<bool> {
    let row: Option<(i64,)> = app.db.maybe(ANY_ADMIN, args![ADMIN]).await?;
    Ok(row.is_some())
}

/// Returns whether there is an administrator, read within a change. Service accounts don't count.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn has_admin_now(change: &mut Change) -> Result<bool> {
    let row: Option<(i64,)> = change.maybe(ANY_ADMIN, args![ADMIN]).await?;
    Ok(row.is_some())
}

const ANY_ADMIN: &str =
    "select cast(1 as bigint) from user_roles r join users u on u.id = r.user_id
     where r.role = $1 and u.service is null limit 1";
