//! Proving again who one is, within a session.

use palisade_crypto::secret::SecretString;

use super::REAUTHENTICATED;
use crate::access::Caller;
use crate::app::App;
use crate::error::Result;
use crate::passwords;
use crate::sessions::{self, Issued};

/// Asks whoever is signed in for the password; the session goes on with new credentials alone.
///
/// # Errors
/// `passwords.wrong`; `lockout.locked`; 503 when too many wait; or the database fails.
pub(super) async fn reauthenticate(
    app: &App,
    caller: &Caller,
    password: &SecretString,
) -> Result<Issued> {
    let me = caller.signed_in()?;
    let session = me.session()?;
    let proved = passwords::prove(app, caller, password, "/password").await?;
    let mut change = app.change(&caller.actor).await?;
    proved.hold(&mut change).await?;
    let issued = sessions::renew(&mut change, me.user, session).await?;
    let entry = REAUTHENTICATED.about(me.user).detail("session", session.to_string());
    change.commit(entry.detail("method", "pwd")).await?;
    Ok(issued)
}
