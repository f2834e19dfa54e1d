//! The only code that verifies access tokens.

use std::collections::HashMap;
use std::fmt;

use super::{AccessClaims, LONGEST_TOKEN, TokenError, VerificationKey, jwt, paseto};

/// Verifies access tokens with a set of keys, one issuer and one audience.
pub struct Verifier {
    keys: HashMap<String, VerificationKey>,
    issuer: String,
    audience: String,
}

impl Verifier {
    /// Creates a verifier for tokens that one of `keys` signed or encrypted and that `issuer` issued for `audience`.
    #[must_use]
    pub fn new(keys: Vec<VerificationKey>, issuer: &str, audience: &str) -> Self {
        let keys = keys.into_iter().map(|key| (key.kid().to_owned(), key)).collect();
        Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned() }
    }

    /// Returns the claims of `token` if it was signed or encrypted with one of the keys and is valid at `now` (seconds
    /// since 1970). `iat` may be up to 60 s ahead; `exp` has no leeway.
    ///
    /// # Errors
    ///
    /// Returns [`TokenError::UnknownKey`] if the token names no key in the set: reload the keys once and try again.
    /// Every other error is final.
    pub fn verify(&self, token: &str, now: i64) -> Result<AccessClaims, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Malformed);
        }
        let find = |kid: &str| self.keys.get(kid);
        let claims = if token.starts_with("v4.") {
            paseto::read(token, find)?
        } else {
            jwt::read(token, find)?
        };
        claims.check(&self.issuer, &self.audience, now)?;
        Ok(claims)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, issuer, audience } = self;
        write!(formatter, "Verifier({} keys, {issuer}, {audience})", keys.len())
    }
}
