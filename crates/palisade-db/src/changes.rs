//! Detects changes that other processes make to the database.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::db::{Engine, ReadDb};
use crate::postgres::Postgres;
use crate::sqlite::{Connection, Source, Use};
use crate::statement::Statement;
use crate::{Args, DbError};

/// How often SQLite is checked for commits by other processes.
const POLL: Duration = Duration::from_millis(50);

/// How long to wait after a lost connection before the next attempt.
const RECONNECT: Duration = Duration::from_millis(100);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The database may have changed, or the wait timed out.
    Changed,
    /// The whole content may have been replaced: a copy was restored into the open SQLite file, or its schema has
    /// changed. (On PostgreSQL, [`ReadDb::epoch`] reports a replacement.)
    Replaced,
}

/// Reports when another process may have changed the database. See [`ReadDb::changes`].
pub struct Changes(Watch);

enum Watch {
    Sqlite { source: Source, connection: Option<Connection>, seen: Seen },
    Postgres { database: Postgres, listener: Option<Box<PgListener>> },
}

/// The values of SQLite's counters.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Changes whenever another connection commits; comparable only within one connection (sqlite.org/pragma.html).
    data: Option<i64>,
    /// Changes with each migration, and when a copy is restored (sqlite.org/c3ref/backup_finish.html).
    schema: Option<i64>,
}

impl ReadDb {
    /// Watches for changes by other processes, over a separate connection opened (and reopened) when needed.
    pub fn changes(&self) -> Changes {
        Changes(match &self.engine {
            Engine::Sqlite(sqlite) => Watch::Sqlite {
                source: sqlite.source.clone(),
                connection: None,
                seen: Seen::default(),
            },
            Engine::Postgres(database) => {
                Watch::Postgres { database: database.clone(), listener: None }
            }
        })
    }
}

impl Changes {
    /// Returns when the database may have changed: immediately if this is the first call or the connection was lost in
    /// the meantime, and after `max` at the latest.
    ///
    /// Waking is only a hint: it may happen without a change, and on SQLite it is also triggered by this process's own
    /// changes. Waiting never fails; if the database is unreachable, reads report it.
    pub async fn wait(&mut self, max: Duration) -> Woken {
        let deadline = Instant::now() + max;
        let watched = match &mut self.0 {
            Watch::Sqlite { source, connection, seen } => {
                timeout_at(deadline, poll(source, connection, seen)).await
            }
            Watch::Postgres { database, listener } => {
                timeout_at(deadline, listen(database, listener)).await
            }
        };
        match watched {
            Ok(Ok(woken)) => return woken,
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "the database cannot be watched for changes");
                match &mut self.0 {
                    Watch::Sqlite { connection, seen, .. } => {
                        (*connection, seen.data) = (None, None)
                    }
                    Watch::Postgres { listener, .. } => *listener = None,
                }
                sleep_until(deadline.min(Instant::now() + RECONNECT)).await;
            }
            Err(_) => {}
        }
        Woken::Changed
    }
}

async fn poll(
    source: &Source,
    connection: &mut Option<Connection>,
    seen: &mut Seen,
) -> Result<Woken, DbError> {
    loop {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(Connection::open(source, Use::Reading).await?),
        };
        source.check()?;
        let data = counter(open, "pragma data_version").await?;
        if seen.data != Some(data) {
            let schema = counter(open, "pragma schema_version").await?;
            let replaced = seen.schema.is_some_and(|seen| seen != schema);
            *seen = Seen { data: Some(data), schema: Some(schema) };
            return Ok(if replaced { Woken::Replaced } else { Woken::Changed });
        }
        sleep(POLL).await;
    }
}

async fn counter(connection: &mut Connection, sql: &'static str) -> Result<i64, DbError> {
    let statement = Statement::new(sql, Args::default())?;
    let answer = connection.run(&statement).await.map_err(|failure| failure.into_error())?;
    answer.one::<(i64,)>().map(|(counter,)| counter)
}

async fn listen(
    database: &Postgres,
    listener: &mut Option<Box<PgListener>>,
) -> Result<Woken, DbError> {
    let Some(open) = listener else {
        *listener = Some(Box::new(database.listen().await?));
        return Ok(Woken::Changed);
    };
    loop {
        let Some(first) = open.try_recv().await? else {
            // The connection was lost, so a notification may have been missed. The next call opens a new connection and
            // reports a change again.
            *listener = None;
            return Ok(Woken::Changed);
        };
        let mut of_others = !database.sent(&first);
        while let Some(next) = open.next_buffered() {
            of_others |= !database.sent(&next);
        }
        if of_others {
            return Ok(Woken::Changed);
        }
    }
}
