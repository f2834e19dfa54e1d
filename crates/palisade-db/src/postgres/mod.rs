//! PostgreSQL: a bounded pool that repairs itself, and TLS that cannot be downgraded.

mod fresh;
mod login;
mod migration;
mod notifier;
mod place;
mod pooler;
mod queue;
mod relay;
mod url;

pub(crate) use fresh::{is_of_the_connection, is_outdated};
pub use place::check_schema;
pub(crate) use relay::{NO_SCRAM, OUTSIDE, UNREACHABLE};
pub(crate) use url::{check_url, outside};

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgListener, PgNotification, PgPool, PgPoolOptions,
    Postgres as Driver,
};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Executor as _};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use migration::Migrating;
pub(crate) use migration::PgMigration;

use crate::doubts::TRY_FOR;
use crate::statement::{Answer, Statement};
use crate::{Args, Connections, DbError, DbErrorKind, Lock, Options};
use notifier::Notifier;
use place::Place;
use queue::{Held, LockQueue};
use relay::Relay;

/// How long to wait for a connection. Less than one second, so that an outage is reported within one second.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(800);

/// How long each step of the first connection may take. Startup can wait, and its error should report the actual cause.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A pooled connection that has been idle for longer than this is tested before use.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How much longer the client waits than the server, so that normally the server's own limit is reached first.
const GRACE: Duration = Duration::from_millis(500);

/// An open PostgreSQL database.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: PgPool,
    limit: Duration,
    losses: Losses,
    notifier: Arc<Notifier>,
    queue: Arc<LockQueue>,
    place: Arc<Place>,
    migrating: Option<Arc<Migrating>>,
    _relay: Option<Arc<Relay>>,
}

