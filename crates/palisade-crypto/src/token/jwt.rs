//! JWTs in the compact form (RFC 7515 7.1), profile RFC 9068.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claims::read_object;
use super::key::{Signing, TokenKey, TokenKeyError, VerificationKey, Verifying};
use super::{AccessClaims, Algorithm, TokenError, encoded_length, signature};

/// The type of access tokens (RFC 9068 2.1).
const TYPE: &str = "at+jwt";

/// The whole header: three members and no other, so nothing in it can provide a key (`jwk`, `x5c`), point to one
/// (`jku`, `x5u`) or request an extension (`crit`).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
    kid: Option<String>,
}

pub(super) fn sign(key: &TokenKey, claims: &AccessClaims) -> Result<String, TokenKeyError> {
    sign_as(key, TYPE, claims)
}

/// Signs a statement that is not an access token. Its type distinguishes it, so no verifier of access tokens accepts
/// it.
pub(super) fn sign_statement(
    key: &TokenKey,
    typ: &str,
    claims: &Value,
) -> Result<String, TokenKeyError> {
    // SECURITY: a statement must never work as an access token (test: a_statement_is_no_access_token).
    if typ == TYPE {
        return Err(TokenKeyError::BadClaims);
    }
    sign_as(key, typ, claims)
}

fn sign_as<T: Serialize>(key: &TokenKey, typ: &str, claims: &T) -> Result<String, TokenKeyError> {
    let header = Header {
        typ: typ.to_owned(),
        alg: key.algorithm().as_str().to_owned(),
        kid: Some(key.kid().to_owned()),
    };
    let header = serde_json::to_vec(&header).map_err(|_| TokenKeyError::BadClaims)?;
    let claims = serde_json::to_vec(claims).map_err(|_| TokenKeyError::BadClaims)?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = match key.signing() {
        Signing::EdDsa(pair) => pair.sign(token.as_bytes()).as_ref().to_vec(),
        Signing::Es256(pair) => signature::sign_p256(pair, token.as_bytes())?,
        Signing::PasetoV4Public(_) | Signing::PasetoV4Local(_) => {
            return Err(TokenKeyError::BadKey);
        }
    };
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// Returns the length of the token with these claims.
pub(super) fn length(algorithm: Algorithm, claims: &AccessClaims) -> Option<usize> {
    // An RFC 7638 thumbprint has 43 characters, and a signature 64 bytes.
    let kid = Some("A".repeat(43));
    let header = Header { typ: TYPE.to_owned(), alg: algorithm.as_str().to_owned(), kid };
    let header = encoded_length(serde_json::to_vec(&header).ok()?.len());
    let claims = encoded_length(serde_json::to_vec(claims).ok()?.len());
    Some(header + 1 + claims + 1 + encoded_length(64))
}

/// Returns the claims of `token` if they are signed by the key that `find` returns.
pub(super) fn read<'a>(
    token: &str,
    find: impl FnOnce(&str) -> Option<&'a VerificationKey>,
) -> Result<AccessClaims, TokenError> {
    let (signed, encoded_signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (encoded_header, encoded_claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = read_object(&decode(encoded_header)?).ok_or(TokenError::Malformed)?;
    if header.typ != TYPE {
        return Err(TokenError::Malformed);
    }
    let claims = decode(encoded_claims)?;
    let signature = decode(encoded_signature)?;
    let key = header.kid.and_then(|kid| find(&kid)).ok_or(TokenError::UnknownKey)?;
    // SECURITY: the key determines the algorithm, and `alg` must match it (RFC 8725 3.1). Claims are read only after
    // this check (tests: the_key_decides_the_algorithm_and_the_token_may_only_agree,
    // claims_are_not_read_before_the_signature_is_good).
    if header.alg != key.algorithm().as_str() || !is_signed(key, signed.as_bytes(), &signature) {
        return Err(TokenError::BadSignature);
    }
    read_object(&claims).ok_or(TokenError::BadClaim("claim set"))
}

fn is_signed(key: &VerificationKey, message: &[u8], signature: &[u8]) -> bool {
    match &key.material {
        Verifying::EdDsa(public) => signature::is_ed25519_signature(public, message, signature),
        Verifying::Es256(x, y) => {
            let point = [&[4], x.as_slice(), y].concat();
            signature::is_p256_signature(&point, message, signature)
        }
        Verifying::PasetoV4Public(_) | Verifying::PasetoV4Local(_) => false,
    }
}

/// Decodes base64url without padding and with unused bits zero, so that a token has exactly one encoding. A dot is
/// outside the alphabet, so a fourth part is refused here.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}
