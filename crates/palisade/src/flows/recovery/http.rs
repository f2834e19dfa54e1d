//! Forgotten passwords, invitations and changes of address, and the pages behind their links.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Invitation, ask_for_address, confirm_address, forgot, invite, keep_factors, remove_factors,
    reset, send_link, undo_address,
};
use crate::access::{ANYONE, Caller, SIGNED_IN, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result, Rules};
use crate::http::{Accepted, Body, Created, Html, Id, NoContent, Routes, Taken, limit};
use crate::id::UserId;
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users::{self, Email, UserView};

/// Asking for links, by address.
pub(super) const FORGOT: Rule = Rule {
    name: "forgot_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many links were requested from this IP address. Try again later.",
};

/// Asking for links to one account, whether it exists or not: each is a letter in somebody's mail.
pub(super) const FORGOT_ACCOUNT: Rule = Rule {
    name: "forgot_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    says: "Too many links were requested for this account. Try again later.",
};

/// Attempts to use a link, by address.
pub(super) const RESET_LIMIT: Rule = Rule {
    name: "reset_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many attempts to set a new password. Try again later.",
};

/// Inviting users and sending them links, by the administrator who does.
pub(super) const INVITE: Rule = Rule {
    name: "invite_account",
    burst: 100,
    per: Duration::from_secs(3600),
    key: Key::Account,
    says: "Too many invitations and reset links. Try again later.",
};

/// Asking for another address, by account: each is a letter in somebody's mail.
pub(super) const EMAIL_CHANGE: Rule = Rule {
    name: "email_change_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    says: "Too many changes of email address for this account. Try again later.",
};

/// Attempts to use a link of a change of address, by address.
pub(super) const EMAIL_LINK: Rule = Rule {
    name: "email_link_address",
    burst: 30,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many attempts to use a link. Try again later.",
};

/// Attempts to use the link of lost factors, by address.
pub(super) const FACTORS: Rule = Rule {
    name: "factors_address",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Address,
    says: "Too many attempts to use a link. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth/password")
        .post("/forgot", ANYONE.limit(&FORGOT), ask)
        .says(
            "Requests a link to choose a new password.\n\nThe response is the same whether or not \
             the email address has an account. The link is sent by email.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/reset", ANYONE.limit(&RESET_LIMIT), use_link)
        .says("Sets a new password with the token of the link.\n\nThe link works once, within an \
               hour.\n\nEnds every session and does not start one.")
        .or(Kind::Unavailable, "passwords.busy")
        .and(addresses())
        .and(lost_factors())
        .and(
            Routes::at("/users")
                .post("/", needs(users::WRITE).fresh(), invite_user)
                .says("Creates a user and sends them a link to choose a password.\n\nThe link \
                       works for a week, with `POST /auth/password/reset`.\n\nYou must hold all \
                       permissions of the roles.")
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "users.email_taken")
                .or(Kind::TooMany, "request.too_many")
                .or(Kind::Unavailable, "mail.off")
                .post("/{id}/reset-password", needs(users::WRITE).fresh(), send_reset)
                .says(
                    "Sends a user a link to choose a new password.\n\nThe link is valid for a week. The password and \
                     the sessions remain valid until the link is used.",
                )
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "users.disabled")
                .or(Kind::Conflict, "users.service_account")
                .or(Kind::TooMany, "request.too_many")
                .or(Kind::Unavailable, "mail.off"),
        )
        .and(
            Routes::root()
                .get("/account/reset", ANYONE, |app| page(app, include_str!("../../pages/reset.html")))
                .get("/account/invite", ANYONE, |app| page(app, include_str!("../../pages/invite.html")))
                .get("/account/email", ANYONE, |app| page(app, include_str!("../../pages/email.html")))
                .get("/account/undo", ANYONE, |app| page(app, include_str!("../../pages/undo.html")))
                .get("/account/factors", ANYONE, |app| page(app, include_str!("../../pages/factors.html"))),
        )
}

fn addresses() -> Routes {
    Routes::at("")
        .post("/users/me/email", SIGNED_IN.fresh(), change_address)
        .says(
            "Requests a change of email address.\n\nThe email address changes once the link that \
             is sent to the new one is used. The response is the same whether or not the new one \
             has an account.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/auth/email/confirm", ANYONE.limit(&EMAIL_LINK), confirm)
        .says(
            "Changes the email address, with the token of the link that was sent to the new one \
             and the account's password.",
        )
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/auth/email/undo", ANYONE.limit(&EMAIL_LINK), undo)
        .says(
            "Restores the previous email address, with the token of the link that was sent to it \
             and a new password.\n\nThe link works once, within a week.\n\nEnds every session and \
             does not start one.",
        )
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::Unavailable, "passwords.busy")
}

fn lost_factors() -> Routes {
    Routes::at("/auth/factors")
        .post("/remove", ANYONE.limit(&FACTORS), remove)
        .says(
            "Removes the second factors of an account, with the token of the email and the \
             password, after the waiting period.\n\nEnds every session and does not start one.",
        )
        .or(Kind::Denied, "recovery.factors_off")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/keep", ANYONE.limit(&FACTORS), keep)
        .says("Cancels the removal, with the token of the email.")
}

async fn page(State(app): State<App>, text: &'static str) -> Html {
    Html::new(&*app.random, text)
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
struct AddressBody {
    /// The new email address.
    #[schemars(with = "shape::EmailAddress")]
    email: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// The name of the user.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
    /// Roles in addition to `user`.
    #[serde(default)]
    #[schemars(with = "Vec<shape::Name>", length(max = 50))]
    roles: Vec<String>,
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
    Body(body): Body<ConfirmBody>,
) -> Result<NoContent> {
    remove_factors(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn keep(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<KeepBody>,
) -> Result<NoContent> {
    keep_factors(&app, &caller.actor, &body.token).await?;
    Ok(NoContent)
}

async fn invite_user(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<InviteBody>,
) -> Result<Created<UserView>> {
    let mut rules = Rules::new();
    let email = rules.check("/email", Email::parse(&body.email));
    let name = rules.check("/name", body.name.as_deref().map(users::check_name).transpose());
    let (email, name) = rules.all(email.zip(name))?;
    limit(&app, &INVITE, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    let invitation = Invitation { email, name, roles: body.roles };
    let user = invite(&app, &caller.actor, invitation).await?;
    let user = users::find(&app, user).await?.ok_or_else(Error::not_found)?;
    Ok(Created(UserView::new(&user, app.clock.now())))
}

async fn send_reset(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    let holds = [Hold::Shared(id)];
    let (change, _) = users::change_within_reach(&app, &caller, id, &holds).await?;
    limit(&app, &INVITE, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    send_link(change, id).await?;
    Ok(NoContent)
}

async fn change_address(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<AddressBody>,
) -> Result<Accepted<Taken>> {
    let user = caller.signed_in()?.user;
    let email = Email::parse(&body.email).map_err(|broken| broken.at("/email"))?;
    limit(&app, &EMAIL_CHANGE, app.limiter.account(&user.to_string()))?;
    ask_for_address(&app, &caller.actor, user, &email).await?;
    Ok(Accepted(Taken::default()))
}

async fn confirm(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ConfirmBody>,
) -> Result<NoContent> {
    confirm_address(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn undo(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ResetBody>,
) -> Result<NoContent> {
    undo_address(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
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