impl Postgres {
    /// Opens the database at `url`, which is what follows `postgres://` in `options.url`.
    pub(crate) async fn open(url: &str, options: &Options) -> Result<Self, DbError> {
        let networks = &options.plaintext_networks;
        let target = url::target(url, networks)?;
        let server = url::place(&target.options);
        let (connect, relay) = Relay::start(target, networks, options.max_connections).await?;
        let migrating = Migrating::through(options.migrate_url.as_deref(), networks).await?;
        let probe = in_time(async { Ok(connect.connect().await?) }).await;
        let mut probe = probe.map_err(|error| unreached(error, &server))?;
        pooler::refuse_shared_servers(&mut probe, &connect).await?;
        let place = in_time(Place::find(&mut probe, options.schema.as_deref())).await;
        let place = Arc::new(place.map_err(pooler::explain)?);
        probe.close().await?;
        let losses = Losses::new();
        let seen = losses.clone();
        let limit = options.statement_timeout;
        let path: Arc<str> = place.search_path().into();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let path = Arc::clone(&path);
                Box::pin(async move { prepare(connection, limit, &path).await })
            })
            .before_acquire(move |connection, meta| {
                let older_than_a_loss = seen.since_last().is_some_and(|since| meta.age > since);
                Box::pin(async move {
                    if older_than_a_loss {
                        return Ok(false);
                    }
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(connect.clone());
        let notifier = Notifier::start(one_connection(connect), place.channel(), limit);
        Ok(Self {
            pool,
            limit,
            losses,
            notifier: Arc::new(notifier),
            queue: Arc::default(),
            place,
            migrating: migrating.map(Arc::new),
            _relay: relay.map(Arc::new),
        })
    }

    pub(crate) fn connections(&self) -> Connections {
        let open = self.pool.size() as usize;
        let idle = self.pool.num_idle().min(open);
        let max = self.pool.options().get_max_connections() as usize;
        Connections { in_use: open - idle, idle, max }
    }

    /// Reads outside a transaction. A connection that turns out to be dead is replaced once.
    pub(crate) async fn read(&self, statement: &Statement) -> Result<Answer, DbError> {
        match self.read_once(statement).await {
            Err(error) if self.lost(&error) => self.read_once(statement).await,
            answer => answer,
        }
    }

    async fn read_once(&self, statement: &Statement) -> Result<Answer, DbError> {
        let mut connection = Pooled::take(&self.pool, self.limit).await?;
        connection.run(statement).await
    }

    /// Starts a transaction. A connection that turns out to be dead is replaced once.
    pub(crate) async fn begin(&self, locks: &[Lock]) -> Result<PgTransaction, DbError> {
        let held = Arc::clone(&self.queue).take(locks, self.limit).await?;
        let connection = match self.begin_connection(locks).await {
            Err(error) if self.lost(&error) => self.begin_connection(locks).await?,
            begun => begun?,
        };
        let notifier = Arc::clone(&self.notifier);
        let runtime = Handle::current();
        let untouched = Some(Box::new((self.clone(), locks.to_vec())));
        Ok(PgTransaction {
            connection: Some(connection),
            held: Some(held),
            untouched,
            losses: self.losses.clone(),
            notifier,
            has_notices: false,
            runtime,
        })
    }

    /// Returns whether changes can be made. They cannot be made on a standby, or if the server, the database or the
    /// role is set to read-only. Nothing is written to find out.
    pub(crate) async fn takes_writes(&self) -> Result<bool, DbError> {
        let sql = "select current_setting('transaction_read_only') = 'off' and reset_val = 'off'
                   from pg_settings where name = 'default_transaction_read_only'";
        let statement = Statement::new(sql, Args::default())?;
        let (takes_writes,): (bool,) = self.read(&statement).await?.one()?;
        if !takes_writes {
            // A session keeps the setting that it started with; a new one may start with another.
            self.losses.note();
        }
        Ok(takes_writes)
    }

    /// Makes a change that has no effect, but takes the same path as every other change: to the disk, and to the
    /// standby that commits wait for. Nothing cuts that wait short, not even a client that disconnects. Until it ends,
    /// the row is locked, and another test write blocks on the lock, so at most one waits for the standby.
    pub(crate) async fn try_to_write(&self) -> Result<(), DbError> {
        let mut connection = Pooled::take(&self.pool, self.limit).await?;
        let change = format!(
            "begin; set local statement_timeout = {}; \
             update schema_migrations set name = name where module = 'palisade_db'",
            TRY_FOR.as_millis()
        );
        let result = connection.control(change).await;
        if let Err(error) = result {
            connection.in_order = false;
            return Err(error);
        }
        connection.control("commit").await
    }

    async fn begin_connection(&self, locks: &[Lock]) -> Result<Pooled, DbError> {
        let mut connection = Pooled::take(&self.pool, self.limit).await?;
        if let Err(error) = connection.control(begin(&self.place, locks)).await {
            // It may have begun before a lock was refused.
            connection.in_order = false;
            return Err(error);
        }
        Ok(connection)
    }

    /// Returns whether the error means that a pooled connection is dead or outdated. If so, the pool no longer hands
    /// out connections opened before this moment.
    fn lost(&self, error: &DbError) -> bool {
        let lost = error.is_lost_connection();
        if lost {
            self.losses.note();
        }
        lost
    }

    fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::clone(&self.pool.connect_options())
    }

    /// Opens a separate connection that receives notifications of other processes' changes, until it is lost.
    pub(crate) async fn listen(&self) -> Result<PgListener, DbError> {
        let pool = one_connection(self.connect_options());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(&self.place.channel()).await?;
        Ok(listener)
    }

    /// Returns whether a notification comes from this open database, which needs no notification of its own changes.
    pub(crate) fn sent(&self, notification: &PgNotification) -> bool {
        notification.payload() == self.notifier.sender
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.notifier.close().await;
    }
}

/// Creates a pool of one connection, which is opened when it is needed. It is separate from the connections that
/// requests share.
fn one_connection(connect: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(connect)
}

/// The time at which a connection was last found dead.
#[derive(Clone)]
struct Losses {
    start: Instant,
    /// Microseconds since `start`; zero for never.
    last: Arc<AtomicU64>,
}

impl Losses {
    fn new() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.fetch_max(now.max(1), Ordering::AcqRel);
    }

    fn since_last(&self) -> Option<Duration> {
        match self.last.load(Ordering::Acquire) {
            0 => None,
            last => Some(self.start.elapsed().saturating_sub(Duration::from_micros(last))),
        }
    }
}

