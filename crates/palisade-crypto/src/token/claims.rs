//! The claims of an access token, and the rules that they must satisfy.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::TokenError;

/// The maximum lifetime of a token, plus a margin for rounding, in seconds.
const LONGEST_LIFE: i64 = 60 * 60 + 60;

/// How far in the future `iat` may be, because clocks differ between nodes, in seconds.
const ISSUED_AHEAD: i64 = 60;

/// The claims of an access token (RFC 9068 2.2). Those about the user are optional, all others are required. Times are
/// in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    /// Issuer: the site's public URL.
    pub iss: String,
    /// The audience of the token.
    pub aud: String,
    /// Subject: the user's id.
    pub sub: String,
    /// The client that requested the token.
    pub client_id: String,
    /// The session that the token belongs to. The token is refused once the session has ended.
    pub sid: String,
    /// The token's own id.
    pub jti: String,
    /// When the token was issued.
    pub iat: i64,
    /// When the token expires. It is no longer valid at this second.
    pub exp: i64,
    /// When the user last proved their identity.
    pub auth_time: i64,
    /// The methods with which the user proved their identity at `auth_time` (RFC 8176).
    pub amr: Vec<String>,
    /// The generation of the session's credentials that the token belongs to. A later generation replaces it.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// The names of the user's roles (RFC 9068 section 2.2.3.1).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub roles: Option<Vec<String>>,
    /// The user's permissions, separated by spaces (RFC 9068 section 2.2.3).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub scope: Option<String>,
    /// The user's email address.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub email: Option<String>,
    /// Whether the user has verified the email address.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub email_verified: Option<bool>,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub name: Option<String>,
}

impl AccessClaims {
    /// Checks the rules that depend neither on the time nor on the verifier.
    pub(super) fn check_shape(&self) -> Result<(), TokenError> {
        let texts = [
            ("iss", &self.iss),
            ("aud", &self.aud),
            ("sub", &self.sub),
            ("client_id", &self.client_id),
            ("sid", &self.sid),
            ("jti", &self.jti),
        ];
        if let Some((name, _)) = texts.into_iter().find(|(_, text)| text.is_empty()) {
            return Err(TokenError::BadClaim(name));
        }
        let life = self.exp.checked_sub(self.iat).ok_or(TokenError::BadClaim("exp"))?;
        if self.iat < 0 {
            Err(TokenError::BadClaim("iat"))
        } else if !(1..=LONGEST_LIFE).contains(&life) {
            Err(TokenError::BadClaim("exp"))
        } else if self.auth_time < 0 {
            Err(TokenError::BadClaim("auth_time"))
        } else if self.generation < 0 {
            Err(TokenError::BadClaim("gen"))
        } else {
            Ok(())
        }
    }

    /// Checks every rule: shape, issuer, audience and time.
    pub(super) fn check(&self, issuer: &str, audience: &str, now: i64) -> Result<(), TokenError> {
        self.check_shape()?;
        if self.iss != issuer {
            return Err(TokenError::BadClaim("iss"));
        }
        if self.aud != audience {
            return Err(TokenError::BadClaim("aud"));
        }
        if self.iat > now.saturating_add(ISSUED_AHEAD) {
            return Err(TokenError::BadClaim("iat"));
        }
        if now >= self.exp { Err(TokenError::Expired) } else { Ok(()) }
    }
}

/// Reads an optional claim, which is absent or has a value. `null` is refused.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    claim: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(claim).map(Some)
}

/// Reads one JSON object with exactly the members of `T`. serde would also accept an array for a struct.
pub(super) fn read_object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    if json.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(json).ok()
}
