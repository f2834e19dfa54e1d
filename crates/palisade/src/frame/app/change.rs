//! The only way to change data: a write transaction attributed to an actor.
//!
//! # Promises
//!
//! - **No change commits without its audit event.** [`Change::commit`] takes the event; the only alternative is
//!   [`Change::commit_quietly`], whose uses a test lists. Dropping a change rolls it back. Writes that have no effect
//!   for users (deleting expired rows, recording what was sent) are [upkeep](crate::upkeep).
//! - A client that disconnects can't cancel a commit. The notices that a commit publishes in the [feed](crate::feed)
//!   are applied in this process before the caller is informed that it succeeded.
//! - When the outcome of a commit is unknown, everything that it touched is dropped from memory and read again.
//! - What a change depends on remains valid until the change ends ([`Hold`]).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_db::{Args, DbErrorKind, FromRow, Lock, Timestamp, Tx};
use uuid::Uuid;

use super::hold::Hold;
use super::proof::{fresh_enough, not_fresh};
use crate::actor::Actor;
use crate::app::App;
use crate::error::{Error, Result, bad_token, denied};
use crate::feed::Notice;
use crate::metrics::{Label, Metric};
use crate::record::{self, Entry, Unchained};

impl App {
    /// Starts a change made by `actor`. The actor's credential must still be active, and the presented secret still
    /// valid: either may have ended after the request was admitted, while its body was being read. From here on, the
    /// credential can't end before the change does.
    ///
    /// # Errors
    /// Fails with `access.invalid_token`; `access.denied` if the permission was lost; `access.not_fresh` if the proof
    /// has become too old or too weak; or if the database fails.
    pub async fn change(&self, actor: &Actor) -> Result<Change> {
        self.change_holding(actor, &[]).await
    }

    /// Starts a change that also holds what it depends on, or what it ends, in addition to the account of `actor`.
    /// Anything read earlier must be read again within the change.
    ///
    /// # Errors
    /// Fails like [`App::change`].
    pub async fn change_holding(&self, actor: &Actor, holds: &[Hold]) -> Result<Change> {
        // SECURITY: all locks are taken at once, before anything is read (test:
        // an_api_key_made_beside_an_ending_does_not_outlive_it).
        let tx = self.0.writer.begin_holding(locks(actor, holds)).await?;
        let mut change = Change {
            tx,
            at: self.clock.now(),
            app: self.clone(),
            actor: actor.clone(),
            permissions: None,
            holds: holds.to_vec(),
            notices: vec![],
            entries: vec![],
        };
        still_there(&mut change).await?;
        Ok(change)
    }
}

/// Returns the locks of a change: those for its holds, and those for what its actor depends on.
fn locks(actor: &Actor, holds: &[Hold]) -> Vec<Lock> {
    let own = actor.user.map(|user| Hold::Shared(user).lock());
    let roles = actor.permission.map(|_| Hold::RolesShared.lock());
    holds.iter().map(|hold| hold.lock()).chain(own).chain(roles).collect()
}

/// Refuses a change requested with a credential that has ended, with a permission that was lost, or with a proof that
/// has become too old or too weak.
async fn still_there(change: &mut Change) -> Result<()> {
    let Some(credential) = change.actor.credential else { return Ok(()) };
    let user = change.actor.user.ok_or_else(bad_token)?;
    // SECURITY: the presented secret is checked too: a new proof of identity replaces the earlier secrets, and a
    // request that was waiting in the meantime with an earlier secret is refused (tests:
    // a_request_that_waited_does_nothing_after_its_session_has_ended,
    // a_new_proof_refuses_what_waited_with_the_credentials_before_it).
    let methods = change.app.credentials.of(credential.kind);
    let is_alive = methods.map(|methods| methods.is_alive).ok_or_else(bad_token)?;
    let live = is_alive(change, user, credential).await?;
    let live = live.ok_or_else(bad_token)?;
    let required_level = match (live.required_level, change.actor.permission) {
        // SECURITY: the statement that read the credential has also read its account, which is not disabled (test:
        // a_change_of_a_disabled_account_is_refused).
        (Some(level), None) => level,
        (_, permission) => {
            let find_account = change.app.find_account;
            let account = find_account(change, user, permission).await?.ok_or_else(bad_token)?;
            // SECURITY: (tests: a_role_taken_away_refuses_what_waited_for_it,
            // a_credential_that_lost_a_permission_refuses_what_waited_for_it)
            let lost = |own: &BTreeSet<String>| permission.is_some_and(|it| !own.contains(it));
            if !account.permitted || live.permissions.as_ref().is_some_and(lost) {
                return Err(denied());
            }
            account.required_level
        }
    };
    if change.actor.fresh {
        // SECURITY: (test: a_factor_set_up_meanwhile_refuses_what_waited_with_a_weaker_proof)
        let proved = live.proved.ok_or_else(|| not_fresh(required_level))?;
        fresh_enough(&change.app, proved, required_level)?;
    }
    change.permissions = live.permissions;
    Ok(())
}

/// Audit events of this process.
pub static EVENTS: Metric = Metric::counter(
    "palisade_audit_events",
    &[Label::listed("event", "an event of docs/audit.md")],
    "Audit events that this process has recorded.",
);

