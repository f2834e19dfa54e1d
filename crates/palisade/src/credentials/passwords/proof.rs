//! Asking a signed-in user for the password again.

use palisade_crypto::secret::SecretString;

use super::{QueueSlot, Stored, Verdict, WRONG, stored, unchanged, verify};
use crate::access::Caller;
use crate::app::{App, Change};
use crate::error::{Error, Result};
use crate::lockout::{self, Account, Client, Guess};

/// A current password that was just verified. Call [`Proved::hold`] within the change that depends on it.
pub struct Proved {
    guess: Guess,
    stored: Stored,
    pointer: &'static str,
}

/// Compares a password with the current one of the signed-in user. A wrong password is counted as a guess and recorded
/// as an event.
///
/// # Errors
/// Fails with `passwords.wrong` at `pointer`; `lockout.locked`; 503 if the hashing queue is full; or if the database
/// fails.
pub async fn prove(
    app: &App,
    caller: &Caller,
    password: &SecretString,
    pointer: &'static str,
) -> Result<Proved> {
    let user = caller.signed_in()?.user;
    // SECURITY: the stored password is read before the guess waits for its turn. If a duplicate of this request changes
    // the password in the meantime, this guess is still compared with the earlier password. It then doesn't count as
    // wrong, and `hold` refuses it (test: duplicates_of_a_change_of_password_are_no_guesses).
    let stored = stored(app, user).await?;
    let account = Account::of(app, Some(user), "");
    let guess =
        lockout::admit(app, &caller.actor, account, Client::SignedIn).await?.counted(app)?;
    let slot = QueueSlot::of(caller.actor.ip).known();
    let verdict = verify(app, slot, stored.as_ref(), password).await?;
    let (Some(stored), Verdict::Right(_)) = (stored, verdict) else {
        let mut change = app.change(&caller.actor).await?;
        guess.wrong(&mut change).await?;
        change.commit(WRONG.about(user)).await?;
        return Err(wrong(pointer));
    };
    Ok(Proved { guess, stored, pointer })
}

impl Proved {
    /// Makes sure, within a change, that the password is still the one that was compared.
    ///
    /// # Errors
    /// Fails with `passwords.wrong` if the password was changed in the meantime, or if the database fails.
    pub async fn hold(self, change: &mut Change) -> Result<()> {
        // SECURITY: (test: a_sign_in_that_races_with_a_change_is_refused)
        if !unchanged(change, &self.stored).await? {
            return Err(wrong(self.pointer));
        }
        self.guess.right(change).await
    }
}

fn wrong(pointer: &str) -> Error {
    Error::bad_field(pointer, "passwords.wrong", "This is not your current password.")
}
