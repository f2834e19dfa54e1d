//! What the API shows about a user.

use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::User;
use crate::id::UserId;
use crate::shape;

/// A user.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub struct UserView {
    id: UserId,
    /// The email address, as it was given.
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// Whether the user has verified the email address.
    email_verified: bool,
    /// The name of the user.
    name: Option<String>,
    /// The names of the user's roles.
    roles: Vec<String>,
    /// Whether this is a service account: the account of a program, which can't sign in.
    service: bool,
    /// A disabled user can't sign in and has no sessions.
    disabled: bool,
    /// The time until which only known devices can sign in, after too many wrong passwords.
    /// 9999-12-31 means until an administrator unlocks the account or its password is changed.
    #[schemars(with = "Option<shape::DateTime>")]
    locked_until: Option<Timestamp>,
    #[schemars(with = "shape::DateTime")]
    created_at: Timestamp,
    #[schemars(with = "Option<shape::DateTime>")]
    last_login_at: Option<Timestamp>,
    /// When the account will be deleted at the user's request, unless the user signs in before
    /// then.
    #[schemars(with = "Option<shape::DateTime>")]
    delete_at: Option<Timestamp>,
    /// The user's second factors.
    mfa: FactorsView,
}

/// A user's second factors.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Factors")]
pub(super) struct FactorsView {
    /// Whether an authenticator app is set up.
    totp: bool,
    /// The number of passkeys.
    passkeys: i64,
    /// The number of unused recovery codes.
    recovery_codes_left: i64,
}

impl UserView {
    /// Creates the API's view of a user at this moment.
    pub fn new(user: &User, now: Timestamp) -> Self {
        Self {
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
