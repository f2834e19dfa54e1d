//! `DELETE /users/me`, and the deletion of users by administrators.

use axum::extract::State;

use super::{ask_for_deletion, delete, held_for_deletion};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::App;
use crate::error::{Kind, Result, bad_token};
use crate::http::{Id, NoContent, Routes};
use crate::id::UserId;
use crate::sessions::SignedOut;
use crate::users;

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .delete("/me", SIGNED_IN.fresh(), delete_me)
        .summary(
            "Requests the deletion of your account.\n\nEvery session ends and every API key is \
             revoked immediately. The account is deleted after `users.deletion_grace` (14 days by \
             default); signing in before then cancels the request.",
        )
        .or(Kind::Conflict, "users.last_admin")
        .delete("/{id}", needs(users::WRITE).fresh(), delete_user)
        .summary("Permanently deletes a user.\n\nThe audit log keeps only the user's id.")
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "users.last_admin")
}

async fn delete_me(State(app): State<App>, caller: Caller) -> Result<SignedOut> {
    let user = users::find(&app, caller.signed_in()?.user).await?.ok_or_else(bad_token)?;
    ask_for_deletion(&app, &caller.actor, &user).await?;
    Ok(SignedOut::new(&app))
}

async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    let holds = held_for_deletion(id);
    let (change, user) = users::change_manageable(&app, &caller, id, &holds).await?;
    delete(change, &user).await?;
    Ok(NoContent)
}
