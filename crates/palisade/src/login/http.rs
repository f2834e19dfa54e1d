//! `POST /auth/login`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use palisade_crypto::secret::SecretString;
use serde::Deserialize;

use super::{Attempt, sign_in};
use crate::access::{ANYONE, Caller, same_origin};
use crate::app::App;
use crate::error::Result;
use crate::http::{Body, Routes};
use crate::limits::{Key, Rule};
use crate::sessions::{Transport, answer};
use crate::settings::TokenFormat;
use crate::users::check_name;

/// Sign-ins by address: enough for an office behind one address, too few for guessing.
pub(super) const PER_ADDRESS: Rule = Rule {
    name: "login_address",
    burst: 100,
    per: Duration::from_secs(60),
    key: Key::Address,
    says: "Too many sign-ins from this address; wait a moment.",
};

/// Sign-ins by account, whether it exists or not.
pub(super) const PER_ACCOUNT: Rule = Rule {
    name: "login_account",
    burst: 20,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    says: "Too many sign-ins to this account; wait a while.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth").post("/login", ANYONE.limit(&PER_ADDRESS), login)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    email: String,
    password: SecretString,
    device_name: Option<String>,
    token_format: Option<Format>,
    #[serde(default)]
    transport: Transport,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Jwt,
    Paseto,
}

impl From<Format> for TokenFormat {
    fn from(format: Format) -> TokenFormat {
        match format {
            Format::Jwt => TokenFormat::Jwt,
            Format::Paseto => TokenFormat::Paseto,
        }
    }
}

async fn login(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<LoginBody>,
) -> Result<Response> {
    if body.transport == Transport::Cookie {
        // A foreign site must not sign a visitor in to an account of its own.
        same_origin(&app, &Method::POST, &headers)?;
    }
    let device_name = body.device_name.map(|name| check_name(&name)).transpose();
    let attempt = Attempt {
        email: body.email,
        password: body.password,
        device_name: device_name.map_err(|broken| broken.at("/device_name"))?,
        format: body.token_format.map_or(app.settings.tokens.format, TokenFormat::from),
        transport: body.transport,
    };
    let issued = sign_in(&app, &caller.actor, attempt).await?;
    answer(&app, issued).await
}
