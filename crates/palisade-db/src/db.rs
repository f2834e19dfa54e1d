//! The open database and its transactions.
//!
//! The state of a waiting driver is large. It is boxed here, so that it isn't part of every future that may query the
//! database: most requests are served from memory and would copy it needlessly.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::{self, Address};
use crate::doubts::Doubts;
use crate::postgres::{PgTransaction, Postgres};
use crate::sqlite::{Member, Sqlite};
use crate::statement::{Answer, Statement};
use crate::{Args, DbError, FromRow, Lock, Spent, args, lock};

/// The options for connecting to a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// The maximum number of connections in use at once. On SQLite, they only read, and one more writes. On PostgreSQL,
    /// migrations and notifications use separate ones.
    pub max_connections: u32,
    /// The maximum duration of a single statement. A transaction on SQLite may be open for twice as long.
    pub statement_timeout: Duration,
    /// The schema on PostgreSQL. [`Db::migrate`] creates it if it doesn't exist. Without a value, it is the first schema
    /// in the search path of the role.
    pub schema: Option<String>,
    /// The URL with which migrations are applied on PostgreSQL, if the role in `url` may not change the tables.
    pub migrate_url: Option<String>,
    /// The networks in which PostgreSQL is reached without TLS, if `url` says `sslmode=disable`.
    pub plaintext_networks: Vec<IpNet>,
}

impl Options {
    /// Returns options with a URL, ten connections and five seconds per statement.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 10,
            statement_timeout: Duration::from_secs(5),
            schema: None,
            migrate_url: None,
            plaintext_networks: Vec::new(),
        }
    }
}

/// The kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// The connections to a database at one moment. On SQLite, those that read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// How many are in use.
    pub in_use: usize,
    /// How many are open and not in use.
    pub idle: usize,
    /// How many there can be.
    pub max: usize,
}

/// An open database. Clones are cheap and share the connections. Reads go through [`ReadDb`].
#[derive(Clone)]
pub struct Db(ReadDb);

/// An open database that can only be read: it can't start a write transaction, and it refuses statements that may
/// change something. Clones are cheap and share the connections.
///
/// ```compile_fail
/// # async fn shown(db: &palisade_db::ReadDb) -> Result<(), palisade_db::DbError> {
/// db.begin().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ReadDb {
    pub(crate) engine: Engine,
    doubts: Arc<Doubts>,
}

impl std::ops::Deref for Db {
    type Target = ReadDb;
    fn deref(&self) -> &ReadDb {
        &self.0
    }
}

#[derive(Clone)]
pub(crate) enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Db {
    /// Opens the database. A missing SQLite file is created.
    ///
    /// Must be called inside a Tokio runtime that lives as long as the database is used.
    ///
    /// # Errors
    /// Returns `Wrong` if the URL is malformed or its TLS mode is too weak, if the database isn't encoded in UTF-8, or if
    /// a pooler in between gives a client several server connections, and `Unavailable` if the database can't be
    /// reached or opened.
    pub async fn open(options: Options) -> Result<Self, DbError> {
        let engine = match address::read(&options.url)? {
            Address::Sqlite(path) => Engine::Sqlite(Sqlite::open(path, &options).await?),
            Address::Postgres(url) => Engine::Postgres(Postgres::open(&url, &options).await?),
        };
        Ok(Self(ReadDb { engine, doubts: Arc::default() }))
    }

    /// Returns a read-only handle to the same database.
    pub fn read_only(&self) -> ReadDb {
        self.0.clone()
    }

    /// Starts a write transaction. On SQLite, write transactions run one at a time, in the order of the calls.
    ///
    /// # Errors
    /// Returns `Unavailable` if the database or the writer is not available in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        self.begin_holding(Vec::new()).await
    }

    /// Starts a write transaction that holds locks until it ends. The locks are taken before its first statement, in
    /// the order of their keys, regardless of the order in which they are given, so these locks never cause a deadlock
    /// between transactions started this way.
    ///
    /// On SQLite, where one transaction writes at a time, no lock is taken.
    ///
    /// # Errors
    /// Returns the errors of [`Db::begin`]. If a lock is held for longer than a statement may take, returns
    /// `Unavailable` if this process holds it, and `Timeout` if another process does.
    pub async fn begin_holding(&self, locks: Vec<Lock>) -> Result<Tx, DbError> {
        let open = match &self.engine {
            Engine::Sqlite(sqlite) => {
                Spent::waiting(Box::pin(sqlite.begin())).await.map(Open::Sqlite)
            }
            Engine::Postgres(postgres) => {
                let locks = lock::in_order(locks);
                Spent::waiting(Box::pin(postgres.begin(&locks))).await.map(Open::Postgres)
            }
        };
        // A failure to begin raises no doubt: too many changes may be waiting.
        let open = open?;
        Ok(Tx { open, state: State::Whole, doubts: Arc::clone(&self.doubts) })
    }
}

