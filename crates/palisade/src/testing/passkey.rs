//! Passkeys in software: setup and sign-in.

use axum::http::{Method, StatusCode};
use palisade_crypto::random::OsRandom;
use palisade_crypto::webauthn::Algorithm;
use serde_json::{Value, json};

pub use palisade_crypto::webauthn::testing::SoftAuthenticator;

use super::{Answer, Call, Client, TestApp};

/// The origin of the pages of a [`TestApp`], as a browser sends it.
pub const ORIGIN: &str = "http://localhost:8000";
/// The path at which a sign-in with a passkey begins.
pub const BEGIN: &str = "/api/v1/auth/login/passkey/begin";
/// The path at which a sign-in with a passkey is finished.
pub const FINISH: &str = "/api/v1/auth/login/passkey/finish";
/// The path of the signed-in user's passkeys.
pub const MINE: &str = "/api/v1/users/me/passkeys";

/// Creates a passkey that is not registered yet.
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

/// Creates a user with a passkey, without signing in.
pub async fn with_key(app: &TestApp, email: &str) -> SoftAuthenticator {
    app.user(email).await;
    let mut key = key();
    let made = register(&app.token(email).await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    key
}

/// Requests the options for a sign-in with a passkey.
pub async fn begin(client: &Client<'_>) -> Value {
    let options = client.send(Call::new(Method::POST, BEGIN)).await;
    assert_eq!(options.status, StatusCode::OK, "{}", options.raw);
    options.body
}

/// Signs in with a passkey's response to the options.
pub async fn finish(client: &Client<'_>, credential: Value) -> Answer {
    client.post(FINISH, json!({ "credential": credential })).await
}
