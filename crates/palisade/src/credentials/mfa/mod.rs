//! Second factors: one-time codes, passkeys, and the recovery codes that can be used in place of them.
//!
//! # Promises
//!
//! - Every session of a user with a factor includes a proof of a factor: setting up the first factor ends all other
//!   sessions that were started without one.
//! - A one-time code is valid during its step and for `mfa.totp_grace` after it. It works once, across restarts,
//!   processes and simultaneous requests. A recovery code works once. A passkey's response belongs to one challenge.
//! - A secret that is not confirmed yet is shown again only to the session that requested it, and not after a new proof
//!   of identity.
//! - Guesses are counted per account, across challenges, devices and IP addresses. A signed-in user has a separate
//!   count.
//! - Secrets of one-time codes and public keys of passkeys are sealed for their user. Recovery codes are stored as
//!   keyed digests that include the user's id.
//! - A passkey that was bound to one device becomes eligible for backup only at a sign-in that verifies its user. This is
//!   recorded, and from then on the passkey no longer proves possession of hardware.
//! - The owner is notified of every change to their factors.
//!
//! Tables: `totp_secrets`, `totp_enrolments`, `recovery_codes`, `passkeys`.

mod assertions;
mod http;
mod makers;
mod passkeys;
mod recovery_codes;
mod totp;
mod typed;

use std::time::Duration;

use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::{AuthenticationResponse, UserVerification};
use palisade_db::{Migration, Sql, Timestamp, args};

use crate::access::{AuthLevel, Caller};
use crate::app::{App, Change, State};
use crate::challenges::{self, Challenge};
use crate::credentials::{self, Act, End, Ending, Fate};
use crate::error::{Error, Kind, Result, bad_token};
use crate::id::UserId;
use crate::lockout::Guess;
use crate::mail::{self, Content, EmailTemplate};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::sessions::{self, Proof};
use crate::users::{self, Factors};

pub use assertions::{asked_by, check_answer, judge_without_user, owner_of};
use makers::Makers;
pub use passkeys::{Asked, Options, PasskeyView, ask, ask_anybody, list as passkeys_of};

/// A user set up a factor.
pub const ADDED: Event = Event { name: "mfa.added", summary: "A second factor was set up" };
/// A user removed a factor.
pub const REMOVED: Event = Event { name: "mfa.removed", summary: "A second factor was removed" };
/// A user created new recovery codes.
pub const CODES_MADE: Event =
    Event { name: "mfa.recovery_codes_made", summary: "New recovery codes were created" };
/// A recovery code was used.
pub const CODE_USED: Event =
    Event { name: "mfa.recovery_code_used", summary: "A recovery code was used" };
/// A passkey was used whose counter didn't increase, or that is not eligible for backup any more.
pub const COPIED: Event = Event {
    name: "mfa.passkey_copied",
    summary: "A passkey may have been copied: its signature counter did not increase, or it is no longer eligible for backup",
};
/// A passkey that was bound to one device became eligible for backup.
pub const BACKUP_ELIGIBLE: Event = Event {
    name: "mfa.passkey_backup_eligible",
    summary: "A passkey that was bound to one device became eligible for backup: it can be copied to other devices",
};
/// A stored passkey isn't the one that its user registered.
pub const ALTERED: Event = Event {
    name: "mfa.passkey_altered",
    summary: "A stored passkey differs from the one that its user registered: its row was changed in the database",
};
/// A signed-in user entered a wrong code or used a wrong passkey.
pub const WRONG: Event =
    Event { name: "mfa.wrong", summary: "A wrong code or passkey was given within a session" };
