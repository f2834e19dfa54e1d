//! Bringing the tables up to date.
//!
//! Each migration is applied once, whole or not at all, in the order of versions. Its text is kept in
//! `schema_migrations`, so that one edited after it was applied is noticed. Every step takes its lock
//! first and then looks again at what is applied: two runners at once do the work once.

use std::collections::BTreeMap;

use crate::db::{Db, Engine};
use crate::postgres::PgMigration;
use crate::sqlite::{Connection, Use};
use crate::statement::{Answer, Statement};
use crate::{Args, Backend, DbError, Timestamp, args};

/// The text of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sql {
    /// The same for both databases.
    Both(&'static str),
    /// One for each, where the dialects have nothing in common.
    Each {
        /// What SQLite runs.
        sqlite: &'static str,
        /// What PostgreSQL runs.
        postgres: &'static str,
    },
}

impl Sql {
    fn on(self, backend: Backend) -> &'static str {
        match (self, backend) {
            (Self::Both(sql), _) => sql,
            (Self::Each { sqlite, .. }, Backend::Sqlite) => sqlite,
            (Self::Each { postgres, .. }, Backend::Postgres) => postgres,
        }
    }
}

/// One step of the schema. Its text must never change once released.
///
/// Constraints must not be `deferrable`: on SQLite they would be checked when the whole group commits,
/// and one member's mistake would fail the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order; above zero and unique.
    pub version: i64,
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// Its text; may hold several statements, but none that ends a transaction.
    pub sql: Sql,
}

/// A migration, and when it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// [`Migration::version`].
    pub version: i64,
    /// [`Migration::name`].
    pub name: String,
    /// When it was applied, if it was.
    pub applied_at: Option<Timestamp>,
}

/// The words that make one schema text do for both databases. SQLite takes any word for a type.
const WORDS: Migration = Migration {
    version: 0,
    name: "type words",
    sql: Sql::Each {
        sqlite: "select 1",
        postgres: "create domain id as uuid;
                   create domain instant as timestamptz;
                   create domain bytes as bytea;
                   create domain flag as boolean;",
    },
};

const CREATE_TABLE: Sql = Sql::Each {
    sqlite: "create table if not exists schema_migrations (
                 version bigint not null primary key,
                 name text not null,
                 sql text not null,
                 applied_at instant not null
             )",
    postgres: "create table if not exists schema_migrations (
                   version bigint not null primary key,
                   name text not null,
                   sql text not null,
                   applied_at timestamptz not null
               )",
};

const TABLE_EXISTS: Sql = Sql::Each {
    sqlite: "select count(*) from sqlite_schema where type = 'table' and name = 'schema_migrations'",
    postgres: "select count(*) from pg_catalog.pg_class
               where oid = to_regclass('schema_migrations')",
};

const APPLIED: &str =
    "select version, name, sql, applied_at from schema_migrations order by version";

const RECORD: &str =
    "insert into schema_migrations (version, name, sql, applied_at) values ($1, $2, $3, $4)";

type Applied = BTreeMap<i64, (String, String, Timestamp)>;

impl Db {
    /// Applies what is missing of `migrations`, and tells what that was. `now` is recorded with it.
    ///
    /// # Errors
    /// `Wrong` when an applied migration was edited, when the database knows a migration that
    /// `migrations` does not (a newer version made it), or when one fails; those before it stay applied.
    pub async fn migrate(
        &self,
        migrations: &[Migration],
        now: Timestamp,
    ) -> Result<Vec<Status>, DbError> {
        let wanted = in_order(migrations)?;
        let mut done = Vec::new();
        for migration in &wanted {
            let mut step = Step::begin(self).await?;
            let result = step.apply(migration, &wanted, now).await;
            let ended = step.end(result.is_ok()).await;
            let applied = result?;
            ended?;
            if applied {
                done.push(Status {
                    version: migration.version,
                    name: migration.name.to_owned(),
                    applied_at: Some(now),
                });
            }
        }
        Ok(done)
    }

