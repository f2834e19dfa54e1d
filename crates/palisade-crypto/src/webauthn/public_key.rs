//! Credential public keys: COSE keys (RFC 9052 7, RFC 9053 7) of five algorithms.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use serde::{Serialize, Serializer};

use super::WebauthnError;
use super::cbor::{self, Map};

const KEY_TYPE: i64 = 1;
const ALGORITHM: i64 = 3;
/// The curve parameter of octet key pairs and elliptic curve keys.
const CURVE: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
/// The modulus parameter of RSA keys (RFC 8230 4).
const MODULUS: i64 = -1;
const EXPONENT: i64 = -2;

/// The beginning of an Ed25519 key as Firefox 115 to 118 write it, up to the 32 bytes of the point: a map that announces
/// three members and has four, with the texts `OKP` and `Ed25519` in place of the numbers of the key type and the curve.
const MALFORMED_ED25519: [u8; 20] = *b"\xa3\x01\x63OKP\x03\x27\x20\x67Ed25519\x21\x58\x20";
/// The same part of a well-formed key.
const ED25519_BEFORE: [u8; 10] = *b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20";
const ED25519_POINT: usize = 32;

/// Returns the length of the malformed Ed25519 key at the beginning of `bytes`, or `None` if there is none.
pub(super) fn malformed_length(bytes: &[u8]) -> Option<usize> {
    bytes.starts_with(&MALFORMED_ED25519).then_some(MALFORMED_ED25519.len() + ED25519_POINT)
}

/// A signature algorithm for credentials, identified by its COSE number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// -8: EdDSA on Ed25519 (RFC 8032).
    EdDsa,
    /// -7: ECDSA on P-256 with SHA-256.
    Es256,
    /// -35: ECDSA on P-384 with SHA-384.
    Es384,
    /// -36: ECDSA on P-521 with SHA-512.
    Es512,
    /// -257: RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// All supported algorithms.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Es512, Self::Rs256];

    /// The algorithms that cover every authenticator in use, the preferred one first (section 5.4, L3). RS256 is last:
    /// it is for TPMs that support nothing else.
    pub const OFFERED: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// Returns the algorithm's number in the COSE registry.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::EdDsa => -8,
            Self::Es256 => -7,
            Self::Es384 => -35,
            Self::Es512 => -36,
            Self::Rs256 => -257,
        }
    }

    /// Returns the algorithm with this number, or `None` if it isn't supported.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    fn shape(self) -> Shape {
        match self {
            Self::EdDsa => {
                Shape { key_type: 1, curve: 6, coordinate: ED25519_POINT, law: &ED25519 }
            }
            Self::Es256 => {
                Shape { key_type: 2, curve: 1, coordinate: 32, law: &ECDSA_P256_SHA256_ASN1 }
            }
            Self::Es384 => {
                Shape { key_type: 2, curve: 2, coordinate: 48, law: &ECDSA_P384_SHA384_ASN1 }
            }
            Self::Es512 => {
                Shape { key_type: 2, curve: 3, coordinate: 66, law: &ECDSA_P521_SHA512_ASN1 }
            }
            Self::Rs256 => {
                Shape { key_type: 3, curve: 0, coordinate: 0, law: &RSA_PKCS1_2048_8192_SHA256 }
            }
        }
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.number())
    }
}

/// The structure of an algorithm's COSE keys, and the implementation that verifies its signatures.
struct Shape {
    key_type: i64,
    curve: i64,
    /// In bytes.
    coordinate: usize,
    law: &'static dyn VerificationAlgorithm,
}

/// The checked public key of a credential, with the bytes that the authenticator sent.
#[derive(Clone)]
pub struct PublicKey {
    cose: Vec<u8>,
    algorithm: Algorithm,
    parsed: ParsedPublicKey,
    /// The uncompressed point of an ECDSA key.
    pub(super) point: Option<Vec<u8>>,
}

