//! Password hashes: Argon2id (RFC 9106) by default, bcrypt if a site chooses it.
//!
//! Unicode normalization (NFC) is the caller's responsibility. So is the pepper: the encoded hash
//! is meant to be sealed before it is stored.
//!
//! # Promises
//!
//! - In every hash that this module creates, each byte of the password counts, whatever its length and whatever bytes
//!   it contains: bcrypt receives a keyed digest of the password, so nothing is truncated at 72 bytes or at a zero
//!   byte. A plain bcrypt hash that was created elsewhere matches no password that bcrypt would truncate or repeat.
//! - The cost that an encoded hash requests is limited before any work is done.
//! - Hashes are compared in constant time, and the memory of Argon2 is wiped after each use.
//! - [`dummy`] costs exactly what a real hash of the same [`Cost`] costs to verify.
//!
//! # Encoded forms
//!
//! | form | meaning |
//! |---|---|
//! | `$argon2id$v=19$m=…,t=…,p=…$salt$hash` | PHC string |
//! | `$palisade-bcrypt-v1$2b$12$…` | bcrypt of the keyed digest of the password |
//! | `$2a$`, `$2b$`, `$2y$…` | plain bcrypt from other systems: verified, never created |

mod argon2id;
mod bcrypt;
mod cost;

use std::{error, fmt};

pub use argon2id::Memory;
pub use cost::{Cost, CostError};

use crate::random::Random;
use crate::secret::SecretString;

/// The maximum length of an encoded hash, in bytes. The longest form that this module supports takes about 200 bytes.
const LONGEST_ENCODED: usize = 512;

/// Why a password could not be hashed or verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// The cost for the new hash is out of bounds.
    Cost(CostError),
    /// The encoded text is not a hash in a form that this module supports.
    Malformed,
    /// The encoded hash requests more work than this module allows.
    TooCostly,
    /// The memory that the cost requires could not be allocated.
    OutOfMemory,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cost(error) => error.fmt(formatter),
            Self::Malformed => formatter.write_str("the stored password hash has an unknown form"),
            Self::TooCostly => {
                formatter.write_str("the stored password hash requires too much work")
            }
            Self::OutOfMemory => {
                formatter.write_str("there is not enough memory to hash a password")
            }
        }
    }
}

impl error::Error for PasswordError {}

impl From<CostError> for PasswordError {
    fn from(error: CostError) -> Self {
        Self::Cost(error)
    }
}

/// Hashes `password` at `cost`, with a salt of 16 bytes from `random`, and encodes the result.
///
/// # Errors
///
/// Returns an error if the cost is out of bounds or its memory cannot be allocated.
pub fn hash(
    cost: &Cost,
    password: &SecretString,
    random: &dyn Random,
    memory: &mut Memory,
) -> Result<String, PasswordError> {
    cost.validate()?;
    let mut salt = [0; 16];
    random.fill(&mut salt);
    match *cost {
        Cost::Argon2id { memory_kib, passes, lanes } => {
            argon2id::hash([memory_kib, passes, lanes], salt, password, memory)
        }
        Cost::Bcrypt { cost } => bcrypt::hash(cost, salt, password),
    }
}

/// Returns whether `password` matches `encoded`.
///
/// A plain bcrypt hash from another system matches no password over 72 bytes: bcrypt used only the
/// first 72, and the rest would not be checked.
///
/// # Errors
///
/// Returns an error if `encoded` is not in a known form, if it requests too much work, or if the memory that it needs
/// cannot be allocated. A wrong password returns `Ok(false)`.
pub fn verify(
    encoded: &str,
    password: &SecretString,
    memory: &mut Memory,
) -> Result<bool, PasswordError> {
    match Encoded::parse(encoded)? {
        Encoded::Argon2id(stored) => stored.verify(password, memory),
        Encoded::Bcrypt(stored) => stored.verify(password),
    }
}

/// Returns whether `encoded` has the form and lengths that [`hash`] creates, at exactly `cost`. If not, the password
/// should be hashed again the next time it is entered correctly.
#[must_use]
pub fn is_at_cost(encoded: &str, cost: &Cost) -> bool {
    match Encoded::parse(encoded) {
        Ok(Encoded::Argon2id(stored)) => stored.own_cost() == Some(*cost),
        Ok(Encoded::Bcrypt(stored)) => stored.own_cost() == Some(*cost),
        Err(_) => false,
    }
}

/// Returns an encoded hash that no password matches and that costs exactly `cost` to verify, for accounts that do not
/// exist. Creating it computes no hash.
#[must_use]
pub fn dummy(cost: &Cost) -> String {
    match *cost {
        Cost::Argon2id { memory_kib, passes, lanes } => {
            argon2id::encode([memory_kib, passes, lanes], &[0; 16], &[0; 32])
        }
        Cost::Bcrypt { cost } => bcrypt::dummy(cost),
    }
}

enum Encoded {
    Argon2id(argon2id::Stored),
    Bcrypt(bcrypt::Stored),
}

impl Encoded {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        if text.len() > LONGEST_ENCODED || !text.is_ascii() {
            return Err(PasswordError::Malformed);
        }
        if text.starts_with("$argon2id$") {
            argon2id::Stored::parse(text).map(Self::Argon2id)
        } else {
            bcrypt::Stored::parse(text).map(Self::Bcrypt)
        }
    }
}

#[cfg(test)]
mod tests;
