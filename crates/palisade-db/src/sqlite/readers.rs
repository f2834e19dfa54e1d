//! The connections that only read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::{Connection, Failure, Source, Use};
use crate::DbError;
use crate::statement::{Answer, Statement};

/// A bounded set of read connections, opened when first needed.
pub(crate) struct Readers {
    source: Source,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    pub(crate) fn new(source: Source, limit: u32) -> Self {
        let permits = Semaphore::new(limit.max(1) as usize);
        Self { source, idle: Mutex::default(), permits }
    }

    pub(crate) async fn run(&self, statement: &Statement) -> Result<Answer, DbError> {
        let _permit = timeout(self.source.statement_timeout, self.permits.acquire())
            .await
            .map_err(|_| DbError::unavailable("too many reads are waiting"))?
            .map_err(|_| closed())?;
        let idle = self.lock_idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.source, Use::Reading).await?,
        };
        let mut borrowed = Borrowed { stop: connection.stop_switch(), finished: false };
        let answer = connection.run(statement).await;
        borrowed.finished = true;
        if !matches!(answer, Err(Failure::Transaction(_))) {
            self.lock_idle().push(connection);
        }
        answer.map_err(Failure::into_error)
    }

    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.lock_idle());
        for connection in idle {
            connection.close().await;
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> DbError {
    DbError::unavailable("the database is being closed")
}

/// Stops the statement of a reader that was cancelled half-way; its connection is given up.
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
