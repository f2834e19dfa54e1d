//! An authenticator app for one-time codes, and the sign-ins that require it.

use std::time::Duration;

use axum::http::StatusCode;
use palisade_crypto::totp::TotpSecret;
use serde_json::json;

use super::{Answer, Client, TestApp, place};

/// How long an app shows a code before the next one.
pub const STEP: Duration = Duration::from_secs(30);
/// The path at which challenges are answered.
pub const MFA: &str = "/api/v1/auth/login/mfa";

/// An authenticator app set up by typing the secret.
pub struct Phone(TotpSecret);

impl Phone {
    /// Creates an app with this secret, in base32 (RFC 4648 section 6).
    pub fn new(secret: &str) -> Self {
        let mut bits = 0u32;
        let (mut count, mut bytes) = (0, Vec::new());
        for letter in secret.bytes() {
            let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|at| *at == letter);
            bits = bits << 5 | u32::try_from(value.unwrap()).unwrap();
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
                bits &= (1 << count) - 1;
            }
        }
        Self(TotpSecret::from_bytes(&bytes).unwrap())
    }

    /// Returns the secret, as bytes.
    pub fn secret(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Returns the code that the app shows now.
    pub fn code(&self, app: &TestApp) -> String {
        let now = u64::try_from(app.app.clock.now().as_seconds()).unwrap();
        self.0.code(now).expose().to_owned()
    }

    /// Returns a code that is wrong for every step near the current one.
    pub fn wrong(&self, app: &TestApp) -> String {
        let now = u64::try_from(app.app.clock.now().as_seconds()).unwrap();
        let near: Vec<_> = (0..5).map(|step| self.0.code(now + 30 * step - 60)).collect();
        (0..10u32)
            .map(|code| format!("{code:06}"))
            .find(|code| near.iter().all(|other| other.expose() != code))
            .unwrap()
    }
}

/// Sets up an app for the signed-in user. Returns the recovery codes too.
pub async fn enrol(client: &Client<'_>) -> (Phone, Vec<String>) {
    let made = client.act("/api/v1/users/me/totp").await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.raw);
    let phone = Phone::new(&made.text("secret"));
    let code = phone.code(client.app);
    let done = client.post("/api/v1/users/me/totp/confirm", json!({ "code": code })).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    let codes = done.body["recovery_codes"].as_array().unwrap();
    (phone, codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect())
}

/// Creates a user with an app, and moves the clock past the app's first code.
pub async fn with_phone(app: &TestApp, email: &str) -> (Phone, Vec<String>) {
    app.user(email).await;
    let enrolled = enrol(&app.token(email).await).await;
    app.advance(STEP).await;
    enrolled
}

/// Signs in with the correct password. Returns the token of the challenge.
pub async fn challenge(client: &Client<'_>, email: &str) -> String {
    let answer = client.login(email).await;
    assert_eq!(place(&answer), (401, "", "login.mfa_required"), "{}", answer.raw);
    answer.text("mfa_token")
}

/// Answers a challenge.
pub async fn answer_with(client: &Client<'_>, token: &str, method: &str, code: &str) -> Answer {
    client.post(MFA, json!({ "mfa_token": token, "method": method, "code": code })).await
}

/// Signs in with the password and a code from the app.
pub async fn sign_in<'a>(app: &'a TestApp, email: &str, phone: &Phone) -> Client<'a> {
    let anyone = app.anyone();
    let token = challenge(&anyone, email).await;
    let done = answer_with(&anyone, &token, "totp", &phone.code(app)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    anyone.with_token(done.text("access_token"))
}
