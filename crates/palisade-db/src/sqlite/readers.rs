//! The read-only connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Failure, Source, Use};
use crate::statement::{Answer, Statement};
use crate::{Connections, DbError};

/// A connection that has been idle for longer than this is closed when a later read ends, because each connection holds
/// a thread and a cache of pages.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// A bounded set of read connections, opened when needed.
pub(crate) struct Readers {
    source: Source,
    /// The idle connections with the time of their last use. Connections are taken from the end, where the most
    /// recently used one is.
    idle: Mutex<Vec<(Instant, Connection)>>,
    permits: Semaphore,
    limit: usize,
    kept_for: Duration,
}

impl Readers {
    pub(crate) fn new(source: Source, limit: u32) -> Self {
        let limit = limit.max(1) as usize;
        let permits = Semaphore::new(limit);
        Self { source, idle: Mutex::default(), permits, limit, kept_for: KEPT_FOR }
    }

    pub(crate) fn connections(&self) -> Connections {
        let in_use = self.limit.saturating_sub(self.permits.available_permits());
        Connections { in_use, idle: self.lock_idle().len(), max: self.limit }
    }

    pub(crate) async fn run(&self, statement: &Statement) -> Result<Answer, DbError> {
        let _permit = timeout(self.source.statement_timeout, self.permits.acquire())
            .await
            .map_err(|_| DbError::unavailable("too many reads are waiting"))?
            .map_err(|_| closed())?;
        let idle = self.lock_idle().pop();
        let mut connection = match idle {
            Some((_, connection)) => connection,
            None => Connection::open(&self.source, Use::Reading).await?,
        };
        self.source.check()?;
        let mut borrowed = Borrowed { stop: connection.stop_switch(), finished: false };
        let answer = connection.run(statement).await;
        borrowed.finished = true;
        if !matches!(answer, Err(Failure::Transaction(_)))
            && let Some(unused) = self.put_back(connection)
        {
            tokio::spawn(unused.close());
        }
        answer.map_err(Failure::into_error)
    }

    /// Keeps a connection for the next read; returns one that hasn't been needed for a while.
    fn put_back(&self, connection: Connection) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.lock_idle();
        idle.push((now, connection));
        let unused = idle.first().is_some_and(|(used, _)| now - *used > self.kept_for);
        unused.then(|| idle.remove(0).1)
    }

    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.lock_idle());
        for (_, connection) in idle {
            connection.close().await;
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> DbError {
    DbError::unavailable("the database is being closed")
}

/// A guard that stops the statement of a read canceled halfway. The connection of such a read is not reused.
struct Borrowed {
    stop: Arc<AtomicBool>,
    finished: bool,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.finished {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Args;

    use super::*;

    #[tokio::test]
    async fn connections_that_nobody_needs_any_more_are_closed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("db");
        std::fs::write(&path, []).unwrap();
        let mut readers = Readers::new(Source::new(path, Duration::from_secs(30)).unwrap(), 4);
        // Long enough that none is done before the last has begun, on a busy machine too.
        let slow = Statement::new(
            "with recursive n(n) as (select 1 union all select n + 1 from n where n < 5000000)
             select count(*) from n",
            Args::default(),
        )
        .unwrap();
        for result in futures_util::future::join_all((0..4).map(|_| readers.run(&slow))).await {
            result.unwrap();
        }
        assert_eq!(readers.lock_idle().len(), 4);
        readers.kept_for = Duration::from_millis(1);
        let quick = Statement::new("select 1", Args::default()).unwrap();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            readers.run(&quick).await.unwrap();
        }
        assert_eq!(readers.lock_idle().len(), 1);
    }

    #[tokio::test]
    async fn sqlite_is_built_with_the_options_of_the_workspace() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("db");
        std::fs::write(&path, []).unwrap();
        let readers = Readers::new(Source::new(path, Duration::from_secs(30)).unwrap(), 1);
        let sql = "select sqlite_compileoption_used('STMTJRNL_SPILL=131071')";
        let answer = readers.run(&Statement::new(sql, Args::default()).unwrap()).await.unwrap();
        assert_eq!(answer.one::<(i64,)>().unwrap(), (1,), "see .cargo/config.toml");
    }
}
