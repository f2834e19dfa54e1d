//! The key ring: the keys that sign tokens, and the pepper. They are sealed under the root key.
//!
//! # Promises
//!
//! - The root key is never stored in the database. A database created under a different root key is refused when the
//!   server starts. New keys are never created silently for existing data.
//! - **Rotation needs no pause** ([`rotate`]): a new key is published before it signs, for longer than verifiers cache
//!   the published keys. A retired key keeps verifying until everything it signed has expired.
//! - **After a compromise** ([`replace`]), the keys in use are dropped: once the call returns, this process refuses
//!   every token that they signed, and every other process refuses it within 250 ms.
//!
//! Tables: `keys`.

mod ring;
mod rotation;

use std::sync::Arc;
use std::time::Duration;

use palisade_crypto::seal::SealingKey;
use palisade_crypto::token::{Algorithm, TokenKey};
use palisade_db::{Migration, ReadDb, Sql, Timestamp, args, row_struct};
use serde::Serialize;

use crate::app::{Actor, App, Change, State, Subscription};
use crate::audit_log;
use crate::error::{Error, Result};
use crate::metrics::{Label, Metric};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::settings::{Paseto, Settings, TokenAlgorithm, TokenFormat};

pub use ring::{Keys, Ring, expire, look_again, ring};
pub use rotation::{RotatedKey, replace, rotate};

/// New signing keys were created. The detail `signs_from` is the time from which they sign.
pub const ROTATED: Event = Event { name: "keys.rotated", summary: "New signing keys were created" };

/// Signing keys were dropped after a compromise.
pub const DROPPED: Event =
    Event { name: "keys.dropped", summary: "Signing keys were dropped: their tokens are refused" };

/// Keys were created at the first start, or for an algorithm that had none.
pub const CREATED: Event = Event { name: "keys.created", summary: "Keys were created" };

static AGE: Metric = Metric::gauge(
    "palisade_key_age_seconds",
    &[Label::one_of("purpose", &[SIGNING, PEPPER])],
    "The age of the oldest key of this purpose that is not replaced, in seconds.",
);

async fn measure(app: &App) -> Result<()> {
    for purpose in [SIGNING, PEPPER] {
        let sql = "select min(created_at) from keys
             where purpose = $1 and retired_at is null and dropped_at is null";
        let (oldest,): (Option<Timestamp>,) = app.db.one(sql, args![purpose]).await?;
        if let Some(oldest) = oldest {
            let age = app.clock.now().since(oldest);
            app.metrics.set(&AGE, age.as_secs_f64(), &[purpose]);
        }
    }
    Ok(())
}

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "keys",
    events: &[CREATED, DROPPED, ROTATED],
    jobs: &[
        Job { name: "keys.reload", every: RELOAD_EVERY, run: |app| Box::pin(ring::reload(app)) },
        Job {
            name: "keys.measure",
            every: Duration::from_secs(60),
            run: |app| Box::pin(measure(app)),
        },
    ],
    metrics: &[&AGE],
    subscriptions: &[Subscription {
        topic: CHANGED,
        apply: |app, _| expire(app),
        forget_all: expire,
    }],
    migrations: &[Migration {
        module: "keys",
        number: 1,
        name: "keys",
        sql: Sql::Both(include_str!("../../../migrations/keys/0001_keys.sql")),
    }],
    tables: &["keys"],
    state: |_, state: &mut State| {
        state.put(Keys::default());
        Ok(())
    },
    ..Module::EMPTY
};

/// The topic of a change of the keys.
pub(crate) const CHANGED: &str = "keys.changed";
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// How long others may cache the published keys.
pub const PUBLISHED_MAX_AGE: Duration = Duration::from_secs(300);
/// How long a new key is published before it signs. Libraries cache the published keys, some of them for longer than
/// the response permits.
const SIGNS_AFTER: Duration = {
    let usual = Duration::from_secs(15 * 60);
    if PUBLISHED_MAX_AGE.as_secs() > usual.as_secs() { PUBLISHED_MAX_AGE } else { usual }
};
/// How long a retired key still verifies tokens: the longest life of a token, plus a margin.
const RETIRED_VERIFIES_FOR: Duration = Duration::from_secs(70 * 60);

const SIGNING: &str = "signing";
const PEPPER: &str = "pepper";
const ROOT: &str = "root";
const ROOT_CHECK: &[u8] = b"this database belongs to this root key";

