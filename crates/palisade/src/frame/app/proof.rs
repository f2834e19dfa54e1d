//! How a caller proved their identity, and whether that is enough where a fresh proof is required.

use palisade_db::Timestamp;

use super::App;
use crate::error::{Error, Kind, Result};

/// How an identity was proved, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthLevel {
    /// Only a password.
    Password,
    /// A one-time code.
    Code,
    /// A passkey, which can't be phished.
    Passkey,
    /// A recovery code, which replaces a lost factor.
    RecoveryCode,
}

impl AuthLevel {
    /// Returns whether a proof of this level is enough where `required` is required.
    pub fn satisfies(self, required: Self) -> bool {
        self >= required
    }

    /// Returns the name stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "totp",
            Self::Passkey => "passkey",
            Self::RecoveryCode => "recovery_code",
        }
    }

    /// Returns the level with this name in the database. An unknown name yields the weakest level.
    pub fn parse(word: &str) -> Self {
        [Self::Code, Self::Passkey, Self::RecoveryCode]
            .into_iter()
            .find(|level| level.as_str() == word)
            .unwrap_or(Self::Password)
    }

    /// Returns the methods that give a fresh proof for an account whose strongest factor has this level.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Password => &["password"],
            Self::Code => &["totp", "recovery_code"],
            Self::Passkey | Self::RecoveryCode => &["passkey", "recovery_code"],
        }
    }
}

/// Checks that a proof is recent enough, and was made with the account's strongest factor.
///
/// # Errors
/// Fails with `access.not_fresh`.
pub(crate) fn fresh_enough(
    app: &App,
    (proved_at, proved_with): (Timestamp, AuthLevel),
    required_level: AuthLevel,
) -> Result<()> {
    let age = app.clock.now().since(proved_at);
    // SECURITY: (tests: what_needs_fresh_proof_is_refused_later, a_fresh_proof_is_made_with_the_strongest_factor)
    if age >= app.settings.sessions.fresh_for || !proved_with.satisfies(required_level) {
        return Err(not_fresh(required_level));
    }
    Ok(())
}

pub(super) fn not_fresh(required_level: AuthLevel) -> Error {
    let detail = "Confirm your identity again with POST /api/v1/auth/reauthenticate.";
    Error::new(Kind::Denied, "access.not_fresh", detail).with("methods", required_level.methods())
}
