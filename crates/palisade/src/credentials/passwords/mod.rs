//! Passwords: which ones are accepted, how they are hashed, and how they are changed.
//!
//! # Promises
//!
//! - A hash is sealed under the versioned pepper, with the user's id, before it is stored: an attacker with access to
//!   the database alone can neither test guesses against the hash nor move it to another user.
//! - Hashing runs on separate threads, at low priority, with a bounded queue. If the queue is full, the response is
//!   503, and every other route stays fast.
//! - A sign-in takes as much work for an unknown user as for a known one.
//!
//! Tables: `passwords`, `password_history`.

mod blocklist;
mod history;
mod http;
mod pool;
mod proof;
mod rules;
mod strength;

use std::sync::Arc;

use palisade_crypto::password::{self, Memory};
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, args};

use crate::app::{Actor, App, Change, Hold, State};
use crate::credentials::{self, Act, End};
use crate::error::{Broken, Error, Result};
use crate::id::UserId;
use crate::keys::{self, Ring};
use crate::lockout;
use crate::mail::{self, Content, EmailTemplate};
use crate::module::Module;
use crate::record::Event;
use crate::users::{self, Email, User};

use pool::{Hashing, run, unreadable};

pub use blocklist::Blocklist;
pub use pool::{QueueSlot, check_capacity, hashes_asked_for};
pub use proof::{Proved, prove};
pub use rules::{LONGEST, Rules};

/// A user changed their password.
pub const CHANGED: Event = Event { name: "passwords.changed", summary: "A password was changed" };
/// A password was set by the operator.
pub const RESET: Event =
    Event { name: "passwords.reset", summary: "A password was set by the operator" };
/// A signed-in user was asked for the current password and entered a wrong one.
pub const WRONG: Event = Event {
    name: "passwords.wrong",
    summary: "A wrong current password was given within a session",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "passwords",
    routes: http::routes,
    limits: &[&http::CHANGE],
    events: &[CHANGED, RESET, WRONG],
    migrations: &[Migration {
        module: "passwords",
        number: 1,
        name: "passwords",
        sql: Sql::Both(include_str!("../../../migrations/passwords/0001_passwords.sql")),
    }],
    email_templates: &[&EMAIL],
    tables: &["passwords", "password_history"],
    metrics: pool::METRICS,
    readings: &[pool::measure],
    state: |settings, state: &mut State| {
        state.put(Hashing::new(settings)?);
        Ok(())
    },
    ..Module::EMPTY
};

static EMAIL: EmailTemplate = EmailTemplate {
    name: "passwords_changed",
    text: include_str!("emails/changed.txt"),
    html: include_str!("emails/changed.html"),
    prepare: mail::as_written,
};

/// Notifies the owner, in the change that gives the account a new password.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn notify_owner(change: &mut Change, user: UserId) -> Result<()> {
    mail::enqueue(change, &EMAIL, Content::to_user(user)).await
}

/// A password that passed the rules, hashed and sealed: ready to be stored for one user.
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Restores a password sealed for a user who doesn't exist yet.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A password that passed the rules and was hashed. It is sealed once its user is known.
pub struct Hashed {
    hash: SecretString,
    ring: Arc<Ring>,
}

impl Hashed {
    /// Seals the hash for a user. It doesn't read the database, because it is called within changes.
    pub fn seal(&self, app: &App, user: UserId) -> Sealed {
        let hash = self.hash.expose().as_bytes();
        Sealed(self.ring.pepper.seal(&*app.random, user.0.as_bytes(), hash))
    }
}

/// Checks a new password by the rules that need no estimate, so that they can be reported together with the errors of
/// other fields. [`hash`] checks all rules.
///
/// # Errors
/// Returns the first rule that the password breaks.
pub fn check_form(app: &App, password: &SecretString) -> Result<(), Broken> {
    app.state::<Hashing>().rules.check_form(password).map(drop)
}

