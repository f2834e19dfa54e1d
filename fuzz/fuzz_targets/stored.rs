#![no_main]
//! Values read from the database and from files: hashes, sealed values, root keys, opaque tokens.

use libfuzzer_sys::fuzz_target;
use palisade_crypto::opaque;
use palisade_crypto::password::{Cost, is_at_cost};
use palisade_crypto::root::RootKey;
use palisade_crypto::seal::SealingKey;

fuzz_target!(|bytes: &[u8]| {
    let key = SealingKey::from_bytes([7; 32]);
    assert!(key.open(b"context", bytes).is_err());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = is_at_cost(text, &Cost::LIGHT);
        let _ = RootKey::parse(text);
        let _ = opaque::digest("pal_rt_", text);
    }
});
