//! Types for secret text and secret bytes that keep them out of debug output.
//!
//! # Promises
//!
//! - `Debug` prints `[secret]`; there is no `Display` and no `Serialize`.
//! - The memory is wiped when the value is dropped (the caller is responsible for copies of an exposed value).
//! - `==` takes the same time no matter where the first difference is.

use std::fmt;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Returns whether `a` and `b` are equal, in a time that depends only on their lengths.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Secret text: a password, a token, a key in its text form.
#[derive(Clone)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Returns the text itself. Keep copies of it as short-lived as possible.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretString {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl PartialEq for SecretString {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl Eq for SecretString {}

/// Secret bytes: a key, a decrypted value.
#[derive(Clone)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Returns the bytes themselves. Keep copies of them as short-lived as possible.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for SecretBytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_secret() {
        let text = SecretString::from("hunter2");
        let bytes = SecretBytes::from(b"hunter2".to_vec());
        assert_eq!(
            format!("{text:?} {:?} {bytes:?}", Some(&text)),
            "[secret] Some([secret]) [secret]"
        );
    }

    #[test]
    fn secrets_are_equal_only_when_every_byte_is() {
        assert_eq!(SecretString::from("abc"), SecretString::from("abc".to_owned()));
        for other in ["abd", "bbc", "ab", "abcd", ""] {
            assert_ne!(SecretString::from("abc"), SecretString::from(other));
            assert_ne!(
                SecretBytes::from(b"abc".to_vec()),
                SecretBytes::from(other.as_bytes().to_vec())
            );
        }
    }

    #[test]
    fn a_secret_is_read_from_a_string_and_from_nothing_else() {
        let read: SecretString = serde_json::from_str(r#""p\u00e4ss""#).unwrap();
        assert_eq!(read.expose(), "päss");
        for other in ["1", "null", "[\"a\"]", "{}", "true"] {
            assert!(serde_json::from_str::<SecretString>(other).is_err());
        }
    }
}
