//! Learning that another process changed the database.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::db::{Db, Engine};
use crate::postgres::Postgres;
use crate::sqlite::{Connection, Source, Use};
use crate::statement::Statement;
use crate::{Args, DbError};

/// How often SQLite is asked whether somebody committed.
const POLL: Duration = Duration::from_millis(50);

/// How long a lost connection is left alone before the next attempt.
const RECONNECT: Duration = Duration::from_millis(100);

/// Tells when another process may have changed the database. See [`Db::changes`].
pub struct Changes(Watch);

enum Watch {
    Sqlite { source: Source, connection: Option<Connection>, version: Option<i64> },
    Postgres { database: Postgres, listener: Option<Box<PgListener>> },
}

impl Db {
    /// Watches for changes by other processes, over a connection of its own that is made (and made
    /// again) when needed.
    pub fn changes(&self) -> Changes {
        Changes(match &self.engine {
            Engine::Sqlite(sqlite) => {
                Watch::Sqlite { source: sqlite.source.clone(), connection: None, version: None }
            }
            Engine::Postgres(database) => {
                Watch::Postgres { database: database.clone(), listener: None }
            }
        })
    }
}

impl Changes {
    /// Returns when the database may have been changed: at once when this is the first call or the
    /// connection was lost meanwhile, and at the latest after `max`.
    ///
    /// Waking is a hint: it may come without a change, and this process's own changes wake it too. So
    /// it never fails; a database that cannot be reached shows when it is read.
    pub async fn wait(&mut self, max: Duration) {
        let deadline = Instant::now() + max;
        let watched = match &mut self.0 {
            Watch::Sqlite { source, connection, version } => {
                timeout_at(deadline, poll(source, connection, version)).await
            }
            Watch::Postgres { database, listener } => {
                timeout_at(deadline, listen(database, listener)).await
            }
        };
        if let Ok(Err(cause)) = watched {
            tracing::debug!(%cause, "the database cannot be watched for changes");
            match &mut self.0 {
                Watch::Sqlite { connection, version, .. } => (*connection, *version) = (None, None),
                Watch::Postgres { listener, .. } => *listener = None,
            }
            sleep_until(deadline.min(Instant::now() + RECONNECT)).await;
        }
    }
}

async fn poll(
    source: &Source,
    connection: &mut Option<Connection>,
    version: &mut Option<i64>,
) -> Result<(), DbError> {
    loop {
        let now = match connection {
            Some(open) => data_version(open).await?,
            None => {
                data_version(connection.insert(Connection::open(source, Use::Reading).await?))
                    .await?
            }
        };
        if version.replace(now) != Some(now) {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// A number that changes whenever another connection commits (sqlite.org/pragma.html).
async fn data_version(connection: &mut Connection) -> Result<i64, DbError> {
    let statement = Statement::new("pragma data_version", Args::default())?;
    let answer = connection.run(&statement).await.map_err(|failure| failure.into_error())?;
    answer.one::<(i64,)>().map(|(version,)| version)
}

async fn listen(
    database: &Postgres,
    listener: &mut Option<Box<PgListener>>,
) -> Result<(), DbError> {
    let Some(open) = listener else {
        *listener = Some(Box::new(database.listen().await?));
        return Ok(());
    };
    if open.try_recv().await?.is_none() {
        // The connection was lost, and something may have been missed. A fresh one tells so again.
        *listener = None;
        return Ok(());
    }
    while open.next_buffered().is_some() {}
    Ok(())
}