/// Checks a new password against the rules and hashes it.
///
/// # Errors
/// Fails with the broken rule, as an input error at `pointer`; 503 if the hashing queue is full or the blocklist can't
/// be read; or if the database fails.
pub async fn hash(
    app: &App,
    slot: QueueSlot,
    pointer: &str,
    password: &SecretString,
    context: &[&str],
) -> Result<Hashed> {
    let ring = keys::ring(app).await?;
    let hashing = app.state::<Hashing>();
    let (rules, cost) = (Arc::clone(&hashing.rules), hashing.cost);
    let context: Vec<String> = context.iter().map(|word| (*word).to_owned()).collect();
    let (password, random) = (password.clone(), Arc::clone(&app.random));
    let work = move |memory: &mut Memory| -> Result<Result<String>, Broken> {
        let context: Vec<&str> = context.iter().map(String::as_str).collect();
        let normal = rules.check(&password, &context)?;
        match rules.blocklist.holds(normal.expose()) {
            Ok(true) => return Err(rules::blocklisted()),
            Ok(false) => {}
            Err(error) => return Ok(Err(unreadable(error))),
        }
        Ok(password::hash(&cost, &normal, &*random, memory).map_err(Error::internal))
    };
    let hash = run(app, slot, work).await?.map_err(|broken| broken.at(pointer))??;
    Ok(Hashed { hash: hash.into(), ring })
}

/// Checks a new password of an existing user, including the history, and hashes it.
///
/// # Errors
/// Fails with the broken rule, as an input error at `pointer`; 503 if the hashing queue is full or the blocklist can't
/// be read; or if the database fails.
pub async fn hash_for(
    app: &App,
    slot: QueueSlot,
    user: &User,
    pointer: &str,
    password: &SecretString,
) -> Result<Hashed> {
    let context = [user.email.as_str(), user.name.as_deref().unwrap_or("")];
    let hashed = hash(app, slot, pointer, password, &context).await?;
    history::refuse_earlier(app, slot, user.id, pointer, password).await?;
    Ok(hashed)
}

/// The stored form of a user's password.
pub struct Stored {
    user: UserId,
    sealed: Vec<u8>,
    /// The generation of the password. It increases with each new password.
    pub generation: i64,
}

impl Stored {
    /// Creates the stored form of the user's password of this generation.
    pub fn new(user: UserId, sealed: Vec<u8>, generation: i64) -> Self {
        Self { user, sealed, generation }
    }

    /// Creates a stored password for comparison only. It need not be the user's current one.
    pub fn apart(user: UserId, sealed: Vec<u8>) -> Self {
        Self { user, sealed, generation: NO_PASSWORD }
    }
}

/// The password generation of a user without a password.
const NO_PASSWORD: i64 = 0;

/// The result of checking a password.
pub enum Verdict {
    /// Wrong, or there was nothing to compare it with.
    Wrong,
    /// Correct. Contains a hash at the current cost if the stored one has a different cost.
    Right(Option<Hashed>),
}

/// Returns a user's stored password.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn stored(app: &App, user: UserId) -> Result<Option<Stored>> {
    let row: Option<(Vec<u8>, i64)> = app
        .db
        .maybe("select sealed, generation from passwords where user_id = $1", args![user])
        .await?;
    Ok(row.map(|(sealed, generation)| Stored { user, sealed, generation }))
}

/// Returns the user with this email address and their stored password: everything that a sign-in looks up, in one
/// statement.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn of_email(app: &App, email: &Email) -> Result<Option<Found>> {
    let row: Option<(UserId, Option<Vec<u8>>, i64)> = app
        .db
        .maybe(
            "select u.id, p.sealed, coalesce(p.generation, 0) from users u left join passwords p on p.user_id = u.id
             where u.email_key = $1",
            args![email.key()],
        )
        .await?;
    Ok(row.map(|(user, sealed, generation)| Found {
        user,
        stored: sealed.map(|sealed| Stored { user, sealed, generation }),
    }))
}

/// The user with an email address, and their password.
pub struct Found {
    /// The user.
    pub user: UserId,
    /// Their password, if they have one.
    pub stored: Option<Stored>,
}

/// Returns the generation of a user's current password.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn generation(change: &mut Change, user: UserId) -> Result<i64> {
    let row: Option<(i64,)> =
        change.maybe("select generation from passwords where user_id = $1", args![user]).await?;
    Ok(row.map_or(NO_PASSWORD, |(generation,)| generation))
}

