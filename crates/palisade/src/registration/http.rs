//! `POST /auth/register`, `POST /setup` and the page that calls it.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Wanted, register, set_up};
use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Error, Kind, Result, Rules};
use crate::http::{Accepted, Asset, Body, Created, Html, Routes};
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users::{self, Email, UserView, check_name};

/// Registrations by address.
pub(super) const REGISTER: Rule = Rule {
    name: "register_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many registrations from this address; wait a while.",
};

/// Attempts to use a set-up link, by address.
pub(super) const SETUP: Rule = Rule {
    name: "setup_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many attempts at setting up; wait a while.",
};

pub(super) fn routes() -> Routes {
    Routes::at("")
        .post("/auth/register", ANYONE.limit(&REGISTER), sign_up)
        .says("Registers.\n\nThe answer is the same whether the address is known or not.")
        .or(Kind::Denied, "registration.closed")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/setup", ANYONE.limit(&SETUP), setup)
        .says("Creates the first administrator, with the token of the set-up link.")
        .or(Kind::Gone, "setup.done")
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::Unavailable, "passwords.busy")
        .and(
            Routes::root()
                .get("/setup", ANYONE, page)
                .get("/assets/setup.js", ANYONE, || async { SCRIPT })
                .get("/assets/palisade.css", ANYONE, || async { STYLE }),
        )
}

async fn page(State(app): State<App>) -> Html {
    Html::new(&*app.random, include_str!("pages/setup.html"))
}

const SCRIPT: Asset =
    Asset { media_type: "text/javascript; charset=utf-8", body: include_str!("pages/setup.js") };
const STYLE: Asset =
    Asset { media_type: "text/css; charset=utf-8", body: include_str!("pages/palisade.css") };

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// At least 15 characters, unless the server is set otherwise; 128 code points at most.
    #[schemars(with = "shape::Secret", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// What the person is called.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetupBody {
    /// The part of the set-up link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// At least 15 characters, unless the server is set otherwise; 128 code points at most.
    #[schemars(with = "shape::Secret", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// What the person is called.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
}

/// What became of it stays unsaid: the address may have had an account.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Registration")]
struct RegisterAnswer {
    /// Always `accepted`.
    status: &'static str,
}

/// Checks what can be checked without work, all of it at once.
fn wanted(email: &str, password: SecretString, name: Option<&str>) -> Result<Wanted> {
    let mut rules = Rules::new();
    let email = rules.check("/email", Email::parse(email));
    let name = rules.check("/name", name.map(check_name).transpose());
    rules.all(email.zip(name).map(|(email, name)| Wanted { email, password, name }))
}

async fn sign_up(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<RegisterBody>,
) -> Result<Accepted<RegisterAnswer>> {
    let wanted = wanted(&body.email, body.password, body.name.as_deref())?;
    register(&app, &caller.actor, wanted).await?;
    Ok(Accepted(RegisterAnswer { status: "accepted" }))
}

async fn setup(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<SetupBody>,
) -> Result<Created<UserView>> {
    let wanted = wanted(&body.email, body.password, body.name.as_deref())?;
    let user = set_up(&app, &caller.actor, &body.token, wanted).await?;
    let user = users::find(&app, user).await?.ok_or_else(Error::not_found)?;
    Ok(Created(UserView::new(&user, app.clock.now())))
}
