//! `POST /auth/login/passkey/…`.

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::AuthenticationResponse;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Wanted;
use super::cookies::{CHALLENGE, DEVICE, challenge_secret, cookie_value};
use super::device_name::DeviceName;
use super::http::{BEGIN_PER_IP, Format, PER_IP, welcome};
use super::passkey::{self, PasskeyAttempt};
use crate::access::{ANYONE, Caller, same_origin};
use crate::app::App;
use crate::challenges::LIVES;
use crate::error::{Kind, Result};
use crate::http::describe::{Describe, Description};
use crate::http::{Body, HostCookie, Routes};
use crate::mfa::Options;
use crate::sessions::{Answer, Transport};
use crate::settings::TokenFormat;
use crate::shape;

pub(super) fn routes() -> Routes {
    Routes::at("/auth/login/passkey")
        .post("/begin", ANYONE.limit(&BEGIN_PER_IP), begin)
        .summary(
            "Begins a sign-in with only a passkey.\n\nReturns the options for \
             `navigator.credentials.get` (WebAuthn level 3, \
             PublicKeyCredentialRequestOptionsJSON). A page can call this whenever it is opened, to \
             let the browser offer passkeys: it does not count as a sign-in.",
        )
        .or(Kind::Conflict, "mfa.no_domain")
        .post("/finish", ANYONE.limit(&PER_IP), finish)
        .summary(
            "Signs in with only a passkey, which must verify the user.\n\nNo password or other \
             factor is required. The client that began the sign-in must finish it within five \
             minutes. `login.passkey_unknown` means that no account has this passkey. A page can \
             then call `PublicKeyCredential.signalUnknownCredential`, so that the browser stops \
             offering it.",
        )
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::NotSignedIn, "login.passkey_unknown")
        .or(Kind::Conflict, "tokens.too_long")
        .or(Kind::NotSignedIn, "login.challenge_over")
        .or(Kind::Denied, "access.cross_site")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PasskeyLoginBody")]
struct PasskeyBody {
    /// The result of `navigator.credentials.get`, as `toJSON()` returns it.
    #[schemars(with = "shape::Credential")]
    credential: Box<AuthenticationResponse>,
    /// The `device_token` of this device's last sign-in; browsers send a cookie instead. Without it, the device counts
    /// as new.
    #[schemars(with = "Option<shape::Secret>")]
    device_token: Option<SecretString>,
    /// The name of the client in the list of sessions. Any text is accepted: line breaks and invisible characters are
    /// removed, and the name is cut to 200 characters.
    device_name: Option<DeviceName>,
    /// The format of the access tokens. Defaults to the server's setting.
    token_format: Option<Format>,
    /// How the session's credentials are transmitted. Defaults to `token`.
    transport: Option<Transport>,
}

/// WebAuthn options, and the cookie that the challenge is bound to.
struct Begun(Json<Options>, Option<HeaderValue>);

impl IntoResponse for Begun {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        if let Some(cookie) = self.1 {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}

impl Describe for Begun {
    fn describe(handler: &mut Description) {
        Json::<Options>::describe(handler);
    }
}

async fn begin(State(app): State<App>, caller: Caller, headers: HeaderMap) -> Result<Begun> {
    let cookie = HostCookie::new(CHALLENGE, &app.settings);
    // Browsers store no cookies from requests by pages of another origin.
    let browser = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    let secret = challenge_secret(&app, browser, cookie_value(&cookie, &headers));
    let options = passkey::begin(&app, &caller.actor, secret.as_ref()).await?;
    let set = secret.and_then(|secret| cookie.set(secret.expose(), LIVES));
    Ok(Begun(Json(options), set))
}

async fn finish(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<PasskeyBody>,
) -> Result<Answer> {
    let transport = body.transport.unwrap_or_default();
    let cookie = cookie_value(&HostCookie::new(CHALLENGE, &app.settings), &headers);
    if transport == Transport::Cookie || cookie.is_some() {
        same_origin(&app, &Method::POST, &headers)?;
    }
    let device = HostCookie::new(DEVICE, &app.settings);
    let attempt = PasskeyAttempt {
        answer: body.credential,
        cookie,
        device_token: body.device_token.or_else(|| cookie_value(&device, &headers)),
        wanted: Wanted {
            device_name: body.device_name.and_then(DeviceName::shown),
            format: body.token_format.map_or(app.settings.tokens.format, TokenFormat::from),
            transport,
        },
    };
    welcome(&app, passkey::finish(&app, &caller.actor, attempt).await?).await
}