/// Compares a password with a stored one. With `None`, does the same work and reports it as wrong.
///
/// # Errors
/// Fails with 503 if the hashing queue is full; or if the database fails or the stored hash can't be unsealed.
pub async fn verify(
    app: &App,
    slot: QueueSlot,
    stored: Option<&Stored>,
    password: &SecretString,
) -> Result<Verdict> {
    let ring = keys::ring(app).await?;
    let hashing = app.state::<Hashing>();
    let encoded = match stored {
        Some(stored) => open(&ring, stored)?,
        // SECURITY: the same work, so that time doesn't tell whether the account exists
        // (test: an_unknown_email_costs_a_hash).
        None => SecretString::from(&*hashing.dummy),
    };
    let known = stored.is_some();
    let (cost, random, password) = (hashing.cost, Arc::clone(&app.random), password.clone());
    let work =
        move |memory: &mut Memory| -> Result<(bool, Option<String>), password::PasswordError> {
            // A password that is too long to be set can't be correct, but comparing it takes the same work.
            let normal = rules::normalized(&password);
            let probe = normal.clone().unwrap_or_else(|| SecretString::from(""));
            let right =
                password::verify(encoded.expose(), &probe, memory)? && normal.is_some() && known;
            let stale = right && !password::is_at_cost(encoded.expose(), &cost);
            let new = stale.then(|| password::hash(&cost, &probe, &*random, memory)).transpose()?;
            Ok((right, new))
        };
    let (right, new) = run(app, slot, work).await?.map_err(Error::internal)?;
    Ok(if right {
        Verdict::Right(new.map(|hash| Hashed { hash: hash.into(), ring }))
    } else {
        Verdict::Wrong
    })
}

fn open(ring: &Ring, stored: &Stored) -> Result<SecretString> {
    let hash =
        ring.pepper.open(stored.user.0.as_bytes(), &stored.sealed).map_err(Error::internal)?;
    Ok(std::str::from_utf8(hash.expose()).map_err(Error::internal)?.into())
}

/// Stores a password, in the change to which it belongs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn store(change: &mut Change, user: UserId, sealed: Sealed) -> Result<()> {
    history::keep(change, user).await?;
    let now = change.now();
    change
        .run(
            "insert into passwords (user_id, sealed, changed_at) values ($1, $2, $3)
             on conflict (user_id) do update set sealed = excluded.sealed,
                changed_at = excluded.changed_at, generation = passwords.generation + 1",
            args![user, sealed.0, now],
        )
        .await?;
    Ok(())
}

/// Returns whether a user has a password.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn has(change: &mut Change, user: UserId) -> Result<bool> {
    let row: Option<(UserId,)> =
        change.maybe("select user_id from passwords where user_id = $1", args![user]).await?;
    Ok(row.is_some())
}

/// Sets a user's password on behalf of the operator, ends all their sessions and revokes their API keys.
///
/// # Errors
/// Fails with 404; `users.service_account`; a broken password rule; 503 if the hashing queue is full or the blocklist
/// can't be read; or if the database fails.
pub async fn reset(app: &App, actor: &Actor, user: UserId, password: &SecretString) -> Result<()> {
    let found = users::find(app, user).await?.ok_or_else(Error::not_found)?;
    if found.service {
        return Err(users::service_account());
    }
    let hashed = hash_for(app, QueueSlot::of(actor.ip), &found, "/password", password).await?;
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    // The user may have been deleted while the hash was computed.
    if !users::exists(&mut change, user).await? {
        return Err(Error::not_found());
    }
    store(&mut change, user, hashed.seal(app, user)).await?;
    lockout::clear(&mut change, user).await?;
    credentials::end(&mut change, End::of(user, Act::PasswordSet)).await?;
    notify_owner(&mut change, user).await?;
    change.commit(RESET.about(user)).await
}

/// Returns whether the user's password is still the one that was compared. It may have been changed while the hash was
/// computed. A new hash of the same password counts as unchanged. Locks the row, so that no other change can intervene.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn unchanged(change: &mut Change, stored: &Stored) -> Result<bool> {
    let held = change
        .run(
            "update passwords set sealed = sealed where user_id = $1 and generation = $2",
            args![stored.user, stored.generation],
        )
        .await?;
    Ok(held == 1)
}

/// Replaces the stored hash with one at the current cost. The password itself stays the same.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upgrade(change: &mut Change, user: UserId, sealed: Sealed) -> Result<()> {
    change
        .run("update passwords set sealed = $2 where user_id = $1", args![user, sealed.0])
        .await?;
    Ok(())
}