/// All of a user's factors were removed by an administrator or the operator.
pub const RESET: Event = Event { name: "mfa.reset", summary: "All second factors were removed" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "mfa",
    routes: http::routes,
    limits: &[&http::CHANGE],
    jobs: &[Job {
        name: "mfa.prune",
        every: Duration::from_secs(600),
        run: |app| Box::pin(totp::prune(app)),
    }],
    events: &[
        ADDED,
        REMOVED,
        CODES_MADE,
        CODE_USED,
        COPIED,
        BACKUP_ELIGIBLE,
        ALTERED,
        WRONG,
        RESET,
    ],
    email_templates: &[&CHANGED_EMAIL, &CODE_USED_EMAIL],
    migrations: &[Migration {
        module: "mfa",
        number: 1,
        name: "mfa",
        sql: Sql::Both(include_str!("../../../migrations/mfa/0001_mfa.sql")),
    }],
    endings: &[FACTORS, RECOVERY_CODES, PASSWORDLESS_PASSKEYS],
    tables: &["totp_secrets", "totp_enrolments", "recovery_codes", "passkeys"],
    state: |settings, state: &mut State| {
        state.put(Makers::read(settings)?);
        Ok(())
    },
    ..Module::EMPTY
};

static CHANGED_EMAIL: EmailTemplate = EmailTemplate {
    name: "mfa_changed",
    text: include_str!("emails/changed.txt"),
    html: include_str!("emails/changed.html"),
    prepare: mail::as_written,
};

static CODE_USED_EMAIL: EmailTemplate = EmailTemplate {
    name: "mfa_recovery_code_used",
    text: include_str!("emails/recovery_code_used.txt"),
    html: include_str!("emails/recovery_code_used.html"),
    prepare: mail::as_written,
};

/// The proof of a factor.
pub enum Given {
    /// A one-time code.
    Totp(SecretString),
    /// A recovery code.
    RecoveryCode(SecretString),
    /// The response of a passkey.
    Passkey(Box<AuthenticationResponse>),
}

impl Given {
    /// Returns the proof that a code can be: six digits are a one-time code, and any other code is a recovery code.
    pub fn code(code: SecretString) -> Self {
        if totp::is_code(code.expose()) { Self::Totp(code) } else { Self::RecoveryCode(code) }
    }

    /// Returns the method's name in requests and the audit log.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Totp(_) => "totp",
            Self::RecoveryCode(_) => "recovery_code",
            Self::Passkey(_) => "passkey",
        }
    }

    /// Refuses input that can't be a proof for any user, without counting it as a guess.
    ///
    /// # Errors
    /// Fails with `mfa.bad_code` or `mfa.bad_passkey` at the invalid field.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Totp(code) if !totp::is_code(code.expose()) => Err(bad_code()),
            Self::RecoveryCode(code) if !recovery_codes::is_code(code.expose()) => {
                let detail = "A recovery code has 24 letters and digits.";
                Err(Error::bad_field("/code", "mfa.bad_code", detail))
            }
            Self::Totp(_) | Self::RecoveryCode(_) => Ok(()),
            Self::Passkey(answer) => check_answer(answer),
        }
    }

    /// Returns the level that the proof has if it is correct.
    pub fn level(&self) -> AuthLevel {
        match self {
            Self::Totp(_) => AuthLevel::Code,
            Self::RecoveryCode(_) => AuthLevel::RecoveryCode,
            Self::Passkey(_) => AuthLevel::Passkey,
        }
    }
}

/// The result of checking a proof of a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Correct, and now used up.
    Right(Proof),
    /// Already accepted. The proof is refused, because each proof works once, but it isn't counted as a guess: a client
    /// that sends a request twice must not lock out the account's owner.
    Used,
    /// Wrong.
    Wrong,
    /// Wrong, because no user has the passkey.
    Unknown,
}

impl Judged {
    /// Returns the reason for the refusal, for the audit log.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Used => "used_factor",
            Self::Unknown => "unknown_passkey",
            Self::Right(_) | Self::Wrong => "wrong_factor",
        }
    }
}

/// Settles the counts for a refused proof: the guess, if one was admitted, and the attempt at the challenge that the
/// proof answers. A previously accepted proof counts as neither.
///
/// # Errors
/// Returns an error if the database fails. The proof then stays counted.
pub async fn settle(
    change: &mut Change,
    judged: Judged,
    guess: Option<Guess>,
    challenge: Option<&Challenge>,
) -> Result<()> {
    if judged == Judged::Used
        && let Some(challenge) = challenge
    {
        challenges::give_back(change, challenge).await?;
    }
    match (guess, judged) {
        (Some(guess), Judged::Used) => guess.give_back(change).await,
        (Some(guess), _) => guess.wrong(change).await.map(drop),
        (None, _) => Ok(()),
    }
}