    /// Every one of `migrations` with the time it was applied, by version. Changes nothing.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate) for what is applied already.
    pub async fn migrations(&self, migrations: &[Migration]) -> Result<Vec<Status>, DbError> {
        let wanted = in_order(migrations)?;
        let backend = self.backend();
        let (tables,) = self.one::<(i64,)>(TABLE_EXISTS.on(backend), args![]).await?;
        let applied = if tables == 0 {
            Applied::new()
        } else {
            by_version(self.all(APPLIED, args![]).await?)
        };
        check(&applied, &wanted, backend)?;
        let status = |migration: &Migration| Status {
            version: migration.version,
            name: migration.name.to_owned(),
            applied_at: applied.get(&migration.version).map(|(_, _, at)| *at),
        };
        Ok(wanted.iter().map(status).collect())
    }
}

fn in_order(migrations: &[Migration]) -> Result<Vec<Migration>, DbError> {
    let mut wanted = vec![WORDS];
    wanted.extend_from_slice(migrations);
    wanted.sort_by_key(|migration| migration.version);
    for pair in wanted.windows(2) {
        if let [before, after] = pair
            && (before.version == after.version || after.version <= 0)
        {
            return Err(DbError::wrong(format!(
                "migration {} ({}): versions are unique and above zero",
                after.version, after.name
            )));
        }
    }
    for Migration { version, name, sql } in &wanted {
        let texts = [sql.on(Backend::Sqlite), sql.on(Backend::Postgres)];
        if texts.iter().any(|text| text.to_ascii_lowercase().contains("deferrable")) {
            return Err(DbError::wrong(format!(
                "migration {version} ({name}): deferrable constraints are not supported"
            )));
        }
    }
    Ok(wanted)
}

fn by_version(rows: Vec<(i64, String, String, Timestamp)>) -> Applied {
    rows.into_iter().map(|(version, name, sql, at)| (version, (name, sql, at))).collect()
}

fn check(applied: &Applied, wanted: &[Migration], backend: Backend) -> Result<(), DbError> {
    for (version, (name, sql, _)) in applied {
        match wanted.iter().find(|migration| migration.version == *version) {
            None => {
                return Err(DbError::wrong(format!(
                    "the database was created by a newer version: it has migration {version} \
                     ({name}), which this version does not know"
                )));
            }
            Some(migration) if migration.sql.on(backend) != sql => {
                return Err(DbError::wrong(format!(
                    "migration {version} ({name}) was edited after it was applied"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// One transaction under the migration lock.
enum Step {
    Sqlite(Connection),
    Postgres(PgMigration),
}

impl Step {
    async fn begin(db: &Db) -> Result<Self, DbError> {
        match &db.engine {
            Engine::Sqlite(sqlite) => {
                let mut connection = Connection::open(&sqlite.source, Use::Writing).await?;
                connection.control("begin immediate").await?;
                Ok(Self::Sqlite(connection))
            }
            Engine::Postgres(postgres) => Ok(Self::Postgres(postgres.begin_migration().await?)),
        }
    }

    fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    async fn apply(
        &mut self,
        migration: &Migration,
        wanted: &[Migration],
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let backend = self.backend();
        self.script(CREATE_TABLE.on(backend)).await?;
        let applied = by_version(self.run(APPLIED, args![]).await?.all()?);
        check(&applied, wanted, backend)?;
        if applied.contains_key(&migration.version) {
            return Ok(false);
        }
        let sql = migration.sql.on(backend);
        self.script(sql).await.map_err(|cause| {
            let (version, name) = (migration.version, migration.name);
            DbError::new(cause.kind(), format!("migration {version} ({name}) failed"))
                .caused_by(cause)
        })?;
        self.run(RECORD, args![migration.version, migration.name, sql, now]).await?;
        Ok(true)
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), DbError> {
        match self {
            Self::Sqlite(connection) => connection.script(sql).await.map_err(DbError::from),
            Self::Postgres(transaction) => transaction.script(sql).await,
        }
    }

    async fn run(&mut self, sql: &'static str, args: Args) -> Result<Answer, DbError> {
        let statement = Statement::new(sql, args)?;
        match self {
            Self::Sqlite(connection) => {
                connection.run(&statement).await.map_err(|failure| failure.into_error())
            }
            Self::Postgres(transaction) => transaction.run(&statement).await,
        }
    }

    async fn end(self, keep: bool) -> Result<(), DbError> {
        match self {
            Self::Sqlite(mut connection) => {
                let ended = if keep { connection.control("commit").await } else { Ok(()) };
                connection.close().await;
                ended.map_err(DbError::from)
            }
            Self::Postgres(transaction) => transaction.end(keep).await,
        }
    }
}
