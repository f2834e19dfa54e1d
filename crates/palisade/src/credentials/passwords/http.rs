//! `POST /users/me/password`, which changes the caller's password, and its page.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CHANGED, QueueSlot, hash_for, notify_owner, prove, store};
use crate::access::{ANYONE, Caller, SIGNED_IN};
use crate::app::{App, Hold};
use crate::credentials::{self, Act, End};
use crate::error::{Kind, Result, bad_token};
use crate::http::{Asset, Body, Elsewhere, Html, NoContent, Routes, limit};
use crate::limits::{Key, Rule};
use crate::lockout;
use crate::pages::Page;
use crate::shape;
use crate::users;

/// Limits guesses at the current password, by account.
pub(super) const CHANGE: Rule = Rule {
    name: "password_change_account",
    burst: 10,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    summary: "Too many attempts to change this password. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users/me")
        .post("/password", SIGNED_IN.fresh(), change)
        .destructive()
        .summary("Changes your password and ends all other sessions.")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .and(
            Routes::root()
                .get("/.well-known/change-password", ANYONE, || async { Elsewhere(PATH) })
                .summary(
                    "Redirects to the page where users change their password (W3C, \"A Well-Known \
                     URL for Changing Passwords\").",
                )
                .get(PATH, ANYONE, page)
                .get("/assets/password.js", ANYONE, || async { SCRIPT }),
        )
}

/// The path of the page where users change their password.
const PATH: &str = "/account/password";

const SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../../pages/password.js"),
};

/// The page for changing the password. It asks for the current password and, if the account has one, a second factor.
const PAGE: Page = Page {
    title: "Change your password",
    scripts: &["factors.js", "form.js", "password.js"],
    body: include_str!("../../pages/password.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Html {
    PAGE.show(&app)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    current_password: SecretString,
    /// At least 15 characters by default, at most 128 code points.
    #[schemars(with = "shape::Password", example = &"five green kettles whistle")]
    new_password: SecretString,
}

async fn change(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<PasswordBody>,
) -> Result<NoContent> {
    let me = caller.signed_in()?;
    limit(&app, &CHANGE, app.limiter.account(&me.user.to_string()))?;
    let slot = QueueSlot::of(caller.actor.ip).known();
    let proved = prove(&app, &caller, &body.current_password, "/current_password").await?;
    let user = users::current(&app, me.user).await?.ok_or_else(bad_token)?;
    let hashed = hash_for(&app, slot, &user, "/new_password", &body.new_password).await?;
    let sealed = hashed.seal(&app, me.user);
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    proved.hold(&mut change).await?;
    store(&mut change, me.user, sealed).await?;
    lockout::clear(&mut change, me.user).await?;
    let keeping = Some(me.session()?);
    let act = End { keeping, ..End::of(me.user, Act::PasswordChanged) };
    credentials::end(&mut change, act).await?;
    notify_owner(&mut change, me.user).await?;
    change.commit(CHANGED.about(me.user)).await?;
    Ok(NoContent)
}
