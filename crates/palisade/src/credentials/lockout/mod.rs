//! Lockout: how often the password or the second factor of an account may be guessed.
//!
//! # Promises
//!
//! - A guess is counted in the database before it is checked: simultaneous guesses, other IP addresses, other processes
//!   and restarts allow no additional guesses. A guess that was never checked is removed from the count, unless its
//!   process ends first.
//! - A lock of the password can't be used against the owner: a device that has signed in to the account before has a
//!   separate count (OWASP, "Device cookies"), and so does a signed-in user.
//! - After 100 failures in a row, a lock no longer ends on its own (NIST SP 800-63B-4, section 3.2.2). If the password
//!   is locked, known devices can still sign in. Other clients need a new password, an administrator or the operator.
//! - Guesses at unknown email addresses are counted like those at known ones, with the same work.
//!
//! The end of the lock for unknown clients is also stored in the user's row, where every request reads it.
//!
//! Tables: `lockout_counts`.

mod account;
mod count;
mod device;
mod http;
mod rows;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use palisade_db::{Migration, Sql, Timestamp, args};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::app::{Actor, App, Change, State};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::mail::{self, Content, EmailTemplate, for_people};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::users;

use account::SECOND_FACTOR;
pub use account::{Account, Client};
use count::{Count, Policy};
pub use device::{Device, KNOWN_FOR};
use rows::{lock_row, refuse, save};

/// Too many guesses were wrong. Further guesses are refused for all unknown clients, one known device, all former
/// devices or the signed-in user.
pub const LOCKED: Event = Event {
    name: "lockout.locked",
    summary: "Too many wrong passwords or codes: further attempts are refused",
};
/// All of a user's locks were lifted.
pub const UNLOCKED: Event = Event { name: "lockout.unlocked", summary: "A user was unlocked" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "lockout",
    routes: http::routes,
    events: &[LOCKED, UNLOCKED],
    email_templates: &[&EMAIL, &FACTOR_EMAIL],
    jobs: &[Job {
        name: "lockout.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "lockout",
        number: 1,
        name: "lockout",
        sql: Sql::Both(include_str!("../../../migrations/lockout/0001_lockout.sql")),
    }],
    tables: &["lockout_counts"],
    state: |_, state: &mut State| {
        state.put(Turns::new());
        Ok(())
    },
    ..Module::EMPTY
};

static EMAIL: EmailTemplate = EmailTemplate {
    name: "lockout_locked",
    text: include_str!("emails/locked.txt"),
    html: include_str!("emails/locked.html"),
    prepare: mail::as_written,
};

static FACTOR_EMAIL: EmailTemplate = EmailTemplate {
    name: "lockout_second_factor",
    text: include_str!("emails/second_factor.txt"),
    html: include_str!("emails/second_factor.html"),
    prepare: mail::as_written,
};

/// The decision on whether a guess may be checked.
pub enum Admission {
    /// The guess is counted, and its outcome must be reported.
    Counted(Guess),
    /// The guess must not be checked.
    Refused(Refused),
}

impl Admission {
    /// Returns the counted guess, for callers that may reveal that a guess was refused.
    ///
    /// # Errors
    /// Fails with `lockout.locked`.
    pub fn counted(self, app: &App) -> Result<Guess> {
        match self {
            Self::Counted(guess) => Ok(guess),
            Self::Refused(refused) => Err(refused.error(app)),
        }
    }
}

/// A guess refused without being checked.
pub struct Refused {
    /// The time until which guesses are refused.
    pub until: Timestamp,
    account: Account,
    client: Client,
}

impl Refused {
    /// Returns the error for callers that may reveal that the guess was refused rather than wrong.
    fn error(&self, app: &App) -> Error {
        let detail = "Too many wrong attempts. Wait before you try again.";
        let wait = self.until.since(app.clock.now());
        Error::new(Kind::TooMany, "lockout.locked", detail).retry_after(wait)
    }

    /// Takes as long as [`Guess::wrong`] and returns the same value, in the change that records the refusal.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn as_if_wrong(self, change: &mut Change) -> Result<Option<UserId>> {
        // SECURITY: (test: test_time_tells_nobody_who_has_an_account)
        let (_, user) = lock_row(change, &self.account, self.client).await?;
        Ok(user)
    }
}