/// Returns the algorithm of tokens of this format.
pub fn algorithm(settings: &Settings, format: TokenFormat) -> Algorithm {
    match (format, settings.tokens.algorithm, settings.tokens.paseto) {
        (TokenFormat::Jwt, TokenAlgorithm::EdDsa, _) => Algorithm::EdDsa,
        (TokenFormat::Jwt, TokenAlgorithm::Es256, _) => Algorithm::Es256,
        (TokenFormat::Paseto, _, Paseto::V4Public) => Algorithm::PasetoV4Public,
        (TokenFormat::Paseto, _, Paseto::V4Local) => Algorithm::PasetoV4Local,
    }
}

row_struct! {
    /// One key, without its secret.
    #[derive(Clone, Debug, Serialize)]
    pub struct KeyView {
        /// The key ID, as it appears in tokens.
        pub kid: String,
        /// The purpose: `signing` or `pepper`.
        pub purpose: String,
        /// The algorithm: `EdDSA`, `ES256`, `v4.public` or `v4.local`; for the pepper, `XChaCha20-Poly1305`.
        pub algorithm: String,
        /// The version, which increases with each rotation.
        pub version: i64,
        /// When it was created. A signing key is published from then on.
        pub created_at: Timestamp,
        /// When it starts to sign.
        pub signs_from: Timestamp,
        /// When it stops signing.
        pub retired_at: Option<Timestamp>,
        /// When it was dropped. Tokens that a dropped key signed are refused.
        pub dropped_at: Option<Timestamp>,
    }
}

/// What a key is used for at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is published and does not sign yet.
    Published,
    /// It is in use.
    InUse,
    /// It no longer signs. It verifies tokens until they have expired.
    Retired,
    /// It was dropped: tokens that it signed are refused.
    Dropped,
}

impl KeyView {
    /// Returns what the key is used for at this time.
    pub fn state(&self, now: Timestamp) -> KeyState {
        let past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        match self {
            _ if self.dropped_at.is_some() => KeyState::Dropped,
            _ if past(self.retired_at) => KeyState::Retired,
            _ if now < self.signs_from => KeyState::Published,
            _ => KeyState::InUse,
        }
    }
}

/// Returns whether the database already has keys, and so needs the root key under which they were created.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn any(db: &ReadDb) -> Result<bool> {
    let (count,): (i64,) = db.one("select count(*) from keys", args![]).await?;
    Ok(count > 0)
}

/// Creates the keys that are missing, and loads the keys into memory. Refuses a database created under a different root
/// key.
///
/// # Errors
/// Returns an error if the database was created under a different root key (`keys.wrong_root`), or the database fails.
pub async fn prepare(app: &App) -> Result<()> {
    if create(app).await.is_err() {
        // Another process may have created the keys at the same moment. The second attempt then finds nothing to
        // create.
        create(app).await?;
    }
    ring::load(app).await.map(drop)
}

async fn create(app: &App) -> Result<()> {
    let mut change = app.change(&Actor::system()).await?;
    let check: Option<(Vec<u8>,)> =
        change.maybe("select wrapped from keys where purpose = $1", args![ROOT]).await?;
    if let Some((wrapped,)) = &check {
        wrapping(app).open(ROOT.as_bytes(), wrapped).map_err(|_| {
            Error::unavailable(
                "keys.wrong_root",
                "This root key does not belong to this database, which was created under a \
                 different root key. Restore the original root key (setting keys.root_key). \
                 Without it, the keys and everything encrypted with them can't be read.",
            )
        })?;
    } else {
        begin_log(&mut change).await?;
        let signs_from = change.now();
        let (kid, algorithm) = (ROOT.into(), "check".into());
        let row = NewKey { kid, purpose: ROOT, algorithm, version: 1, signs_from };
        insert(&mut change, row, ROOT_CHECK).await?;
    }
    let made = create_missing(&mut change).await?;
    if check.is_some() {
        if made.is_empty() {
            return Ok(());
        }
        // Other processes publish the new key at once.
        change.publish(CHANGED, uuid::Uuid::nil());
    }
    change.commit(CREATED.entry().detail("kids", made.join(" "))).await
}

/// Begins the audit log of a new database.
async fn begin_log(change: &mut Change) -> Result<()> {
    let (keys,): (i64,) = change.one("select count(*) from keys", args![]).await?;
    // SECURITY: a new head beside old data would hide that the end of the log is gone
    // (test: a_lost_head_is_not_made_anew).
    if keys == 0 {
        audit_log::create_head(change).await?;
    }
    Ok(())
}

