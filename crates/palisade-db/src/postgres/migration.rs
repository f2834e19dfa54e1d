//! The transaction that a migration runs in, on a separate connection without time limits.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::{Postgres, collect};
use crate::DbError;
use crate::statement::{Answer, Statement};

/// Takes a lock for the duration of the transaction, so that two runners take turns. The number is this crate's own; it
/// only has to differ from other advisory locks in the same database.
const LOCK: &str = "select pg_advisory_xact_lock(7233455481904)";

pub(crate) struct PgMigration(PgConnection);

impl Postgres {
    pub(crate) async fn begin_migration(&self) -> Result<PgMigration, DbError> {
        let mut connection = self.connect_options().connect().await?;
        connection.execute("begin isolation level read committed").await?;
        connection.execute(LOCK).await?;
        Ok(PgMigration(connection))
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
