//! The transaction that a migration runs in, on a separate connection without time limits.

use ipnet::IpNet;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::relay::Relay;
use super::{Postgres, collect, url};
use crate::address::{self, Address};
use crate::statement::{Answer, Statement};
use crate::{DbError, Lock};

/// The lock that is held for the duration of the transaction, so that two runners take turns. The number is this
/// crate's own; it only has to differ from other advisory locks in the same database.
const LOCK: Lock = Lock { key: 7_233_455_481_904, alone: true };

/// Identifies a database: its number within the cluster, and the cluster.
const IDENTITY: &str = "select concat_ws(' ', oid, pg_postmaster_start_time())
     from pg_catalog.pg_database where datname = current_database()";

/// How to connect as the role that may change the tables, if that is another role.
pub(super) struct Migrating {
    connect: PgConnectOptions,
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
        let (connect, relay) = Relay::start(url::target(&rest, networks)?, networks).await?;
        Ok(Some(Self { connect, _relay: relay }))
    }
}

pub(crate) struct PgMigration(PgConnection);

impl Postgres {
    pub(crate) async fn begin_migration(&self) -> Result<PgMigration, DbError> {
        let mut connection = match &self.migrating {
            Some(migrating) => self.connect_to_migrate(&migrating.connect).await?,
            None => self.connect_options().connect().await?,
        };
        connection.execute("begin isolation level read committed").await?;
        let lock = format!("select pg_advisory_xact_lock({})", self.place.key(&LOCK));
        connection.execute(AssertSqlSafe(lock)).await?;
        self.create_schema(&mut connection).await?;
        Ok(PgMigration(connection))
    }

    /// Connects as the role that may change the tables.
    ///
    /// The two URLs may lead to different databases by mistake, and then the tables would be created where nothing reads
    /// them (test: a_migrate_url_of_another_database_is_refused).
    async fn connect_to_migrate(
        &self,
        connect: &PgConnectOptions,
    ) -> Result<PgConnection, DbError> {
        let mut connection = connect.connect().await?;
        let mut served = self.connect_options().connect().await?;
        let there: String = connection.fetch_one(IDENTITY).await?.try_get(0)?;
        let here: String = served.fetch_one(IDENTITY).await?.try_get(0)?;
        served.close().await?;
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
        // Without the notice that the table of migrations exists already, which the driver would log at every step.
        let prepare = "select set_config('search_path', $1, false), set_config('client_min_messages', 'warning', false)";
        sqlx::query(prepare).bind(self.place.search_path()).execute(&mut *connection).await?;
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