/// A guess that has been counted but not checked yet. If it is dropped, it is removed from the count.
pub struct Guess {
    app: App,
    user: Option<UserId>,
    /// Whether the guess reaches the threshold, and therefore locks the account if it is wrong.
    locks: bool,
    place: Option<Place>,
}

/// The row of a count, and the guard that makes other guesses counted there wait.
struct Place {
    account: Account,
    client: Client,
    _turn: OwnedMutexGuard<()>,
}

/// The mutexes that serialize the guesses at one account within a process, so that many simultaneous correct guesses
/// don't look like too many guesses.
struct Turns {
    stripes: Vec<Arc<Mutex<()>>>,
    hash: RandomState,
}

impl Turns {
    fn new() -> Self {
        Self { stripes: (0..4096).map(|_| Arc::default()).collect(), hash: RandomState::new() }
    }

    /// Waits for the mutex of this account and client. The hash that selects the mutex is keyed, so that no one can
    /// pick an email address that shares a mutex with another person's.
    async fn take(&self, account: &Account, client: Client) -> Result<OwnedMutexGuard<()>> {
        let hash =
            usize::try_from(self.hash.hash_one((&account.key, account.count_of(client))) % 4096);
        let stripe = self
            .stripes
            .get(hash.unwrap_or(0))
            .ok_or_else(|| Error::internal("the account maps to no lock"))?;
        Ok(Arc::clone(stripe).lock_owned().await)
    }
}

/// Counts a guess that is about to be checked, or refuses it if it may not be checked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn admit(
    app: &App,
    actor: &Actor,
    account: Account,
    client: Client,
) -> Result<Admission> {
    if !app.settings.lockout.enabled {
        return Ok(Admission::Counted(Guess {
            app: app.clone(),
            user: account.user,
            locks: false,
            place: None,
        }));
    }
    let turn = app.state::<Turns>().take(&account, client).await?;
    let mut change = app.change(actor).await?;
    let (mut before, mut user) = lock_row(&mut change, &account, client).await?;
    if before.is_outdated(change.now())
        && let Some(shown) = shown(&account, client)
    {
        // A sign-in locks the user's row before the row of the count. Start over in that order.
        drop(change);
        change = app.change(actor).await?;
        users::lock_row(&mut change, shown).await?;
        (before, user) = lock_row(&mut change, &account, client).await?;
        if before.is_outdated(change.now()) {
            users::set_locked_until(&mut change, shown, None).await?;
        }
    }
    let now = change.now();
    // SECURITY: the guess is counted and committed before it is checked, whatever its result (test:
    // parallel_guesses_get_no_more_than_the_budget). A refusal also writes, so that its duration doesn't reveal that
    // the account is locked.
    let admission = if let Some(after) = before.guess(policy(app), now) {
        save(&mut change, &account, client, after).await?;
        let locks = after.wrong(policy(app), now).locked_until.is_some();
        // Created before the commit, which a client that disconnects can't stop: when the guess is then dropped, it is
        // removed from the count.
        let place = Some(Place { account, client, _turn: turn });
        Admission::Counted(Guess { app: app.clone(), user, locks, place })
    } else if before.is_lost(now) {
        // The process ended, or the database failed, before the guess that reached the threshold was settled. It counts
        // as wrong now.
        drop(change);
        let place = Some(Place { account: account.clone(), client, _turn: turn });
        let lost = Guess { app: app.clone(), user, locks: true, place };
        let mut change = app.change(actor).await?;
        lost.wrong(&mut change).await?;
        let (after, _) = lock_row(&mut change, &account, client).await?;
        let until = after.locked_until(now).unwrap_or(now);
        change.commit_quietly("a lock records its own event").await?;
        return Ok(Admission::Refused(Refused { until, account, client }));
    } else {
        refuse(&mut change, &account, client).await?;
        let window_ends = before.window_began_at.plus(app.settings.lockout.window);
        let until = before.locked_until(now).unwrap_or(window_ends);
        Admission::Refused(Refused { until, account, client })
    };
    change
        .commit_quietly("a guess is counted before it is checked; its result is an event")
        .await?;
    Ok(admission)
}

