//! Sources of randomness: one trait, the operating system's source, and a seeded stream for tests.
//!
//! Palisade's own code takes all its randomness from a [`Random`] that is passed in, so that tests are reproducible.
//! Some libraries, such as those for TLS and for ES256 signatures, use the operating system's source directly.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills all of `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's source, the only one for production.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness. Every key and token created afterward would be guessable,
    /// so continuing would not be safe.
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place that requests randomness from the operating system"
    )]
    #[expect(clippy::panic, reason = "without randomness no key, token or nonce can be created")]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the operating system provided no randomness: {error}");
        }
    }
}

/// A stream that is the same for the same seed (BLAKE3 in extendable-output mode).
///
/// For tests only, never for production: anyone who knows the seed knows every secret derived from
/// it.
pub struct SeededRandom(Mutex<blake3::OutputReader>);

impl SeededRandom {
    /// Creates the stream for `seed`, positioned at its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("palisade seeded randomness for tests v1");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SeededRandom")
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(random: &dyn Random) -> [u8; 48] {
        let mut bytes = [0; 48];
        random.fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let (one, two) = (SeededRandom::new(7), SeededRandom::new(7));
        assert_eq!(take(&one), take(&two));
        assert_eq!(take(&one), take(&two));
    }

    #[test]
    fn a_stream_moves_on_and_another_seed_gives_another() {
        let random = SeededRandom::new(7);
        let first = take(&random);
        assert_ne!(first, take(&random));
        assert_ne!(first, take(&SeededRandom::new(8)));
    }

    #[test]
    fn the_operating_system_never_repeats_itself() {
        assert_ne!(take(&OsRandom), take(&OsRandom));
    }
}
