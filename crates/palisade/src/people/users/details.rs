//! A user's name and email address.

use palisade_db::args;

use super::claims::claims_changed;
use super::email::{self, Email};
use super::{exists, invalidate};
use crate::app::{Change, Whose};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::settings::TokenClaim;

/// Changes a user's name. Returns `false` if the user already has this name, and then changes nothing.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn set_name(change: &mut Change, id: UserId, name: Option<String>) -> Result<bool> {
    let changed = change
        .run(
            "update users set name = $2, name_key = $3 where id = $1 and name is distinct from $2",
            args![id, name.clone(), name.as_deref().map(email::name_key)],
        )
        .await?;
    if changed == 0 {
        return if exists(change, id).await? { Ok(false) } else { Err(Error::not_found()) };
    }
    invalidate(change, id);
    claims_changed(change, Whose::User(id), &[TokenClaim::Name]).await?;
    Ok(true)
}

/// Changes a user's email address.
///
/// # Errors
/// Fails with 404; `users.email_taken`; or if the database fails.
pub async fn set_email(
    change: &mut Change,
    id: UserId,
    email: &Email,
    verified: bool,
) -> Result<()> {
    let taken: Option<(UserId,)> = change
        .maybe("select id from users where email_key = $1 and id <> $2", args![email.key(), id])
        .await?;
    if taken.is_some() {
        return Err(email_taken());
    }
    let now = change.now();
    let found = change
        .run(
            "update users set email = $2, email_key = $3, email_verified_at = $4 where id = $1",
            args![id, email.as_str(), email.key(), verified.then_some(now)],
        )
        .await?;
    if found == 0 {
        return Err(Error::not_found());
    }
    invalidate(change, id);
    let changed = [TokenClaim::Email, TokenClaim::EmailVerified];
    claims_changed(change, Whose::User(id), &changed).await
}

/// Returns the error for an email address that belongs to another account.
pub fn email_taken() -> Error {
    let detail = "An account with this email address already exists.";
    Error::new(Kind::Conflict, "users.email_taken", detail)
}

/// Records that a user has verified this email address, if it is still theirs. Returns whether it is.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn prove_email(change: &mut Change, id: UserId, email: &str) -> Result<bool> {
    let now = change.now();
    let proved = change
        .run("update users set unproven = null where id = $1 and email = $2", args![id, email])
        .await?;
    let newly = change
        .run(
            "update users set email_verified_at = $2
             where id = $1 and email = $3 and email_verified_at is null",
            args![id, now, email],
        )
        .await?;
    invalidate(change, id);
    if newly == 1 {
        claims_changed(change, Whose::User(id), &[TokenClaim::EmailVerified]).await?;
    }
    Ok(proved == 1)
}
