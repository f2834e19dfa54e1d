//! `POST /auth/login`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Attempt, reauthentication::reauthenticate, sign_in};
use crate::access::{ANYONE, Caller, SIGNED_IN, same_origin};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Body, CookieName, Found, HostCookie, Routes, limit};
use crate::limits::{Key, Rule};
use crate::lockout;
use crate::sessions::{Answer, Transport, answer};
use crate::settings::TokenFormat;
use crate::shape;
use crate::users::check_name;

/// Sign-ins by address: enough for an office behind one address, too few for guessing.
pub const PER_ADDRESS: Rule = Rule {
    name: "login_address",
    burst: 100,
    per: Duration::from_secs(60),
    key: Key::Address,
    says: "Too many sign-ins from this address; wait a moment.",
};

/// Proofs of identity within sessions, by account.
pub(super) const REAUTHENTICATE: Rule = Rule {
    name: "reauthenticate_account",
    burst: 20,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    says: "Too many proofs of identity for this account; wait a while.",
};

/// What a browser shows that has signed in before.
const DEVICE: CookieName =
    CookieName { secure: "__Host-palisade-device", plain: "palisade-device" };

pub(super) fn routes() -> Routes {
    Routes::at("/auth")
        .post("/login", ANYONE.limit(&PER_ADDRESS), login)
        .says(
            "Signs in with address and password.\n\nUnknown address, wrong password, locked and \
             disabled account are one refusal. With `transport: cookie` the answer sets the session's cookie \
             and holds no token.",
        )
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::Denied, "access.cross_site")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/reauthenticate", SIGNED_IN, prove_again)
        .says(
            "Proves again who one is, for what asks for a recent proof.\n\nAnswers new credentials of the same \
             session; those before them are refused from now on.",
        )
        .or(Kind::NotSignedIn, "sessions.ended")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProofBody {
    #[schemars(with = "shape::Secret", example = &"seven purple teapots orbit")]
    password: SecretString,
}

async fn prove_again(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ProofBody>,
) -> Result<Answer> {
    let me = caller.signed_in()?;
    limit(&app, &REAUTHENTICATE, app.limiter.account(&me.user.to_string()))?;
    answer(&app, reauthenticate(&app, &caller, &body.password).await?, None).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    #[schemars(with = "shape::Secret", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// What the last sign-in of this device answered; browsers send a cookie instead. Known devices are
    /// let in while strangers are locked out.
    #[schemars(with = "Option<shape::Secret>")]
    device_token: Option<SecretString>,
    /// What the client calls itself in the list of sessions.
    #[schemars(with = "Option<shape::Label>")]
    device_name: Option<String>,
    /// The form of the access tokens; the server's own choice if absent.
    token_format: Option<Format>,
    /// How the session's credentials travel; `token` if absent.
    transport: Option<Transport>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
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
) -> Result<Answer> {
    let transport = body.transport.unwrap_or_default();
    if transport == Transport::Cookie {
        // A foreign site must not sign a visitor in to an account of its own.
        same_origin(&app, &Method::POST, &headers)?;
    }
    let device_name = body.device_name.map(|name| check_name(&name)).transpose();
    let cookie = HostCookie::new(DEVICE, &app.settings);
    let attempt = Attempt {
        email: body.email,
        password: body.password,
        device_token: body.device_token.or_else(|| match cookie.get(&headers) {
            Found::One(token) => Some(token.into()),
            Found::None | Found::Several => None,
        }),
        device_name: device_name.map_err(|broken| broken.at("/device_name"))?,
        format: body.token_format.map_or(app.settings.tokens.format, TokenFormat::from),
        transport,
    };
    let signed_in = sign_in(&app, &caller.actor, attempt).await?;
    let token = signed_in.device.token(&app);
    let answer = answer(&app, signed_in.issued, Some(&token)).await?;
    Ok(match (transport, cookie.set(token.expose(), lockout::KNOWN_FOR)) {
        (Transport::Cookie, Some(cookie)) => answer.with_cookie(cookie),
        _ => answer,
    })
}