/// Returns the SQL that begins a transaction and takes its locks, in one round trip.
///
/// SECURITY: the locks are taken in a separate statement, so that each statement that follows sees what was committed
/// during the wait. The isolation level is specified, because the database may have a different default, under which
/// every statement would see the database as it was before the wait (tests:
/// a_lock_is_taken_before_anything_is_looked_at, a_default_of_the_database_changes_no_level).
fn begin(place: &Place, locks: &[Lock]) -> String {
    let mut sql = String::from("begin isolation level read committed");
    for (number, lock) in locks.iter().enumerate() {
        let way = if lock.alone { "" } else { "_shared" };
        sql.push_str(if number == 0 { "; select " } else { ", " });
        // Numbers of our own, no input.
        sql.push_str(&format!("pg_advisory_xact_lock{way}({})", place.key(lock)));
    }
    sql
}

/// Names the server in the error of the first connection.
fn unreached(error: DbError, server: &str) -> DbError {
    let failed = format!("can't connect to the database at {server}");
    let detail = match error.kind() {
        // The error says what to do.
        _ if error.is_reported() => format!("{failed}: {error}"),
        DbErrorKind::Unavailable if error.source().is_none() => {
            format!("the database server at {server} does not answer")
        }
        DbErrorKind::Unavailable => failed,
        _ => return error,
    };
    error.saying(detail)
}

/// Waits for a step of the first connection.
async fn in_time<T>(step: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    let done = timeout(FIRST_CONNECT_TIMEOUT, step).await;
    done.map_err(|_| DbError::unavailable("the database server does not answer"))?
}

/// Sets what every statement of a connection depends on, whatever the database or the role has as a default. Statements
/// and not parameters of the connection, because poolers refuse those.
async fn prepare(
    connection: &mut PgConnection,
    limit: Duration,
    search_path: &str,
) -> Result<(), sqlx::Error> {
    let limit = format!("{}ms", limit.as_millis().max(1));
    sqlx::query(
        "select set_config('statement_timeout', $1, false), \
                set_config('lock_timeout', $1, false), \
                set_config('idle_in_transaction_session_timeout', $1, false), \
                set_config('synchronous_commit', 'on', false), \
                set_config('default_transaction_isolation', 'read committed', false), \
                set_config('timezone', 'UTC', false), \
                set_config('search_path', $2, false)",
    )
    .bind(limit)
    .bind(search_path)
    .execute(connection)
    .await
    .map(drop)
}

/// A connection from the pool. It is returned only if it is known to be intact; in any other case, including
/// cancellation halfway, it is closed.
struct Pooled {
    connection: PoolConnection<Driver>,
    in_order: bool,
    limit: Duration,
}

impl Pooled {
    async fn take(pool: &PgPool, limit: Duration) -> Result<Self, DbError> {
        let connection = pool.acquire().await?;
        Ok(Self { connection, in_order: true, limit: limit + GRACE })
    }

    async fn run(&mut self, statement: &Statement) -> Result<Answer, DbError> {
        let query = sqlx::query_with(statement.sql, statement.postgres_arguments()?);
        self.in_order = false;
        let answer = timeout(self.limit, collect(query, &mut self.connection)).await;
        self.judge(answer)
    }

    async fn control(&mut self, sql: impl Into<String>) -> Result<(), DbError> {
        self.in_order = false;
        let sql = AssertSqlSafe(sql.into());
        let answer = timeout(self.limit, self.connection.execute(sql)).await;
        self.judge(answer).map(drop)
    }

