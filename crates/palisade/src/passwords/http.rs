//! `POST /users/me/password`: the change of one's own password.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use palisade_crypto::secret::SecretString;
use serde::Deserialize;

use super::{CHANGED, Turn, Verdict, WRONG, hash, store, stored, unchanged, verify};
use crate::access::{Caller, SIGNED_IN};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{Body, Routes, limit};
use crate::limits::{Key, Rule};
use crate::sessions::{Why, end_others};
use crate::users;

/// Guesses at the current password, by account.
pub(super) const CHANGE: Rule = Rule {
    name: "password_change_account",
    burst: 10,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    says: "Too many attempts to change this password; wait a while.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users/me").post("/password", SIGNED_IN, change)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    current_password: SecretString,
    new_password: SecretString,
}

async fn change(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<PasswordBody>,
) -> Result<StatusCode> {
    let me = caller.signed_in()?;
    limit(&app, &CHANGE, app.limiter.account(&me.user.to_string()))?;
    let turn = Turn::of(caller.actor.address);
    let stored = stored(&app, me.user).await?;
    let verdict = verify(&app, turn, stored.as_ref(), &body.current_password).await?;
    let (Some(stored), Verdict::Right(_)) = (stored, verdict) else {
        app.change(&caller.actor).await?.commit(WRONG.about(me.user)).await?;
        return Err(wrong_current());
    };
    let user = users::current(&app, me.user).await?.ok_or_else(Error::not_found)?;
    let context = [user.email.as_str(), user.name.as_deref().unwrap_or("")];
    let hashed = hash(&app, turn, "/new_password", &body.new_password, &context).await?;
    let sealed = hashed.seal(&app, me.user);
    let mut change = app.change(&caller.actor).await?;
    if !unchanged(&mut change, &stored).await? {
        return Err(wrong_current());
    }
    store(&mut change, me.user, sealed).await?;
    end_others(&mut change, me.user, me.session, Why::PasswordChanged).await?;
    change.commit(CHANGED.about(me.user)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wrong_current() -> Error {
    let says = "This is not your current password.";
    Error::bad_field("/current_password", "passwords.wrong", says)
}
