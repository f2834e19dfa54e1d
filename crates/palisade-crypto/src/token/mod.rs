//! Access tokens: JWT (RFC 9068) and PASETO version 4, created and verified.
//!
//! # Promises
//!
//! - A key has one algorithm for its whole lifetime. A token names a key by its exact id; the key, never the token,
//!   determines the algorithm (RFC 8725 3.1).
//! - Keys come from the [`Verifier`]'s own set and from nowhere else: header members that contain or refer to keys are
//!   refused, as is every member that Palisade itself does not write.
//! - No claim is read before the signature has been verified.
//! - Claims are strictly typed; a token with a claim missing, repeated, unknown or of the wrong type is refused. Expiry
//!   has no leeway.
//! - A token states who signed in, not that the session is still active: that is checked elsewhere,
//!   on every request.

mod claims;
mod jwt;
mod key;
mod paseto;
mod signature;
mod verifier;

use std::{error, fmt};

pub use claims::AccessClaims;
pub use key::{TokenKey, TokenKeyError, VerificationKey};
pub use verifier::Verifier;

/// The maximum length of an access token, in bytes.
pub const LONGEST_TOKEN: usize = 4096;

/// Returns whether a token with these claims would not be longer than [`LONGEST_TOKEN`].
#[must_use]
pub fn fits(algorithm: Algorithm, claims: &AccessClaims) -> bool {
    let length = if algorithm.is_jwt() {
        jwt::length(algorithm, claims)
    } else {
        paseto::length(algorithm, claims)
    };
    length.is_some_and(|length| length <= LONGEST_TOKEN)
}

/// Returns the length of `bytes` bytes in base64url without padding.
fn encoded_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// How a token is signed or sealed. Each key has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// JWT signed with Ed25519 (RFC 8037).
    EdDsa,
    /// JWT signed with ECDSA on P-256 and SHA-256 (RFC 7518 3.4).
    Es256,
    /// PASETO `v4.public`: signed with Ed25519.
    PasetoV4Public,
    /// PASETO `v4.local`: encrypted with XChaCha20 and authenticated with BLAKE2b.
    PasetoV4Local,
}

impl Algorithm {
    /// Returns the name used in settings, in `alg` and in storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::PasetoV4Public => "v4.public",
            Self::PasetoV4Local => "v4.local",
        }
    }

    /// Returns the algorithm with this exact name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Es256, Self::PasetoV4Public, Self::PasetoV4Local]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// Returns whether tokens of this algorithm are JWTs. The others are PASETOs.
    #[must_use]
    pub fn is_jwt(self) -> bool {
        matches!(self, Self::EdDsa | Self::Es256)
    }
}

/// Why a token is refused. For logs and decisions; the response to a client reveals only that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not a kind of token that Palisade creates: size, shape, encoding, header or footer.
    Malformed,
    /// The token names no key, or none in the verifier's set. The caller may reload the keys once.
    UnknownKey,
    /// The signature is wrong, or the token's algorithm is not the algorithm of its key.
    BadSignature,
    /// Correctly signed, but a claim is missing, unknown, of the wrong type or of an unacceptable value; the text names
    /// it.
    BadClaim(&'static str),
    /// The token is valid in every other respect, but has expired.
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => formatter.write_str("not an access token"),
            Self::UnknownKey => formatter.write_str("the access token names no known key"),
            Self::BadSignature => formatter.write_str("the access token is not signed by its key"),
            Self::BadClaim(claim) => write!(formatter, "the access token has a bad {claim}"),
            Self::Expired => formatter.write_str("the access token has expired"),
        }
    }
}

impl error::Error for TokenError {}

#[cfg(test)]
mod tests;
