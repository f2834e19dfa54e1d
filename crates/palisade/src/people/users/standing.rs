//! Disabling, enabling and deleting users, and recording their sign-ins.

use palisade_db::{Timestamp, args};

use super::{ENABLED, KEPT, invalidate, spare_last_admin};
use crate::app::Change;
use crate::audit_log;
use crate::error::{Error, Result};
use crate::id::UserId;

/// Marks a user as disabled. The same change must also end the user's sessions.
///
/// # Errors
/// Fails with 404; `users.last_admin` for the last administrator who can sign in; or if the database fails.
pub async fn disable(change: &mut Change, id: UserId) -> Result<()> {
    spare_last_admin(change, id).await?;
    let now = change.now();
    let found = change
        .run(
            "update users set disabled_at = coalesce(disabled_at, $2) where id = $1",
            args![id, now],
        )
        .await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    invalidate(change, id);
    Ok(())
}

/// Lets a disabled user sign in again. Ended sessions stay ended.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn enable(mut change: Change, id: UserId) -> Result<()> {
    let found = change.run("update users set disabled_at = null where id = $1", args![id]).await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    invalidate(&mut change, id);
    change.commit(ENABLED.about(id)).await
}

/// If the user may sign in now, returns whether this is their first sign-in. Otherwise, and for every service account,
/// returns `None`. Holds the user until the change ends.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn may_sign_in(change: &mut Change, id: UserId) -> Result<Option<FirstTime>> {
    let now = change.now();
    // SECURITY: no proof of identity signs in a service account (test: a_service_account_never_signs_in).
    let row: Option<(Option<Timestamp>,)> = change
        .maybe(
            "update users set email = email
             where id = $1 and disabled_at is null and service is null
                and (delete_at is null or delete_at > $2)
             returning last_login_at",
            args![id, now],
        )
        .await?;
    Ok(row.map(|(last_login_at,)| FirstTime(last_login_at.is_none())))
}

/// Records the sign-in of a user who may sign in, which cancels a requested deletion.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn signed_in(change: &mut Change, id: UserId) -> Result<()> {
    let now = change.now();
    keep(change, id).await?;
    change.run("update users set last_login_at = $2 where id = $1", args![id, now]).await?;
    invalidate(change, id);
    Ok(())
}

/// Whether this is the user's first sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstTime(pub bool);

/// Holds a user until the change ends, so that two changes to the same user run one after the other. Returns whether
/// the user exists.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_row(change: &mut Change, id: UserId) -> Result<bool> {
    let held = change.run("update users set email = email where id = $1", args![id]).await?;
    Ok(held == 1)
}

/// Records a user's request for deletion, which is due at `at`.
///
/// # Errors
/// Fails with 404; `users.last_admin`; or if the database fails.
pub async fn delete_later(change: &mut Change, id: UserId, at: Timestamp) -> Result<()> {
    spare_last_admin(change, id).await?;
    let found = change.run("update users set delete_at = $2 where id = $1", args![id, at]).await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    invalidate(change, id);
    Ok(())
}

/// Cancels a user's requested deletion.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn keep(change: &mut Change, id: UserId) -> Result<()> {
    let kept = change
        .run("update users set delete_at = null where id = $1 and delete_at is not null", args![id])
        .await?;
    if kept == 1 {
        change.note(KEPT.about(id));
        invalidate(change, id);
    }
    Ok(())
}

/// Returns whether a user's requested deletion is due. Holds the user until the change ends.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_due(change: &mut Change, id: UserId) -> Result<bool> {
    let now = change.now();
    let due = change
        .run(
            "update users set delete_at = delete_at where id = $1 and delete_at <= $2",
            args![id, now],
        )
        .await?;
    Ok(due == 1)
}

/// Deletes a user and everything that belongs to them. Their personal data in the audit log can no longer be read.
///
/// # Errors
/// Fails with 404; `users.last_admin`; or if the database fails.
pub async fn delete(change: &mut Change, id: UserId) -> Result<()> {
    spare_last_admin(change, id).await?;
    let found = change.run("delete from users where id = $1", args![id]).await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    // SECURITY: (test: a_deleted_person_is_gone_and_the_log_still_verifies)
    audit_log::forget_person(change, id).await?;
    invalidate(change, id);
    Ok(())
}
