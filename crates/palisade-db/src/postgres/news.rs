//! Waking the processes that listen for changes.
//!
//! PostgreSQL lets one notifying transaction at a time commit, and the next waits until its sync to disk is
//! done: a transaction that notified itself would take the shared commit away from all others. So a
//! transaction only says that it has news, and one task sends one notification for all that committed
//! since the last. What is lost with the process or the connection, readers find at their next poll.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Pooled;
use crate::DbError;

/// The channel on which processes wake each other.
pub(super) const CHANNEL: &str = "palisade_feed";
const SEND: &str = "select pg_notify('palisade_feed', '')";

/// Sends notifications over a connection of its own; ends with its last owner.
pub(super) struct Herald {
    news: Arc<Notify>,
    pool: PgPool,
    task: AbortHandle,
}

impl Herald {
    pub(super) fn start(pool: PgPool, limit: Duration) -> Self {
        let news = Arc::new(Notify::new());
        let (heard, sending) = (Arc::clone(&news), pool.clone());
        let task = tokio::spawn(async move {
            loop {
                heard.notified().await;
                if let Err(cause) = send(&sending, limit).await {
                    tracing::debug!(%cause, "other processes will learn of a change by themselves");
                }
            }
        });
        Self { news, pool, task: task.abort_handle() }
    }

    /// Has the listeners woken soon; told several times before that, they are woken once.
    pub(super) fn tell(&self) {
        self.news.notify_one();
    }

    pub(super) async fn close(&self) {
        self.task.abort();
        self.pool.close().await;
    }
}

async fn send(pool: &PgPool, limit: Duration) -> Result<(), DbError> {
    Pooled::take(pool, limit).await?.control(SEND).await
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.task.abort();
    }
}
