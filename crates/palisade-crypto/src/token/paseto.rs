//! PASETO version 4: the same claims, times as RFC 3339 text, the key's id in the footer, no
//! implicit assertion.

use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, PublicToken, V4};
use pasetors::{Local, Public};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::claims::{present, read_object};
use super::key::{Signing, TokenKey, TokenKeyError, VerificationKey, Verifying};
use super::{AccessClaims, Algorithm, TokenError, encoded_length};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    kid: Option<String>,
}

/// The claims as PASETO encodes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    iss: String,
    aud: String,
    sub: String,
    client_id: String,
    sid: String,
    jti: String,
    iat: String,
    exp: String,
    auth_time: String,
    amr: Vec<String>,
    #[serde(rename = "gen")]
    generation: i64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    roles: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    email_verified: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    name: Option<String>,
}

pub(super) fn sign(key: &TokenKey, claims: &AccessClaims) -> Result<String, TokenKeyError> {
    let payload = payload_of(claims).ok_or(TokenKeyError::BadClaims)?;
    let payload = serde_json::to_vec(&payload).map_err(|_| TokenKeyError::BadClaims)?;
    let footer = Footer { kid: Some(key.kid().to_owned()) };
    let footer = serde_json::to_vec(&footer).map_err(|_| TokenKeyError::BadClaims)?;
    protect(key.signing(), &payload, Some(&footer))
}

/// Returns the length of the token with these claims.
pub(super) fn length(algorithm: Algorithm, claims: &AccessClaims) -> Option<usize> {
    let (header, kid, protection) = match algorithm {
        Algorithm::PasetoV4Local => (LocalToken::HEADER, "k4.lid.", 32 + 32),
        _ => (PublicToken::HEADER, "k4.pid.", 64),
    };
    let payload = serde_json::to_vec(&payload_of(claims)?).ok()?;
    // A PASERK id has 44 characters after its header.
    let footer = Footer { kid: Some(format!("{kid}{}", "A".repeat(44))) };
    let footer = serde_json::to_vec(&footer).ok()?;
    let body = encoded_length(payload.len() + protection);
    Some(header.len() + body + 1 + encoded_length(footer.len()))
}

/// Signs or encrypts `payload`, depending on the kind of key.
pub(super) fn protect(
    key: &Signing,
    payload: &[u8],
    footer: Option<&[u8]>,
) -> Result<String, TokenKeyError> {
    match key {
        Signing::PasetoV4Public(secret) => PublicToken::sign(secret, payload, footer, None),
        Signing::PasetoV4Local(secret) => LocalToken::encrypt(secret, payload, footer, None),
        Signing::EdDsa(_) | Signing::Es256(_) => return Err(TokenKeyError::BadKey),
    }
    .map_err(|_| TokenKeyError::NotSigned)
}

/// Returns the claims of `token` if they are signed or encrypted by the key that `find` returns.
pub(super) fn read<'a>(
    token: &str,
    find: impl FnOnce(&str) -> Option<&'a VerificationKey>,
) -> Result<AccessClaims, TokenError> {
    let untrusted = Untrusted::parse(token)?;
    let key = find(&kid_of(untrusted.footer())?).ok_or(TokenError::UnknownKey)?;
    // SECURITY: claims are read only after `open` has verified or decrypted the token (test:
    // claims_are_not_read_before_the_signature_is_good).
    claims_of(&untrusted.open(&key.material)?)
}

/// A token whose form has been checked, but not its signature or encryption.
pub(super) enum Untrusted {
    Public(UntrustedToken<Public, V4>),
    Local(UntrustedToken<Local, V4>),
}

impl Untrusted {
    pub(super) fn parse(token: &str) -> Result<Self, TokenError> {
        if token.starts_with(PublicToken::HEADER) {
            UntrustedToken::try_from(token).map(Self::Public)
        } else {
            UntrustedToken::try_from(token).map(Self::Local)
        }
        .map_err(|_| TokenError::Malformed)
    }

    fn footer(&self) -> &[u8] {
        match self {
            Self::Public(token) => token.untrusted_footer(),
            Self::Local(token) => token.untrusted_footer(),
        }
    }

    /// Returns the payload if `key` is of the token's own kind and verifies or decrypts the token.
    pub(super) fn open(&self, key: &Verifying) -> Result<String, TokenError> {
        match (self, key) {
            (Self::Public(token), Verifying::PasetoV4Public(public)) => {
                PublicToken::verify(public, token, None, None)
            }
            (Self::Local(token), Verifying::PasetoV4Local(secret)) => {
                LocalToken::decrypt(secret, token, None, None)
            }
            _ => return Err(TokenError::BadSignature),
        }
        .map(|trusted| trusted.payload().to_owned())
        .map_err(|_| TokenError::BadSignature)
    }
}

fn kid_of(footer: &[u8]) -> Result<String, TokenError> {
    if footer.is_empty() {
        return Err(TokenError::UnknownKey);
    }
    let footer: Footer = read_object(footer).ok_or(TokenError::Malformed)?;
    footer.kid.ok_or(TokenError::UnknownKey)
}

fn payload_of(claims: &AccessClaims) -> Option<Payload> {
    let claims = claims.clone();
    Some(Payload {
        iat: to_rfc3339(claims.iat)?,
        exp: to_rfc3339(claims.exp)?,
        auth_time: to_rfc3339(claims.auth_time)?,
        iss: claims.iss,
        aud: claims.aud,
        sub: claims.sub,
        client_id: claims.client_id,
        sid: claims.sid,
        jti: claims.jti,
        amr: claims.amr,
        generation: claims.generation,
        roles: claims.roles,
        scope: claims.scope,
        email: claims.email,
        email_verified: claims.email_verified,
        name: claims.name,
    })
}

fn claims_of(payload: &str) -> Result<AccessClaims, TokenError> {
    let payload: Payload =
        read_object(payload.as_bytes()).ok_or(TokenError::BadClaim("claim set"))?;
    Ok(AccessClaims {
        iat: from_rfc3339(&payload.iat).ok_or(TokenError::BadClaim("iat"))?,
        exp: from_rfc3339(&payload.exp).ok_or(TokenError::BadClaim("exp"))?,
        auth_time: from_rfc3339(&payload.auth_time).ok_or(TokenError::BadClaim("auth_time"))?,
        iss: payload.iss,
        aud: payload.aud,
        sub: payload.sub,
        client_id: payload.client_id,
        sid: payload.sid,
        jti: payload.jti,
        amr: payload.amr,
        generation: payload.generation,
        roles: payload.roles,
        scope: payload.scope,
        email: payload.email,
        email_verified: payload.email_verified,
        name: payload.name,
    })
}

fn to_rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// Accepts only the form that `to_rfc3339` produces: whole seconds, `Z`.
fn from_rfc3339(text: &str) -> Option<i64> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    (to_rfc3339(seconds)? == text).then_some(seconds)
}