fn policy(app: &App) -> Policy {
    let lockout = &app.settings.lockout;
    Policy {
        threshold: i64::from(lockout.threshold),
        window: lockout.window,
        duration: lockout.duration,
    }
}

impl Guess {
    /// Resets the count, because the guess was correct.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn right(mut self, change: &mut Change) -> Result<()> {
        let Some(place) = self.place.take() else { return Ok(()) };
        let ended: Option<(Option<Timestamp>,)> = change
            .maybe(
                "delete from lockout_counts where account = $1 and client = $2 returning locked_until",
                args![place.account.key.clone(), place.account.count_of(place.client)],
            )
            .await?;
        // Other guesses may have been wrong since this one was counted.
        let locked = ended.is_some_and(|(lock,)| lock.is_some());
        if let (Some(user), true) = (shown(&place.account, place.client), locked) {
            users::set_locked_until(change, user, None).await?;
        }
        Ok(())
    }

    /// Removes the guess from the count, because its proof had already been accepted and was therefore not a guess.
    ///
    /// # Errors
    /// Returns an error if the database fails. The guess then stays counted.
    pub async fn give_back(mut self, change: &mut Change) -> Result<()> {
        let Some(place) = self.place.take() else { return Ok(()) };
        give_back(change, &place).await
    }

    /// Records that the guess was wrong, and locks the account if the guess reached the threshold. Returns the user of
    /// the account, if the user still exists.
    ///
    /// # Errors
    /// Returns an error if the database fails. The guess then stays counted.
    pub async fn wrong(mut self, change: &mut Change) -> Result<Option<UserId>> {
        let Some(place) = self.place.take() else { return there(change, self.user).await };
        let now = change.now();
        if let (true, Some(user)) = (self.locks, shown(&place.account, place.client)) {
            // Lock the user's row before the row of the count, as a sign-in does.
            users::lock_row(change, user).await?;
        }
        let (found, user) = lock_row(change, &place.account, place.client).await?;
        // SECURITY: if the count was deleted in the meantime, by a new password or a correct guess, this guess is
        // counted again (test: a_guess_beside_a_new_password_stays_counted).
        let before = match found.in_window {
            0 => found.guess(policy(change.app()), now).unwrap_or(found),
            _ => found,
        };
        // SECURITY: only the guess that reached the threshold locks the account and writes the user's row, which it has
        // locked first. A guess that was counted earlier, in another process, locks nothing, even if it is settled
        // later. No further guess is checked until the guess that reached the threshold is settled (tests:
        // the_guess_that_reaches_the_bound_locks, a_lock_beside_a_sign_in_meets_no_deadlock).
        let after = if self.locks { before.wrong(policy(change.app()), now) } else { before };
        if after != found {
            save(change, &place.account, place.client, after).await?;
        }
        if after.locked_until != found.locked_until {
            place.locked(change, user, after).await?;
        }
        Ok(user)
    }
}

impl Place {
    /// Records a lock in the audit log and, if it is a lock of the password for unknown clients, in the user's row.
    /// Emails the owner about such a lock and about a lock of the second factor.
    async fn locked(&self, change: &mut Change, user: Option<UserId>, after: Count) -> Result<()> {
        // SECURITY: the same statements run if there is no account (test: test_time_tells_nobody_who_has_an_account).
        let whose = user.unwrap_or(NO_ONE);
        if shown(&self.account, self.client).is_some() {
            users::set_locked_until(change, whose, after.locked_until).await?;
        }
        if self.account.part == SECOND_FACTOR {
            mail::enqueue(change, &FACTOR_EMAIL, Content::to_user(whose)).await?;
        } else if self.client == Client::Unknown {
            let content = Content::to_user(whose).with("until", end_of(after.locked_until));
            mail::enqueue(change, &EMAIL, content).await?;
        }
        let entry = user.map_or_else(|| LOCKED.entry(), |user| LOCKED.about(user));
        let until = after.locked_until.map(|until| until.to_string()).unwrap_or_default();
        let whom = match self.client {
            Client::Unknown => "unknown_clients",
            Client::Known(_) => "known_device",
            Client::Former => "former_devices",
            Client::SignedIn => "signed_in",
        };
        let what = if self.account.part == SECOND_FACTOR { "second_factor" } else { "password" };
        change.note(entry.detail("until", until).detail("refused", whom).detail("guessed", what));
        Ok(())
    }
}

