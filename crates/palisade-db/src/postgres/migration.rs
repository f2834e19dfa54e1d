//! The transaction that a migration runs in, on a separate connection without time limits.

use std::sync::OnceLock;

use ipnet::IpNet;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::relay::Relay;
use super::{Postgres, collect, in_time, pooler, unreached, url};
use crate::address::{self, Address};
use crate::statement::{Answer, Statement};
use crate::{DbError, Lock};

/// The lock that is held for the duration of the transaction, so that two runners take turns. The number is this
/// crate's own; it only has to differ from other advisory locks in the same database.
const LOCK: Lock = Lock { key: 7_233_455_481_904, alone: true };

/// Identifies a database: its number within the cluster, and the cluster.
const IDENTITY: &str = "select concat_ws(' ', oid, pg_postmaster_start_time())
     from pg_catalog.pg_database where datname = current_database()";

/// Begins the transaction, and removes its time limits, which the role or the database may have by default: a migration
/// may take long, and so may another one that it waits for. In one step, because one of them ends an idle transaction.
/// Not every version has all of them.
const BEGIN: &str = "begin isolation level read committed;
     select set_config(name, '0', true) from pg_catalog.pg_settings
     where name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')";

/// Selects the schema, for this transaction only: behind a pooler, the connection may serve another client later. Without
/// the notice that the table of migrations exists already, which the driver would log at every step.
const PREPARE: &str = "select set_config('search_path', $1, true), set_config('client_min_messages', 'warning', true)";

/// How to connect as the role that may change the tables, if that is another role.
pub(super) struct Migrating {
    connect: PgConnectOptions,
    server: String,
    /// Set once it is known that no pooler shares the server's connections.
    keeps_sessions: OnceLock<()>,
    _relay: Option<Relay>,
}

impl Migrating {
    pub(super) async fn through(
        url: Option<&str>,
        networks: &[IpNet],
    ) -> Result<Option<Self>, DbError> {
        let Some(url) = url else { return Ok(None) };
        let Address::Postgres(rest) = address::read(url)? else {
            return Err(DbError::wrong("migrations of PostgreSQL need a PostgreSQL URL"));
        };
        let target = url::target(&rest, networks)?;
        let server = url::place(&target.options);
        let (connect, relay) = Relay::start(target, networks, 0).await?;
        Ok(Some(Self { connect, server, keeps_sessions: OnceLock::new(), _relay: relay }))
    }

    async fn connect(&self) -> Result<PgConnection, DbError> {
        let connected = in_time(async { Ok(self.connect.connect().await?) }).await;
        let mut connection = connected.map_err(|error| unreached(error, &self.server))?;
        if self.keeps_sessions.get().is_none() {
            pooler::refuse_shared_servers(&mut connection, &self.connect).await?;
            self.keeps_sessions.get_or_init(|| ());
        }
        Ok(connection)
    }
}

pub(crate) struct PgMigration(PgConnection);

impl Postgres {
    /// Begins a transaction under the migration lock. Each step has a time limit, except the wait for another runner.
    pub(crate) async fn begin_migration(&self) -> Result<PgMigration, DbError> {
        let mut connection = match &self.migrating {
            Some(migrating) => self.connect_to_migrate(migrating).await?,
            None => self.connect_to_serve().await?,
        };
        in_time(async { Ok(connection.execute(BEGIN).await?) }).await?;
        let lock = format!("select pg_advisory_xact_lock({})", self.place.key(&LOCK));
        connection.execute(AssertSqlSafe(lock)).await?;
        self.create_schema(&mut connection).await?;
        Ok(PgMigration(connection))
    }

    async fn connect_to_serve(&self) -> Result<PgConnection, DbError> {
        in_time(async { Ok(self.connect_options().connect().await?) }).await
    }

    /// Connects as the role that may change the tables.
    ///
    /// The two URLs may lead to different databases by mistake, and then the tables would be created where nothing reads
    /// them (test: a_migrate_url_of_another_database_is_refused).
    async fn connect_to_migrate(&self, migrating: &Migrating) -> Result<PgConnection, DbError> {
        let mut connection = migrating.connect().await?;
        let mut served = self.connect_to_serve().await?;
        let identities = in_time(async {
            let there: String = connection.fetch_one(IDENTITY).await?.try_get(0)?;
            let here: String = served.fetch_one(IDENTITY).await?.try_get(0)?;
            served.close().await?;
            Ok((here, there))
        });
        let (here, there) = identities.await?;
        if here != there {
            return Err(DbError::wrong(
                "database.migrate_url leads to another database than database.url: it must differ only in the role, \
                 and may bypass a pooler",
            ));
        }
        Ok(connection)
    }

    /// Selects the schema, and creates it if it doesn't exist. (Even with `if not exists`, `create schema` requires the
    /// privilege to create one.)
    async fn create_schema(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        sqlx::query(PREPARE).bind(self.place.search_path()).execute(&mut *connection).await?;
        let exists: bool = sqlx::query_scalar(
            "select exists (select from pg_catalog.pg_namespace where nspname = $1)",
        )
        .bind(self.place.schema())
        .fetch_one(&mut *connection)
        .await?;
        if !exists {
            let create = format!("create schema {}", self.place.quoted());
            connection.execute(AssertSqlSafe(create)).await?;
        }
        Ok(())
    }
}

impl PgMigration {
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<(), DbError> {
        sqlx::raw_sql(sql).execute(&mut self.0).await.map(drop).map_err(DbError::from)
    }

    pub(crate) async fn run(&mut self, statement: &Statement) -> Result<Answer, DbError> {
        let query = sqlx::query_with(statement.sql, statement.postgres_arguments()?);
        collect(query, &mut self.0).await.map_err(DbError::from)
    }

    pub(crate) async fn end(mut self, keep: bool) -> Result<(), DbError> {
        self.0.execute(if keep { "commit" } else { "rollback" }).await?;
        self.0.close().await.map_err(DbError::from)
    }
}
