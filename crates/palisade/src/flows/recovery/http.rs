//! Routes for requesting a link to choose a new password and for setting the password with that link.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{forgot, reset};
use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Accepted, Body, Html, NoContent, Routes, Taken, limit};
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::shape;
use crate::users::Email;

/// Limits requests for links, by IP address.
pub(super) const FORGOT: Rule = Rule {
    name: "forgot_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many links were requested from this IP address. Try again later.",
};

/// Limits requests for links by account, whether or not the account exists, because each request can send an email.
pub(super) const FORGOT_ACCOUNT: Rule = Rule {
    name: "forgot_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many links were requested for this email address. Try again later.",
};

/// Limits attempts to use a link, by IP address.
pub(super) const RESET_LIMIT: Rule = Rule {
    name: "reset_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many attempts to set a new password. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth/password")
        .post("/forgot", ANYONE.limit(&FORGOT), ask)
        .summary(
            "Requests a link to choose a new password.\n\nThe response is the same whether or not \
             the email address has an account. The link is sent by email.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/reset", ANYONE.limit(&RESET_LIMIT), use_link)
        .summary(
            "Sets a password with the token from a reset link or an invitation.\n\nThe link works \
             once. It expires after an hour, or after a week if an administrator sent it.\n\nEnds \
             every session, revokes every API key, and does not start a new session.",
        )
        .or(Kind::Unavailable, "passwords.busy")
        .and(Routes::root().get("/account/reset", ANYONE, page))
}

/// The page that the link opens, where people choose a new password.
const PAGE: Page = Page {
    title: "Choose a new password",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/reset.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Html {
    PAGE.show(&app)
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
    /// At least 15 characters by default, at most 128 code points.
    #[schemars(with = "shape::Password", example = &"five green kettles whistle")]
    password: SecretString,
}

async fn ask(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ForgotBody>,
) -> Result<Accepted<Taken>> {
    let email = Email::parse(&body.email).map_err(|broken| broken.at("/email"))?;
    limit(&app, &FORGOT_ACCOUNT, app.limiter.account(email.key()))?;
    forgot(&app, &caller.actor, &email).await?;
    Ok(Accepted(Taken::default()))
}

async fn use_link(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ResetBody>,
) -> Result<NoContent> {
    reset(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}