impl PublicKey {
    /// Reads a COSE key that fills `bytes`: what an authenticator sent, or what [`PublicKey::as_bytes`] returned for
    /// storage.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` isn't such a key, its members contradict each other, its point isn't on P-256, P-384
    /// or P-521 (an Ed25519 point is checked with each signature), its RSA modulus isn't 2048 to 4096 bits long, or its
    /// algorithm isn't supported.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WebauthnError> {
        let map = cbor::whole_map(bytes)?;
        let number = integer(&map, ALGORITHM)?;
        let algorithm =
            Algorithm::from_number(number).ok_or(WebauthnError::UnsupportedAlgorithm)?;
        if integer(&map, KEY_TYPE)? != algorithm.shape().key_type {
            return Err(WebauthnError::BadKey);
        }
        let (parsed, point) = match algorithm {
            Algorithm::EdDsa => (octet_key(&map, &algorithm.shape())?, None),
            Algorithm::Rs256 => (rsa_key(&map)?, None),
            _ => {
                let (parsed, point) = curve_key(&map, &algorithm.shape())?;
                (parsed, Some(point))
            }
        };
        Ok(Self { cose: bytes.to_vec(), algorithm, parsed, point })
    }

    /// Reads the COSE key of a registration. In addition to what [`PublicKey::from_bytes`] reads, this is the malformed
    /// Ed25519 key of Firefox 115 to 118 in exactly its form. It is stored well formed.
    pub(super) fn registered(bytes: &[u8]) -> Result<Self, WebauthnError> {
        match bytes.strip_prefix(&MALFORMED_ED25519) {
            // A point of another length doesn't fit what comes before it.
            Some(point) => Self::from_bytes(&[&ED25519_BEFORE, point].concat()),
            None => Self::from_bytes(bytes),
        }
    }

    /// Returns the COSE key, to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.cose
    }

    /// Returns the key's algorithm, which never changes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), WebauthnError> {
        self.parsed.verify_sig(message, signature).map_err(|_| WebauthnError::BadSignature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.cose == other.cose
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({:?})", self.algorithm)
    }
}

/// Parses an Ed25519 key (RFC 8037 2). Ed448 has the number -53, or -8 with a different curve.
fn octet_key(map: &Map, shape: &Shape) -> Result<ParsedPublicKey, WebauthnError> {
    if integer(map, CURVE)? != shape.curve {
        return Err(WebauthnError::UnsupportedAlgorithm);
    }
    let x = bytes(map, X)?;
    if map.len() != 4 || x.len() != shape.coordinate {
        return Err(WebauthnError::BadKey);
    }
    ParsedPublicKey::new(shape.law, x).map_err(|_| WebauthnError::BadKey)
}

/// Parses an elliptic curve key. Its point is uncompressed, as section 5.8.5 requires; the library ensures that the
/// point is on the curve.
fn curve_key(map: &Map, shape: &Shape) -> Result<(ParsedPublicKey, Vec<u8>), WebauthnError> {
    let (x, y) = (bytes(map, X)?, bytes(map, Y)?);
    let fits = integer(map, CURVE)? == shape.curve
        && map.len() == 5
        && x.len() == shape.coordinate
        && y.len() == shape.coordinate;
    if !fits {
        return Err(WebauthnError::BadKey);
    }
    let point = [&[4], x, y].concat();
    let parsed = ParsedPublicKey::new(shape.law, &point).map_err(|_| WebauthnError::BadKey)?;
    Ok((parsed, point))
}

/// Parses an RSA key: a modulus of 2048 to 4096 bits, and an odd exponent of at least 65537 and at most four bytes.
fn rsa_key(map: &Map) -> Result<ParsedPublicKey, WebauthnError> {
    let (n, e) = (bytes(map, MODULUS)?, bytes(map, EXPONENT)?);
    let first = n.first().copied().unwrap_or(0);
    let bits = (n.len() * 8).saturating_sub(first.leading_zeros() as usize);
    let exponent = e.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let fits = map.len() == 4
        && first != 0
        && (2048..=4096).contains(&bits)
        && n.last().is_some_and(|last| last % 2 == 1)
        && e.len() <= 4
        && e.first().is_some_and(|first| *first != 0)
        && exponent >= 65_537
        && exponent % 2 == 1;
    if !fits {
        return Err(WebauthnError::BadKey);
    }
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| WebauthnError::BadKey)
}

fn integer(map: &Map, key: i64) -> Result<i64, WebauthnError> {
    map.integer_key(key).and_then(cbor::integer).ok_or(WebauthnError::BadKey)
}

fn bytes(map: &Map, key: i64) -> Result<&[u8], WebauthnError> {
    let value = map.integer_key(key).and_then(|value| value.as_bytes());
    value.map(Vec::as_slice).ok_or(WebauthnError::BadKey)
}