async fn create_missing(change: &mut Change) -> Result<Vec<String>> {
    let app = change.app().clone();
    let mut made = Vec::new();
    let active = active(change).await?;
    for format in [TokenFormat::Jwt, TokenFormat::Paseto] {
        let algorithm = algorithm(&app.settings, format);
        if !active.contains(&algorithm) {
            // SECURITY: until verifiers know the new key, a key of the earlier algorithm signs (test:
            // the_first_key_of_another_algorithm_is_published_first). A `v4.local` key is never published.
            let others = active.iter().any(|other| other.is_jwt() == algorithm.is_jwt());
            let waits = others && algorithm != Algorithm::PasetoV4Local;
            let after = if waits { SIGNS_AFTER } else { Duration::ZERO };
            let signs_from = change.now().plus(after);
            made.push(create_token_key(change, algorithm, signs_from).await?);
        }
    }
    if latest(change, PEPPER, "XChaCha20-Poly1305").await?.is_none() {
        let mut key = [0; 32];
        app.random.fill(&mut key);
        let row = NewKey {
            kid: "pepper-1".into(),
            purpose: PEPPER,
            algorithm: "XChaCha20-Poly1305".into(),
            version: 1,
            signs_from: change.now(),
        };
        made.push(row.kid.clone());
        insert(change, row, &key).await?;
    }
    Ok(made)
}

/// Returns the algorithms that have a key which is in use or will be, JWT before PASETO.
async fn active(change: &mut Change) -> Result<Vec<Algorithm>> {
    let found: Vec<(String,)> = change
        .all(
            "select distinct algorithm from keys
             where purpose = $1 and retired_at is null and dropped_at is null",
            args![SIGNING],
        )
        .await?;
    let mut found: Vec<Algorithm> =
        found.iter().filter_map(|(name,)| Algorithm::parse(name)).collect();
    found.sort_by_key(|algorithm| (!algorithm.is_jwt(), algorithm.as_str()));
    Ok(found)
}

/// Returns all keys, newest first, without their secrets.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(db: &ReadDb) -> Result<Vec<KeyView>> {
    let sql =
        "select kid, purpose, algorithm, version, created_at, signs_from, retired_at, dropped_at
         from keys where purpose <> $1 order by purpose, algorithm, version desc";
    Ok(db.all(sql, args![ROOT]).await?)
}

fn wrapping(app: &App) -> SealingKey {
    app.root.derive("palisade key wrapping v1")
}

struct NewKey {
    kid: String,
    purpose: &'static str,
    algorithm: String,
    version: i64,
    signs_from: Timestamp,
}

/// Creates the next signing key of an algorithm, and returns its ID.
async fn create_token_key(
    change: &mut Change,
    algorithm: Algorithm,
    signs_from: Timestamp,
) -> Result<String> {
    let version = latest(change, SIGNING, algorithm.as_str()).await?.unwrap_or(0) + 1;
    let random = Arc::clone(&change.app().random);
    let key = TokenKey::generate(algorithm, &*random).map_err(Error::internal)?;
    let kid = key.kid().to_owned();
    let row = NewKey {
        kid: kid.clone(),
        purpose: SIGNING,
        algorithm: algorithm.as_str().to_owned(),
        version,
        signs_from,
    };
    insert(change, row, key.private().expose()).await?;
    Ok(kid)
}

async fn insert(change: &mut Change, row: NewKey, secret: &[u8]) -> Result<()> {
    let app = change.app().clone();
    let wrapped = wrapping(&app).seal(&*app.random, row.kid.as_bytes(), secret);
    let now = change.now();
    change
        .run(
            "insert into keys (kid, purpose, algorithm, version, wrapped, created_at, signs_from)
             values ($1, $2, $3, $4, $5, $6, $7)",
            args![row.kid, row.purpose, row.algorithm, row.version, wrapped, now, row.signs_from],
        )
        .await?;
    Ok(())
}

async fn latest(change: &mut Change, purpose: &str, algorithm: &str) -> Result<Option<i64>> {
    let (version,): (Option<i64>,) = change
        .one(
            "select max(version) from keys where purpose = $1 and algorithm = $2",
            args![purpose, algorithm],
        )
        .await?;
    Ok(version)
}
