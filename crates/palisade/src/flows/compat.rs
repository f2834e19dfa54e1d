//! Request formats of other servers, for clients written for them.
//!
//! # Promises
//!
//! - A sign-in in such a format is subject to everything that applies to `POST /auth/login`, because it runs the same
//!   code. A refresh is subject to everything that applies to `POST /auth/refresh`.

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::{ANYONE, Caller, has_value};
use crate::app::App;
use crate::error::{Broken, Error, Kind, Result, Rules};
use crate::http::{Form, Routes, limit};
use crate::limits::LimitKey;
use crate::login::{self, Attempt, Next, Wanted};
use crate::module::Module;
use crate::sessions::{self, Answer, Transport, answer};
use crate::shape;

/// The slice's table of contents.
pub const MODULE: Module =
    Module { name: "compat", when: |settings| settings.compat.login_form, routes, ..Module::EMPTY };

fn routes() -> Routes {
    Routes::at("/login")
        .post("/access-token", ANYONE.limit(&sessions::REFRESH).oauth(), access_token)
        .summary(
            "Signs in with a form, as clients of the Full Stack FastAPI Template do, or refreshes \
             a session (RFC 6749 sections 4.3 and 6).\n\nA sign-in works like `POST \
             /api/v1/auth/login` without a device token, with the transport `token` and the \
             server's token format. With `grant_type=refresh_token`, the route works like `POST \
             /api/v1/auth/refresh`.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Malformed, "compat.unsupported_grant")
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::Conflict, "tokens.too_long")
        .or(Kind::NotSignedIn, "login.mfa_required")
        .or(Kind::BadGrant, "sessions.ended")
        .or(Kind::Unavailable, "passwords.busy")
}

/// Other fields are ignored (RFC 6749 section 3.2), such as `scope`, `client_id` and `client_secret`.
#[derive(Deserialize, JsonSchema)]
struct TokenForm {
    /// `password`, which is the default, or `refresh_token`.
    #[schemars(length(max = 100))]
    grant_type: Option<String>,
    /// The email address. Required for a sign-in.
    #[schemars(with = "Option<shape::EmailAddress>")]
    username: Option<String>,
    /// Required for a sign-in.
    #[schemars(with = "Option<shape::Password>", example = &"seven purple teapots orbit")]
    password: Option<SecretString>,
    /// Required for a refresh.
    #[schemars(with = "Option<shape::Secret>")]
    refresh_token: Option<SecretString>,
}

async fn access_token(
    State(app): State<App>,
    caller: Caller,
    Form(form): Form<TokenForm>,
) -> Result<Answer> {
    match form.grant_type.as_deref() {
        None | Some("" | "password") => sign_in(&app, &caller, form).await,
        Some("refresh_token") => refresh(&app, &caller, form.refresh_token).await,
        Some(_) => {
            let detail = "This grant type is not supported. Use password or refresh_token.";
            Err(Error::new(Kind::Malformed, "compat.unsupported_grant", detail))
        }
    }
}

async fn sign_in(app: &App, caller: &Caller, form: TokenForm) -> Result<Answer> {
    // The route line counts every request as a refresh, before the form is read. A sign-in counts as one too.
    if let Some(ip) = caller.actor.ip {
        limit(app, &login::PER_IP, LimitKey::ip(ip))?;
    }
    let mut rules = Rules::new();
    let email = rules.check("/username", form.username.ok_or_else(missing));
    let password = rules.check("/password", form.password.ok_or_else(missing));
    let (email, password) = rules.all(email.zip(password))?;
    let attempt = Attempt {
        email,
        password,
        device_token: None,
        wanted: Wanted {
            device_name: None,
            format: app.settings.tokens.format,
            transport: Transport::Token,
        },
        challenge_cookie: None,
        browser: false,
    };
    match login::sign_in(app, &caller.actor, attempt).await? {
        Next::In(signed_in) => {
            let token = signed_in.device.token(app);
            answer(app, signed_in.issued, Some(&token)).await
        }
        // Such clients don't know about second factors. A client that does continues with POST /auth/login/mfa.
        Next::Prove(challenged) => Err(challenged.error()),
    }
}

async fn refresh(app: &App, caller: &Caller, token: Option<SecretString>) -> Result<Answer> {
    let token = token.filter(|token| has_value(Some(token)));
    let token = token.ok_or_else(|| missing().at("/refresh_token"))?;
    let issued = sessions::refresh(app, &caller.actor, Transport::Token, &token).await;
    let issued = issued.map_err(|error| match error.kind() {
        // The client's refresh token is a grant here, and not its authentication.
        Kind::NotSignedIn => Error::new(Kind::BadGrant, error.code(), error.detail().to_owned()),
        _ => error,
    })?;
    answer(app, issued, None).await
}

fn missing() -> Broken {
    Broken::new("request.missing", "This field is required.")
}
