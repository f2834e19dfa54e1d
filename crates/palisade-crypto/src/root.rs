//! The root key: the secret that an operator keeps. Every other key that Palisade uses for stored data is derived from
//! it, or is stored encrypted under a key derived from it.
//!
//! # Promises
//!
//! - It has one text form: `palisade-root-key-v1.` followed by 43 characters of base64url.
//! - A key that looks made up (few different bytes, a constant step, text, a placeholder) is refused, with an error
//!   that says to let Palisade generate one.
//! - Keys derived for different purposes have nothing in common.

use std::{error, fmt};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::mac::hkdf_sha256;
use crate::random::Random;
use crate::seal::SealingKey;
use crate::secret::{SecretBytes, SecretString};

const PREFIX: &str = "palisade-root-key-v1.";

/// The probability that 32 random bytes contain fewer different values than this is below 2⁻⁵⁰.
const FEWEST_DIFFERENT_BYTES: usize = 16;

/// The root key: 32 random bytes, wiped when dropped.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    /// Creates a new key.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(bytes.as_mut());
        Self(bytes)
    }

    /// Reads the text form; whitespace around it is ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is empty, if it is not in this form, or if its bytes look made up.
    pub fn parse(text: &str) -> Result<Self, RootKeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RootKeyError::Empty);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(RootKeyError::WrongForm)?;
        let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| RootKeyError::WrongForm)?;
        let decoded = Zeroizing::new(decoded);
        let mut bytes = Zeroizing::new([0; 32]);
        if decoded.len() != bytes.len() {
            return Err(RootKeyError::WrongForm);
        }
        bytes.copy_from_slice(&decoded);
        if is_made_up(&bytes) { Err(RootKeyError::NotRandom) } else { Ok(Self(bytes)) }
    }

    /// Returns the text form that [`RootKey::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let mut text = String::with_capacity(PREFIX.len() + 43);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(self.0.as_ref(), &mut text);
        SecretString::from(text)
    }

    /// Returns the sealing key for `purpose` (HKDF-SHA256).
    #[must_use]
    pub fn derive(&self, purpose: &'static str) -> SealingKey {
        SealingKey::from_bytes(hkdf_sha256(self.0.as_ref(), "palisade root sealing v1", purpose))
    }

    /// Returns 32 bytes for `purpose` (HKDF-SHA256), unrelated to the sealing key of the same purpose.
    #[must_use]
    pub fn derive_bytes(&self, purpose: &'static str) -> SecretBytes {
        SecretBytes::from(hkdf_sha256(self.0.as_ref(), "palisade root bytes v1", purpose).to_vec())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// Returns whether the bytes look made up: few different values (one byte repeated, a short pattern), a constant step
/// (counting up or down), or only printable text.
fn is_made_up(bytes: &[u8; 32]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|was_seen| **was_seen).count();
    let step = bytes[1].wrapping_sub(bytes[0]);
    let counting = bytes.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    different < FEWEST_DIFFERENT_BYTES || counting || printable
}

/// Why a text is not a root key. The message never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKeyError {
    /// The text contains only whitespace.
    Empty,
    /// Not `palisade-root-key-v1.` followed by 43 characters of base64url.
    WrongForm,
    /// Well formed, but apparently made up: repeated or sequential bytes, or text.
    NotRandom,
}

impl fmt::Display for RootKeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => {
                "the root key is empty; provide the whole line that was generated, \
                 palisade-root-key-v1.…"
            }
            Self::WrongForm => {
                "this is not a root key; a root key is palisade-root-key-v1. followed by 43 \
                 letters, digits, - and _; placeholders and other secrets are not accepted; let \
                 Palisade generate one"
            }
            Self::NotRandom => {
                "this root key was made up, not generated (its bytes repeat, count up or down, or \
                 spell text); let Palisade generate one"
            }
        })
    }
}

impl error::Error for RootKeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    fn text_of(bytes: [u8; 32]) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn a_key_survives_its_text_form_and_white_space_around_it() {
        let key = RootKey::generate(&SeededRandom::new(1));
        let text = key.to_text();
        let read = RootKey::parse(&format!("\r\n \t{}\n", text.expose())).unwrap();
        assert_eq!(read.to_text(), text);
        assert_eq!(read.derive_bytes("p"), key.derive_bytes("p"));
    }

    #[test]
    fn made_up_keys_are_refused() {
        let mut pattern = [0; 32];
        for (index, byte) in pattern.iter_mut().enumerate() {
            *byte = [0xde, 0xad, 0xbe, 0xef][index % 4];
        }
        let counting: [u8; 32] = std::array::from_fn(|index| index as u8);
        let down: [u8; 32] = std::array::from_fn(|index| 255 - 3 * index as u8);
        let spelled = *b"correct horse battery staple 123";
        for bytes in [[0; 32], [255; 32], [b'A'; 32], pattern, counting, down, spelled] {
            assert_eq!(RootKey::parse(&text_of(bytes)).unwrap_err(), RootKeyError::NotRandom);
        }
        // Of 256 values, 32 random bytes have about 30.
        let with = |different: usize| std::array::from_fn(|at| (at % different * 7) as u8);
        assert!(RootKey::parse(&text_of(with(FEWEST_DIFFERENT_BYTES))).is_ok());
        let fewer = RootKey::parse(&text_of(with(FEWEST_DIFFERENT_BYTES - 1)));
        assert_eq!(fewer.unwrap_err(), RootKeyError::NotRandom);
        assert!(RootKeyError::NotRandom.to_string().contains("was made up"));
    }

    #[test]
    fn placeholders_and_other_forms_are_refused() {
        let good = RootKey::generate(&SeededRandom::new(1)).to_text();
        let good = good.expose();
        let encoded = good.split_at(PREFIX.len()).1;
        for text in [
            "changeme",
            "CHANGE_ME",
            "<root key>",
            "secret",
            "palisade-root-key-v1.",
            "palisade-root-key-v1.changeme",
            encoded,
            good.split_at(good.len() - 1).0,
            &format!("{good}A"),
            &format!("{good}="),
            &good.replace("v1", "v2"),
            &good.to_uppercase(),
            &format!("{PREFIX} {encoded}"),
        ] {
            assert_eq!(RootKey::parse(text).unwrap_err(), RootKeyError::WrongForm, "{text:?}");
        }
        assert_eq!(RootKey::parse(" \n").unwrap_err(), RootKeyError::Empty);
    }

    #[test]
    fn generated_keys_are_never_taken_for_made_up_ones() {
        let random = SeededRandom::new(9);
        for _ in 0..10_000 {
            assert!(RootKey::parse(RootKey::generate(&random).to_text().expose()).is_ok());
        }
    }

    #[test]
    fn purposes_and_kinds_of_derived_keys_have_nothing_in_common() {
        let random = SeededRandom::new(2);
        let key = RootKey::generate(&random);
        assert_ne!(key.derive_bytes("audit"), key.derive_bytes("tokens"));
        let sealed = key.derive("audit").seal(&random, b"", b"text");
        assert!(key.derive("audit").open(b"", &sealed).is_ok());
        assert!(key.derive("tokens").open(b"", &sealed).is_err());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(key.derive_bytes("audit").expose());
        assert!(SealingKey::from_bytes(bytes).open(b"", &sealed).is_err());
    }

    #[test]
    fn no_message_and_no_debug_output_repeats_the_key() {
        let key = RootKey::generate(&SeededRandom::new(1));
        assert_eq!(format!("{key:?}"), "[secret]");
        let error = RootKey::parse("hunter2hunter2").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
