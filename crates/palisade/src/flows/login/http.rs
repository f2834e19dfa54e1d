//! `POST /auth/login`, `/auth/login/mfa` and `/auth/reauthenticate`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{self, HeaderMap};
use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::AuthenticationResponse;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cookies::{CHALLENGE, DEVICE, cookie_value};
use super::device_name::DeviceName;
use super::reauthentication::{self, Shown, reauthenticate};
use super::second_factor::{FactorAttempt, lost, prove};
use super::{Attempt, Challenged, Next, SignedIn, Wanted, passkey_http, sign_in};
use crate::access::{ANYONE, Caller, SIGNED_IN, same_origin};
use crate::app::App;
use crate::challenges::LIVES;
use crate::error::{Error, Kind, Result};
use crate::http::{Accepted, Body, HostCookie, Routes, Taken, limit};
use crate::limits::{Key, Rule};
use crate::lockout;
use crate::mfa::{Given, Options};
use crate::sessions::{Answer, Transport, answer};
use crate::settings::TokenFormat;
use crate::shape;

/// Limits sign-ins by IP address: enough for an office that shares one IP address, too few for guessing.
pub const PER_IP: Rule = Rule {
    name: "login_ip",
    burst: 100,
    per: Duration::from_secs(60),
    key: Key::Ip,
    summary: "Too many sign-ins from this IP address. Try again later.",
};

/// Limits the beginnings of sign-ins with a passkey by IP address. A page begins one whenever it is opened, to offer the
/// passkeys of the browser. Each beginning stores a challenge for five minutes.
pub(super) const BEGIN_PER_IP: Rule = Rule {
    name: "passkey_begin_ip",
    burst: 600,
    per: Duration::from_secs(60),
    key: Key::Ip,
    summary: "Too many sign-ins with a passkey were begun from this IP address. Try again later.",
};

/// Limits reauthentication by account.
pub(super) const REAUTHENTICATE: Rule = Rule {
    name: "reauthenticate_account",
    burst: 20,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    summary: "Too many attempts to confirm your identity. Try again later.",
};

pub(super) fn routes() -> Routes {
    password_routes().and(passkey_http::routes())
}

