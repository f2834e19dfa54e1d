//! PASETO version 4: the same claims, times as RFC 3339 text, the key's id in the footer, no
//! implicit assertion.

use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, PublicToken, V4};
use pasetors::{Local, Public};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::claims::read_object;
use super::key::{Signing, TokenKey, TokenKeyError, VerificationKey, Verifying};
use super::{AccessClaims, TokenError};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    kid: Option<String>,
}

/// The claims as PASETO writes them.
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
}

pub(super) fn sign(key: &TokenKey, claims: &AccessClaims) -> Result<String, TokenKeyError> {
    let payload = payload_of(claims).ok_or(TokenKeyError::BadClaims)?;
    let payload = serde_json::to_vec(&payload).map_err(|_| TokenKeyError::BadClaims)?;
    let footer = Footer { kid: Some(key.kid().to_owned()) };
    let footer = serde_json::to_vec(&footer).map_err(|_| TokenKeyError::BadClaims)?;
    match key.signing() {
        Signing::PasetoV4Public(secret) => PublicToken::sign(secret, &payload, Some(&footer), None),
        Signing::PasetoV4Local(secret) => {
            LocalToken::encrypt(secret, &payload, Some(&footer), None)
        }
        Signing::EdDsa(_) | Signing::Es256(_) => return Err(TokenKeyError::BadKey),
    }
    .map_err(|_| TokenKeyError::NotSigned)
}

/// The claims of a `v4.public` token if a key that `find` knows signed them.
pub(super) fn read_public<'a>(
    token: &str,
    find: impl FnOnce(&str) -> Option<&'a VerificationKey>,
) -> Result<AccessClaims, TokenError> {
    let untrusted =
        UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::Malformed)?;
    let key = find(&kid_of(untrusted.untrusted_footer())?).ok_or(TokenError::UnknownKey)?;
    let Verifying::PasetoV4Public(public) = &key.material else {
        return Err(TokenError::BadSignature);
    };
    let trusted = PublicToken::verify(public, &untrusted, None, None)
        .map_err(|_| TokenError::BadSignature)?;
    claims_of(trusted.payload())
}

/// The claims of a `v4.local` token if a key that `find` knows encrypted them.
pub(super) fn read_local<'a>(
    token: &str,
    find: impl FnOnce(&str) -> Option<&'a VerificationKey>,
) -> Result<AccessClaims, TokenError> {
    let untrusted =
        UntrustedToken::<Local, V4>::try_from(token).map_err(|_| TokenError::Malformed)?;
    let key = find(&kid_of(untrusted.untrusted_footer())?).ok_or(TokenError::UnknownKey)?;
    let Verifying::PasetoV4Local(secret) = &key.material else {
        return Err(TokenError::BadSignature);
    };
    let trusted = LocalToken::decrypt(secret, &untrusted, None, None)
        .map_err(|_| TokenError::BadSignature)?;
    claims_of(trusted.payload())
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
    })
}

fn to_rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// Only the spelling that `to_rfc3339` makes: whole seconds, `Z`.
fn from_rfc3339(text: &str) -> Option<i64> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    (to_rfc3339(seconds)? == text).then_some(seconds)
}
