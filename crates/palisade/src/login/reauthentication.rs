//! Proving again who one is, within a session: with the strongest factor that the account has.

use palisade_crypto::secret::SecretString;

use super::REAUTHENTICATED;
use crate::access::{Caller, Strength};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::lockout::{self, Account, Admission, Client};
use crate::mfa::{self, Given};
use crate::passwords;
use crate::sessions::{self, Issued, Proof};

/// What somebody shows to prove who they are.
pub(super) enum Shown {
    /// The password.
    Password(SecretString),
    /// A second factor.
    Factor(Given),
}

/// Asks whoever is signed in for a proof; the session goes on with new credentials alone.
///
/// # Errors
/// `login.stronger_needed`; `passwords.wrong`; `mfa.wrong_code`; `lockout.locked`; 503 when too many wait; or the
/// database fails.
pub(super) async fn reauthenticate(app: &App, caller: &Caller, shown: Shown) -> Result<Issued> {
    let me = caller.signed_in()?;
    match shown {
        Shown::Password(password) => {
            strong_enough(Strength::Password, me.strongest)?;
            let proved = passwords::prove(app, caller, &password, "/password").await?;
            let mut change = app.change(&caller.actor).await?;
            proved.hold(&mut change).await?;
            let proof = Proof { amr: "pwd", strength: Strength::Password };
            let issued = sessions::renew(&mut change, me.user, me.session()?, proof).await?;
            let entry = REAUTHENTICATED.about(me.user).detail("session", me.session()?.to_string());
            change.commit(entry.detail("method", "pwd")).await?;
            Ok(issued)
        }
        Shown::Factor(given) => {
            strong_enough(given.strength(), me.strongest)?;
            with_factor(app, caller, &given).await
        }
    }
}

async fn with_factor(app: &App, caller: &Caller, given: &Given) -> Result<Issued> {
    let me = caller.signed_in()?;
    let account = Account::second_factor(app, me.user);
    let guess = match lockout::admit(app, &caller.actor, account, Client::SignedIn).await? {
        Admission::Counted(guess) => guess,
        Admission::Refused(refused) => return Err(refused.error(app)),
    };
    let mut change = app.change(&caller.actor).await?;
    let Some(proof) = mfa::judge(&mut change, me.user, given).await? else {
        guess.wrong(&mut change).await?;
        change.commit(mfa::WRONG.about(me.user).detail("method", given.method())).await?;
        return Err(mfa::wrong(given));
    };
    guess.right(&mut change).await?;
    let issued = sessions::renew(&mut change, me.user, me.session()?, proof).await?;
    let entry = REAUTHENTICATED.about(me.user).detail("session", me.session()?.to_string());
    change.commit(entry.detail("method", given.method())).await?;
    Ok(issued)
}

/// SECURITY: (test: a_fresh_proof_is_made_with_the_strongest_factor)
fn strong_enough(shown: Strength, strongest: Strength) -> Result<()> {
    if shown >= strongest {
        return Ok(());
    }
    let says = "This account has a stronger factor; prove who you are with that one.";
    let error = Error::new(Kind::Denied, "login.stronger_needed", says);
    Err(error.with("methods", strongest.methods()))
}
