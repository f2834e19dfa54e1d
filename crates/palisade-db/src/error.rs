//! The only error type of this crate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use crate::postgres;

/// The kind of failure, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorKind {
    /// The database cannot be used right now: unreachable, overloaded, out of disk, shutting down, locked by another
    /// process. No part of the transaction is stored; trying again later may work.
    Unavailable,
    /// The database aborted the transaction to let another one proceed (a deadlock, a serialization failure), or
    /// because its tables were recreated in the meantime. No part of it is stored; an immediate retry may succeed.
    BrokenOff,
    /// A unique constraint does not allow the row.
    Conflict,
    /// A foreign key does not allow the change.
    Foreign,
    /// A check or `not null` constraint does not allow the row.
    Check,
    /// The statement or the transaction took longer than allowed. No part of it is stored.
    Timeout,
    /// The commit was sent, but its result was never received: the change may or may not be stored.
    OutcomeUnknown,
    /// There is a mistake in the program or its configuration: bad SQL, values that do not fit, an edited migration, a
    /// malformed URL.
    Wrong,
}

/// A failed database operation. Its `Display` is a sentence without SQL and without stored values;
/// `source` carries the cause for the log.
#[derive(Clone, Debug)]
pub struct DbError {
    kind: DbErrorKind,
    detail: Cow<'static, str>,
    violated: Option<Arc<Violated>>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
    lost_connection: bool,
}

/// The constraint that refused a change.
#[derive(Debug)]
struct Violated {
    name: String,
    table: String,
    columns: Vec<String>,
}

