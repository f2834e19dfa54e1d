//! Several versions of a key: the newest one seals, and every version opens what it sealed.

use std::collections::BTreeMap;
use std::{error, fmt};

use super::{SealError, SealingKey};
use crate::random::Random;
use crate::secret::SecretBytes;

const VERSIONED: u8 = 2;
const HEADER_LENGTH: usize = 5;

/// Versions of one key. The highest version seals; every version in the ring opens what it sealed.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: u32,
    keys: BTreeMap<u32, SealingKey>,
}

impl KeyRing {
    /// Creates a ring from these keys, which may be in any order.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no key, or two keys have the same version.
    pub fn new(keys: Vec<(u32, SealingKey)>) -> Result<Self, KeyRingError> {
        let given = keys.len();
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        if keys.len() != given {
            return Err(KeyRingError::RepeatedVersion);
        }
        let (&current, _) = keys.last_key_value().ok_or(KeyRingError::Empty)?;
        Ok(Self { current, keys })
    }

    /// Returns the version that seals.
    #[must_use]
    pub fn current_version(&self) -> u32 {
        self.current
    }

    /// Seals `plaintext` for `context` under the current version. The version number is stored in the header and
    /// authenticated.
    #[must_use]
    pub fn seal(&self, random: &dyn Random, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.keys[&self.current].seal_after(&header(self.current), random, context, plaintext)
    }

    /// Opens a value that [`KeyRing::seal`] created for the same `context`, under any version in
    /// the ring.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not such a value, were changed, belong to a different key or context, or name
    /// a version that is not in the ring.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let (version, body) = split(sealed).ok_or(SealError::Malformed)?;
        let key = self.keys.get(&version).ok_or(SealError::UnknownVersion)?;
        key.open_after(&header(version), context, body)
    }

    /// Returns the key version that `sealed` claims, or `None` if it claims none. The version is not authenticated, but
    /// it is enough to find values that should be sealed again.
    #[must_use]
    pub fn version_of(sealed: &[u8]) -> Option<u32> {
        split(sealed).map(|(version, _)| version)
    }
}

fn header(version: u32) -> [u8; HEADER_LENGTH] {
    let [a, b, c, d] = version.to_be_bytes();
    [VERSIONED, a, b, c, d]
}

fn split(sealed: &[u8]) -> Option<(u32, &[u8])> {
    match sealed {
        [VERSIONED, a, b, c, d, body @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        _ => None,
    }
}

/// Why keys do not form a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRingError {
    /// No key was given.
    Empty,
    /// Two keys have the same version.
    RepeatedVersion,
}

impl fmt::Display for KeyRingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "a key ring needs at least one key",
            Self::RepeatedVersion => "two keys in the key ring have the same version",
        })
    }
}

impl error::Error for KeyRingError {}
