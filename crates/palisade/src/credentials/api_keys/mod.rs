//! API keys: the credentials that programs send instead of signing in. Users create them for themselves, and
//! administrators create them for service accounts.
//!
//! # Promises
//!
//! - A key is shown once. Only a digest of it and its last four characters are stored.
//! - A key may do only what both its permissions **and** the current rights of its owner allow, but on a resource it
//!   has every grant of its owner. It never counts as a fresh proof of identity, and is not accepted on routes for its
//!   owner's own sessions, password, factors or keys.
//! - **Revoked means revoked.** After the response to the revocation, the key is refused in this process, and within
//!   250 ms in every other one. This is checked on every request, in memory.
//! - Every key expires within 366 days.
//!
//! Tables: `api_keys`.

mod credential;
mod ending;
mod http;
mod prove;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, Timestamp, args, row_struct};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::{App, Change, State, Subscription};
use crate::cache::{Bounded, TombstoneCache};
use crate::error::{Error, Kind, Result};
use crate::id::{ApiKeyId, UserId};
use crate::limits::{Key, Rule};
use crate::mail::{self, Content, EmailTemplate, for_people};
use crate::metrics::Metric;
use crate::module::{Job, Module};
use crate::record::Event;
use crate::shape;
use crate::users;

pub use credential::KIND;
pub use ending::{Why, revoke};
pub use prove::{allowed, live, of_secret};

/// An API key was created.
pub const CREATED: Event = Event { name: "api_keys.created", summary: "An API key was created" };
/// An API key was revoked.
pub const REVOKED: Event = Event { name: "api_keys.revoked", summary: "An API key was revoked" };
/// An email announced that an API key is about to expire.
pub const EXPIRING: Event = Event {
    name: "api_keys.expiring",
    summary: "An email announced that an API key is about to expire",
};

/// Limits requests with one API key.
pub(crate) const USE: Rule = Rule {
    name: "api_key",
    burst: 600,
    per: Duration::from_secs(60),
    key: Key::ApiKey,
    summary: "Too many requests with this API key. Slow down.",
};

static ACTIVE: Metric = Metric::gauge(
    "palisade_api_keys_active",
    &[],
    "API keys that are neither revoked nor expired, counted once a minute.",
);
static EXPIRING_SOON: Metric = Metric::gauge(
    "palisade_api_keys_expiring",
    &[],
    "Active API keys that expire within 7 days, counted once a minute.",
);

async fn measure(app: &App) -> Result<()> {
    let now = app.clock.now();
    let sql = "select count(*) from api_keys
         where revoked_at is null and expires_at > $1 and expires_at <= $2";
    let soon = now.plus(Duration::from_secs(7 * 24 * 3600));
    let (expiring,): (i64,) = app.db.one(sql, args![now, soon]).await?;
    let sql = "select count(*) from api_keys where revoked_at is null and expires_at > $1";
    let (active,): (i64,) = app.db.one(sql, args![now]).await?;
    app.metrics.set(&EXPIRING_SOON, expiring as f64, &[]);
    app.metrics.set(&ACTIVE, active as f64, &[]);
    Ok(())
}

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "api_keys",
    routes: http::routes,
    limits: &[&USE, &http::MAKE],
    events: &[CREATED, REVOKED, EXPIRING],
    email_templates: &[&MADE, &ENDS_SOON],
    jobs: &[
        Job {
            name: "api_keys.warn",
            every: Duration::from_secs(3600),
            run: |app| Box::pin(ending::warn(app)),
        },
        Job {
            name: "api_keys.measure",
            every: Duration::from_secs(60),
            run: |app| Box::pin(measure(app)),
        },
        Job {
            name: "api_keys.prune",
            every: Duration::from_secs(3600),
            run: |app| Box::pin(ending::prune(app)),
        },
    ],
    metrics: &[&ACTIVE, &EXPIRING_SOON],
    credentials: &[credential::METHODS],
    subscriptions: &[Subscription {
        topic: ENDED_TOPIC,
        apply: |app, key| cache(app).end(&ApiKeyId(key), TOMBSTONE, app.clock.monotonic()),
        forget_all: |app| cache(app).forget_all(),
    }],
    migrations: &[Migration {
        module: "api_keys",
        number: 1,
        name: "api_keys",
        sql: Sql::Both(include_str!("../../../migrations/api_keys/0001_api_keys.sql")),
    }],
    endings: &[ending::BY_ACT],
    tables: &["api_keys"],
    state: |_, state: &mut State| {
        state.put(Known { keys: TombstoneCache::new(50_000), digests: Bounded::new(50_000) });
        Ok(())
    },
    ..Module::EMPTY
};

