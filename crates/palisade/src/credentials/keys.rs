//! The key ring: the keys that sign tokens, and the pepper. They are sealed under the root key.
//!
//! # Promises
//!
//! - The root key is never stored in the database. A database created under a different root key is refused when the
//!   server starts. New keys are never created silently for existing data.
//! - Rotation needs no pause: a retired key keeps verifying until everything it signed has expired.
//!
//! Tables: `keys`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use palisade_crypto::seal::{KeyRing, SealingKey};
use palisade_crypto::token::{Algorithm, TokenKey, Verifier};
use palisade_db::{Migration, ReadDb, Sql, Timestamp, args, row_struct};
use serde::Serialize;
use uuid::Uuid;

use crate::app::{Actor, App, Change, State, Subscription};
use crate::audit_log;
use crate::error::{Error, Result};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::settings::{Paseto, Settings, TokenAlgorithm, TokenFormat};

/// New signing keys were created and are used from now on.
pub const ROTATED: Event =
    Event { name: "keys.rotated", summary: "The signing keys were replaced" };

/// Keys were created at the first start, or for an algorithm that had none.
pub const CREATED: Event = Event { name: "keys.created", summary: "Keys were created" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "keys",
    events: &[CREATED, ROTATED],
    jobs: &[Job { name: "keys.reload", every: RELOAD_EVERY, run: |app| Box::pin(reload(app)) }],
    subscriptions: &[Subscription {
        topic: CHANGED,
        apply: |app, _| expire(app),
        forget_all: expire,
    }],
    migrations: &[Migration {
        module: "keys",
        number: 1,
        name: "keys",
        sql: Sql::Both(include_str!("../../migrations/keys/0001_keys.sql")),
    }],
    tables: &["keys"],
    state: |_, state: &mut State| {
        state.put(Keys::default());
        Ok(())
    },
    ..Module::EMPTY
};

const CHANGED: &str = "keys.changed";
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// An unknown key ID makes the process reload the keys, at most this often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a retired key still verifies tokens: the longest life of a token, plus a margin.
const RETIRED_VERIFIES_FOR: Duration = Duration::from_secs(70 * 60);

const TOKEN: &str = "token";
const PEPPER: &str = "pepper";
const ROOT: &str = "root";
const ROOT_CHECK: &[u8] = b"this database belongs to this root key";

/// The keys in memory.
#[derive(Default)]
pub struct Keys {
    ring: RwLock<Option<Arc<Ring>>>,
}

/// The keys that are in use at one time, for signing, verifying and sealing password hashes.
pub struct Ring {
    tokens: Vec<Arc<TokenKey>>,
    /// The verifier of tokens signed with a current key or a recently retired one.
    pub verifier: Verifier,
    /// The key ring that seals password hashes.
    pub pepper: KeyRing,
    loaded: Duration,
}

impl Ring {
    /// Returns the key that signs tokens of this format.
    ///
    /// # Errors
    /// Returns an error if there is no such key, which startup prevents.
    pub fn signing(&self, app: &App, format: TokenFormat) -> Result<Arc<TokenKey>> {
        let algorithm = algorithm(&app.settings, format);
        self.tokens
            .iter()
            .find(|key| key.algorithm() == algorithm)
            .cloned()
            .ok_or_else(|| Error::internal("there is no key for this token format"))
    }

    /// Returns all keys that verify tokens, the newest of each algorithm first.
    pub fn tokens(&self) -> &[Arc<TokenKey>] {
        &self.tokens
    }
}

fn algorithm(settings: &Settings, format: TokenFormat) -> Algorithm {
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
        /// The purpose: `token` or `pepper`.
        pub purpose: String,
        /// The algorithm: `EdDSA`, `ES256`, `v4.public` or `v4.local`; for the pepper, `XChaCha20-Poly1305`.
        pub algorithm: String,
        /// The version, which increases with each rotation.
        pub version: i64,
        /// When it was created.
        pub created_at: Timestamp,
        /// When it stopped signing.
        pub retired_at: Option<Timestamp>,
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
    load(app).await.map(drop)
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
        let row = NewKey { kid: ROOT.into(), purpose: ROOT, algorithm: "check".into(), version: 1 };
        insert(&mut change, row, ROOT_CHECK).await?;
    }
    let made = create_missing(&mut change).await?;
    if check.is_some() && made.is_empty() {
        return Ok(());
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
    for format in [TokenFormat::Jwt, TokenFormat::Paseto] {
        let algorithm = algorithm(&app.settings, format);
        if latest(change, TOKEN, algorithm.as_str()).await?.is_none() {
            made.push(create_token_key(change, algorithm, 1).await?);
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
        };
        made.push(row.kid.clone());
        insert(change, row, &key).await?;
    }
    Ok(made)
}

