//! One SQLite connection whose statements can be stopped.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection as _, Either, Executor as _};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::files::{FileId, identity};
use crate::DbError;
use crate::statement::{Answer, Statement};

/// The number of steps of SQLite's virtual machine between two checks of the stop signal.
const STEPS_BETWEEN_CHECKS: i32 = 1000;

/// The size of each connection's page cache, as SQLite counts it: negative means KiB. SQLite's default is about four
/// times as much. The operating system caches the file too, and each connection would keep the memory that it filled in
/// a busy minute.
const PAGE_CACHE: &str = "-512";

/// The number of statements kept prepared per connection.
const PREPARED_STATEMENTS: usize = 256;

/// The location of the database, and how long to wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) statement_timeout: Duration,
    file: FileId,
}

impl Source {
    /// Creates a source for the database whose file is at `path` now.
    pub(crate) fn new(path: PathBuf, statement_timeout: Duration) -> io::Result<Self> {
        let file = identity(&path)?;
        Ok(Self { path, statement_timeout, file })
    }

    /// Checks that the file at the path is still the one opened first.
    ///
    /// SECURITY: otherwise, a replaced file would continue to be read and written although it is no longer at its path,
    /// and what other processes revoke in the new file would stay valid here. Opening the new file while the old one is
    /// open could mix the two (sqlite.org/howtocorrupt.html), so the database can't be used until the process is
    /// restarted or the old file is put back (test: a_file_that_was_replaced_is_not_used_any_more).
    ///
    /// # Errors
    /// Returns an error if the file was replaced.
    pub(crate) fn check(&self) -> Result<(), sqlx::Error> {
        if identity(&self.path)? == self.file {
            return Ok(());
        }
        Err(sqlx::Error::Io(io::Error::other(format!(
            "the database file {} was replaced while it was open: stop the server before you restore a file",
            self.path.display()
        ))))
    }
}

/// Opens a connection from a thread for blocking work: the connection's own thread inherits the CPU affinity of the
/// thread that starts it, and a worker thread may be pinned to one core.
async fn apart(options: SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(options.connect()))
        .await
        .map_err(|_| sqlx::Error::WorkerCrashed)?
}

/// The purpose of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Reading,
    Writing,
}

/// An open connection.
pub(crate) struct Connection {
    inner: SqliteConnection,
    stop: Arc<AtomicBool>,
    limit: Duration,
}

impl Connection {
    pub(crate) async fn open(source: &Source, purpose: Use) -> Result<Self, sqlx::Error> {
        source.check()?;
        let options = SqliteConnectOptions::new()
            .filename(&source.path)
            .create_if_missing(false)
            .busy_timeout(source.statement_timeout)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("trusted_schema", "off")
            .pragma("query_only", if purpose == Use::Reading { "on" } else { "off" })
            .pragma("cache_size", PAGE_CACHE)
            .statement_cache_capacity(PREPARED_STATEMENTS)
            .disable_statement_logging();
        let mut inner = apart(options).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        inner
            .lock_handle()
            .await?
            .set_progress_handler(STEPS_BETWEEN_CHECKS, move || !stopped.load(Ordering::Relaxed));
        source.check()?;
        Ok(Self { inner, stop, limit: source.statement_timeout })
    }

    /// Returns a switch that makes the running statement, and every later one, fail.
    pub(crate) fn stop_switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Runs one statement to completion. It is stopped if it takes longer than the statement timeout.
    pub(crate) async fn run(&mut self, statement: &Statement) -> Result<Answer, Failure> {
        let bound = statement.sqlite_arguments().map_err(Failure::Statement)?;
        let query = sqlx::query_with(statement.sql, bound);
        let mut work = pin!(collect((&mut self.inner).fetch_many(query)));
        if let Ok(answer) = timeout(self.limit, work.as_mut()).await {
            return answer.map_err(Failure::from);
        }
        self.stop.store(true, Ordering::Relaxed);
        let answer = work.await;
        self.stop.store(false, Ordering::Relaxed);
        answer.map_err(Failure::from)
    }

    /// Runs internal statements, without values and without a time limit.
    pub(crate) async fn control(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        self.inner.execute(sql).await.map(drop)
    }

    /// Runs the statements of a migration, however long they take.
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut self.inner).await.map(drop)
    }

    /// Closes the connection. Uncommitted changes are lost.
    pub(crate) async fn close(self) {
        if let Err(cause) = self.inner.close().await {
            tracing::warn!(%cause, "a SQLite connection did not close cleanly");
        }
    }
}

async fn collect<S>(mut results: S) -> Result<Answer, sqlx::Error>
where
    S: futures_util::Stream<
            Item = Result<Either<sqlx::sqlite::SqliteQueryResult, SqliteRow>, sqlx::Error>,
        > + Unpin,
{
    let (mut rows, mut changed) = (Vec::new(), 0);
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => changed += done.rows_affected(),
            Either::Right(row) => rows.push(row),
        }
    }
    Ok(Answer::Sqlite(rows, changed))
}

/// A failed statement, and its effect on the transaction around it.
pub(crate) enum Failure {
    /// Only the statement was undone.
    Statement(DbError),
    /// The transaction can no longer be trusted.
    Transaction(DbError),
}

impl From<sqlx::Error> for Failure {
    fn from(cause: sqlx::Error) -> Self {
        if crate::error::leaves_sqlite_transaction_whole(&cause) {
            Self::Statement(cause.into())
        } else {
            Self::Transaction(cause.into())
        }
    }
}

impl Failure {
    pub(crate) fn into_error(self) -> DbError {
        match self {
            Self::Statement(error) | Self::Transaction(error) => error,
        }
    }
}
