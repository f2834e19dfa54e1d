//! Challenges: requested proofs that are still outstanding.
//!
//! # Promises
//!
//! - A challenge is not a session: it allows only the step that it was created for.
//! - It belongs to the client that it was created for, is valid for five minutes, accepts one correct response at most,
//!   and allows five attempts. Attempts are counted before they are checked (a code that was accepted before doesn't
//!   count). Simultaneous attempts, other processes and restarts give no additional attempts.
//! - Every act that ends all of a user's sessions also voids the user's challenges.
//!
//! Tables: `challenges`.

use std::time::Duration;

use palisade_crypto::{mac, opaque};
use palisade_db::{Migration, Sql, Timestamp, args};

use crate::app::{Actor, App, Change};
use crate::credentials::{Ending, Kind};
use crate::error::Result;
use crate::id::{SessionId, UserId};
use crate::module::{Job, Module};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "challenges",
    jobs: &[Job {
        name: "challenges.prune",
        every: Duration::from_secs(60),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "challenges",
        number: 1,
        name: "challenges",
        sql: Sql::Both(include_str!("../../migrations/challenges/0001_challenges.sql")),
    }],
    endings: &[BY_ACT],
    tables: &["challenges"],
    ..Module::EMPTY
};

/// How long a challenge is valid.
pub const LIVES: Duration = Duration::from_secs(300);
/// How many attempts a challenge allows.
const ATTEMPTS: i64 = 5;

/// The purpose of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A second factor, after a correct password.
    SecondFactor,
    /// A sign-in with a passkey, by a user who is not identified yet.
    SignIn,
    /// A new passkey, within a session.
    Registration,
    /// A fresh proof of identity, within a session.
    StepUp,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::SecondFactor => "second_factor",
            Self::SignIn => "sign_in",
            Self::Registration => "registration",
            Self::StepUp => "step_up",
        }
    }
}

/// The client that a challenge was created for, as far as a request identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client([u8; 32]);

impl Client {
    /// A client that isn't signed in, identified by its software and, in a browser, by a cookie set with the challenge.
    pub fn outside(app: &App, user_agent: Option<&str>, cookie: Option<&str>) -> Self {
        let (agent, cookie) = (user_agent.unwrap_or(""), cookie.unwrap_or(""));
        Self::named(app, &format!("client\0{cookie}\0{agent}"))
    }

    /// A signed-in client, identified by its session.
    pub fn within(app: &App, session: SessionId) -> Self {
        Self::named(app, &format!("session\0{session}"))
    }

    fn named(app: &App, name: &str) -> Self {
        Self(mac::keyed_digest(&app.root.derive_bytes("challenge clients"), name.as_bytes()))
    }
}

/// A challenge to be created.
pub struct NewChallenge {
    /// The stored digest of the secret that its client holds.
    pub digest: [u8; 32],
    /// The purpose.
    pub purpose: Purpose,
    /// The user who must answer it, if that user is known.
    pub user: Option<UserId>,
    /// The client that it was created for.
    pub client: Client,
    /// The digest of the bytes that a passkey must sign, if a passkey can answer the challenge.
    pub passkey: Option<[u8; 32]>,
    /// Details returned when the challenge is answered.
    pub details: String,
}

/// A challenge that may be answered.
#[derive(Debug)]
pub struct Challenge {
    digest: [u8; 32],
    /// The user who must answer it, if that user is known.
    pub user: Option<UserId>,
    /// The digest of the bytes that a passkey must sign, if a passkey can answer the challenge.
    pub passkey: Option<[u8; 32]>,
    /// The details provided when it was created.
    pub details: String,
}

/// The prefix of the bytes of a passkey's challenge.
const PASSKEY_PREFIX: &str = "pal_pc_";

/// Creates bytes for a passkey to sign, and their digest, which is stored.
pub fn passkey_bytes(app: &App) -> (Vec<u8>, Option<[u8; 32]>) {
    let text = opaque::generate(PASSKEY_PREFIX, &*app.random);
    (text.expose().as_bytes().to_vec(), opaque::digest(PASSKEY_PREFIX, text.expose()))
}

/// Returns the digest of bytes that a passkey signed, as it is stored. Returns `None` if Palisade didn't create them.
pub fn passkey_digest(bytes: &[u8]) -> Option<[u8; 32]> {
    opaque::digest(PASSKEY_PREFIX, std::str::from_utf8(bytes).ok()?)
}