/// Returns the user whose row stores the end of the lock. Only a lock of the password for unknown clients is stored
/// there.
fn shown(account: &Account, client: Client) -> Option<UserId> {
    let shows = account.part != SECOND_FACTOR && client == Client::Unknown;
    shows.then(|| account.user.unwrap_or(NO_ONE))
}

/// An id that belongs to no user. If there is no account, the same work is done for this id.
const NO_ONE: UserId = UserId(uuid::Uuid::nil());

/// Formats the end of a lock for an email.
fn end_of(until: Option<Timestamp>) -> String {
    match until {
        Some(FOR_GOOD) | None => {
            "an administrator unlocks the account or its password is changed".to_owned()
        }
        Some(until) => for_people(until),
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let (Some(place), Ok(runtime)) = (self.place.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let app = self.app.clone();
        runtime.spawn(async move {
            if let Err(error) = never_judged(&app, &place).await {
                // The guess stays counted, which is the safe outcome.
                tracing::debug!(
                    code = error.code(),
                    "a guess that was never checked stays counted"
                );
            }
        });
    }
}

/// Returns the user, if they still exist.
async fn there(change: &mut Change, user: Option<UserId>) -> Result<Option<UserId>> {
    // SECURITY: the lookup is made even if there is no account, so that both cases take the same time (test:
    // test_time_tells_nobody_who_has_an_account).
    let found = users::exists(change, user.unwrap_or(NO_ONE)).await?;
    Ok(user.filter(|_| found))
}

async fn give_back(change: &mut Change, place: &Place) -> Result<()> {
    let (before, _) = lock_row(change, &place.account, place.client).await?;
    save(change, &place.account, place.client, before.unjudged()).await
}

async fn never_judged(app: &App, place: &Place) -> Result<()> {
    let mut change = app.change(&Actor::system()).await?;
    give_back(&mut change, place).await?;
    change.commit_quietly("a guess that was never checked is given back").await
}

/// Lifts all of a user's locks and clears all wrong guesses.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn unlock(mut change: Change, user: UserId) -> Result<()> {
    if !users::exists(&mut change, user).await? {
        return Err(Error::not_found());
    }
    clear(&mut change, user).await?;
    change.commit(UNLOCKED.about(user)).await
}

/// Lifts all of a user's locks and clears all wrong guesses, in the change that unlocks the user or sets a new
/// password. If the new password is set with a link sent by email, use [`clear_password`] instead.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn clear(change: &mut Change, user: UserId) -> Result<()> {
    users::set_locked_until(change, user, None).await?;
    change.run("delete from lockout_counts where user_id = $1", args![user]).await?;
    Ok(())
}

/// Clears the wrong guesses at a user's password, in the change that sets a new one after proof of access to their
/// mailbox.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn clear_password(change: &mut Change, user: UserId) -> Result<()> {
    users::set_locked_until(change, user, None).await?;
    change
        .run(
            "delete from lockout_counts where user_id = $1 and client not like $2",
            args![user, format!("{SECOND_FACTOR}%")],
        )
        .await?;
    Ok(())
}

/// Deletes counts that no longer matter: those of email addresses without an account and of links, after two days
/// without a counted guess, and those of devices that are no longer known. Other failures at an account stay counted
/// until a correct guess, an unlock or a new password.
///
/// SECURITY: the length identifies devices, because no other client's name is as long as an id (test:
/// a_lock_for_good_outlives_the_memory_of_devices).
async fn prune(app: &App) -> Result<()> {
    let now = app.clock.now();
    // The condition is repeated, because a guess may be counted after the subquery has read the row.
    let sql = "delete from lockout_counts
         where ((user_id is null and last_at < $1) or (length(client) >= 32 and last_at < $2))
         and (account, client) in (select account, client from lockout_counts
             where (user_id is null and last_at < $1) or (length(client) >= 32 and last_at < $2)
             limit $3)";
    let args = args![now.minus(count::LONGEST_LOCK * 2), now.minus(KNOWN_FOR)];
    let upkeep = app.upkeep("counts of guesses that are no longer needed are deleted");
    upkeep.in_batches(sql, args).await?;
    Ok(())
}

pub use count::{FOR_GOOD, locked_until};
