//! The routes for removing lost factors with a link and for canceling the removal, and the page behind the link.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{cancel, finish};
use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Body, Html, NoContent, Routes};
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::shape;

/// Limits attempts to use a link for lost factors, by IP address.
pub(super) const FACTORS: Rule = Rule {
    name: "factors_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many attempts to use a link. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth/factors")
        .post("/remove", ANYONE.limit(&FACTORS), remove)
        .destructive()
        .summary(
            "Removes the second factors of an account.\n\nRequires the token from the emailed link \
             and the password, and works only after the waiting period.\n\nEnds every session and \
             does not start a new one.",
        )
        .or(Kind::Denied, "recovery.factors_off")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/keep", ANYONE.limit(&FACTORS), keep)
        .summary("Cancels the removal of the second factors, with the token from the emailed link.")
        .and(Routes::root().get("/account/factors", ANYONE, page))
}

/// The page behind the link.
const PAGE: Page = Page {
    title: "Lost second factors",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/factors.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Html {
    PAGE.show(&app)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// The password of the account.
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeepBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
}

async fn remove(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<RemoveBody>,
) -> Result<NoContent> {
    finish(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn keep(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<KeepBody>,
) -> Result<NoContent> {
    cancel(&app, &caller.actor, &body.token).await?;
    Ok(NoContent)
}
