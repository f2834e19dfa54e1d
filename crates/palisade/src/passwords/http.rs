//! `POST /users/me/password`: the change of one's own password.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CHANGED, Turn, Verdict, WRONG, hash, store, stored, tell_owner, unchanged, verify};
use crate::access::{Caller, SIGNED_IN, bad_token};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::http::{Body, NoContent, Routes, limit};
use crate::limits::{Key, Rule};
use crate::lockout::{self, Account, Admission, Client};
use crate::sessions::{Why, end_others};
use crate::shape;
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
    Routes::at("/users/me")
        .post("/password", SIGNED_IN, change)
        .says("Changes one's own password; ends all other sessions.")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    #[schemars(with = "shape::Secret", example = &"seven purple teapots orbit")]
    current_password: SecretString,
    /// At least 15 characters, unless the server is set otherwise; 128 code points at most.
    #[schemars(with = "shape::Secret", example = &"five green kettles whistle")]
    new_password: SecretString,
}

async fn change(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<PasswordBody>,
) -> Result<NoContent> {
    let me = caller.signed_in()?;
    limit(&app, &CHANGE, app.limiter.account(&me.user.to_string()))?;
    let turn = Turn::of(caller.actor.address).known();
    let account = Account::of(&app, Some(me.user), "");
    let guess = match lockout::admit(&app, &caller.actor, account, Client::SignedIn).await? {
        Admission::Counted(guess) => guess,
        Admission::Refused(until) => return Err(locked(until.since(app.clock.now()))),
    };
    let stored = stored(&app, me.user).await?;
    let verdict = verify(&app, turn, stored.as_ref(), &body.current_password).await?;
    let (Some(stored), Verdict::Right(_)) = (stored, verdict) else {
        let mut change = app.change(&caller.actor).await?;
        guess.wrong(&mut change).await?;
        change.commit(WRONG.about(me.user)).await?;
        return Err(wrong_current());
    };
    let user = users::current(&app, me.user).await?.ok_or_else(bad_token)?;
    let context = [user.email.as_str(), user.name.as_deref().unwrap_or("")];
    let hashed = hash(&app, turn, "/new_password", &body.new_password, &context).await?;
    let sealed = hashed.seal(&app, me.user);
    let mut change = app.change(&caller.actor).await?;
    if !unchanged(&mut change, &stored).await? {
        return Err(wrong_current());
    }
    store(&mut change, me.user, sealed).await?;
    guess.right(&mut change).await?;
    lockout::clear(&mut change, me.user).await?;
    end_others(&mut change, me.user, me.session, Why::PasswordChanged).await?;
    tell_owner(&mut change, me.user).await?;
    change.commit(CHANGED.about(me.user)).await?;
    Ok(NoContent)
}

fn locked(wait: Duration) -> Error {
    let says = "Too many wrong passwords; wait before you try again.";
    Error::new(Kind::TooMany, "lockout.locked", says).retry_after(wait)
}

fn wrong_current() -> Error {
    let says = "This is not your current password.";
    Error::bad_field("/current_password", "passwords.wrong", says)
}
