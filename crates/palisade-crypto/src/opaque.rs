//! Opaque tokens: a prefix that states their kind, and 256 random bits.
//!
//! # Promises
//!
//! - Only the [`digest`] is stored, from which the token cannot be recovered. 256 random bits need no slow hash.
//! - Each token has exactly one encoding; any other text has no digest.
//! - The same random part under a different prefix has a different digest, so a token of one kind is never accepted as
//!   another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::Random;
use crate::secret::SecretString;

const LABEL: &[u8] = b"palisade opaque token v1\0";
const ENCODED_LENGTH: usize = 43;

/// Creates a token: `prefix` and 43 characters of base64url, 256 bits of `random`.
#[must_use]
pub fn generate(prefix: &'static str, random: &dyn Random) -> SecretString {
    let mut bytes = Zeroizing::new([0; 32]);
    random.fill(bytes.as_mut());
    let mut text = String::with_capacity(prefix.len() + ENCODED_LENGTH);
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
    SecretString::from(text)
}

/// Returns the stored digest of a token: SHA-256 over a versioned label, the prefix and the random bits.
///
/// Returns `None` if `text` is not a token with this `prefix`: the prefix, the length or the alphabet is wrong, there
/// is padding, or unused bits are not zero.
#[must_use]
pub fn digest(prefix: &'static str, text: &str) -> Option<[u8; 32]> {
    let encoded = text.strip_prefix(prefix)?;
    if encoded.len() != ENCODED_LENGTH {
        return None;
    }
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
    let mut hasher = Sha256::new();
    hasher.update(LABEL);
    hasher.update(prefix.as_bytes());
    hasher.update([0]);
    hasher.update(bytes.as_slice());
    Some(hasher.finalize().into())
}

/// Returns the BLAKE3 hash of `bytes`: a cache key for a value that must not itself be kept in memory. Not for storage.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    blake3::hash(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const PREFIX: &str = "pal_ak_";
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    #[test]
    fn a_fingerprint_is_the_hash_of_all_bytes() {
        // Of no bytes, as in the test vectors of BLAKE3.
        assert_eq!(fingerprint(b"")[..4], [0xaf, 0x13, 0x49, 0xb9]);
        assert_ne!(fingerprint(b"a"), fingerprint(b"b"));
    }

    #[test]
    fn a_token_has_its_prefix_43_characters_and_one_digest() {
        let random = SeededRandom::new(1);
        let token = generate(PREFIX, &random);
        assert_eq!(token.expose().len(), PREFIX.len() + 43);
        assert!(digest(PREFIX, token.expose()).is_some());
        assert_eq!(digest(PREFIX, token.expose()), digest(PREFIX, token.expose()));
        assert_ne!(
            digest(PREFIX, token.expose()),
            digest(PREFIX, generate(PREFIX, &random).expose())
        );
    }

    /// In a million tokens, each of the 256 bits is expected to be one 500,000 times. The test allows a deviation of
    /// 3,500, seven standard deviations. Fewer than one run in a billion exceeds it by chance.
    #[test]
    fn a_million_tokens_are_all_different_and_their_bits_are_balanced() {
        const DRAWS: usize = 1_000_000;
        let random = crate::random::OsRandom;
        let mut seen = std::collections::HashSet::with_capacity(DRAWS);
        // How often each value of each byte was drawn. Counting bytes takes fewer steps than counting bits.
        let mut drawn = vec![[0u32; 256]; 32];
        for _ in 0..DRAWS {
            let token = generate(PREFIX, &random);
            let encoded = token.expose().strip_prefix(PREFIX).unwrap();
            let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(encoded).unwrap().try_into().unwrap();
            for (place, byte) in drawn.iter_mut().zip(bytes) {
                place[usize::from(byte)] += 1;
            }
            assert!(seen.insert(bytes), "a token was drawn twice");
        }
        for (place, counts) in drawn.iter().enumerate() {
            for bit in 0..8 {
                let ones: u32 = (0..256usize)
                    .filter(|value| value >> bit & 1 == 1)
                    .map(|value| counts[value])
                    .sum();
                assert!((496_500..=503_500).contains(&ones), "byte {place}, bit {bit}: {ones}");
            }
        }
    }

    #[test]
    fn a_token_under_another_prefix_is_another_token() {
        let token = generate(PREFIX, &SeededRandom::new(1));
        let moved = token.expose().replace(PREFIX, "pal_rt_");
        assert_eq!(digest("pal_rt_", token.expose()), None);
        assert_ne!(digest("pal_rt_", &moved), digest(PREFIX, token.expose()));
    }

    #[test]
    fn only_one_last_character_in_four_is_a_spelling() {
        let token = generate(PREFIX, &SeededRandom::new(2));
        let stem = token.expose().split_at(token.expose().len() - 1).0;
        let accepted = ALPHABET
            .iter()
            .filter(|last| digest(PREFIX, &format!("{stem}{}", char::from(**last))).is_some())
            .count();
        assert_eq!(accepted, 16);
    }

    #[test]
    fn everything_that_is_not_a_token_has_no_digest() {
        let good = generate(PREFIX, &SeededRandom::new(3));
        let good = good.expose();
        let stem = good.split_at(good.len() - 1).0;
        for bad in [
            String::new(),
            PREFIX.to_owned(),
            stem.to_owned(),
            format!("{good}A"),
            format!("{good}="),
            format!("{stem}="),
            format!("{stem}+"),
            format!("{stem}/"),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{stem}é"),
            good.to_uppercase(),
        ] {
            assert_eq!(digest(PREFIX, &bad), None, "{bad:?}");
        }
    }
}
