//! `/.well-known/jwks.json` (RFC 7517) and `/.well-known/paseto-keys.json` (PASERK).

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use serde_json::{Value, json};

use crate::access::ANYONE;
use crate::app::App;
use crate::error::Result;
use crate::http::Routes;
use crate::keys;

type Published = ([(HeaderName, &'static str); 1], Json<Value>);

/// Short enough that a verifier sees a new key soon; on an unknown `kid` it should look at once.
const CACHED: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=300")];

pub(super) fn routes() -> Routes {
    Routes::root().get("/.well-known/jwks.json", ANYONE, jwks).get(
        "/.well-known/paseto-keys.json",
        ANYONE,
        paseto_keys,
    )
}

async fn jwks(State(app): State<App>) -> Result<Published> {
    let ring = keys::ring(&app).await?;
    let keys: Vec<Value> = ring.tokens().iter().filter_map(|key| key.jwk()).collect();
    Ok((CACHED, Json(json!({ "keys": keys }))))
}

async fn paseto_keys(State(app): State<App>) -> Result<Published> {
    let ring = keys::ring(&app).await?;
    let keys: Vec<Value> = ring
        .tokens()
        .iter()
        .filter_map(|key| key.paserk().map(|public| json!({ "kid": key.kid(), "key": public })))
        .collect();
    Ok((CACHED, Json(json!({ "keys": keys }))))
}
