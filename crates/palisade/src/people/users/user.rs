//! A user, and the factors that a user has.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use palisade_db::Timestamp;

use super::{ADMIN, UserView, WRITE};
use crate::access::AuthLevel;
use crate::app::App;
use crate::error::Result;
use crate::http::Written;
use crate::id::UserId;
use crate::settings::AdminMfa;

/// A user's factors in addition to the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Factors {
    /// Whether an authenticator app is set up.
    pub totp: bool,
    /// The number of passkeys.
    pub passkeys: i64,
    /// The number of unused recovery codes. They can be used in place of other factors, but are not a factor
    /// themselves.
    pub recovery_codes_left: i64,
}

impl Factors {
    /// Returns whether there is any factor, so that the password alone isn't enough.
    pub fn any(self) -> bool {
        self.totp || self.passkeys > 0
    }

    /// Returns the level of the strongest factor.
    pub fn required_level(self) -> AuthLevel {
        match self {
            Self { passkeys: 1.., .. } => AuthLevel::Passkey,
            Self { totp: true, .. } => AuthLevel::Code,
            _ => AuthLevel::Password,
        }
    }
}

impl User {
    /// Returns the permissions, separated by spaces (RFC 6749 section 3.3).
    pub fn scope(&self) -> String {
        self.permissions.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// A person or a program with an account.
#[derive(Debug)]
pub struct User {
    /// The id, which is never reused.
    pub id: UserId,
    /// The email address, as its owner wrote it.
    pub email: String,
    /// Whether the owner has verified the email address.
    pub email_verified: bool,
    /// The name that the person has chosen.
    pub name: Option<String>,
    /// The names of the roles, sorted.
    pub roles: Vec<String>,
    /// The permissions of the roles.
    pub permissions: Arc<BTreeSet<String>>,
    /// Whether the user is disabled.
    pub disabled: bool,
    /// The time until which unknown clients are refused. It may be in the past.
    pub locked_until: Option<Timestamp>,
    /// Whether this is a service account, which can't sign in.
    pub service: bool,
    /// When the account was created.
    pub created_at: Timestamp,
    /// When the user last signed in.
    pub last_login_at: Option<Timestamp>,
    /// When the account will be deleted, at its owner's request.
    pub delete_at: Option<Timestamp>,
    /// The factors in addition to the password.
    pub factors: Factors,
    /// The API's view of the user, serialized when it is first requested.
    pub(super) written: OnceLock<Written<UserView>>,
}

impl User {
    /// Returns whether the user holds the role [`ADMIN`].
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN)
    }

    /// Returns whether the user has rights over other accounts. Such users must have a second factor if
    /// `access.admin_mfa` is `required`.
    pub fn is_administrator(&self) -> bool {
        let over_others = [WRITE.name, "roles:write"];
        self.is_admin() || over_others.iter().any(|name| self.permissions.contains(*name))
    }

    /// Returns whether the user must have a second factor. Every user must if `mfa.required` is set, and administrators
    /// must if `access.admin_mfa` is `required`. A service account can't have a second factor and is never asked for
    /// one.
    pub fn needs_factor(&self, app: &App) -> bool {
        let settings = &app.settings;
        let of_administrators = settings.access.admin_mfa == AdminMfa::Required;
        // SECURITY: (test: where_it_is_required_a_user_without_a_second_factor_can_only_enrol)
        let required = settings.mfa.required || (of_administrators && self.is_administrator());
        required && !self.service
    }

    /// Returns whether the settings require a second factor of any users.
    pub(super) fn may_need_factor(app: &App) -> bool {
        app.settings.mfa.required || app.settings.access.admin_mfa == AdminMfa::Required
    }

    /// Returns whether the user must set up a second factor before they can do anything else.
    pub fn must_enrol(&self, app: &App) -> bool {
        !self.factors.any() && self.needs_factor(app)
    }

    /// Returns the API's view of the user, serialized.
    ///
    /// # Errors
    /// Returns an error if the view can't be serialized, which would be a bug.
    pub fn written(&self, now: Timestamp) -> Result<Written<UserView>> {
        if let Some(written) = self.written.get() {
            return Ok(written.clone());
        }
        let written = Written::new(&UserView::new(self, now))?;
        if self.locked_until.is_some_and(|until| until > now) {
            // Not cached, because the lock that it shows expires.
            return Ok(written);
        }
        Ok(self.written.get_or_init(|| written).clone())
    }
}
