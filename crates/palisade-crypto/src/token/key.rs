//! Token keys: how they are created, stored, named and published.

use std::{error, fmt};

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pasetors::keys::{AsymmetricPublicKey, AsymmetricSecretKey, SymmetricKey};
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::version4::V4;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{AccessClaims, Algorithm, LONGEST_TOKEN, jwt, paseto, signature};
use crate::random::Random;
use crate::secret::SecretBytes;

/// A key that creates tokens with one algorithm.
///
/// Its private half is 32 bytes for every algorithm: the seed of Ed25519 (RFC 8032), the scalar of
/// P-256 (big endian), or the key of `v4.local`.
pub struct TokenKey {
    signing: Signing,
    private: Zeroizing<[u8; 32]>,
    verification: VerificationKey,
}

pub(super) enum Signing {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    PasetoV4Public(AsymmetricSecretKey<V4>),
    PasetoV4Local(SymmetricKey<V4>),
}

/// The key that verifies the tokens of one [`TokenKey`]. For `v4.local` this is the secret key
/// itself, so treat every value of this type as secret.
#[derive(Clone)]
pub struct VerificationKey {
    kid: String,
    pub(super) material: Verifying,
}

#[derive(Clone)]
pub(super) enum Verifying {
    EdDsa([u8; 32]),
    /// The coordinates of the public point.
    Es256([u8; 32], [u8; 32]),
    PasetoV4Public(AsymmetricPublicKey<V4>),
    PasetoV4Local(SymmetricKey<V4>),
}

impl TokenKey {
    /// Creates a key from `random`.
    ///
    /// # Errors
    ///
    /// Returns an error if `random` yields no usable key in eight attempts, which does not happen with a real source of
    /// randomness.
    pub fn generate(algorithm: Algorithm, random: &dyn Random) -> Result<Self, TokenKeyError> {
        for _ in 0..8 {
            let mut bytes = Zeroizing::new([0; 32]);
            random.fill(bytes.as_mut());
            if let Ok(key) = Self::from_private(algorithm, bytes.as_ref()) {
                return Ok(key);
            }
        }
        Err(TokenKeyError::BadKey)
    }

    /// Restores a key from the bytes that [`TokenKey::private`] returned.
    ///
    /// # Errors
    ///
    /// Returns an error if `private` is all zero, is not 32 bytes long, or, for ES256, is not a valid P-256 scalar.
    pub fn from_private(algorithm: Algorithm, private: &[u8]) -> Result<Self, TokenKeyError> {
        let bytes: [u8; 32] = private.try_into().map_err(|_| TokenKeyError::BadKey)?;
        let private = Zeroizing::new(bytes);
        if *private == [0; 32] {
            return Err(TokenKeyError::BadKey);
        }
        let (signing, verifying) = match algorithm {
            Algorithm::EdDsa => ed_dsa(&private)?,
            Algorithm::Es256 => es256(&private)?,
            Algorithm::PasetoV4Public => paseto_public(&private)?,
            Algorithm::PasetoV4Local => paseto_local(&private)?,
        };
        Ok(Self { signing, private, verification: VerificationKey::new(verifying)? })
    }

    /// Returns the private half, 32 bytes, to be sealed and stored.
    #[must_use]
    pub fn private(&self) -> SecretBytes {
        SecretBytes::from(self.private.to_vec())
    }

    /// Returns the key's id: for JWT keys the thumbprint of RFC 7638, for PASETO keys the PASERK id (`k4.pid.…`,
    /// `k4.lid.…`). It is computed from the public half or, for `v4.local`, from the secret key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.verification.kid
    }

    /// Returns the one algorithm of this key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.verification.algorithm()
    }

    /// Returns the key that verifies this key's tokens.
    #[must_use]
    pub fn verification(&self) -> VerificationKey {
        self.verification.clone()
    }

    /// Creates a token with these claims.
    ///
    /// EdDSA and `v4.public` need no randomness to sign. The libraries for ES256 and `v4.local`
    /// obtain theirs only from the operating system, so `_random` is never read.
    ///
    /// # Errors
    ///
    /// Returns an error if every verifier would refuse the claims regardless of the time, if the token would be too
    /// long, or if the library fails to sign.
    pub fn sign(
        &self,
        claims: &AccessClaims,
        _random: &dyn Random,
    ) -> Result<String, TokenKeyError> {
        claims.check_shape().map_err(|_| TokenKeyError::BadClaims)?;
        let token = if self.algorithm().is_jwt() {
            jwt::sign(self, claims)?
        } else {
            paseto::sign(self, claims)?
        };
        if token.len() > LONGEST_TOKEN { Err(TokenKeyError::BadClaims) } else { Ok(token) }
    }

    /// Signs a statement that is not an access token, as a compact JWS of this `typ`.
    ///
    /// # Errors
    ///
    /// Returns an error if `typ` is the type of access tokens, if the key is not a JWT key, or if the library fails to
    /// sign.
    pub fn sign_statement(&self, typ: &str, claims: &Value) -> Result<String, TokenKeyError> {
        jwt::sign_statement(self, typ, claims)
    }

    /// Returns the public half as a JSON Web Key (RFC 7517, RFC 8037), or `None` for PASETO keys.
    #[must_use]
    pub fn jwk(&self) -> Option<Value> {
        self.verification.jwk()
    }

    /// Returns the public half as PASERK, `k4.public.…`, or `None` for JWT keys and for `v4.local`, which has no public
    /// half.
    #[must_use]
    pub fn paserk(&self) -> Option<String> {
        match &self.verification.material {
            Verifying::PasetoV4Public(public) => paserk_text(public),
            _ => None,
        }
    }

    pub(super) fn signing(&self) -> &Signing {
        &self.signing
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKey({}, {})", self.algorithm().as_str(), self.kid())
    }
}

