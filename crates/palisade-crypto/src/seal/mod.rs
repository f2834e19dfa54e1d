//! Sealing: authenticated encryption of small values stored elsewhere.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce. The uses of a key need not be counted: with nonces of 192 bits, the
//! limit that NIST sets for random nonces is never reached. A `context` identifies the value and its owner (for
//! instance `password-hash:` and a user's id). It is authenticated, not stored.
//!
//! # Promises
//!
//! - Sealed bytes open only with the same key, the same key version and the same context.
//! - All other bytes (changed, truncated, extended or assembled from parts) are refused without a panic. The error does
//!   not reveal whether the key, the context or the ciphertext is wrong.
//!
//! # Format
//!
//! | created by | bytes |
//! |---|---|
//! | [`SealingKey`] | `1`, nonce (24), ciphertext, tag (16) |
//! | [`KeyRing`] | `2`, key version (4, big endian), nonce (24), ciphertext, tag (16) |
//!
//! The associated data is the header (the bytes before the nonce) followed by the context. The first byte determines
//! the length of the header, so different pairs of header and context never yield the same associated data.

mod ring;

use std::{error, fmt};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::mac::hkdf_sha256;
use crate::random::Random;
use crate::secret::SecretBytes;

pub use ring::{KeyRing, KeyRingError};

const SINGLE: u8 = 1;
const NONCE_LENGTH: usize = 24;

/// Why sealed bytes were not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// Too short, or of a format that this version does not support.
    Malformed,
    /// Sealed under a key version that is not in the ring.
    UnknownVersion,
    /// A different key, a different context, or altered bytes.
    Refused,
}

impl fmt::Display for SealError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "not a sealed value",
            Self::UnknownVersion => "sealed under a key version that is not in the key ring",
            Self::Refused => "the sealed value was changed, or belongs to another key or context",
        })
    }
}

impl error::Error for SealError {}

/// A key to seal with: 32 bytes, wiped when dropped.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// Creates a key from these bytes, which must come from a random source or a key derivation.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Derives the key for `purpose` from `secret` (HKDF-SHA256). `secret` must have full entropy: a key or a random
    /// token, never a password.
    #[must_use]
    pub fn derived_from(secret: &[u8], purpose: &'static str) -> Self {
        Self::from_bytes(hkdf_sha256(secret, "palisade sealing key v1", purpose))
    }

    /// Seals `plaintext` for `context`.
    #[must_use]
    pub fn seal(&self, random: &dyn Random, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.seal_after(&[SINGLE], random, context, plaintext)
    }

    /// Opens a value that [`SealingKey::seal`] created for the same `context`.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not such a value, were changed, or belong to a different key or context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        match sealed.split_first() {
            Some((&SINGLE, body)) => self.open_after(&[SINGLE], context, body),
            _ => Err(SealError::Malformed),
        }
    }

    /// Returns `header`, a fresh nonce and the ciphertext. The associated data is the header followed by the context.
    fn seal_after(
        &self,
        header: &[u8],
        random: &dyn Random,
        context: &[u8],
        plaintext: &[u8],
    ) -> Vec<u8> {
        let mut nonce = [0; NONCE_LENGTH];
        random.fill(&mut nonce);
        let body = encrypt(&self.0, &nonce, &[header, context].concat(), plaintext);
        [header, &nonce, &body].concat()
    }

    fn open_after(
        &self,
        header: &[u8],
        context: &[u8],
        body: &[u8],
    ) -> Result<SecretBytes, SealError> {
        let (nonce, ciphertext) = body.split_first_chunk().ok_or(SealError::Malformed)?;
        decrypt(&self.0, nonce, &[header, context].concat(), ciphertext).ok_or(SealError::Refused)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// Encrypts with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), tag at the end.
#[expect(
    clippy::expect_used,
    reason = "encryption fails only beyond 256 GiB, which no caller can hold"
)]
fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LENGTH],
    associated: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plaintext, aad: associated })
        .expect("the value is shorter than 256 GiB")
}

fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LENGTH],
    associated: &[u8],
    ciphertext: &[u8],
) -> Option<SecretBytes> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated })
        .ok()
        .map(SecretBytes::from)
}

#[cfg(test)]
mod tests;
