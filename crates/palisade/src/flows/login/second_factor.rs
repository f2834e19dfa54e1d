//! The step between a correct password and a session, for users with a second factor.

use axum::http::HeaderValue;
use axum::http::header::WWW_AUTHENTICATE;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cookies::challenge_secret;
use super::entering::{Entering, enter};
use super::{Attempt, DENIED, SIGN_INS, SignedIn, Wanted, holds};
use crate::app::{Actor, App, Change, Hold};
use crate::challenges::{self, Challenge, Client, LIVES, NewChallenge, Purpose};
use crate::error::{Error, Kind, Result};
use crate::factor_recovery;
use crate::lockout::{self, Account, Device, Guess};
use crate::mfa::{self, Given, Judged};
use crate::sessions::{Proof, Transport};
use crate::settings::TokenFormat;
use crate::users::{self, Factors};

const PREFIX: &str = "pal_mf_";

/// What a client needs to present a second factor.
pub struct Challenged {
    /// The token for this sign-in, which grants no other access.
    pub token: SecretString,
    /// The methods with which the second factor can be presented.
    pub methods: Vec<&'static str>,
    /// The options for a passkey, if the user has one.
    pub passkey_options: Option<mfa::Options>,
    /// The cookie that the challenge is bound to. A browser always has one.
    pub cookie: Option<SecretString>,
}

/// The details of a sign-in, as stored in its challenge.
#[derive(Serialize, Deserialize)]
struct Details {
    transport: Transport,
    paseto: bool,
    device_name: Option<String>,
    device: Uuid,
    /// The generation of the password that was correct.
    password: i64,
    is_new_device: bool,
}

/// Creates a challenge for a user whose password was correct.
pub(super) async fn challenge(
    change: &mut Change,
    attempt: Attempt,
    factors: Factors,
    (device, is_new_device): (Device, bool),
) -> Result<Challenged> {
    let app = change.app().clone();
    let token = opaque::generate(PREFIX, &*app.random);
    let digest = opaque::digest(PREFIX, token.expose());
    let digest = digest.ok_or_else(|| Error::internal("a new token has no digest"))?;
    let cookie = challenge_secret(&app, attempt.browser, attempt.challenge_cookie);
    let details = Details {
        transport: attempt.wanted.transport,
        paseto: attempt.wanted.format == TokenFormat::Paseto,
        device_name: attempt.wanted.device_name,
        device: device.id,
        password: device.password,
        is_new_device,
    };
    let agent = change.actor().user_agent.clone();
    let client = Client::outside(&app, agent.as_deref(), cookie.as_ref().map(SecretString::expose));
    let asked = mfa::ask(change, device.user).await?;
    let new = NewChallenge {
        digest,
        purpose: Purpose::SecondFactor,
        user: Some(device.user),
        client,
        passkey: asked.as_ref().map(|asked| asked.digest),
        details: serde_json::to_string(&details).map_err(Error::internal)?,
    };
    challenges::open(change, new).await?;
    let passkey_options = asked.map(|asked| asked.options);
    Ok(Challenged { token, methods: mfa::methods(factors), passkey_options, cookie })
}

