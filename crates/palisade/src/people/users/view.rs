//! What the API shows of a user.

use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::User;
use crate::id::UserId;
use crate::shape;

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
    /// Whether it is a service account: a program's, to which nobody signs in.
    service: bool,
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
    /// The user asked for the account to be deleted: it happens then, unless they sign in before.
    #[schemars(with = "Option<shape::DateTime>")]
    delete_at: Option<Timestamp>,
    /// What proves the user beside the password.
    mfa: FactorsView,
}

/// What proves a user beside a password.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Factors")]
pub(super) struct FactorsView {
    /// Whether an app makes one-time codes.
    totp: bool,
    /// How many passkeys there are.
    passkeys: i64,
    /// How many recovery codes aren't used yet.
    recovery_codes_left: i64,
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
            service: user.service,
            disabled: user.disabled,
            locked_until: user.locked_until.filter(|until| *until > now),
            created_at: user.created_at,
            last_login_at: user.last_login_at,
            delete_at: user.delete_at,
            mfa: FactorsView {
                totp: user.factors.totp,
                passkeys: user.factors.passkeys,
                recovery_codes_left: user.factors.recovery_codes_left,
            },
        }
    }
}