/// The topic for revoked keys.
pub const ENDED_TOPIC: &str = "api_keys.ended";
/// The prefix of a key.
pub const PREFIX: &str = "pal_ak_";
/// How long a tombstone is kept: longer than a read of the database may take. After that, the table shows that the key
/// is revoked.
const TOMBSTONE: Duration = Duration::from_secs(600);
/// The maximum number of active keys per user.
const MOST_KEYS: i64 = 50;

static MADE: EmailTemplate = EmailTemplate {
    name: "api_keys_created",
    text: include_str!("emails/created.txt"),
    html: include_str!("emails/created.html"),
    prepare: mail::as_written,
};

static ENDS_SOON: EmailTemplate = EmailTemplate {
    name: "api_keys_expiring",
    text: include_str!("emails/expiring.txt"),
    html: include_str!("emails/expiring.html"),
    prepare: mail::as_written,
};

/// The caches of this process.
struct Known {
    keys: TombstoneCache<ApiKeyId, ApiKey>,
    /// The key that each digest belongs to. It never changes.
    digests: Bounded<[u8; 32], ApiKeyId>,
}

fn cache(app: &App) -> &TombstoneCache<ApiKeyId, ApiKey> {
    &app.state::<Known>().keys
}

/// A key that isn't revoked.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The id of the key.
    pub id: ApiKeyId,
    /// The owner of the key.
    pub user: UserId,
    /// The permissions of the key.
    pub permissions: Arc<BTreeSet<String>>,
    /// The networks from which it may be used. `None` means any.
    pub allowed_networks: Option<Vec<IpNet>>,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    requests_per_minute: Option<u32>,
    last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Returns whether the key may be used from this IP address.
    fn takes(&self, ip: Option<IpAddr>) -> bool {
        let Some(networks) = &self.allowed_networks else { return true };
        // SECURITY: (test: an_api_key_works_from_its_allowed_networks_alone)
        let ip = ip.map(|ip| ip.to_canonical());
        ip.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip)))
    }
}

/// A key to be created, with fields that were already validated.
struct NewKey {
    owner: UserId,
    name: String,
    permissions: BTreeSet<String>,
    allowed_networks: Option<Vec<IpNet>>,
    requests_per_minute: Option<u32>,
    expires_at: Timestamp,
}