/// Returns the error for a text that can't be a one-time code.
fn bad_code() -> Error {
    Error::bad_field("/code", "mfa.bad_code", "A one-time code has six digits.")
}

/// Returns the error for a wrong proof.
pub fn wrong(given: &Given) -> Error {
    if let Given::Passkey(_) = given {
        return Error::bad_field(
            "/credential",
            "mfa.wrong_passkey",
            "This passkey was not accepted.",
        );
    }
    let detail = "The code is wrong, expired or already used.";
    Error::bad_field("/code", "mfa.wrong_code", detail)
}

/// Reads a user's factors, within a change.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn factors(change: &mut Change, user: UserId) -> Result<Factors> {
    let (totp, passkeys, recovery_codes_left): (i64, i64, i64) = change
        .one(
            "select (select count(*) from totp_secrets where user_id = $1),
                (select count(*) from passkeys where user_id = $1),
                (select count(*) from recovery_codes where user_id = $1 and used_at is null)",
            args![user],
        )
        .await?;
    Ok(Factors { totp: totp > 0, passkeys, recovery_codes_left })
}

/// Updates the columns of `users` that describe a user's factors, in each change to the factors or the recovery codes.
async fn recount(change: &mut Change, user: UserId) -> Result<Factors> {
    // SECURITY: the lock makes the second of two simultaneous changes count what the first one left (test:
    // two_recovery_codes_at_the_same_moment_leave_eight).
    users::lock_row(change, user).await?;
    let factors = factors(change, user).await?;
    users::set_factors(change, user, factors).await?;
    Ok(factors)
}

/// Returns the second-factor methods that a user with these factors can use.
pub fn methods(factors: Factors) -> Vec<&'static str> {
    [
        (factors.passkeys > 0, "passkey"),
        (factors.totp, "totp"),
        (factors.any() && factors.recovery_codes_left > 0, "recovery_code"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

/// Checks a proof of a factor, in the change that depends on it. `asked` is the digest of the bytes that a passkey was
/// asked to sign.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn judge(
    change: &mut Change,
    user: UserId,
    given: &Given,
    asked: Option<[u8; 32]>,
) -> Result<Judged> {
    match given {
        Given::Passkey(answer) => {
            assertions::judge(change, user, answer, asked, UserVerification::Preferred).await
        }
        Given::Totp(code) => {
            let proof = Proof { amr: "otp mfa", level: AuthLevel::Code };
            totp::use_code(change, user, code.expose(), proof).await
        }
        Given::RecoveryCode(code) => {
            let proof = Proof { amr: "otp mfa", level: AuthLevel::RecoveryCode };
            recovery_codes::use_code(change, user, code.expose(), proof).await
        }
    }
}

/// Checks a passkey used as the only factor. It must have verified its user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn verify_passwordless(
    change: &mut Change,
    user: UserId,
    answer: &AuthenticationResponse,
    asked: Option<[u8; 32]>,
) -> Result<Judged> {
    // SECURITY: possession alone is one factor (test: a_passkey_alone_must_verify_its_user).
    assertions::judge(change, user, answer, asked, UserVerification::Required).await
}

/// Applies the consequences of a new factor, in the change that stores it: records that the factor was used in the
/// session, ends every session without one, and notifies the owner.
async fn added(change: &mut Change, caller: &Caller, proof: Proof, what: &str) -> Result<()> {
    let me = caller.signed_in()?;
    // SECURITY: the session is updated before the sessions without a factor end, so that it isn't one of them (test:
    // the_first_factor_ends_sessions_without_it).
    sessions::raise_level(change, me.user, me.session()?, proof).await?;
    credentials::end(change, End::of(me.user, Act::FactorAdded)).await?;
    recount(change, me.user).await?;
    notify_owner(change, me.user, &format!("{what} was added")).await
}

