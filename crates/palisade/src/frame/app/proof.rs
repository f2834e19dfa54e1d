//! What a caller proved, and whether it is enough where a fresh proof is required.

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
    /// Whether a proof of this level is enough where `required` is required.
    pub fn satisfies(self, required: Self) -> bool {
        self >= required
    }

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "totp",
            Self::Passkey => "passkey",
            Self::RecoveryCode => "recovery_code",
        }
    }

    /// The level that a word in the database names. An unknown word gives the weakest.
    pub fn parse(word: &str) -> Self {
        [Self::Code, Self::Passkey, Self::RecoveryCode]
            .into_iter()
            .find(|level| level.as_str() == word)
            .unwrap_or(Self::Password)
    }

    /// The methods that prove at least this level.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Password => &["password"],
            Self::Code => &["totp", "recovery_code"],
            Self::Passkey | Self::RecoveryCode => &["passkey", "recovery_code"],
        }
    }
}

/// Checks that a proof is recent enough, and was given with the strongest factor of the account.
///
/// # Errors
/// `access.not_fresh`.
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
