//! Request formats of other servers, for clients written for them.
//!
//! # Promises
//!
//! - A sign-in in such a format is subject to everything that applies to `POST /auth/login`, because it runs the same
//!   code.

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Form, Routes};
use crate::login::{self, Attempt, Next, Wanted};
use crate::module::Module;
use crate::sessions::{Answer, Transport, answer};
use crate::shape;

/// The slice's table of contents.
pub const MODULE: Module =
    Module { name: "compat", when: |settings| settings.compat.login_form, routes, ..Module::EMPTY };

fn routes() -> Routes {
    Routes::at("/login")
        .post("/access-token", ANYONE.limit(&login::PER_IP), access_token)
        .summary(
            "Signs in with a form, as clients of the Full Stack FastAPI Template do (RFC 6749 \
             section 4.3).\n\nThe route works like `POST /api/v1/auth/login` without a device \
             token, with the transport `token` and the server's token format.",
        )
        .or(Kind::NotSignedIn, "login.denied")
        .or(Kind::NotSignedIn, "login.mfa_required")
        .or(Kind::Unavailable, "passwords.busy")
}

/// Other fields are ignored (RFC 6749 section 3.2).
#[derive(Deserialize, JsonSchema)]
struct LoginForm {
    /// The email address.
    #[schemars(with = "shape::EmailAddress")]
    username: String,
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
}

async fn access_token(
    State(app): State<App>,
    caller: Caller,
    Form(form): Form<LoginForm>,
) -> Result<Answer> {
    let attempt = Attempt {
        email: form.username,
        password: form.password,
        device_token: None,
        wanted: Wanted {
            device_name: None,
            format: app.settings.tokens.format,
            transport: Transport::Token,
        },
        challenge_cookie: None,
        browser: false,
    };
    match login::sign_in(&app, &caller.actor, attempt).await? {
        Next::In(signed_in) => {
            let token = signed_in.device.token(&app);
            answer(&app, signed_in.issued, Some(&token)).await
        }
        // Such clients don't know about second factors. A client that does continues with POST /auth/login/mfa.
        Next::Prove(challenged) => Err(challenged.error()),
    }
}
