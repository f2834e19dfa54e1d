//! `/.well-known/jwks.json` (RFC 7517) and `/.well-known/paseto-keys.json` (PASERK).

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use palisade_crypto::token::TokenKey;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::access::ANYONE;
use crate::app::App;
use crate::error::Result;
use crate::http::Routes;
use crate::http::describe::{Describe, Description};
use crate::keys;

/// A response with public keys. It may be cached only briefly, so that verifiers soon get new keys. On an unknown
/// `kid`, a verifier should fetch the keys again immediately.
struct Published<T>(T);

impl<T: Serialize> IntoResponse for Published<T> {
    fn into_response(self) -> Response {
        let cache = format!("public, max-age={}", keys::PUBLISHED_MAX_AGE.as_secs());
        ([(CACHE_CONTROL, cache)], Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Describe for Published<T> {
    fn describe(handler: &mut Description) {
        Json::<T>::describe(handler);
    }
}

/// A JSON Web Key Set (RFC 7517 section 5).
#[derive(Serialize, JsonSchema)]
struct Jwks {
    /// The public keys for JWTs (RFC 8037 and RFC 7518).
    #[schemars(with = "Vec<serde_json::Map<String, Value>>")]
    keys: Vec<Value>,
}

/// The public keys for PASETOs.
#[derive(Serialize, JsonSchema)]
struct PasetoKeys {
    keys: Vec<PasetoKey>,
}

#[derive(Serialize, JsonSchema)]
struct PasetoKey {
    /// The PASERK id of the key, as in the footer of the tokens: `k4.pid.…`.
    kid: String,
    /// The key in PASERK form: `k4.public.…`.
    key: String,
}

pub(super) fn routes() -> Routes {
    Routes::root()
        .get("/.well-known/jwks.json", ANYONE, jwks)
        .summary(
            "Returns the public keys that verify JWTs.\n\nA key that replaces another one is listed for 15 \
             minutes before it signs, unless the other one was dropped after a compromise.",
        )
        .get("/.well-known/paseto-keys.json", ANYONE, paseto_keys)
        .summary(
            "Returns the public keys that verify PASETOs.\n\nA key that replaces another one is listed for 15 \
             minutes before it signs, unless the other one was dropped after a compromise.",
        )
}

async fn jwks(State(app): State<App>) -> Result<Published<Jwks>> {
    let ring = keys::ring(&app).await?;
    let keys = ring.tokens(app.clock.now()).filter_map(TokenKey::jwk).collect();
    Ok(Published(Jwks { keys }))
}

async fn paseto_keys(State(app): State<App>) -> Result<Published<PasetoKeys>> {
    let ring = keys::ring(&app).await?;
    let keys = ring.tokens(app.clock.now());
    let keys =
        keys.filter_map(|key| Some(PasetoKey { kid: key.kid().to_owned(), key: key.paserk()? }));
    Ok(Published(PasetoKeys { keys: keys.collect() }))
}
