//! SQLite and PostgreSQL behind one small interface and one SQL text, for Palisade.

mod changes;
mod db;
mod error;
mod migrations;
mod postgres;
mod row;
mod server_lock;
mod sqlite;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;
mod value;

pub use changes::Changes;
pub use db::{Backend, Db, Options, Tx};
pub use error::{DbError, DbErrorKind};
pub use migrations::{Migration, Sql, Status};
pub use row::{Cell, Column, FromRow, Row};
pub use server_lock::{ServerLock, ServerLockError};
pub use timestamp::Timestamp;
pub use value::{Args, ToValue, Type, Value};
