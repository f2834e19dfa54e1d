//! Confirming the user's identity again within a session, with the account's strongest factor.

use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::AuthenticationResponse;

use super::second_factor::unknown;
use super::{REAUTHENTICATED, holds};
use crate::access::{AuthLevel, Caller};
use crate::app::{App, Change, Hold};
use crate::challenges::{self, Challenge, NewChallenge, Purpose};
use crate::error::{Error, Kind, Result};
use crate::factor_recovery;
use crate::id::UserId;
use crate::lockout::{self, Account, Client};
use crate::mfa::{self, Given, Judged};
use crate::passwords;
use crate::sessions::{self, Issued, Proof};

/// A proof of identity presented by a signed-in user.
pub(super) enum Shown {
    /// The password.
    Password(SecretString),
    /// A second factor.
    Factor(Given),
}

/// Checks a proof of identity from the signed-in user. The session then continues with new credentials only.
///
/// # Errors
/// Fails with `login.stronger_needed`; `passwords.wrong`; `mfa.wrong_code`; `mfa.wrong_passkey`;
/// `login.passkey_unknown` for a passkey that no user has; `mfa.bad_code` or `mfa.bad_passkey` for a malformed proof;
/// `lockout.locked`; `sessions.ended`; 503 if the hashing queue is full; or if the database fails.
pub(super) async fn reauthenticate(app: &App, caller: &Caller, shown: Shown) -> Result<Issued> {
    let me = caller.signed_in()?;
    match shown {
        Shown::Password(password) => {
            must_satisfy(AuthLevel::Password, me.required_level)?;
            let proved = passwords::prove(app, caller, &password, "/password").await?;
            let mut change = begin_alone(app, caller).await?;
            still_satisfies(&mut change, me.user, AuthLevel::Password).await?;
            proved.hold(&mut change).await?;
            let proof = Proof { amr: "pwd", level: AuthLevel::Password };
            let issued = sessions::renew(&mut change, me.user, me.session()?, proof).await?;
            let entry = REAUTHENTICATED.about(me.user).detail("session", me.session()?.to_string());
            change.commit(entry.detail("method", "pwd")).await?;
            Ok(issued)
        }
        Shown::Factor(given) => {
            given.check()?;
            must_satisfy(given.level(), me.required_level)?;
            with_factor(app, caller, &given).await
        }
    }
}

/// Begins the change that records a proof of identity. The change holds the account exclusively, because it ends every
/// earlier credential of the session: nothing that depends on one of them may happen at the same time.
async fn begin_alone(app: &App, caller: &Caller) -> Result<Change> {
    let account = Hold::Alone(caller.signed_in()?.user);
    app.change_holding(&caller.actor, &holds(app, account)).await
}

async fn with_factor(app: &App, caller: &Caller, given: &Given) -> Result<Issued> {
    let me = caller.signed_in()?;
    // SECURITY: a passkey's answer belongs to a challenge of this session, and is tried five times at most (test:
    // a_passkey_answers_its_own_challenge). There is nothing to guess, and wrong codes sent with a stolen session must
    // not lock out the owner's passkey (test: a_locked_factor_does_not_lock_a_passkey).
    let (asked, guess) = match given {
        Given::Passkey(answer) => (Some(asked(app, caller, answer).await?), None),
        _ => {
            let account = Account::second_factor(app, me.user);
            let admitted = lockout::admit(app, &caller.actor, account, Client::SignedIn).await?;
            (None, Some(admitted.counted(app)?))
        }
    };
    let mut change = begin_alone(app, caller).await?;
    still_satisfies(&mut change, me.user, given.level()).await?;
    let judged = judge(&mut change, me.user, given, asked.as_ref()).await?;
    let Judged::Right(proof) = judged else {
        mfa::settle(&mut change, judged, guess, asked.as_ref()).await?;
        let entry = mfa::WRONG.about(me.user).detail("reason", judged.refusal());
        change.commit(entry.detail("method", given.method())).await?;
        return Err(if judged == Judged::Unknown { unknown() } else { mfa::wrong(given) });
    };
    if let Some(guess) = guess {
        guess.right(&mut change).await?;
    }
    factor_recovery::not_lost(&mut change, me.user).await?;
    let issued = sessions::renew(&mut change, me.user, me.session()?, proof).await?;
    let entry = REAUTHENTICATED.about(me.user).detail("session", me.session()?.to_string());
    change.commit(entry.detail("method", given.method())).await?;
    Ok(issued)
}

/// Checks a proof, and the challenge that a passkey's response is for.
async fn judge(
    change: &mut Change,
    user: UserId,
    given: &Given,
    asked: Option<&Challenge>,
) -> Result<Judged> {
    let Some(asked) = asked else { return mfa::judge(change, user, given, None).await };
    if !challenges::lock_row(change, asked).await? {
        // The same response was sent twice at the same moment, and the other copy was accepted.
        return Ok(Judged::Used);
    }
    let judged = mfa::judge(change, user, given, asked.passkey).await?;
    if let Judged::Right(_) = judged
        && !challenges::close(change, asked).await?
    {
        return Ok(Judged::Used);
    }
    Ok(judged)
}

/// Begins a proof with a passkey. Returns the options for `navigator.credentials.get`.
///
/// # Errors
/// Fails with `mfa.no_factor` if there is no passkey, or if the database fails.
pub(super) async fn begin(app: &App, caller: &Caller) -> Result<mfa::Options> {
    let me = caller.signed_in()?;
    let mut change = app.change(&caller.actor).await?;
    let Some(asked) = mfa::ask(&mut change, me.user).await? else {
        let detail = "This account has no passkey.";
        return Err(Error::new(Kind::Conflict, "mfa.no_factor", detail));
    };
    let new = NewChallenge {
        digest: asked.digest,
        purpose: Purpose::StepUp,
        user: Some(me.user),
        client: challenges::Client::within(app, me.session()?),
        passkey: Some(asked.digest),
        details: String::new(),
    };
    challenges::open(&mut change, new).await?;
    change.commit_quietly("a challenge is created; its answer is an event").await?;
    Ok(asked.options)
}

/// Returns the challenge of this session that a passkey's response is for, and counts the attempt.
async fn asked(app: &App, caller: &Caller, answer: &AuthenticationResponse) -> Result<Challenge> {
    let me = caller.signed_in()?;
    let none = || {
        let detail = "This response does not match an open challenge of this session. Begin again.";
        Error::bad_field("/credential", "mfa.wrong_passkey", detail)
    };
    let digest = mfa::asked_by(answer).ok_or_else(none)?;
    let client = challenges::Client::within(app, me.session()?);
    let found = challenges::attempt(app, &caller.actor, Purpose::StepUp, digest, client).await?;
    found.filter(|found| found.user == Some(me.user)).ok_or_else(none)
}

/// Checks again, within the change that depends on it, whether a proof is strong enough.
///
/// SECURITY: a factor may have been set up since (test: a_proof_beside_a_new_factor_is_made_with_that_factor).
async fn still_satisfies(change: &mut Change, user: UserId, shown: AuthLevel) -> Result<()> {
    must_satisfy(shown, mfa::factors(change, user).await?.required_level())
}

/// SECURITY: (test: a_fresh_proof_is_made_with_the_strongest_factor)
fn must_satisfy(shown: AuthLevel, required_level: AuthLevel) -> Result<()> {
    if shown.satisfies(required_level) {
        return Ok(());
    }
    let detail = "This account has a stronger factor. Confirm your identity with that factor.";
    let error = Error::new(Kind::Denied, "login.stronger_needed", detail);
    Err(error.with("methods", required_level.methods()))
}