    fn judge<T>(&mut self, answer: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, DbError> {
        let answer = answer.map_err(|_| DbError::timeout())?.map_err(DbError::from);
        self.in_order = answer.as_ref().err().is_none_or(|error| {
            let gone =
                matches!(error.kind(), DbErrorKind::Unavailable | DbErrorKind::OutcomeUnknown);
            // After an unreadable response, the transaction on this connection may be open still.
            error.is_reported() && !gone && !error.is_lost_connection()
        });
        answer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if !self.in_order {
            self.connection.close_on_drop();
        }
    }
}

async fn collect(
    query: Query<'_, Driver, PgArguments>,
    connection: &mut PgConnection,
) -> Result<Answer, sqlx::Error> {
    let mut results = connection.fetch_many(query);
    let (mut rows, mut changed) = (Vec::new(), 0);
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => changed += done.rows_affected(),
            Either::Right(row) => rows.push(row),
        }
    }
    Ok(Answer::Postgres(rows, changed))
}

/// An open transaction. If it is dropped, a separate task rolls it back.
pub(crate) struct PgTransaction {
    connection: Option<Pooled>,
    /// Its locks in this process, for which other changes wait.
    held: Option<Held>,
    /// The database and the locks for starting again, as long as the transaction has done nothing.
    untouched: Option<Box<(Postgres, Vec<Lock>)>>,
    losses: Losses,
    notifier: Arc<Notifier>,
    has_notices: bool,
    runtime: Handle,
}

impl PgTransaction {
    pub(crate) async fn run(&mut self, statement: Statement) -> Result<Answer, DbError> {
        let Some(connection) = &mut self.connection else {
            return Err(DbError::wrong("the transaction has ended"));
        };
        let answer = connection.run(&statement).await;
        match (answer, self.untouched.take()) {
            (Err(error), Some(again)) if again.0.lost(&error) => {
                let (of, locks) = *again;
                // The lost connection is dropped first, so that its locks can be taken again.
                self.connection = None;
                let fresh = self.connection.insert(of.begin_connection(&locks).await?);
                fresh.run(&statement).await
            }
            (answer, _) => {
                // Earlier statements of the transaction aren't repeated here. A caller that retries all of it gets a
                // newer connection.
                if answer.as_ref().is_err_and(DbError::is_lost_connection) {
                    self.losses.note();
                }
                answer
            }
        }
    }

    pub(crate) fn notify(&mut self) {
        self.has_notices = true;
    }

    /// Commits in a separate task, so that a caller who stops waiting does not stop the commit.
    pub(crate) async fn commit(mut self) -> Result<(), DbError> {
        let Some(mut connection) = self.connection.take() else {
            return Err(DbError::wrong("the transaction has ended"));
        };
        let notifier = self.has_notices.then(|| Arc::clone(&self.notifier));
        let held = self.held.take();
        let commit = self.runtime.spawn(async move {
            let result = connection.control("commit").await;
            drop(held);
            if let Some(notifier) = notifier {
                // Also after an error, because the change may be stored all the same.
                notifier.wake();
            }
            result
        });
        match commit.await {
            Ok(Err(error)) if may_be_stored(&error) => {
                Err(DbError::outcome_unknown().caused_by(error))
            }
            Ok(result) => result,
            Err(cause) => Err(DbError::outcome_unknown().caused_by(cause)),
        }
    }
}

/// Returns whether the outcome of a failed commit is unknown. A server that states its own reason has rolled back; a
/// timeout, a lost connection, an unreadable response or a server that is shutting down proves nothing.
fn may_be_stored(error: &DbError) -> bool {
    !error.is_reported() || matches!(error.kind(), DbErrorKind::Unavailable | DbErrorKind::Timeout)
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.in_order
        {
            let held = self.held.take();
            self.runtime.spawn(async move {
                if let Err(cause) = connection.control("rollback").await {
                    tracing::debug!(%cause, "a transaction was ended by closing its connection");
                }
                drop(held);
            });
        }
    }
}
