//! Sessions: one per sign-in, and everything that ends them.
//!
//! # Promises
//!
//! - **Ended means ended.** After the response that confirms the end of a session, every token of the session is
//!   refused in this process, and within 250 ms in every other one. Every request checks this, from memory.
//! - A refresh token works once ([`refresh`]). If its holder repeats the refresh within the grace period, and the
//!   successor is unused, the response contains the same successor. Later, and once, a device that proves with its
//!   device token that it started the session gets a new successor, and the owner is told. Any other repeat ends the
//!   session.
//! - Nothing in the database is a credential: secrets are stored as digests.
//!
//! Tables: `sessions`, `session_secrets`.

mod credential;
mod ending;
mod everyone;
mod http;
mod issued;
mod kept;
mod lost_answer;
mod outdating;
mod prove;
mod refresh;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use palisade_crypto::opaque;
use palisade_db::{Migration, Sql, Timestamp, args, row_struct};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::access::{self, AuthLevel};
use crate::app::{Answers, App, Change, State, Subscription};
use crate::cache::{Bounded, Cached, TombstoneCache};
use crate::error::Result;
use crate::http::{CookieName, HostCookie};
use crate::id::{SessionId, UserId};
use crate::metrics::Metric;
use crate::module::{Job, Module};
use crate::record::Event;
use crate::settings::TokenFormat;
use crate::shape;
use crate::tokens;

pub use credential::KIND;
pub use ending::{Ended, REVOKED, Why, disable, end, revoke_all};
pub use everyone::{ALL_REVOKED, EndedAll, revoke_everyone};
pub use http::{Answer, REFRESH, SignedOut, answer};
pub use issued::Issued;
pub use kept::{KeptSession, kept, seen};
pub use prove::of_access_token;
pub use refresh::{Presented, of_refresh_token, raise_level, refresh, refresh_with, renew};

/// A session was ended.
pub const ENDED: Event = Event { name: "sessions.ended", summary: "A session was ended" };
/// A used refresh token or cookie was used again, after its grace period or after its successor was used: it may have
/// been copied.
pub const REPLAYED: Event =
    Event { name: "sessions.replayed", summary: "A used refresh token was used again" };
/// A device got a new refresh token for one that was already used, because it had not received the response.
pub const RECOVERED: Event = Event {
    name: "sessions.recovered",
    summary: "A device that had lost the response to a refresh continued its session",
};

static ACTIVE: Metric = Metric::gauge(
    "palisade_sessions_active",
    &[],
    "Sessions that have neither ended nor expired, counted once a minute.",
);

async fn measure(app: &App) -> Result<()> {
    let sql = "select count(*) from sessions
         where ended_at is null and idle_expires_at > $1 and expires_at > $1";
    let (active,): (i64,) = app.db.one(sql, args![app.clock.now()]).await?;
    app.metrics.set(&ACTIVE, active as f64, &[]);
    Ok(())
}

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "sessions",
    routes: http::routes,
    limits: &[&REFRESH, &http::LOGOUT, &access::ACCOUNT],
    events: &[ENDED, REVOKED, ALL_REVOKED, RECOVERED, REPLAYED],
    email_templates: &[&lost_answer::EMAIL],
    jobs: &[
        Job {
            name: "sessions.prune",
            every: Duration::from_secs(60),
            run: |app| Box::pin(ending::prune(app)),
        },
        Job {
            name: "sessions.outdate",
            every: Duration::from_secs(1),
            run: |app| Box::pin(outdating::continue_outdating(app)),
        },
        Job {
            name: "sessions.measure",
            every: Duration::from_secs(60),
            run: |app| Box::pin(measure(app)),
        },
    ],
    metrics: &[&ACTIVE],
    answers: Answers {
        outdate: Some(|change, whose| Box::pin(outdating::outdate(change, whose))),
        ..Answers::NONE
    },
    credentials: &[credential::METHODS],
    endings: &[ending::BY_ACT],
    subscriptions: &[
        Subscription {
            topic: ENDED_TOPIC,
            apply: |app, session| {
                let (now, keep) = (app.clock.monotonic(), tokens::longest_life(app));
                cache(app).end(&SessionId(session), keep, now);
            },
            forget_all: |app| {
                cache(app).forget_all();
                app.state::<Known>().cookies.clear();
            },
        },
        Subscription {
            topic: GENERATION_TOPIC,
            apply: |app, session| cache(app).forget(&SessionId(session), app.clock.monotonic()),
            forget_all: |app| cache(app).forget_all(),
        },
        Subscription {
            topic: RENEWED_TOPIC,
            apply: |app, session| cache(app).forget(&SessionId(session), app.clock.monotonic()),
            forget_all: |app| cache(app).forget_all(),
        },
    ],
    migrations: &[Migration {
        module: "sessions",
        number: 1,
        name: "sessions",
        sql: Sql::Both(include_str!("../../../migrations/sessions/0001_sessions.sql")),
    }],
    tables: &["sessions", "session_secrets"],
    state: |_, state: &mut State| {
        state.put(Known {
            sessions: TombstoneCache::new(200_000),
            cookies: Bounded::new(200_000),
            reads: AtomicU64::new(0),
        });
        Ok(())
    },
    ..Module::EMPTY
};

