//! Facts about a user that other slices own and every request needs. They are written here, in the same change as the
//! rows of those slices.

use palisade_db::{Timestamp, args};

use super::claims::factors_began_or_ended;
use super::{Factors, invalidate};
use crate::app::Change;
use crate::error::Result;
use crate::id::UserId;

/// Stores a user's factors. The slice `mfa` calls this in the change that adds or removes one, while the user is held
/// ([`lock_row`](super::lock_row)).
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_factors(change: &mut Change, id: UserId, factors: Factors) -> Result<()> {
    let Factors { totp, passkeys, recovery_codes_left } = factors;
    let before: Option<(bool, i64)> =
        change.maybe("select has_totp, passkeys from users where id = $1", args![id]).await?;
    let had_any = before.is_some_and(|(totp, passkeys)| totp || passkeys > 0);
    change
        .run(
            "update users set has_totp = $2, passkeys = $3, recovery_codes_left = $4 where id = $1",
            args![id, totp, passkeys, recovery_codes_left],
        )
        .await?;
    invalidate(change, id);
    if had_any == factors.any() { Ok(()) } else { factors_began_or_ended(change, id).await }
}

/// Stores the time until which unknown clients are refused. The slice `lockout` calls this in the change that locks or
/// unlocks the account. An expired lock may stay stored.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_locked_until(
    change: &mut Change,
    id: UserId,
    until: Option<Timestamp>,
) -> Result<()> {
    change.run("update users set locked_until = $2 where id = $1", args![id, until]).await?;
    invalidate(change, id);
    Ok(())
}
