//! `POST /auth/password/forgot` and `/auth/password/reset`, and the page behind the link.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{forgot, reset};
use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Accepted, Body, Html, NoContent, Routes, limit};
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users::Email;

/// Asking for links, by address.
pub(super) const FORGOT: Rule = Rule {
    name: "forgot_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many links were asked for from this address; wait a while.",
};

/// Asking for links to one account, whether it exists or not: each is a letter in somebody's mail.
pub(super) const FORGOT_ACCOUNT: Rule = Rule {
    name: "forgot_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    says: "Too many links were asked for to this account; wait a while.",
};

/// Attempts to use a link, by address.
pub(super) const RESET_LIMIT: Rule = Rule {
    name: "reset_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many attempts to set a new password; wait a while.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth/password")
        .post("/forgot", ANYONE.limit(&FORGOT), ask)
        .says(
            "Asks for a link to choose a new password.\n\nThe answer is the same whether the address is \
             known or not; the link comes by mail.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/reset", ANYONE.limit(&RESET_LIMIT), use_link)
        .says(
            "Sets a new password with the token of the link: once, within an hour.\n\nEnds every session \
             and signs nobody in.",
        )
        .or(Kind::Unavailable, "passwords.busy")
        .and(
            Routes::root()
                .get("/account/reset", ANYONE, page),
        )
}

async fn page(State(app): State<App>) -> Html {
    Html::new(&*app.random, include_str!("pages/reset.html"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForgotBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// At least 15 characters, unless the server is set otherwise; 128 code points at most.
    #[schemars(with = "shape::Secret", example = &"five green kettles whistle")]
    password: SecretString,
}

/// What becomes of it stays unsaid: the address may have no account.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Asked")]
struct AskedAnswer {
    /// Always `accepted`.
    status: &'static str,
}

async fn ask(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ForgotBody>,
) -> Result<Accepted<AskedAnswer>> {
    let email = Email::parse(&body.email).map_err(|broken| broken.at("/email"))?;
    limit(&app, &FORGOT_ACCOUNT, app.limiter.account(email.key()))?;
    forgot(&app, &caller.actor, &email).await?;
    Ok(Accepted(AskedAnswer { status: "accepted" }))
}

async fn use_link(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ResetBody>,
) -> Result<NoContent> {
    reset(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}
