//! The administrators' way to lift a lock.

use axum::extract::State;

use super::unlock;
use crate::access::{Caller, needs};
use crate::app::{App, Hold};
use crate::error::{Kind, Result};
use crate::http::{Id, NoContent, Routes};
use crate::id::UserId;
use crate::users;

pub(super) fn routes() -> Routes {
    Routes::at("/users/{id}")
        .post("/unlock", needs(users::WRITE).fresh(), unlock_user)
        .says("Lifts every lock of a user and forgets all wrong passwords.")
        .or(Kind::Denied, "access.exceeds_own")
}

async fn unlock_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    users::within_reach(&app, &caller, id).await?;
    unlock(app.change_holding(&caller.actor, &[Hold::Shared(id)]).await?, id).await?;
    Ok(NoContent)
}