impl VerificationKey {
    pub(super) fn new(material: Verifying) -> Result<Self, TokenKeyError> {
        let kid = match &material {
            Verifying::PasetoV4Public(public) => paserk_text(&Id::from(public)),
            Verifying::PasetoV4Local(key) => paserk_text(&Id::from(key)),
            jwt => thumbprint(jwt),
        };
        Ok(Self { kid: kid.ok_or(TokenKeyError::BadKey)?, material })
    }

    /// Returns the key's id, like [`TokenKey::kid`].
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the one algorithm of this key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Verifying::EdDsa(_) => Algorithm::EdDsa,
            Verifying::Es256(..) => Algorithm::Es256,
            Verifying::PasetoV4Public(_) => Algorithm::PasetoV4Public,
            Verifying::PasetoV4Local(_) => Algorithm::PasetoV4Local,
        }
    }

    fn jwk(&self) -> Option<Value> {
        let mut jwk = required_members(&self.material)?;
        let members = jwk.as_object_mut()?;
        members.insert("kid".to_owned(), json!(self.kid));
        members.insert("alg".to_owned(), json!(self.algorithm().as_str()));
        members.insert("use".to_owned(), json!("sig"));
        Some(jwk)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerificationKey({}, {})", self.algorithm().as_str(), self.kid)
    }
}

/// Returns the members that make up the thumbprint, in the order of RFC 7638 3.3, because serde_json sorts them.
fn required_members(material: &Verifying) -> Option<Value> {
    let encode = |bytes: &[u8; 32]| URL_SAFE_NO_PAD.encode(bytes);
    match material {
        Verifying::EdDsa(x) => Some(json!({"crv": "Ed25519", "kty": "OKP", "x": encode(x)})),
        Verifying::Es256(x, y) => {
            Some(json!({"crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y)}))
        }
        Verifying::PasetoV4Public(_) | Verifying::PasetoV4Local(_) => None,
    }
}

fn thumbprint(material: &Verifying) -> Option<String> {
    let members = required_members(material)?.to_string();
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(members)))
}

pub(super) fn paserk_text(value: &impl FormatAsPaserk) -> Option<String> {
    let mut text = String::new();
    value.fmt(&mut text).ok()?;
    Some(text)
}

fn ed25519_public(pair: &Ed25519KeyPair) -> Result<[u8; 32], TokenKeyError> {
    pair.public_key().as_ref().try_into().map_err(|_| TokenKeyError::BadKey)
}

fn ed_dsa(seed: &[u8; 32]) -> Result<(Signing, Verifying), TokenKeyError> {
    let pair = signature::ed25519_pair(seed)?;
    let public = ed25519_public(&pair)?;
    Ok((Signing::EdDsa(pair), Verifying::EdDsa(public)))
}

fn es256(scalar: &[u8; 32]) -> Result<(Signing, Verifying), TokenKeyError> {
    let pair = signature::p256_pair(scalar)?;
    let (x, y) = signature::p256_coordinates(&pair).ok_or(TokenKeyError::BadKey)?;
    Ok((Signing::Es256(pair), Verifying::Es256(x, y)))
}

fn paseto_public(seed: &[u8; 32]) -> Result<(Signing, Verifying), TokenKeyError> {
    let public = ed25519_public(&signature::ed25519_pair(seed)?)?;
    let both = Zeroizing::new([seed.as_slice(), &public].concat());
    let secret = AsymmetricSecretKey::from(&both).map_err(|_| TokenKeyError::BadKey)?;
    let public = AsymmetricPublicKey::from(&public).map_err(|_| TokenKeyError::BadKey)?;
    Ok((Signing::PasetoV4Public(secret), Verifying::PasetoV4Public(public)))
}

fn paseto_local(key: &[u8; 32]) -> Result<(Signing, Verifying), TokenKeyError> {
    let key = SymmetricKey::from(key).map_err(|_| TokenKeyError::BadKey)?;
    Ok((Signing::PasetoV4Local(key.clone()), Verifying::PasetoV4Local(key)))
}

/// Why a key or a token could not be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKeyError {
    /// The bytes are not a private key for the algorithm, or the key can't create a token of this kind.
    BadKey,
    /// The claims break a rule that every verifier checks, or make the token too long; or a statement has the type of
    /// access tokens.
    BadClaims,
    /// The cryptographic library could not sign.
    NotSigned,
}

impl fmt::Display for TokenKeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BadKey => "the key is not a private key for the algorithm",
            Self::BadClaims => "no access token can be built from these claims",
            Self::NotSigned => "the access token could not be signed",
        })
    }
}

impl error::Error for TokenKeyError {}