fn words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// Creates a key and returns its secret, which is shown only this once.
async fn create(mut change: Change, new: NewKey) -> Result<(ApiKeyId, SecretString)> {
    let app = change.app().clone();
    // A user's keys are created one after the other, so that two concurrent requests don't both find room.
    if !users::lock_row(&mut change, new.owner).await? {
        return Err(Error::not_found());
    }
    let (id, now) = (ApiKeyId(app.new_id()), change.now());
    let (count,): (i64,) = change
        .one(
            "select count(*) from api_keys where user_id = $1 and revoked_at is null and expires_at > $2",
            args![new.owner, now],
        )
        .await?;
    if count >= MOST_KEYS {
        let detail = "There are already 50 API keys. Revoke one first.";
        return Err(Error::new(Kind::Conflict, "api_keys.too_many", detail));
    }
    let secret = opaque::generate(PREFIX, &*app.random);
    let hint: String = secret.expose().chars().rev().take(4).collect();
    let made_by = change.actor().user;
    // A key that was made for a few days isn't worth an email about its end.
    let is_short = new.expires_at.since(now) <= ending::WARNED_BEFORE;
    change
        .run(
            "insert into api_keys (id, user_id, digest, hint, name, permissions, allowed_networks,
                requests_per_minute, made_by, created_at, expires_at, warned_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            args![
                id,
                new.owner,
                opaque::digest(PREFIX, secret.expose()),
                hint.chars().rev().collect::<String>(),
                new.name.as_str(),
                words(&new.permissions),
                new.allowed_networks.as_ref().map(words),
                new.requests_per_minute.map(i64::from),
                made_by.map(|user| user.0),
                now,
                new.expires_at,
                is_short.then_some(now)
            ],
        )
        .await?;
    let content = Content::to_user(new.owner).with("name", new.name.as_str());
    mail::enqueue(&mut change, &MADE, content.with("until", for_people(new.expires_at))).await?;
    let entry = CREATED.about(new.owner).detail("api_key", id.to_string());
    change.commit(entry.detail("permissions", words(&new.permissions))).await?;
    Ok((id, secret))
}

/// An API key, without its secret.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "ApiKey")]
pub struct ApiKeyView {
    /// The id of the key.
    pub id: ApiKeyId,
    /// The name of the key.
    pub name: String,
    /// The last four characters of the key.
    pub hint: String,
    /// The permissions of the key. The key never has more permissions than its owner.
    pub permissions: Vec<String>,
    /// The networks from which the key can be used; null means any.
    pub allowed_networks: Option<Vec<String>>,
    /// The maximum number of requests per minute; null means the server's limit `api_key`.
    pub requests_per_minute: Option<i64>,
    /// When the key was created.
    #[schemars(with = "shape::DateTime")]
    pub created_at: Timestamp,
    /// When the key expires.
    #[schemars(with = "shape::DateTime")]
    pub expires_at: Timestamp,
    /// When the key was last used, to the minute.
    #[schemars(with = "Option<shape::DateTime>")]
    pub last_used_at: Option<Timestamp>,
}

/// A stored API key, active or not, as exported for its owner.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "KeptApiKey")]
pub struct KeptKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKeyView,
    /// When the key was revoked, if it was.
    #[schemars(with = "Option<shape::DateTime>")]
    pub revoked_at: Option<Timestamp>,
    /// Why the key was revoked.
    pub revoked_because: Option<String>,
}

row_struct! {
    /// A key, as it is stored.
    struct KeyRow {
        id: ApiKeyId,
        name: String,
        hint: String,
        permissions: String,
        allowed_networks: Option<String>,
        requests_per_minute: Option<i64>,
        created_at: Timestamp,
        expires_at: Timestamp,
        last_used_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
        revoked_because: Option<String>,
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn kept_key(row: KeyRow) -> KeptKey {
    let key = ApiKeyView {
        id: row.id,
        name: row.name,
        hint: row.hint,
        permissions: split(&row.permissions),
        allowed_networks: row.allowed_networks.as_deref().map(split),
        requests_per_minute: row.requests_per_minute,
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
    };
    KeptKey { key, revoked_at: row.revoked_at, revoked_because: row.revoked_because }
}

/// Returns all of a user's stored keys, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn kept(app: &App, user: UserId) -> Result<Vec<KeptKey>> {
    let rows: Vec<KeyRow> = app
        .db
        .all(
            "select id, name, hint, permissions, allowed_networks, requests_per_minute, created_at, expires_at,
                last_used_at, revoked_at, revoked_because
             from api_keys where user_id = $1 order by created_at desc, id desc",
            args![user],
        )
        .await?;
    Ok(rows.into_iter().map(kept_key).collect())
}

/// Returns a user's active keys, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App, user: UserId) -> Result<Vec<ApiKeyView>> {
    let now = app.clock.now();
    let works = |kept: &KeptKey| kept.revoked_at.is_none() && kept.key.expires_at > now;
    Ok(kept(app, user).await?.into_iter().filter(works).map(|kept| kept.key).collect())
}
