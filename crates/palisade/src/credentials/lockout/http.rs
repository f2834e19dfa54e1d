//! The route that administrators use to lift a lock.

use axum::extract::State;

use super::unlock;
use crate::access::{Caller, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result};
use crate::http::{Id, NoContent, Routes};
use crate::id::UserId;
use crate::users;

pub(super) fn routes() -> Routes {
    Routes::at("/users/{id}")
        .post("/unlock", needs(users::WRITE).fresh(), unlock_user)
        .summary("Unlocks another user and resets the counts of wrong passwords and codes.")
        .or(Kind::Denied, "lockout.own_lock")
        .or(Kind::Denied, "access.exceeds_own")
}

async fn unlock_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    // SECURITY: otherwise, an attacker with an administrator's session could guess that administrator's password
    // without limit (test: an_administrator_does_not_lift_their_own_lock).
    if caller.signed_in()?.user == id {
        let detail =
            "To unlock your own account, change your password or ask another administrator.";
        return Err(Error::new(Kind::Denied, "lockout.own_lock", detail));
    }
    let (change, _) = users::change_manageable(&app, &caller, id, &[Hold::Shared(id)]).await?;
    unlock(change, id).await?;
    Ok(NoContent)
}
