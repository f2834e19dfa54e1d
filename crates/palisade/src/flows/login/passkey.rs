//! Signing in with only a passkey, which identifies and verifies its owner.

use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::AuthenticationResponse;

use super::entering::{Entering, enter};
use super::second_factor::{over, refused};
use super::{DENIED, SIGN_INS, SignedIn, Wanted, holds};
use crate::app::{Actor, App, Hold};
use crate::challenges::{self, Client, NewChallenge, Purpose};
use crate::error::Result;
use crate::lockout::Device;
use crate::mfa::{self, Judged};
use crate::{factor_recovery, passwords, users};

/// Begins a sign-in with a passkey. Returns the options for `navigator.credentials.get`. In a browser, the challenge is
/// bound to `cookie`.
///
/// # Errors
/// Fails with `mfa.no_domain`, or if the database fails.
pub(super) async fn begin(
    app: &App,
    actor: &Actor,
    cookie: Option<&SecretString>,
) -> Result<mfa::Options> {
    let asked = mfa::ask_anybody(app)?;
    let cookie = cookie.map(SecretString::expose);
    let mut change = app.change(actor).await?;
    let new = NewChallenge {
        digest: asked.digest,
        purpose: Purpose::SignIn,
        user: None,
        client: Client::outside(app, actor.user_agent.as_deref(), cookie),
        passkey: Some(asked.digest),
        details: String::new(),
    };
    challenges::open(&mut change, new).await?;
    change.commit_quietly("a challenge is created; its answer is an event").await?;
    Ok(asked.options)
}

/// An attempt to sign in with a passkey.
pub(super) struct PasskeyAttempt {
    pub(super) answer: Box<AuthenticationResponse>,
    pub(super) cookie: Option<SecretString>,
    pub(super) device_token: Option<SecretString>,
    pub(super) wanted: Wanted,
}

/// Signs in the user that the passkey identifies and verifies.
///
/// # Errors
/// Fails with `mfa.bad_passkey` if the response is malformed; `login.challenge_over`; `login.passkey_unknown` if no user
/// has the passkey; `login.denied` for any other problem with the passkey or its owner; or if the database fails.
pub(super) async fn finish(app: &App, actor: &Actor, attempt: PasskeyAttempt) -> Result<SignedIn> {
    mfa::check_answer(&attempt.answer)?;
    let digest = mfa::asked_by(&attempt.answer).ok_or_else(over)?;
    let cookie = attempt.cookie.as_ref().map(SecretString::expose);
    let client = Client::outside(app, actor.user_agent.as_deref(), cookie);
    let challenge = challenges::attempt(app, actor, Purpose::SignIn, digest, client).await?;
    let challenge = challenge.ok_or_else(over)?;
    let owner = mfa::owner_of(&attempt.answer);
    let holds = owner.map(|owner| holds(app, Hold::Shared(owner))).unwrap_or_default();
    let mut change = app.change_holding(actor, &holds).await?;
    // Locks don't apply, because there is nothing to guess. A disabled user is refused.
    let first = match owner {
        Some(user) => users::may_sign_in(&mut change, user).await?,
        None => None,
    };
    if !challenges::lock_row(&mut change, &challenge).await? {
        return Err(over());
    }
    let judged = match (owner, first) {
        (Some(user), Some(_)) => {
            mfa::verify_passwordless(&mut change, user, &attempt.answer, challenge.passkey).await?
        }
        _ => mfa::judge_without_user(&mut change, &attempt.answer).await?,
    };
    let (Some(user), Some(first), Judged::Right(proof)) = (owner, first, judged) else {
        mfa::settle(&mut change, judged, None, Some(&challenge)).await?;
        let entry = DENIED.entry().detail("reason", judged.refusal()).detail("method", "passkey");
        change.commit(entry).await?;
        app.metrics.count(&SIGN_INS, &["passkey", "failure"]);
        return Err(refused(judged));
    };
    if !challenges::close(&mut change, &challenge).await? {
        return Err(over());
    }
    factor_recovery::not_lost(&mut change, user).await?;
    let known = attempt.device_token.and_then(|token| Device::open(app, token.expose()));
    let known = known.filter(|known| known.user == user);
    let password = passwords::generation(&mut change, user).await?;
    let entering = Entering {
        device: known
            .map_or_else(|| Device::new(app, user, password), |known| Device { password, ..known }),
        is_new_device: known.is_none(),
        first,
        wanted: attempt.wanted,
        proof,
        method: "passkey",
    };
    enter(change, entering).await
}
