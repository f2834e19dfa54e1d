//! The administrators' changes and deletions of users; export and deletion of the caller's account.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::export::{Export, export};
use super::{Changes, alter, ask_for_deletion, delete, held_for_deletion};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result, Rules, bad_token};
use crate::http::{Body, Id, NoContent, Routes, limit};
use crate::id::UserId;
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users::{self, Email, UserView, absent_or_null, check_name};

/// Exports, by account: each reads everything.
pub(super) const EXPORT: Rule = Rule {
    name: "export_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    says: "Too many exports of this account. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .delete("/me", SIGNED_IN.fresh(), delete_me)
        .says(
            "Requests the deletion of your account.\n\nEvery session ends now. The account is \
             deleted after `users.deletion_grace` (14 days by default); signing in before then \
             cancels the request.",
        )
        .or(Kind::Conflict, "users.last_admin")
        .get("/me/export", SIGNED_IN, take_out)
        .says("Exports all data that is stored about the signed-in user.")
        .or(Kind::TooMany, "request.too_many")
        .patch("/{id}", needs(users::WRITE).fresh(), change_user)
        .says(
            "Updates the given fields of a user.\n\nA new email address counts as unverified, and \
             the previous one is notified. To change your own email address, use `POST \
             /users/me/email`.",
        )
        .or(Kind::Denied, "users.own_address")
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::Conflict, "users.service_account")
        .delete("/{id}", needs(users::WRITE).fresh(), delete_user)
        .says("Permanently deletes a user.\n\nThe audit log keeps only the user's id.")
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "users.last_admin")
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

async fn delete_me(State(app): State<App>, caller: Caller) -> Result<NoContent> {
    let user = users::find(&app, caller.signed_in()?.user).await?.ok_or_else(bad_token)?;
    ask_for_deletion(&app, &caller.actor, &user).await?;
    Ok(NoContent)
}

async fn take_out(State(app): State<App>, caller: Caller) -> Result<Json<Export>> {
    limit(&app, &EXPORT, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    export(&app, &caller).await.map(Json)
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
    let (change, user) = users::change_within_reach(&app, &caller, id, &[hold]).await?;
    // SECURITY: else a found session becomes an account without a way back
    // (test: users_are_changed_and_deleted).
    if email.is_some() && caller.signed_in()?.user == id {
        let says = "Change your own email address with POST /api/v1/users/me/email.";
        return Err(Error::new(Kind::Denied, "users.own_address", says));
    }
    alter(change, &user, Changes { name, email }).await?;
    let user = users::find(&app, id).await?.ok_or_else(Error::not_found)?;
    Ok(Json(UserView::new(&user, app.clock.now())))
}

async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    let holds = held_for_deletion(id);
    let (change, user) = users::change_within_reach(&app, &caller, id, &holds).await?;
    delete(change, &user).await?;
    Ok(NoContent)
}
