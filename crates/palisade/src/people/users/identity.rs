//! The identity of a user who authenticates with a credential.

use std::sync::Arc;

use palisade_db::{Timestamp, args};

use super::{Factors, current};
use crate::app::{AccountState, App, AuthLevel, Change, Identity};
use crate::credential::Credential;
use crate::error::{Result, bad_token};
use crate::id::UserId;

/// Returns the identity behind a credential of this user, with all of their permissions and without a fresh proof of
/// identity. A kind of credential that proves more or allows less adjusts the result.
///
/// # Errors
/// Fails with `access.invalid_token` if the user doesn't exist or is disabled. Also returns an error if the database is
/// needed and fails.
pub async fn identity(app: &App, user: UserId, credential: Credential) -> Result<Identity> {
    let user = current(app, user).await?.filter(|user| !user.disabled).ok_or_else(bad_token)?;
    Ok(Identity {
        user: user.id,
        credential,
        permissions: Arc::clone(&user.permissions),
        // Long ago.
        authenticated_at: Timestamp::from_micros(0),
        proved_with: AuthLevel::Password,
        required_level: user.factors.required_level(),
        must_enrol: user.must_enrol(app),
        limit: None,
    })
}

/// Returns the state of the account on which a change depends, or `None` if the account is deleted or disabled.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_account(
    change: &mut Change,
    user: UserId,
    permission: Option<&'static str>,
) -> Result<Option<AccountState>> {
    let row: Option<(i64, bool, i64)> = change
        .maybe(
            "select case when $2 is null then 1 else (select count(*) from user_roles r
                    where r.user_id = u.id and (r.role = 'admin' or exists (select 1 from role_permissions p
                        where p.role = r.role and p.permission = $2))) end,
                u.has_totp, u.passkeys
             from users u where u.id = $1 and u.disabled_at is null",
            args![user, permission],
        )
        .await?;
    Ok(row.map(|(permitting, totp, passkeys)| AccountState {
        permitted: permitting > 0,
        required_level: Factors { totp, passkeys, recovery_codes_left: 0 }.required_level(),
    }))
}