/// The cookie that carries a browser's session.
pub const COOKIE: CookieName = CookieName { secure: "__Host-palisade", plain: "palisade" };

/// The topic for ended sessions.
pub const ENDED_TOPIC: &str = "sessions.ended";
/// The topic for replaced credentials. Every process that has cached the session must read it again.
const RENEWED_TOPIC: &str = "sessions.renewed";
/// The topic for new generations: earlier access tokens of the session are refused.
const GENERATION_TOPIC: &str = "sessions.generation";

/// Returns the session cookie, in the form that the public URL of this app requires.
fn cookie(app: &App) -> HostCookie {
    HostCookie::new(COOKIE, &app.settings)
}

/// The prefix of a refresh token.
const REFRESH_PREFIX: &str = "pal_rt_";
/// The prefix of a session cookie's value.
const COOKIE_PREFIX: &str = "pal_sc_";

/// The caches of this process.
struct Known {
    sessions: TombstoneCache<SessionId, Session>,
    /// The session that each cookie belongs to, by the digest of the cookie's value.
    cookies: Bounded<[u8; 32], Owner>,
    /// Counts the database reads of sessions and cookies, to determine which of two reads is newer.
    reads: AtomicU64,
}

/// The session that a cookie belongs to, and the number of the database read that returned it.
#[derive(Clone, Copy)]
struct Owner {
    session: SessionId,
    read: u64,
}

/// Returns the number of a read that is about to begin.
fn next_read(app: &App) -> u64 {
    app.state::<Known>().reads.fetch_add(1, Ordering::SeqCst)
}

fn cache(app: &App) -> &TombstoneCache<SessionId, Session> {
    &app.state::<Known>().sessions
}

/// How a session's credentials are transmitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Transport {
    /// Access and refresh tokens in bodies and headers.
    #[default]
    Token,
    /// One cookie that scripts can't read.
    Cookie,
}

impl Transport {
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Cookie => "cookie",
        }
    }

    fn parse(text: &str) -> Self {
        if text == "cookie" { Self::Cookie } else { Self::Token }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Token => REFRESH_PREFIX,
            Self::Cookie => COOKIE_PREFIX,
        }
    }
}

/// An active session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The id of the session.
    pub id: SessionId,
    /// The user of the session.
    pub user: UserId,
    /// How its credentials are transmitted.
    pub transport: Transport,
    /// The format of its access tokens.
    pub format: TokenFormat,
    /// The methods with which the user proved their identity (RFC 8176), separated by spaces.
    pub amr: String,
    /// The current generation of its credentials. A new proof of identity starts the next one.
    pub generation: i64,
    /// When the user last proved their identity.
    pub authenticated_at: Timestamp,
    /// The level of that proof.
    pub proved_with: AuthLevel,
    /// When the session was last extended.
    pub last_used_at: Timestamp,
    /// When the session ends if it is not used.
    pub idle_expires_at: Timestamp,
    /// When the session ends even if it is in use.
    pub expires_at: Timestamp,
    /// The number of this process's read that returned the session.
    read: u64,
}

impl Session {
    /// Returns whether more than one factor was used in this session (RFC 8176: `mfa`).
    pub fn has_mfa(&self) -> bool {
        self.amr.split(' ').any(|method| method == "mfa")
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.idle_expires_at <= now || self.expires_at <= now
    }
}

/// A session to be started.
pub struct NewSession {
    /// The user of the session.
    pub user: UserId,
    /// How its credentials are transmitted.
    pub transport: Transport,
    /// The format of its access tokens.
    pub format: TokenFormat,
    /// The name that the client gave itself.
    pub device_name: Option<String>,
    /// The device that signs in, as its device token names it.
    pub device: Uuid,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// The IP address from which the user signed in.
    pub ip: Option<IpAddr>,
    /// The proof of the user's identity.
    pub proof: Proof,
}

/// A proof of a user's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The methods (RFC 8176), separated by spaces.
    pub amr: &'static str,
    /// The level of the strongest method.
    pub level: AuthLevel,
}

/// Starts a session, within the change that signs the user in.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn start(change: &mut Change, new: NewSession) -> Result<Issued> {
    let app = change.app().clone();
    let now = change.now();
    let expires_at = now.plus(app.settings.sessions.absolute_timeout);
    let session = Session {
        id: SessionId(app.new_id()),
        user: new.user,
        transport: new.transport,
        format: new.format,
        amr: new.proof.amr.to_owned(),
        generation: 1,
        authenticated_at: now,
        proved_with: new.proof.level,
        last_used_at: now,
        idle_expires_at: idle_end(&app, new.transport, now).min(expires_at),
        expires_at,
        read: next_read(&app),
    };
    change
        .run(
            "insert into sessions (id, user_id, transport, token_format, device_name, user_agent,
                ip, amr, created_at, authenticated_at, last_used_at, idle_expires_at, expires_at,
                proved_with, generation, device_id)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9, $10, $11, $12, $13, $14)",
            args![
                session.id,
                new.user,
                new.transport.as_str(),
                new.format.as_str(),
                new.device_name,
                new.user_agent,
                new.ip.map(|ip| ip.to_string()),
                new.proof.amr,
                now,
                session.idle_expires_at,
                expires_at,
                new.proof.level.as_str(),
                session.generation,
                new.device
            ],
        )
        .await?;
    let secret = opaque::generate(new.transport.prefix(), &*app.random);
    refresh::store_secret(change, &session, &secret).await?;
    Issued::new(change, session, secret).await
}