impl ReadDb {
    /// The kind of database.
    pub fn backend(&self) -> Backend {
        match self.engine {
            Engine::Sqlite(_) => Backend::Sqlite,
            Engine::Postgres(_) => Backend::Postgres,
        }
    }

    /// Counts the connections. This doesn't access the database.
    pub fn connections(&self) -> Connections {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.connections(),
            Engine::Postgres(postgres) => postgres.connections(),
        }
    }

    /// Reads exactly one row, outside a transaction.
    ///
    /// # Errors
    /// Returns `Wrong` if there isn't exactly one row; otherwise, the error of the database.
    pub async fn one<T: FromRow>(&self, sql: &'static str, args: Args) -> Result<T, DbError> {
        self.read(sql, args).await?.one()
    }

    /// Reads at most one row, outside a transaction.
    ///
    /// # Errors
    /// Returns `Wrong` if there is more than one row; otherwise, the error of the database.
    pub async fn maybe<T: FromRow>(
        &self,
        sql: &'static str,
        args: Args,
    ) -> Result<Option<T>, DbError> {
        self.read(sql, args).await?.maybe()
    }

    /// Reads all rows, outside a transaction.
    ///
    /// # Errors
    /// Returns the error of the database.
    pub async fn all<T: FromRow>(&self, sql: &'static str, args: Args) -> Result<Vec<T>, DbError> {
        self.read(sql, args).await?.all()
    }

    async fn read(&self, sql: &'static str, args: Args) -> Result<Answer, DbError> {
        let statement = Statement::reading(sql, args)?;
        match &self.engine {
            Engine::Sqlite(sqlite) => Spent::waiting(Box::pin(sqlite.read(&statement))).await,
            Engine::Postgres(postgres) => Spent::waiting(Box::pin(postgres.read(&statement))).await,
        }
    }

    /// Returns an identifier of the current content of a table. A different value means that the table was recreated
    /// (restored) or rewritten (by `vacuum full`), that the server was restarted, or that a standby took over. Returns
    /// `None` on SQLite, where [`Changes::wait`](crate::Changes::wait) reports a replacement.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn epoch(&self, table: &'static str) -> Result<Option<String>, DbError> {
        // By name, without touching the table: a statement that holds one lock and waits for another could
        // make a restore fail with a deadlock.
        let sql = "select concat_ws(' ', pg_relation_filenode(to_regclass($1)),
                       extract(epoch from pg_postmaster_start_time()))";
        match &self.engine {
            Engine::Sqlite(_) => Ok(None),
            Engine::Postgres(_) => Ok(Some(self.one::<(String,)>(sql, args![table]).await?.0)),
        }
    }

    /// Returns whether the database accepts writes right now. It doesn't if it is read-only or a standby, or if its
    /// disk is full or read-only. Normally, no write is needed to find out. Once a change could not be stored, or not
    /// in time, a test write is required until one succeeds. A test write changes nothing and takes at most one second.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn takes_writes(&self) -> Result<bool, DbError> {
        let takes_writes = match &self.engine {
            Engine::Sqlite(sqlite) => Box::pin(sqlite.takes_writes()).await,
            Engine::Postgres(postgres) => Box::pin(postgres.takes_writes()).await,
        }?;
        if !takes_writes || !self.doubts.exist() {
            return Ok(takes_writes);
        }
        let write = async {
            match &self.engine {
                Engine::Sqlite(sqlite) => sqlite.try_to_write().await,
                Engine::Postgres(postgres) => postgres.try_to_write().await,
            }
        };
        Ok(Box::pin(self.doubts.settle(write)).await)
    }

    /// Waits until the group of changes that currently share a commit is on disk.
    ///
    /// A response that depends on rows read in a transaction that was then dropped ("this name is taken") must wait for
    /// this: on SQLite, those rows may belong to a change in that group, which is not stored yet. Drop the transaction
    /// first. On PostgreSQL, there is nothing to wait for.
    ///
    /// # Errors
    /// Returns `Unavailable` if the group failed: the rows that were read may not exist; try again.
    pub async fn settled(&self) -> Result<(), DbError> {
        match &self.engine {
            Engine::Sqlite(sqlite) => Spent::waiting(Box::pin(sqlite.settled())).await,
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Closes all connections once pending changes are done. Later calls fail with `Unavailable`.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// A write transaction. Dropping it without [`commit`](Self::commit) rolls it back.
///
/// After a statement fails in the database or is canceled halfway, the transaction can only be dropped. (PostgreSQL
/// works this way; on SQLite, this crate enforces it.) To continue after a conflict, write `on conflict do nothing` and
/// check the rows.
pub struct Tx {
    open: Open,
    state: State,
    doubts: Arc<Doubts>,
}

enum Open {
    Sqlite(Member),
    Postgres(PgTransaction),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// A statement is running, has failed, or was running when its future was dropped.
    Broken,
}

impl Tx {
    /// Runs a statement that yields exactly one row.
    ///
    /// # Errors
    /// Returns `Wrong` if there isn't exactly one row; otherwise, the error of the database.
    pub async fn one<T: FromRow>(&mut self, sql: &'static str, args: Args) -> Result<T, DbError> {
        self.statement(sql, args).await?.one()
    }

    /// Runs a statement that yields at most one row.
    ///
    /// # Errors
    /// Returns `Wrong` if there is more than one row; otherwise, the error of the database.
    pub async fn maybe<T: FromRow>(
        &mut self,
        sql: &'static str,
        args: Args,
    ) -> Result<Option<T>, DbError> {
        self.statement(sql, args).await?.maybe()
    }

    /// Runs a statement and reads all its rows.
    ///
    /// # Errors
    /// Returns the error of the database.
    pub async fn all<T: FromRow>(
        &mut self,
        sql: &'static str,
        args: Args,
    ) -> Result<Vec<T>, DbError> {
        self.statement(sql, args).await?.all()
    }

    /// Runs a statement and returns how many rows it inserted, updated or deleted.
    ///
    /// # Errors
    /// Returns the error of the database.
    pub async fn run(&mut self, sql: &'static str, args: Args) -> Result<u64, DbError> {
        self.statement(sql, args).await.map(|answer| answer.changed())
    }

    /// Commits the transaction. It is on disk when this returns `Ok`. Once it has begun, the commit is carried out even
    /// if this future is dropped.
    ///
    /// # Errors
    /// Returns `Wrong` if an earlier statement failed or was canceled. With `Unavailable` or `Timeout`, nothing is
    /// stored. With `OutcomeUnknown`, the changes may be stored.
    pub async fn commit(self) -> Result<(), DbError> {
        if self.state == State::Broken {
            return Err(broken());
        }
        let stored = match self.open {
            Open::Sqlite(member) => Spent::waiting(Box::pin(member.commit())).await,
            Open::Postgres(transaction) => Spent::waiting(Box::pin(transaction.commit())).await,
        };
        stored.inspect_err(|error| self.doubts.note(error))
    }

    /// Wakes the other processes that wait in [`Changes::wait`](crate::Changes::wait), soon after this transaction is
    /// committed. This is a hint, which is lost if this process or its connection fails first.
    pub fn notify(&mut self) {
        match &mut self.open {
            // SQLite itself reports commits to processes that poll it.
            Open::Sqlite(_) => {}
            Open::Postgres(transaction) => transaction.notify(),
        }
    }

    async fn statement(&mut self, sql: &'static str, args: Args) -> Result<Answer, DbError> {
        let statement = Statement::new(sql, args)?;
        if self.state == State::Broken {
            return Err(broken());
        }
        self.state = State::Broken;
        let answer = match &mut self.open {
            Open::Sqlite(member) => Spent::waiting(Box::pin(member.run(statement))).await,
            Open::Postgres(transaction) => {
                Spent::waiting(Box::pin(transaction.run(statement))).await
            }
        };
        let answer = answer.inspect_err(|error| self.doubts.note(error))?;
        self.state = State::Whole;
        Ok(answer)
    }
}

fn broken() -> DbError {
    DbError::wrong("an earlier statement of the transaction failed or was canceled")
}
