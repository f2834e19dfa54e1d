#![no_main]
//! Access tokens from outside: any text must be refused, without a panic.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use palisade_crypto::random::SeededRandom;
use palisade_crypto::token::{Algorithm, TokenKey, Verifier};

const NOW: i64 = 1_900_000_000;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let random = SeededRandom::new(1);
    let algorithms = [
        Algorithm::EdDsa,
        Algorithm::Es256,
        Algorithm::PasetoV4Public,
        Algorithm::PasetoV4Local,
    ];
    let keys = algorithms.map(|algorithm| {
        TokenKey::generate(algorithm, &random).expect("a key").verification()
    });
    Verifier::new(keys.into(), "https://a.example", "https://a.example")
});

fuzz_target!(|text: &str| {
    // No one holds the keys: whatever is accepted is a forgery.
    assert!(VERIFIER.verify(text, NOW).is_err());
});
