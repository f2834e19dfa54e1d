//! bcrypt of a keyed digest of the password, and plain bcrypt for hashes from other systems.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bcrypt::{BASE_64, HashParts};
use zeroize::Zeroizing;

use super::cost::BCRYPT_COSTS;
use super::{Cost, PasswordError};
use crate::mac::hmac_sha256;
use crate::secret::{SecretString, constant_time_eq};

/// The prefix of the bcrypt text, which begins with `$2b$`.
const PREFIX: &str = "$palisade-bcrypt-v1";

/// The key of the digest. It is fixed and public: it keeps the digests apart from unkeyed SHA-256 digests that leaked
/// elsewhere, which could otherwise be tried here as passwords ("password shucking").
const DIGEST_KEY: &[u8] = b"palisade bcrypt password digest v1";

/// The maximum number of bytes that bcrypt uses.
const LONGEST_PLAIN: usize = 72;

pub(super) fn hash(
    cost: u32,
    salt: [u8; 16],
    password: &SecretString,
) -> Result<String, PasswordError> {
    Ok(format!("{PREFIX}{}", compute(&digest(password), cost, salt)?))
}

pub(super) fn dummy(cost: u32) -> String {
    let (salt, output) = (BASE_64.encode([0; 16]), BASE_64.encode([0; 23]));
    format!("{PREFIX}$2b${cost:02}${salt}{output}")
}

/// Returns the keyed digest of a password: 43 characters, none of them a zero byte, whatever the password.
fn digest(password: &SecretString) -> Zeroizing<String> {
    let digest = Zeroizing::new(hmac_sha256(DIGEST_KEY, &[password.expose().as_bytes()]));
    Zeroizing::new(STANDARD_NO_PAD.encode(digest.as_ref()))
}

fn compute(text: &str, cost: u32, salt: [u8; 16]) -> Result<HashParts, PasswordError> {
    bcrypt::hash_with_salt(text, cost, salt).map_err(|_| PasswordError::Malformed)
}

/// An encoded bcrypt hash whose cost is within bounds.
pub(super) struct Stored {
    parts: HashParts,
    is_plain: bool,
}

impl Stored {
    pub(super) fn parse(text: &str) -> Result<Self, PasswordError> {
        let (text, is_plain) = match text.strip_prefix(PREFIX) {
            Some(own) => (own, false),
            None => (text, true),
        };
        let versions: &[&str] = if is_plain { &["$2a$", "$2b$", "$2y$"] } else { &["$2b$"] };
        if !versions.iter().any(|version| text.starts_with(version)) {
            return Err(PasswordError::Malformed);
        }
        let parts: HashParts = text.parse().map_err(|_| PasswordError::Malformed)?;
        // SECURITY: the cost is checked before any work is done, because an encoded hash may come from an import (test:
        // a_stored_hash_that_asks_for_too_much_is_refused_before_any_work).
        if parts.get_cost() > *BCRYPT_COSTS.end() {
            return Err(PasswordError::TooCostly);
        }
        Ok(Self { parts, is_plain })
    }

    pub(super) fn verify(&self, password: &SecretString) -> Result<bool, PasswordError> {
        let digest = digest(password);
        let text = if self.is_plain { password.expose() } else { digest.as_str() };
        // SECURITY: the work is done for every password. One that is too long for plain bcrypt is refused only after it
        // (test: a_plain_bcrypt_hash_matches_no_password_that_bcrypt_would_cut).
        let computed = compute(text, self.parts.get_cost(), self.parts.get_salt_raw())?;
        let is_same =
            constant_time_eq(computed.to_string().as_bytes(), self.parts.to_string().as_bytes());
        Ok(is_same && text.len() <= LONGEST_PLAIN && !text.contains('\0'))
    }

    /// Returns the cost, or `None` for a plain bcrypt hash from another system.
    pub(super) fn own_cost(&self) -> Option<Cost> {
        (!self.is_plain).then(|| Cost::Bcrypt { cost: self.parts.get_cost() })
    }
}