fn password_routes() -> Routes {
    Routes::at("/auth")
        .post("/login", ANYONE.limit(&PER_IP), login)
        .summary(
            "Signs in with an email address and a password.\n\nThe error is the same for an \
             unknown email address, a wrong password, a locked account and a disabled account. \
             With `transport: cookie`, the response sets the session's cookie and contains no \
             token.",
        )
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::Conflict, "tokens.too_long")
        .or(Kind::NotSignedIn, "login.mfa_required")
        .or(Kind::Denied, "access.cross_site")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/login/mfa", ANYONE.limit(&PER_IP), prove_factor)
        .summary(
            "Completes a sign-in that returned `login.mfa_required`, with a second factor.\n\nThe \
             same client must send the `mfa_token` of that response within five minutes, and has \
             five attempts. The response is the same as for a sign-in.",
        )
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::NotSignedIn, "login.passkey_unknown")
        .or(Kind::Conflict, "tokens.too_long")
        .or(Kind::NotSignedIn, "login.challenge_over")
        .or(Kind::Denied, "access.cross_site")
        .or(Kind::TooMany, "lockout.locked")
        .post("/login/mfa/lost", ANYONE.limit(&PER_IP), lost_factors)
        .summary(
            "Requests the removal of all second factors, with the `mfa_token` of a sign-in and \
             without a proof of a factor.\n\nAfter `mfa.recovery_delay`, they can be removed with \
             the password and the link that the owner receives by email.",
        )
        .or(Kind::NotSignedIn, "login.challenge_over")
        .or(Kind::Denied, "recovery.factors_off")
        .or(Kind::Denied, "access.cross_site")
        .or(Kind::Unavailable, "mail.off")
        .post("/reauthenticate/passkey/begin", SIGNED_IN, begin_again)
        .summary(
            "Begins a confirmation of your identity with a passkey.\n\nReturns the options for \
             `navigator.credentials.get`.",
        )
        .or(Kind::Conflict, "mfa.no_factor")
        .or(Kind::TooMany, "request.too_many")
        .post("/reauthenticate", SIGNED_IN.enrolling(), prove_again)
        .summary(
            "Confirms your identity again, for operations that require a recent proof.\n\nReturns \
             new credentials for the same session. The earlier ones stop working immediately.",
        )
        .or(Kind::NotSignedIn, "sessions.ended")
        .or(Kind::NotSignedIn, "login.passkey_unknown")
        .or(Kind::Denied, "login.stronger_needed")
        .or(Kind::Conflict, "tokens.too_long")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProofBody {
    /// The password, for an account without a second factor.
    #[schemars(with = "Option<shape::Password>", example = &"seven purple teapots orbit")]
    password: Option<SecretString>,
    /// A one-time code, or a recovery code.
    #[schemars(with = "Option<shape::Code>")]
    code: Option<SecretString>,
    /// The result of `navigator.credentials.get`, as `toJSON()` returns it.
    #[schemars(with = "Option<shape::Credential>")]
    credential: Option<Box<AuthenticationResponse>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FactorBody {
    /// The `mfa_token` of the response to the sign-in.
    #[schemars(with = "shape::Secret")]
    mfa_token: SecretString,
    /// One of the `methods` of that response.
    method: Method,
    /// The code, if `method` is `totp` or `recovery_code`.
    #[schemars(with = "Option<shape::Code>")]
    code: Option<SecretString>,
    /// If `method` is `passkey`: the result of `navigator.credentials.get` for the
    /// `passkey_options` of that response.
    #[schemars(with = "Option<shape::Credential>")]
    credential: Option<Box<AuthenticationResponse>>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Method {
    Totp,
    RecoveryCode,
    Passkey,
}

impl FactorBody {
    fn given(self) -> Result<Given> {
        let missing = |pointer, detail: &str| Error::bad_field(pointer, "request.missing", detail);
        let code = || self.code.ok_or_else(|| missing("/code", "Send the code."));
        let given = match self.method {
            Method::Totp => Given::Totp(code()?),
            Method::RecoveryCode => Given::RecoveryCode(code()?),
            Method::Passkey => {
                let detail = "Send the response from the passkey.";
                Given::Passkey(self.credential.ok_or_else(|| missing("/credential", detail))?)
            }
        };
        given.check()?;
        Ok(given)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LostBody {
    /// The `mfa_token` of the response to the sign-in.
    #[schemars(with = "shape::Secret")]
    mfa_token: SecretString,
}

async fn lost_factors(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<LostBody>,
) -> Result<Accepted<Taken>> {
    let cookie = cookie_value(&HostCookie::new(CHALLENGE, &app.settings), &headers);
    if cookie.is_some() {
        same_origin(&app, &http::Method::POST, &headers)?;
    }
    lost(&app, &caller.actor, &body.mfa_token, cookie.as_ref()).await?;
    Ok(Accepted(Taken::default()))
}

async fn begin_again(State(app): State<App>, caller: Caller) -> Result<Json<Options>> {
    let me = caller.signed_in()?;
    limit(&app, &REAUTHENTICATE, app.limiter.account(&me.user.to_string()))?;
    reauthentication::begin(&app, &caller).await.map(Json)
}

async fn prove_factor(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<FactorBody>,
) -> Result<Answer> {
    let cookie = HostCookie::new(CHALLENGE, &app.settings);
    let attempt = FactorAttempt {
        token: body.mfa_token.clone(),
        given: body.given()?,
        cookie: cookie_value(&cookie, &headers),
    };
    if attempt.cookie.is_some() {
        same_origin(&app, &http::Method::POST, &headers)?;
    }
    let signed_in = prove(&app, &caller.actor, attempt).await?;
    welcome(&app, signed_in).await
}

/// Creates the response to a completed sign-in.
pub(super) async fn welcome(app: &App, signed_in: SignedIn) -> Result<Answer> {
    let token = signed_in.device.token(app);
    let transport = signed_in.issued.session.transport;
    let answer = answer(app, signed_in.issued, Some(&token)).await?;
    let cookie = HostCookie::new(DEVICE, &app.settings);
    Ok(match (transport, cookie.set(token.expose(), lockout::KNOWN_FOR)) {
        (Transport::Cookie, Some(cookie)) => answer.with_cookie(cookie),
        _ => answer,
    })
}

async fn prove_again(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ProofBody>,
) -> Result<Answer> {
    let me = caller.signed_in()?;
    limit(&app, &REAUTHENTICATE, app.limiter.account(&me.user.to_string()))?;
    let shown = match (body.password, body.code, body.credential) {
        (Some(password), None, None) => Shown::Password(password),
        (None, Some(code), None) => Shown::Factor(Given::code(code)),
        (None, None, Some(credential)) => Shown::Factor(Given::Passkey(credential)),
        _ => {
            let detail = "Send exactly one proof: password, code, or credential.";
            return Err(Error::bad_field("", "request.one_of", detail));
        }
    };
    answer(&app, reauthenticate(&app, &caller, shown).await?, None).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// The `device_token` of this device's last sign-in; browsers send a cookie instead. While an
    /// account is locked, known devices can still sign in.
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

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Format {
    Jwt,
    Paseto,
}

impl From<Format> for TokenFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jwt => Self::Jwt,
            Format::Paseto => Self::Paseto,
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
        same_origin(&app, &http::Method::POST, &headers)?;
    }
    let device = HostCookie::new(DEVICE, &app.settings);
    let challenge = HostCookie::new(CHALLENGE, &app.settings);
    let attempt = Attempt {
        email: body.email,
        password: body.password,
        device_token: body.device_token.or_else(|| cookie_value(&device, &headers)),
        wanted: Wanted {
            device_name: body.device_name.and_then(DeviceName::shown),
            format: body.token_format.map_or(app.settings.tokens.format, TokenFormat::from),
            transport,
        },
        challenge_cookie: cookie_value(&challenge, &headers),
        browser: transport == Transport::Cookie,
    };
    match sign_in(&app, &caller.actor, attempt).await? {
        Next::In(signed_in) => welcome(&app, signed_in).await,
        Next::Prove(challenged) => Err(ask(&app, &challenged)),
    }
}

/// Creates the response to a sign-in that requires a second factor, with the cookie of its challenge.
pub(super) fn ask(app: &App, challenged: &Challenged) -> Error {
    let cookie = HostCookie::new(CHALLENGE, &app.settings);
    let value = challenged.cookie.as_ref().and_then(|secret| cookie.set(secret.expose(), LIVES));
    match value {
        Some(value) => challenged.error().header(SET_COOKIE, value),
        None => challenged.error(),
    }
}
