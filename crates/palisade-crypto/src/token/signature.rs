//! The two signature algorithms that Palisade uses for JWTs, over raw bytes.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use super::key::TokenKeyError;

/// `ECPrivateKey` (RFC 5915) around a scalar on P-256: version 1, then the 32 bytes, then the name of the curve. The
/// public key is left out, because the library computes it.
const SEC1_BEFORE: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
const SEC1_AFTER: [u8; 12] =
    [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Returns the Ed25519 key pair for a seed (RFC 8032 5.1.5).
pub(super) fn ed25519_pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, TokenKeyError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| TokenKeyError::BadKey)
}

/// Returns the P-256 key pair for a scalar, which must be at least 1 and less than the order of the curve.
pub(super) fn p256_pair(scalar: &[u8; 32]) -> Result<EcdsaKeyPair, TokenKeyError> {
    let mut der = Zeroizing::new(Vec::with_capacity(51));
    der.extend_from_slice(&SEC1_BEFORE);
    der.extend_from_slice(scalar);
    der.extend_from_slice(&SEC1_AFTER);
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .map_err(|_| TokenKeyError::BadKey)
}

/// Returns the two coordinates of a key pair's public point.
pub(super) fn p256_coordinates(pair: &EcdsaKeyPair) -> Option<([u8; 32], [u8; 32])> {
    let (&[form], rest) = pair.public_key().as_ref().split_first_chunk()?;
    let (x, y) = rest.split_first_chunk()?;
    (form == 4).then_some((*x, y.try_into().ok()?))
}

pub(super) fn sign_p256(pair: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, TokenKeyError> {
    pair.sign(&SystemRandom::new(), message)
        .map(|signature| signature.as_ref().to_vec())
        .map_err(|_| TokenKeyError::NotSigned)
}

/// Returns whether an Ed25519 signature is valid. The public key has 32 bytes, and the signature has 64.
pub(super) fn is_ed25519_signature(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// Returns whether an ECDSA signature on P-256 with SHA-256 is valid. The public key is an uncompressed point, and the
/// signature has 64 bytes (two integers).
pub(super) fn is_p256_signature(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(message, signature).is_ok()
}