/// A write transaction attributed to an actor.
///
/// While it is open, nothing else may be read through [`Inner::db`](crate::app::Inner::db): on PostgreSQL, that would
/// take a second connection while holding the first, and enough changes doing so at the same time would deadlock.
pub struct Change {
    tx: Tx,
    app: App,
    actor: Actor,
    /// The permissions that the actor's credential was created with, if it doesn't have all of its user's permissions.
    permissions: Option<BTreeSet<String>>,
    at: Timestamp,
    holds: Vec<Hold>,
    notices: Vec<Notice>,
    entries: Vec<Entry>,
}

impl Change {
    /// Returns the app that the change belongs to.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Returns the actor.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Returns the permissions that the actor's credential was created with. `None` means all of its user's
    /// permissions.
    pub fn permissions(&self) -> Option<&BTreeSet<String>> {
        self.permissions.as_ref()
    }

    /// Returns the time at which the change began. The rows that the change writes carry this time; each further event
    /// is a microsecond later.
    pub fn now(&self) -> Timestamp {
        self.at
    }

    /// Checks that this change holds `hold`, because its next step must not run concurrently with other changes.
    ///
    /// # Errors
    /// Returns an internal error if the change was started without this hold, which is a bug.
    pub fn must_hold(&self, hold: Hold) -> Result<()> {
        // SECURITY: (test: an_ending_that_does_not_hold_the_account_is_refused)
        if self.holds.contains(&hold) {
            return Ok(());
        }
        Err(Error::internal(format!("a change must be started with {hold:?}")))
    }

    /// Runs a statement that yields exactly one row.
    ///
    /// # Errors
    /// Returns an error if the statement yields no row or more than one, or if the database fails.
    pub async fn one<T: FromRow>(&mut self, sql: &'static str, args: Args) -> Result<T> {
        Ok(self.tx.one(sql, args).await?)
    }

    /// Runs a statement that yields at most one row.
    ///
    /// # Errors
    /// Returns an error if the statement yields more than one row, or if the database fails.
    pub async fn maybe<T: FromRow>(&mut self, sql: &'static str, args: Args) -> Result<Option<T>> {
        Ok(self.tx.maybe(sql, args).await?)
    }

    /// Runs a statement and returns all its rows.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn all<T: FromRow>(&mut self, sql: &'static str, args: Args) -> Result<Vec<T>> {
        Ok(self.tx.all(sql, args).await?)
    }

    /// Runs a statement. Returns how many rows it affected.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn run(&mut self, sql: &'static str, args: Args) -> Result<u64> {
        Ok(self.tx.run(sql, args).await?)
    }

    /// Adds an event to those that the commit writes.
    pub fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds a notice for this and every other process, applied after the commit.
    pub fn publish(&mut self, topic: &'static str, subject: impl Into<Uuid>) {
        self.notices.push(Notice { topic, subject: subject.into(), generation: None });
    }

    /// Adds a notice that the credentials of `subject` before this generation are refused. External readers of the feed
    /// get it too.
    pub(crate) fn publish_generation(
        &mut self,
        topic: &'static str,
        subject: impl Into<Uuid>,
        generation: i64,
    ) {
        let generation = Some(generation);
        self.notices.push(Notice { topic, subject: subject.into(), generation });
    }

    /// Writes the audit event, commits, and then applies the change's notices in this process.
    ///
    /// # Errors
    /// Returns an error if the database fails. Either nothing was changed, or, if the outcome is unknown, everything
    /// that the change touched is read again before it is used.
    pub async fn commit(mut self, entry: Entry) -> Result<()> {
        self.entries.push(entry);
        self.finish().await
    }

    /// Commits a change without an audit event. The reason only documents this choice in the code.
    ///
    /// # Errors
    /// Fails like [`Change::commit`].
    pub async fn commit_quietly(self, reason: &'static str) -> Result<()> {
        debug_assert!(!reason.is_empty());
        self.finish().await
    }

    /// Runs in a separate task: a client that disconnects can't stop it between the commit and its notices.
    async fn finish(self) -> Result<()> {
        let committed = self.actor.committed.clone();
        let app = self.app.clone();
        let done = tokio::spawn(self.write_and_commit()).await.map_err(|panicked| {
            // SECURITY: the change may have been committed with only some of its notices applied (test:
            // a_panic_in_background_work_does_not_end_it).
            app.forget_all();
            Error::internal(panicked)
        })?;
        let broken_off = done.as_ref().is_err_and(Error::may_be_repeated);
        if let (Some(committed), false) = (committed, broken_off) {
            committed.store(true, Ordering::Release);
        }
        done
    }

    async fn write_and_commit(mut self) -> Result<()> {
        let mut records = Vec::with_capacity(self.entries.len());
        let events: Vec<&'static str> = self.entries.iter().map(Entry::event).collect();
        for (number, entry) in (0..).zip(std::mem::take(&mut self.entries)) {
            // The events are a microsecond apart, so that the log keeps the order in which they were noted.
            let at = self.at.plus(Duration::from_micros(number));
            let keys = &self.app.audit_keys;
            records.push(record::write(&mut self.tx, keys, &self.actor, at, entry).await?);
        }
        self.app.feed.write(&mut self.tx, &self.notices, self.at).await?;
        match self.tx.commit().await {
            Ok(()) => {
                self.app.state::<Unchained>().wrote(records);
                for event in events {
                    self.app.metrics.count(&EVENTS, &[event]);
                }
                for notice in &self.notices {
                    self.app.apply(notice.topic, notice.subject);
                }
                Ok(())
            }
            Err(error) => {
                if error.kind() == DbErrorKind::OutcomeUnknown {
                    self.app.forget_all();
                }
                Err(error.into())
            }
        }
    }
}