impl DbError {
    /// Creates an error of this kind, with a human-readable sentence.
    pub(crate) fn new(kind: DbErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), violated: None, cause: None, lost_connection: false }
    }

    /// Creates an error of the kind [`DbErrorKind::Wrong`], for implementations of [`Column`](crate::Column) and
    /// [`FromRow`](crate::FromRow) that find a value they cannot read.
    pub fn wrong(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DbErrorKind::Wrong, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DbErrorKind::Unavailable, detail)
    }

    pub(crate) fn timeout() -> Self {
        Self::new(DbErrorKind::Timeout, "the database did not answer in time")
    }

    pub(crate) fn outcome_unknown() -> Self {
        Self::new(
            DbErrorKind::OutcomeUnknown,
            "the database did not report whether the change was stored",
        )
    }

    /// Replaces the sentence. The kind and the cause stay.
    pub(crate) fn saying(mut self, detail: String) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds the cause of the error.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    pub(crate) fn caused_by_box(mut self, cause: Box<dyn Error + Send + Sync>) -> Self {
        self.cause = Some(Arc::from(cause));
        self
    }

    /// Returns what went wrong.
    pub fn kind(&self) -> DbErrorKind {
        self.kind
    }

    /// Returns the name of the violated constraint, or `None` if it is not known.
    ///
    /// PostgreSQL reports the name of every constraint except `not null`. SQLite does not report the name of a foreign
    /// key. It does not name a unique constraint over plain columns either; in that case, this is the name that
    /// PostgreSQL gives such a constraint by default (`users_email_key`, `sessions_user_id_device_key`; a primary key
    /// is named like a unique constraint). If an index has its own name, use [`is_conflict_on`](Self::is_conflict_on)
    /// instead.
    pub fn constraint(&self) -> Option<&str> {
        self.violated.as_ref().map(|violated| violated.name.as_str())
    }

    /// Returns whether a unique constraint of `table` that covers `column` refused the row. Works the same on both
    /// databases, except for an index over an expression, for which only [`constraint`](Self::constraint) works.
    pub fn is_conflict_on(&self, table: &str, column: &str) -> bool {
        self.kind == DbErrorKind::Conflict
            && self.violated.as_ref().is_some_and(|violated| {
                violated.table == table && violated.columns.iter().any(|name| name == column)
            })
    }

    /// Returns whether the database itself reported the error, so that the statement reached it and was refused.
    pub(crate) fn is_reported(&self) -> bool {
        self.reported().is_some()
    }

    /// Returns whether PostgreSQL refused the operation because the role lacks a privilege.
    pub(crate) fn lacks_privilege(&self) -> bool {
        self.reported().is_some_and(|reported| reported.state == INSUFFICIENT_PRIVILEGE)
    }

    fn reported(&self) -> Option<&Reported> {
        self.cause.as_deref().and_then(|cause| cause.downcast_ref())
    }

    /// Returns whether a connection broke or is outdated, so that the same operation may succeed on a fresh one.
    pub(crate) fn is_lost_connection(&self) -> bool {
        self.lost_connection
    }

    fn violating(mut self, violated: Option<Violated>) -> Self {
        self.violated = violated.map(Arc::new);
        self
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for DbError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<sqlx::Error> for DbError {
    fn from(cause: sqlx::Error) -> Self {
        let error = match &cause {
            sqlx::Error::Database(reported) => from_database(reported.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => of_kind(DbErrorKind::Unavailable),
            _ => of_kind(DbErrorKind::Wrong),
        };
        let lost_connection = match &cause {
            sqlx::Error::Io(_) => true,
            sqlx::Error::Database(reported) => reported
                .try_downcast_ref::<PgDatabaseError>()
                .is_some_and(postgres::is_of_the_connection),
            _ => false,
        };
        let error = match cause {
            sqlx::Error::Database(reported) => match reported.code().as_deref() {
                Some(postgres::OUTSIDE | postgres::NO_SCRAM) => error,
                Some(postgres::UNREACHABLE) => {
                    error.caused_by(std::io::Error::other(reported.message().to_owned()))
                }
                _ => error.caused_by(Reported::new(reported.as_ref())),
            },
            // What the driver says about these repeats what they say themselves.
            sqlx::Error::Io(cause) => error.caused_by(cause),
            sqlx::Error::Tls(cause) | sqlx::Error::Configuration(cause) => {
                error.caused_by_box(cause)
            }
            cause => error.caused_by(cause),
        };
        Self { lost_connection, ..error }
    }
}

/// What the database says about a failure, for the operator.
///
/// The driver's own text ends with the line of PostgreSQL's source code at which the error was raised. The detail that
/// PostgreSQL adds is left out, because it contains stored values.
#[derive(Debug)]
struct Reported {
    by: &'static str,
    message: String,
    hint: Option<String>,
    state: String,
}

impl Reported {
    fn new(reported: &dyn DatabaseError) -> Self {
        let of_postgres = reported.try_downcast_ref::<PgDatabaseError>();
        Self {
            by: if of_postgres.is_some() { "PostgreSQL" } else { "SQLite" },
            message: reported.message().to_owned(),
            hint: of_postgres.and_then(PgDatabaseError::hint).map(str::to_owned),
            state: reported.code().unwrap_or_default().into_owned(),
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, message, hint, state } = self;
        write!(f, "{by} reports: {message} (code {state})")?;
        match hint {
            Some(hint) => write!(f, "; its hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for Reported {}

fn of_kind(kind: DbErrorKind) -> DbError {
    let detail = match kind {
        DbErrorKind::Unavailable => "the database is not available",
        DbErrorKind::BrokenOff => "the database aborted a transaction that conflicted with another",
        DbErrorKind::Conflict => "such an entry already exists",
        DbErrorKind::Foreign => "a referenced entry does not exist, or the entry is still in use",
        DbErrorKind::Check => "a value is missing or not allowed",
        DbErrorKind::Timeout => return DbError::timeout(),
        DbErrorKind::OutcomeUnknown => return DbError::outcome_unknown(),
        DbErrorKind::Wrong => "the database refused a statement",
    };
    DbError::new(kind, detail)
}

fn from_database(reported: &dyn DatabaseError) -> DbError {
    if let Some(reported) = reported.try_downcast_ref::<PgDatabaseError>() {
        // SECURITY: an outdated plan is not reported as a mistake in the program, because the transaction may succeed
        // if it is retried on a fresh connection (test: tables_that_were_made_again_are_read_and_written).
        let error = match postgres::is_outdated(reported) {
            true => DbError::new(DbErrorKind::BrokenOff, "the tables were changed meanwhile"),
            false => postgres_error(reported.code()),
        };
        return error.violating(postgres_violated(reported));
    }
    if let Some(reported) = reported.try_downcast_ref::<SqliteError>() {
        let error = of_kind(sqlite_kind(sqlite_code(reported)));
        return error.violating(sqlite_violated(reported.message()));
    }
    of_kind(DbErrorKind::Wrong)
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Returns the error for a SQLSTATE. Those that the operator can fix say what is wrong.
fn postgres_error(state: &str) -> DbError {
    let kind = postgres_kind(state);
    match state {
        INSUFFICIENT_PRIVILEGE => DbError::new(kind, "the database role lacks a privilege"),
        postgres::OUTSIDE => postgres::outside(),
        postgres::UNREACHABLE => of_kind(DbErrorKind::Unavailable),
        postgres::NO_SCRAM => DbError::wrong(
            "the database server does not authenticate with SCRAM and 4,096 to 1,000,000 iterations, so it is not \
             reached without TLS: set a password with password_encryption = scram-sha-256 and require scram-sha-256 \
             in pg_hba.conf",
        ),
        "28000" | "28P01" => {
            DbError::new(kind, "the database server refuses the user or the password")
        }
        "3D000" => DbError::new(kind, "the database does not exist on the server"),
        "42P01" => DbError::new(kind, "a table is missing in the database"),
        "53300" => DbError::new(kind, "the database server accepts no more connections"),
        _ => of_kind(kind),
    }
}

/// Maps a SQLSTATE to a kind (PostgreSQL manual, appendix A).
fn postgres_kind(state: &str) -> DbErrorKind {
    match state {
        "23505" | "23P01" => DbErrorKind::Conflict,
        "23503" | "23001" => DbErrorKind::Foreign,
        "23514" | "23502" => DbErrorKind::Check,
        // query_canceled by statement_timeout, lock_not_available, idle in transaction
        "57014" | "55P03" | "25P03" => DbErrorKind::Timeout,
        // serialization failure and deadlock
        "40001" | "40P01" => DbErrorKind::BrokenOff,
        // a standby that refuses to write; no such database; a role without the privilege
        "25006" | "3D000" | INSUFFICIENT_PRIVILEGE => DbErrorKind::Unavailable,
        _ => match state.get(..2) {
            // connection, authorization, resources, operator intervention, system
            Some("08" | "28" | "53" | "57" | "58") => DbErrorKind::Unavailable,
            _ => DbErrorKind::Wrong,
        },
    }
}

fn postgres_violated(reported: &PgDatabaseError) -> Option<Violated> {
    let name = reported.constraint()?.to_owned();
    let table = reported.table().unwrap_or_default().to_owned();
    // "Key (a, b)=(…) already exists." The words are translated, the brackets are not.
    let columns = reported
        .detail()
        .and_then(|detail| detail.split_once('('))
        .and_then(|(_, rest)| rest.split_once(")="))
        .map(|(list, _)| list.split(", ").map(str::to_owned).collect())
        .unwrap_or_default();
    Some(Violated { name, table, columns })
}

/// Returns the extended result code (sqlite.org/rescode.html).
fn sqlite_code(reported: &SqliteError) -> i32 {
    reported.code().and_then(|code| code.parse().ok()).unwrap_or_default()
}

const SQLITE_ERROR: i32 = 1;
const SQLITE_INTERRUPT: i32 = 9;
const SQLITE_IOERR: i32 = 10;
const SQLITE_TOOBIG: i32 = 18;
const SQLITE_CONSTRAINT: i32 = 19;
const SQLITE_MISMATCH: i32 = 20;
const SQLITE_RANGE: i32 = 25;
const SQLITE_CONSTRAINT_FOREIGNKEY: i32 = 787;
const SQLITE_CONSTRAINT_PRIMARYKEY: i32 = 1555;
const SQLITE_CONSTRAINT_UNIQUE: i32 = 2067;
const SQLITE_CONSTRAINT_ROWID: i32 = 2579;

fn sqlite_kind(code: i32) -> DbErrorKind {
    match code {
        SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_ROWID => {
            DbErrorKind::Conflict
        }
        SQLITE_CONSTRAINT_FOREIGNKEY => DbErrorKind::Foreign,
        _ => match code & 0xff {
            SQLITE_CONSTRAINT => DbErrorKind::Check,
            SQLITE_INTERRUPT => DbErrorKind::Timeout,
            SQLITE_ERROR | SQLITE_TOOBIG | SQLITE_MISMATCH | SQLITE_RANGE => DbErrorKind::Wrong,
            _ => DbErrorKind::Unavailable,
        },
    }
}

fn sqlite_violated(message: &str) -> Option<Violated> {
    let (kind, list) = message.split_once(" constraint failed: ")?;
    if kind.ends_with("NOT NULL") {
        return None;
    }
    if let Some(index) = list.strip_prefix("index '") {
        let name = index.trim_end_matches('\'').to_owned();
        return Some(Violated { name, table: String::new(), columns: Vec::new() });
    }
    let parts: Vec<_> = list.split(", ").filter_map(|part| part.split_once('.')).collect();
    let Some((table, _)) = parts.first() else {
        return Some(Violated { name: list.to_owned(), table: String::new(), columns: Vec::new() });
    };
    let columns: Vec<_> = parts.iter().map(|(_, column)| (*column).to_owned()).collect();
    let name = format!("{table}_{}_key", columns.join("_"));
    Some(Violated { name, table: (*table).to_owned(), columns })
}

/// Returns whether SQLite undid only the statement, so that the transaction around it can continue.
pub(crate) fn leaves_sqlite_transaction_whole(error: &sqlx::Error) -> bool {
    match sqlite_result(error) {
        Some(code) => matches!(
            code & 0xff,
            SQLITE_ERROR | SQLITE_TOOBIG | SQLITE_CONSTRAINT | SQLITE_MISMATCH | SQLITE_RANGE
        ),
        None => matches!(error, sqlx::Error::Encode(_) | sqlx::Error::Protocol(_)),
    }
}

/// Returns whether SQLite could not read or write its files. A commit that fails in this way may have reached the disk.
pub(crate) fn is_sqlite_io(error: &sqlx::Error) -> bool {
    sqlite_result(error).is_some_and(|code| code & 0xff == SQLITE_IOERR)
}

fn sqlite_result(error: &sqlx::Error) -> Option<i32> {
    let reported = error.as_database_error()?;
    reported.try_downcast_ref::<SqliteError>().map(sqlite_code)
}