/// Replaces the current signing keys. Tokens signed with the old ones stay valid until they expire.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn rotate(app: &App, actor: &Actor) -> Result<Vec<String>> {
    let mut change = app.change(actor).await?;
    let mut made = Vec::new();
    for format in [TokenFormat::Jwt, TokenFormat::Paseto] {
        let algorithm = algorithm(&app.settings, format);
        let version = latest(&mut change, TOKEN, algorithm.as_str()).await?.unwrap_or(0);
        let now = change.now();
        change
            .run(
                "update keys set retired_at = $3
                 where purpose = $1 and algorithm = $2 and retired_at is null",
                args![TOKEN, algorithm.as_str(), now],
            )
            .await?;
        made.push(create_token_key(&mut change, algorithm, version + 1).await?);
    }
    change.publish(CHANGED, Uuid::nil());
    change.commit(ROTATED.entry().detail("kids", made.join(" "))).await?;
    load(app).await?;
    Ok(made)
}

/// Returns all keys, newest first, without their secrets.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(db: &ReadDb) -> Result<Vec<KeyView>> {
    let sql = "select kid, purpose, algorithm, version, created_at, retired_at from keys
         where purpose <> $1 order by purpose, algorithm, version desc";
    Ok(db.all(sql, args![ROOT]).await?)
}

/// Returns the current keys.
///
/// # Errors
/// Returns an error if the keys aren't in memory and the database fails.
pub async fn ring(app: &App) -> Result<Arc<Ring>> {
    match in_memory(app) {
        Some(ring) => Ok(ring),
        None => load(app).await,
    }
}

/// Returns the current keys, and reads them again unless they were read a moment ago. Used for a token with an unknown
/// key ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn look_again(app: &App) -> Result<Arc<Ring>> {
    let now = app.clock.monotonic();
    match in_memory(app) {
        Some(ring) if now.saturating_sub(ring.loaded) < LOOK_AGAIN_AFTER => Ok(ring),
        _ => load(app).await,
    }
}

fn in_memory(app: &App) -> Option<Arc<Ring>> {
    app.state::<Keys>().ring.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn expire(app: &App) {
    *app.state::<Keys>().ring.write().unwrap_or_else(PoisonError::into_inner) = None;
}

async fn reload(app: &App) -> Result<()> {
    load(app).await.map(drop)
}

type Row = (String, String, i64, Vec<u8>, String);

async fn load(app: &App) -> Result<Arc<Ring>> {
    let loaded = app.clock.monotonic();
    let rows: Vec<Row> = app
        .db
        .all(
            "select purpose, algorithm, version, wrapped, kid from keys
             where purpose <> $1 and (retired_at is null or retired_at > $2)
             order by version desc",
            args![ROOT, app.clock.now().minus(RETIRED_VERIFIES_FOR)],
        )
        .await?;
    let (mut tokens, mut peppers) = (Vec::new(), Vec::new());
    for (purpose, algorithm, version, wrapped, kid) in rows {
        let key = wrapping(app).open(kid.as_bytes(), &wrapped).map_err(Error::internal)?;
        if purpose == PEPPER {
            let bytes: [u8; 32] = key.expose().try_into().map_err(Error::internal)?;
            let version = u32::try_from(version).map_err(Error::internal)?;
            peppers.push((version, SealingKey::from_bytes(bytes)));
        } else if let Some(algorithm) = Algorithm::parse(&algorithm) {
            let key = TokenKey::from_private(algorithm, key.expose()).map_err(Error::internal)?;
            tokens.push(Arc::new(key));
        }
    }
    let settings = &app.settings.tokens;
    let ring = Arc::new(Ring {
        verifier: Verifier::new(
            tokens.iter().map(|key| key.verification()).collect(),
            &settings.issuer,
            &settings.audience,
        ),
        tokens,
        pepper: KeyRing::new(peppers).map_err(Error::internal)?,
        loaded,
    });
    *app.state::<Keys>().ring.write().unwrap_or_else(PoisonError::into_inner) =
        Some(Arc::clone(&ring));
    Ok(ring)
}

fn wrapping(app: &App) -> SealingKey {
    app.root.derive("palisade key wrapping v1")
}

struct NewKey {
    kid: String,
    purpose: &'static str,
    algorithm: String,
    version: i64,
}

async fn create_token_key(
    change: &mut Change,
    algorithm: Algorithm,
    version: i64,
) -> Result<String> {
    let random = Arc::clone(&change.app().random);
    let key = TokenKey::generate(algorithm, &*random).map_err(Error::internal)?;
    let kid = key.kid().to_owned();
    let row = NewKey {
        kid: kid.clone(),
        purpose: TOKEN,
        algorithm: algorithm.as_str().to_owned(),
        version,
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
            "insert into keys (kid, purpose, algorithm, version, wrapped, created_at)
             values ($1, $2, $3, $4, $5, $6)",
            args![row.kid, row.purpose, row.algorithm, row.version, wrapped, now],
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
