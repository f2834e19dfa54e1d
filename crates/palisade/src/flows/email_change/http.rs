//! Changing an email address: by the owner, with emailed links and the pages behind them, and by administrators.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::admin::{Changes, alter};
use super::{ask, confirm, undo};
use crate::access::{ANYONE, Caller, SIGNED_IN, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result, Rules};
use crate::http::{Accepted, Body, Html, Id, NoContent, Routes, Taken, limit};
use crate::id::UserId;
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::shape;
use crate::users::{self, Email, UserView, absent_or_null, check_name};

/// Limits requests for a change of email address, by account, because each one sends an email.
pub(super) const EMAIL_CHANGE: Rule = Rule {
    name: "email_change_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many changes of email address for this account. Try again later.",
};

/// Limits attempts to use a link for a change of email address, by IP address.
pub(super) const EMAIL_LINK: Rule = Rule {
    name: "email_link_ip",
    burst: 30,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many attempts to use a link. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("")
        .post("/users/me/email", SIGNED_IN.fresh(), change_email)
        .summary(
            "Requests a change of email address.\n\nThe change takes effect when the link that is \
             sent to the new email address is used. The response is the same whether or not that \
             email address already has an account.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/auth/email/confirm", ANYONE.limit(&EMAIL_LINK), confirm_change)
        .summary(
            "Changes the email address.\n\nRequires the account's password, and the token from the \
             link that was sent to the new email address.",
        )
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/auth/email/undo", ANYONE.limit(&EMAIL_LINK), undo_change)
        .summary(
            "Restores the previous email address and sets a new password.\n\nRequires the token \
             from the link that was sent to the previous email address. The link works once and \
             expires after a week.\n\nEnds every session and does not start a new one.",
        )
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::Unavailable, "passwords.busy")
        .and(
            Routes::at("/users")
                .patch("/{id}", needs(users::WRITE).fresh(), change_user)
                .summary(
                    "Updates the given fields of a user.\n\nA new email address counts as unverified, and \
                     the previous one is notified. To change your own email address, use `POST \
                     /users/me/email`.",
                )
                .or(Kind::Denied, "users.own_email")
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "users.email_taken")
                .or(Kind::Conflict, "users.service_account"),
        )
        .and(
            Routes::root()
                .get("/account/email", ANYONE, confirm_page)
                .get("/account/undo", ANYONE, undo_page),
        )
}

/// The page behind the link sent to the new email address.
const CONFIRM_PAGE: Page = Page {
    title: "Confirm your new email address",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/email.html"),
    ..Page::EMPTY
};

async fn confirm_page(State(app): State<App>) -> Html {
    CONFIRM_PAGE.show(&app)
}

/// The page behind the link sent to the old email address.
const UNDO_PAGE: Page = Page {
    title: "Restore your account",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/undo.html"),
    ..Page::EMPTY
};

async fn undo_page(State(app): State<App>) -> Html {
    UNDO_PAGE.show(&app)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EmailBody {
    /// The new email address.
    #[schemars(with = "shape::EmailAddress")]
    email: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// The password of the account.
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UndoBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// At least 15 characters by default, at most 128 code points.
    #[schemars(with = "shape::Password", example = &"five green kettles whistle")]
    password: SecretString,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserChangeBody {
    /// Omit to leave unchanged; null removes it.
    #[serde(default, deserialize_with = "absent_or_null")]
    #[schemars(with = "Option<shape::Label>")]
    name: Option<Option<String>>,
    /// Omit to leave unchanged.
    #[schemars(with = "Option<shape::EmailAddress>")]
    email: Option<String>,
}

async fn change_email(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<EmailBody>,
) -> Result<Accepted<Taken>> {
    let user = caller.signed_in()?.user;
    let email = Email::parse(&body.email).map_err(|broken| broken.at("/email"))?;
    limit(&app, &EMAIL_CHANGE, app.limiter.account(&user.to_string()))?;
    ask(&app, &caller.actor, user, &email).await?;
    Ok(Accepted(Taken::default()))
}

async fn confirm_change(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ConfirmBody>,
) -> Result<NoContent> {
    confirm(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn undo_change(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<UndoBody>,
) -> Result<NoContent> {
    undo(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn change_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
    Body(body): Body<UserChangeBody>,
) -> Result<Json<UserView>> {
    let mut rules = Rules::new();
    let name = body.name.map(|name| name.map(|name| check_name(&name)).transpose()).transpose();
    let name = rules.check("/name", name);
    let email = rules.check("/email", body.email.as_deref().map(Email::parse).transpose());
    let (name, email) = rules.all(name.zip(email))?;
    let hold = if email.is_some() { Hold::Alone(id) } else { Hold::Shared(id) };
    let (change, user) = users::change_manageable(&app, &caller, id, &[hold]).await?;
    // SECURITY: otherwise, anyone who finds a signed-in device could take over the account for good (test:
    // users_are_changed_and_deleted).
    if email.is_some() && caller.signed_in()?.user == id {
        let detail = "Change your own email address with POST /api/v1/users/me/email.";
        return Err(Error::new(Kind::Denied, "users.own_email", detail));
    }
    alter(change, &user, Changes { name, email }).await?;
    let user = users::find(&app, id).await?.ok_or_else(Error::not_found)?;
    Ok(Json(UserView::new(&user, app.clock.now())))
}