/// Applies the consequences of removing a factor, in the change that removes it.
///
/// # Errors
/// Fails with `mfa.required` for the last factor of a user who must have one, or if the database fails.
async fn removed(change: &mut Change, caller: &Caller, what: &str) -> Result<()> {
    let me = caller.signed_in()?;
    if !recount(change, me.user).await?.any() {
        // SECURITY: checked within the change, because a role that was given in the meantime may require a factor
        // (tests: an_administrator_keeps_the_last_factor, who_is_made_an_administrator_keeps_the_last_factor).
        let user = users::find_now(change, me.user).await?.ok_or_else(bad_token)?;
        if user.needs_factor(change.app()) {
            let detail = "A second factor is required. Set up another factor first.";
            return Err(Error::new(Kind::Conflict, "mfa.required", detail));
        }
        // Recovery codes replace a lost factor. They are not a factor on their own.
        recovery_codes::forget(change, me.user).await?;
        recount(change, me.user).await?;
    }
    let keeping = Some(me.session()?);
    let act = End { keeping, ..End::of(me.user, Act::FactorRemoved) };
    credentials::end(change, act).await?;
    notify_owner(change, me.user, &format!("{what} was removed")).await
}

async fn notify_owner(change: &mut Change, user: UserId, what: &str) -> Result<()> {
    mail::enqueue(change, &CHANGED_EMAIL, Content::to_user(user).with("what", what)).await
}

/// Removes all of a user's factors and ends all their sessions, in a change that states the reason.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn remove_all(change: &mut Change, user: UserId) -> Result<()> {
    credentials::end(change, End::of(user, Act::FactorsReset)).await?;
    notify_owner(change, user, "all second factors were removed").await
}

/// How an act on an account ends its factors. Every act that does so also ends all sessions.
const FACTORS: Ending = Ending {
    kind: credentials::Kind::Factors,
    owners: None,
    end: |change, end, fate| {
        Box::pin(async move {
            match (fate, end.since) {
                (Fate::Since, Some(since)) => forget_since(change, end.user, since).await?,
                _ => forget(change, end.user).await?,
            }
            Ok(0)
        })
    },
};

async fn forget(change: &mut Change, user: UserId) -> Result<()> {
    totp::forget(change, user).await?;
    change.run("delete from passkeys where user_id = $1", args![user]).await?;
    recount(change, user).await.map(drop)
}

async fn forget_since(change: &mut Change, user: UserId, since: Timestamp) -> Result<()> {
    let sql = "delete from passkeys where user_id = $1 and created_at >= $2";
    // The recovery codes are deleted here too, so that the owner is notified only once.
    let gone = totp::forget_since(change, user, since).await?
        + recovery_codes::forget_since(change, user, since).await?
        + change.run(sql, args![user, since]).await?;
    recount(change, user).await?;
    if gone == 0 {
        return Ok(());
    }
    change.note(REMOVED.about(user).detail("since", since.to_string()));
    notify_owner(
        change,
        user,
        "all second factors added since the change of email address was requested were removed",
    )
    .await
}

const RECOVERY_CODES: Ending = Ending {
    kind: credentials::Kind::RecoveryCodes,
    owners: None,
    end: |change, end, fate| {
        Box::pin(async move {
            match (fate, end.since) {
                (Fate::Since, Some(since)) => {
                    recovery_codes::forget_since(change, end.user, since).await?;
                }
                _ => recovery_codes::forget(change, end.user).await?,
            }
            recount(change, end.user).await?;
            Ok(0)
        })
    },
};

/// How an act stops every passkey from being accepted as the only factor until it is used together with the password.
const PASSWORDLESS_PASSKEYS: Ending = Ending {
    kind: credentials::Kind::PasswordlessPasskeys,
    owners: None,
    end: |change, end, _| {
        Box::pin(async move {
            passkeys::require_password(change, end.user).await?;
            Ok(0)
        })
    },
};

/// Removes all of a user's factors on behalf of an administrator or the operator.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn reset(mut change: Change, user: UserId) -> Result<()> {
    if !users::exists(&mut change, user).await? {
        return Err(Error::not_found());
    }
    remove_all(&mut change, user).await?;
    change.commit(RESET.about(user)).await
}

/// Returns the name under which authenticators list this server.
fn site(app: &App) -> &str {
    app.settings.site.name.as_str()
}

/// Returns the authentication methods that a passkey proves (RFC 8176).
fn amr(backup_eligible: bool) -> &'static str {
    // What may be copied isn't bound to one piece of hardware (RFC 8176).
    if backup_eligible { "swk user mfa" } else { "hwk user mfa" }
}
