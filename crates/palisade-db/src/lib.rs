//! SQLite and PostgreSQL behind one small interface and with the same SQL, for Palisade.
//!
//! Statements may use what both dialects have in common: `$1` parameters, `insert … on conflict … returning`, `update …
//! returning`, row values, common table expressions, window functions, partial indexes. Cast sums to `bigint`, compare
//! text under `lower()`, and bind the time as a value. Column types are `text`, `bigint`, `id`, `instant`, `bytes` and
//! `flag`; see [`Type`].
//!
//! The crate owns one table, `schema_migrations`.
//!
//! ```
//! # async fn shown() -> Result<(), palisade_db::DbError> {
//! use palisade_db::{Db, Migration, Options, Sql, Timestamp, args};
//!
//! const NOTES: Migration = Migration {
//!     module: "notes",
//!     number: 1,
//!     name: "notes",
//!     sql: Sql::Both("create table notes (id id not null primary key, said text not null)"),
//! };
//!
//! let db = Db::open(Options::new("sqlite:data/notes.db")).await?;
//! db.migrate(&[NOTES], Timestamp::from_seconds(1_700_000_000)).await?;
//!
//! let mut tx = db.begin().await?;
//! let id = uuid::Uuid::from_u128(7);
//! tx.run("insert into notes (id, said) values ($1, $2)", args![id, "hello"]).await?;
//! tx.commit().await?;
//!
//! let (said,): (String,) = db.one("select said from notes where id = $1", args![id]).await?;
//! # assert_eq!(said, "hello"); Ok(()) }
//! ```
//!
//! # Promises
//!
//! - **Acknowledged changes are stored.** A commit that returned `Ok` is on disk. One whose result was lost is reported
//!   as `OutcomeUnknown`. On SQLite, changes that arrive together share one sync to disk, and none is acknowledged
//!   before the sync.
//! - **All or nothing.** A transaction that is dropped, canceled halfway or open for too long leaves nothing behind and
//!   blocks no other caller.
//! - **No missing values.** The parameters of a statement are matched with its values before the database sees either.
//!   SQL text is `&'static str`, so input never becomes SQL.
//! - **Bounded waiting.** Every statement, and every wait for a connection, a lock or the writer, ends within the
//!   statement timeout and a grace period. Only migrations have no time limit. An outage of PostgreSQL is reported
//!   within a second, and its return is detected without a restart.
//! - **No eavesdropping.** PostgreSQL on another machine is reached with `verify-full` or not at all, except without
//!   TLS in a private network that the options name, and then only with SCRAM. SQLite's files are accessible only to
//!   their owner.
//! - **No other tables.** On PostgreSQL, names are resolved in one schema only, and tables of another program are never
//!   changed.

mod address;
mod changes;
mod db;
mod doubts;
mod error;
mod foreign;
mod lock;
mod migrations;
mod postgres;
mod row;
mod server_lock;
mod spent;
mod sqlite;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;
mod value;

pub use address::{check_url, sqlite_file};
pub use changes::{Changes, Woken};
pub use db::{Backend, Connections, Db, Options, ReadDb, Tx};
pub use error::{DbError, DbErrorKind};
pub use lock::Lock;
pub use migrations::{Migration, Pending, SchemaStatus, Sql, Status};
pub use postgres::check_schema;
pub use row::{Cell, Column, FromRow, Row};
pub use server_lock::{ServerLock, ServerLockError};
pub use spent::Spent;
pub use sqlite::version as sqlite_version;
pub use timestamp::Timestamp;
pub use value::{Args, ToValue, Type, Value};
