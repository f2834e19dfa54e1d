//! What other slices keep of a user and every request must know: written here with the change of their own rows.

use palisade_db::{Timestamp, args};

use super::{Factors, invalidate};
use crate::app::Change;
use crate::error::Result;
use crate::id::UserId;

/// Writes down which factors a user has: for the slice of factors, in the change that adds or removes one, while the
/// user is held ([`lock_row`](super::lock_row)).
///
/// # Errors
/// When the database fails.
pub async fn set_factors(change: &mut Change, id: UserId, factors: Factors) -> Result<()> {
    let Factors { totp, passkeys, recovery_codes_left } = factors;
    change
        .run(
            "update users set has_totp = $2, passkeys = $3, recovery_codes_left = $4 where id = $1",
            args![id, totp, passkeys, recovery_codes_left],
        )
        .await?;
    invalidate(change, id);
    Ok(())
}

/// Writes down until when clients that aren't known are refused: for the slice of lockout, in the change that locks
/// or unlocks. A lock that is over by itself may stay.
///
/// # Errors
/// When the database fails.
pub async fn set_locked_until(
    change: &mut Change,
    id: UserId,
    until: Option<Timestamp>,
) -> Result<()> {
    change.run("update users set locked_until = $2 where id = $1", args![id, until]).await?;
    invalidate(change, id);
    Ok(())
}