/// Creates a challenge.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn open(change: &mut Change, new: NewChallenge) -> Result<()> {
    let now = change.now();
    change
        .run(
            "insert into challenges (digest, purpose, user_id, client, passkey_digest, details, attempts,
                expires_at)
             values ($1, $2, $3, $4, $5, $6, 0, $7)",
            args![
                new.digest,
                new.purpose.as_str(),
                new.user.map(|user| user.0),
                new.client.0,
                new.passkey,
                new.details,
                now.plus(LIVES)
            ],
        )
        .await?;
    Ok(())
}

type Row = (Option<UserId>, Option<[u8; 32]>, String);

/// Counts an attempt to answer a challenge. Returns `None` if there is no such challenge for this client, or no attempt
/// is left.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn attempt(
    app: &App,
    actor: &Actor,
    purpose: Purpose,
    digest: [u8; 32],
    client: Client,
) -> Result<Option<Challenge>> {
    let mut change = app.change(actor).await?;
    let now = change.now();
    // SECURITY: committed before the answer is judged (test: a_challenge_survives_five_attempts).
    let row: Option<Row> = change
        .maybe(
            "update challenges set attempts = attempts + 1
             where digest = $1 and purpose = $2 and client = $3 and attempts < $4 and used_at is null
                and expires_at > $5
             returning user_id, passkey_digest, details",
            args![digest, purpose.as_str(), client.0, ATTEMPTS, now],
        )
        .await?;
    let Some((user, passkey, details)) = row else { return Ok(None) };
    change
        .commit_quietly("an attempt is counted before it is checked; its result is an event")
        .await?;
    Ok(Some(Challenge { digest, user, passkey, details }))
}

/// Locks a challenge while its response is checked. Returns `false` if it was answered or voided in the meantime.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_row(change: &mut Change, challenge: &Challenge) -> Result<bool> {
    // SECURITY: a response that arrives together with the correct one isn't checked: it is neither accepted a second
    // time nor counted as a guess (test: duplicates_of_a_right_code_are_no_guesses).
    let held = change
        .run(
            "update challenges set attempts = attempts where digest = $1 and used_at is null",
            args![challenge.digest],
        )
        .await?;
    Ok(held == 1)
}

/// Gives back an attempt that was not a guess.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn give_back(change: &mut Change, challenge: &Challenge) -> Result<()> {
    change
        .run(
            "update challenges set attempts = attempts - 1 where digest = $1 and attempts > 0",
            args![challenge.digest],
        )
        .await?;
    Ok(())
}

/// Records that a challenge was answered correctly. Called in the change that depends on the correct response. Returns
/// `false` if the challenge was answered or voided in the meantime.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn close(change: &mut Change, challenge: &Challenge) -> Result<bool> {
    let now = change.now();
    // SECURITY: at most once (test: a_right_answer_works_once).
    let closed = change
        .run(
            "update challenges set used_at = $2 where digest = $1 and used_at is null",
            args![challenge.digest, now],
        )
        .await?;
    Ok(closed == 1)
}

/// SECURITY: a challenge created before an ending must not be answered after it (test:
/// a_challenge_dies_with_the_sessions).
const BY_ACT: Ending = Ending {
    kind: Kind::Challenges,
    end: |change, end, _| {
        Box::pin(async move {
            void(change, end.user).await?;
            Ok(0)
        })
    },
    owners: Some(|app, after, limit| Box::pin(owners(app, after, limit))),
};

/// Returns users who have an outstanding challenge.
async fn owners(app: &App, after: UserId, limit: i64) -> Result<Vec<UserId>> {
    let rows: Vec<(UserId,)> = app
        .db
        .all(
            "select distinct user_id from challenges
             where user_id > $1 and used_at is null and expires_at > $2 order by user_id limit $3",
            args![after, app.clock.now(), limit],
        )
        .await?;
    Ok(rows.into_iter().map(|(user,)| user).collect())
}

/// Voids all of a user's challenges.
async fn void(change: &mut Change, user: UserId) -> Result<()> {
    change.run("delete from challenges where user_id = $1", args![user]).await?;
    Ok(())
}

async fn prune(app: &App) -> Result<()> {
    let now: Timestamp = app.clock.now();
    let upkeep = app.upkeep("expired challenges are deleted");
    let sql = "delete from challenges where digest in
         (select digest from challenges where expires_at < $1 limit $2)";
    upkeep.in_batches(sql, args![now]).await?;
    Ok(())
}