impl Challenged {
    /// Returns the response to a sign-in that still requires a second factor.
    pub fn error(&self) -> Error {
        let detail = "The password is correct. Complete the sign-in with a second factor: \
             POST /api/v1/auth/login/mfa.";
        let error = Error::new(Kind::NotSignedIn, "login.mfa_required", detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            .with("mfa_token", self.token.expose())
            .with("methods", self.methods.clone())
            .with("expires_in", LIVES.as_secs());
        match &self.passkey_options {
            Some(options) => error.with("passkey_options", options.clone()),
            None => error,
        }
    }
}

/// An attempt to complete a sign-in with a second factor.
pub(super) struct FactorAttempt {
    pub(super) token: SecretString,
    pub(super) given: Given,
    pub(super) cookie: Option<SecretString>,
}

/// Checks a second factor, and starts the session.
///
/// # Errors
/// Fails with `login.challenge_over`; `login.denied` for a wrong proof; `login.passkey_unknown` for a passkey that no user
/// has; `lockout.locked`; or if the database fails.
pub(super) async fn prove(app: &App, actor: &Actor, attempt: FactorAttempt) -> Result<SignedIn> {
    let digest = opaque::digest(PREFIX, attempt.token.expose()).ok_or_else(over)?;
    let cookie = attempt.cookie.as_ref().map(SecretString::expose);
    let client = Client::outside(app, actor.user_agent.as_deref(), cookie);
    let challenge = challenges::attempt(app, actor, Purpose::SecondFactor, digest, client).await?;
    let challenge = challenge.ok_or_else(over)?;
    let user = challenge.user.ok_or_else(over)?;
    let details: Details = serde_json::from_str(&challenge.details).map_err(Error::internal)?;
    let device = Device { id: details.device, user, password: details.password };
    // SECURITY: guesses are counted by account. A new challenge, a different IP address or a known device gives no
    // additional guesses: anyone who knew the password before the account had a factor may have signed in on a thousand
    // devices (tests: ten_thousand_codes_are_five_guesses, devices_give_no_more_guesses_at_the_factor).
    let account = Account::second_factor(app, user);
    let guess = match attempt.given {
        // A passkey can't be guessed, and a lock caused by wrong codes must not affect it.
        Given::Passkey(_) => None,
        _ => {
            let by = lockout::Client::Unknown;
            Some(lockout::admit(app, actor, account, by).await?.counted(app)?)
        }
    };
    let mut change = app.change_holding(actor, &holds(app, Hold::Shared(user))).await?;
    let first = users::may_sign_in(&mut change, user).await?.ok_or_else(over)?;
    if !challenges::lock_row(&mut change, &challenge).await? {
        return Err(over());
    }
    let judged = mfa::judge(&mut change, user, &attempt.given, challenge.passkey).await?;
    let Judged::Right(proof) = judged else {
        return Err(refuse(change, &challenge, judged, guess, attempt.given.method()).await);
    };
    if !challenges::close(&mut change, &challenge).await? {
        return Err(over());
    }
    if let Some(guess) = guess {
        guess.right(&mut change).await?;
    }
    factor_recovery::not_lost(&mut change, user).await?;
    let format = if details.paseto { TokenFormat::Paseto } else { TokenFormat::Jwt };
    let (transport, device_name) = (details.transport, details.device_name);
    let entering = Entering {
        device,
        is_new_device: details.is_new_device,
        first,
        wanted: Wanted { device_name, format, transport },
        proof: Proof { amr: after_password(proof.amr), ..proof },
        method: attempt.given.method(),
    };
    enter(change, entering).await
}

/// Records that a proof was refused, and returns the error.
async fn refuse(
    mut change: Change,
    challenge: &Challenge,
    judged: Judged,
    guess: Option<Guess>,
    method: &'static str,
) -> Error {
    let counted = mfa::settle(&mut change, judged, guess, Some(challenge)).await;
    let entry = match challenge.user {
        Some(user) => DENIED.about(user),
        None => DENIED.entry(),
    };
    let entry = entry.detail("reason", judged.refusal()).detail("method", method);
    if let Err(error) = counted {
        return error;
    }
    let app = change.app().clone();
    if let Err(error) = change.commit(entry).await {
        return error;
    }
    app.metrics.count(&SIGN_INS, &[method, "failure"]);
    refused(judged)
}

/// Requests that the account's second factors be removed once the waiting period has passed. Takes the token of a
/// challenge, which does not have to be answered.
///
/// # Errors
/// Fails with `login.challenge_over`; `recovery.factors_off`; `mail.off`; or if the database fails.
pub(super) async fn lost(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    cookie: Option<&SecretString>,
) -> Result<()> {
    let digest = opaque::digest(PREFIX, token.expose()).ok_or_else(over)?;
    let cookie = cookie.map(SecretString::expose);
    let client = Client::outside(app, actor.user_agent.as_deref(), cookie);
    let challenge = challenges::attempt(app, actor, Purpose::SecondFactor, digest, client).await?;
    let challenge = challenge.ok_or_else(over)?;
    let user = challenge.user.ok_or_else(over)?;
    if factor_recovery::ask(app, actor, user, &challenge).await? { Ok(()) } else { Err(over()) }
}

/// Returns the `amr` value for a password followed by a second factor with the given `amr` value.
fn after_password(amr: &'static str) -> &'static str {
    match amr {
        "hwk user mfa" => "pwd hwk user mfa",
        "swk user mfa" => "pwd swk user mfa",
        _ => "pwd otp mfa",
    }
}

pub(super) fn over() -> Error {
    let detail = "This sign-in can't be continued: it expired, was completed or ended, had too many \
         attempts, or belongs to another client. Begin again.";
    Error::new(Kind::NotSignedIn, "login.challenge_over", detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Returns the error for a refused factor.
pub(super) fn refused(judged: Judged) -> Error {
    if judged == Judged::Unknown { unknown() } else { wrong() }
}

/// Returns the error for a passkey that no user has. Pages then ask the browser to stop offering it.
pub(super) fn unknown() -> Error {
    let detail = "This passkey is not registered, or was removed. Delete it from your device or \
         password manager, and use another way to sign in.";
    Error::new(Kind::NotSignedIn, "login.passkey_unknown", detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn wrong() -> Error {
    let detail = "The code is wrong, expired or already used, or the passkey was not accepted.";
    Error::new(Kind::NotSignedIn, "login.denied", detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
