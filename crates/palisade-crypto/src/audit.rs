//! The keyed digests that protect the audit log.
//!
//! # Promises
//!
//! - Without the key, a chain can be neither continued nor rewritten, no matter how much of it is
//!   readable.
//! - A chain digest is never accepted as a record's own tag or as the tag of a head, or vice versa.

use crate::mac::hmac_sha256;

const CHAIN: &[u8] = b"palisade audit chain v1\0";
const RECORD: &[u8] = b"palisade audit record v1\0";
const HEAD: &[u8] = b"palisade audit head v1\0";

/// Returns the digest that ties `record` to everything before it: HMAC-SHA256 over a versioned label, the `previous`
/// digest (all zero before the first record) and the record's canonical bytes.
#[must_use]
pub fn chain_digest(key: &[u8; 32], previous: &[u8; 32], record: &[u8]) -> [u8; 32] {
    hmac_sha256(key, &[CHAIN, previous, record])
}

/// Returns the tag of one record, independent of its position: HMAC-SHA256 over a versioned label and the record's
/// canonical bytes.
#[must_use]
pub fn record_mac(key: &[u8; 32], record: &[u8]) -> [u8; 32] {
    hmac_sha256(key, &[RECORD, record])
}

/// Returns the tag of the head of a chain: HMAC-SHA256 over a versioned label, the number of records in the chain
/// (eight bytes, big-endian) and the last chain digest.
#[must_use]
pub fn head_mac(key: &[u8; 32], position: i64, chain: &[u8; 32]) -> [u8; 32] {
    hmac_sha256(key, &[HEAD, &position.to_be_bytes(), chain])
}

/// Returns the SHA-256 of content stored next to a record, in hexadecimal. The record contains only this digest.
#[must_use]
pub fn content_digest(content: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn chain(records: &[&[u8]]) -> [u8; 32] {
        records.iter().fold([0; 32], |previous, record| chain_digest(&KEY, &previous, record))
    }

    #[test]
    fn a_chain_tells_every_edit_swap_insertion_and_deletion() {
        let whole = chain(&[b"one", b"two", b"three"]);
        let others: [&[&[u8]]; 7] = [
            &[b"one", b"two"],
            &[b"two", b"three"],
            &[b"one", b"three", b"two"],
            &[b"one", b"twO", b"three"],
            &[b"one", b"two", b"two", b"three"],
            &[b"onetwo", b"three"],
            &[b"one", b"twothree"],
        ];
        for other in others {
            assert_ne!(whole, chain(other));
        }
    }

    #[test]
    fn another_key_or_purpose_gives_another_digest() {
        let digest = chain_digest(&KEY, &[0; 32], b"record");
        assert_ne!(digest, chain_digest(&[8; 32], &[0; 32], b"record"));
        assert_ne!(digest, record_mac(&KEY, b"record"));
        assert_ne!(digest, record_mac(&KEY, &[&[0; 32][..], b"record"].concat()));
        assert_ne!(record_mac(&KEY, b"record"), record_mac(&[8; 32], b"record"));
    }

    #[test]
    fn the_digest_of_content_is_that_of_fips_180() {
        // The example "abc" of FIPS 180-4, and the empty message.
        assert_eq!(
            content_digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            content_digest(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn the_tag_of_a_head_binds_count_value_and_key() {
        let head = head_mac(&KEY, 3, &[1; 32]);
        assert_ne!(head, head_mac(&KEY, 4, &[1; 32]));
        assert_ne!(head, head_mac(&KEY, 3, &[2; 32]));
        assert_ne!(head, head_mac(&[8; 32], 3, &[1; 32]));
        let parts = [&3_i64.to_be_bytes()[..], &[1; 32]].concat();
        assert_ne!(head, record_mac(&KEY, &parts));
        assert_ne!(head, chain_digest(&KEY, &[1; 32], &parts));
    }
}
