//! Passkeys in software: set up, and signing in.

use axum::http::{Method, StatusCode};
use palisade_crypto::random::OsRandom;
use palisade_crypto::webauthn::Algorithm;
use serde_json::{Value, json};

pub use palisade_crypto::webauthn::testing::SoftAuthenticator;

use super::{Answer, Call, Client, TestApp};

/// Where the pages of a [`TestApp`] come from, as a browser says it.
pub const ORIGIN: &str = "http://localhost:8000";
/// Where a sign-in with a passkey begins.
pub const BEGIN: &str = "/api/v1/auth/login/passkey/begin";
/// Where it ends.
pub const FINISH: &str = "/api/v1/auth/login/passkey/finish";
/// The passkeys of the signed-in user.
pub const MINE: &str = "/api/v1/users/me/passkeys";

/// A new passkey, which no one knows yet.
pub fn key() -> SoftAuthenticator {
    SoftAuthenticator::new(Algorithm::Es256, &OsRandom)
}

/// Sets up a passkey for the signed-in user.
pub async fn register(client: &Client<'_>, key: &mut SoftAuthenticator) -> Answer {
    let options = client.act(&format!("{MINE}/begin")).await;
    assert_eq!(options.status, StatusCode::OK, "{}", options.raw);
    let body = json!({ "credential": key.register(&options.body, ORIGIN), "name": "Key" });
    client.post(&format!("{MINE}/finish"), body).await
}

/// A user with a passkey, and no one signed in.
pub async fn with_key(app: &TestApp, email: &str) -> SoftAuthenticator {
    app.user(email).await;
    let mut key = key();
    let made = register(&app.token(email).await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    key
}

/// Asks for the options of a sign-in with a passkey.
pub async fn begin(client: &Client<'_>) -> Value {
    let options = client.send(Call::new(Method::POST, BEGIN)).await;
    assert_eq!(options.status, StatusCode::OK, "{}", options.raw);
    options.body
}

/// Signs in with what a passkey made of the options.
pub async fn finish(client: &Client<'_>, credential: Value) -> Answer {
    client.post(FINISH, json!({ "credential": credential })).await
}