fn idle_end(app: &App, transport: Transport, now: Timestamp) -> Timestamp {
    now.plus(match transport {
        Transport::Token => app.settings.sessions.idle_timeout,
        Transport::Cookie => app.settings.sessions.cookie_idle_timeout,
    })
}

/// Returns the session if it is active, from memory if it is cached. An ended session never becomes active again.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub async fn live(app: &App, id: SessionId) -> Result<Option<Arc<Session>>> {
    let now = app.clock.now();
    match cache(app).get(&id) {
        Cached::Ended => return Ok(None),
        Cached::Known(session) if !session.is_over(now) => return Ok(Some(session)),
        // Another process may have extended the session: ask the database before treating it as expired.
        Cached::Known(_) | Cached::Nothing => {}
    }
    let ticket = cache(app).begin(&id, app.clock.monotonic());
    let Some(session) = find_live(app, id).await?.filter(|session| !session.is_over(now)) else {
        return Ok(None);
    };
    let session = Arc::new(session);
    cache(app).insert_if_unchanged(ticket, id, Arc::clone(&session), app.clock.monotonic());
    Ok(Some(session))
}

row_struct! {
    /// A session, as it is stored.
    struct SessionRow {
        id: SessionId,
        user: UserId,
        transport: String,
        format: String,
        amr: String,
        generation: i64,
        authenticated_at: Timestamp,
        proved_with: String,
        last_used_at: Timestamp,
        idle_expires_at: Timestamp,
        expires_at: Timestamp,
    }
}

fn session(row: SessionRow, read: u64) -> Session {
    Session {
        id: row.id,
        user: row.user,
        transport: Transport::parse(&row.transport),
        format: if row.format == "paseto" { TokenFormat::Paseto } else { TokenFormat::Jwt },
        amr: row.amr,
        generation: row.generation,
        authenticated_at: row.authenticated_at,
        proved_with: AuthLevel::parse(&row.proved_with),
        last_used_at: row.last_used_at,
        idle_expires_at: row.idle_expires_at,
        expires_at: row.expires_at,
        read,
    }
}

async fn find_live(app: &App, id: SessionId) -> Result<Option<Session>> {
    let read = next_read(app);
    let row: Option<SessionRow> = app
        .db
        .maybe(
            "select id, user_id, transport, token_format, amr, generation, authenticated_at, proved_with,
                last_used_at, idle_expires_at, expires_at
             from sessions where id = $1 and ended_at is null",
            args![id],
        )
        .await?;
    Ok(row.map(|row| session(row, read)))
}

/// A session, as shown to its owner.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionView {
    /// The id of the session.
    pub id: SessionId,
    /// Whether this is the session of the request.
    pub current: bool,
    /// The name that the client gave itself.
    pub device_name: Option<String>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// The IP address from which the user signed in.
    pub ip: Option<String>,
    /// `token` or `cookie`.
    pub transport: Transport,
    /// When the session began.
    #[schemars(with = "shape::DateTime")]
    pub created_at: Timestamp,
    /// When the session was last extended.
    #[schemars(with = "shape::DateTime")]
    pub last_used_at: Timestamp,
    /// When the session ends even if it is in use.
    #[schemars(with = "shape::DateTime")]
    pub expires_at: Timestamp,
}

row_struct! {
    /// A session to be shown, as it is stored.
    struct ListedSession {
        id: SessionId,
        device_name: Option<String>,
        user_agent: Option<String>,
        ip: Option<String>,
        transport: String,
        created_at: Timestamp,
        last_used_at: Timestamp,
        expires_at: Timestamp,
    }
}

/// Returns a user's active sessions, newest first, at most 1,000.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App, user: UserId, current: SessionId) -> Result<Vec<SessionView>> {
    let rows: Vec<ListedSession> = app
        .db
        .all(
            "select id, device_name, user_agent, ip, transport, created_at, last_used_at,
                expires_at
             from sessions
             where user_id = $1 and ended_at is null and idle_expires_at > $2 and expires_at > $2
             order by created_at desc, id desc limit 1000",
            args![user, app.clock.now()],
        )
        .await?;
    let view = |row: ListedSession| SessionView {
        id: row.id,
        current: row.id == current,
        device_name: row.device_name,
        user_agent: row.user_agent,
        ip: row.ip,
        transport: Transport::parse(&row.transport),
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
    };
    Ok(rows.into_iter().map(view).collect())
}
