//! Wakes the processes that listen for changes.
//!
//! PostgreSQL commits notifying transactions one at a time, and the next one waits until the previous sync to disk is
//! done. A transaction that sent its own notification would therefore keep all others from sharing a commit. Instead, a
//! transaction only records that it has notices, and one task sends one notification for all transactions that have
//! committed since the last one. Two notifications are at least [`GATHERED_FOR`] apart. If a notification is lost with
//! the process or the connection, readers find the change at their next poll. The notification names its sender, so
//! that a process doesn't wake itself.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Pooled;
use crate::DbError;

/// Changes committed within this time after a notification are announced with the next one.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A task that sends notifications over a separate connection and stops when its last owner is dropped.
pub(super) struct Notifier {
    /// The name of the sender, different for each open database.
    pub(super) sender: String,
    pending: Arc<Notify>,
    pool: PgPool,
    task: AbortHandle,
}

impl Notifier {
    /// Starts the task for the notifications of one channel.
    pub(super) fn start(pool: PgPool, channel: String, limit: Duration) -> Self {
        let pending = Arc::new(Notify::new());
        // From the random keys of the standard library's hash maps, as hexadecimal digits, which need no escaping.
        let random = || RandomState::new().build_hasher().finish();
        let sender = format!("{:016x}{:016x}", random(), random());
        let notify = format!("select pg_notify('{channel}', '{sender}')");
        let (woken, sending) = (Arc::clone(&pending), pool.clone());
        let task = tokio::spawn(async move {
            loop {
                woken.notified().await;
                if let Err(cause) = send(&sending, limit, &notify).await {
                    tracing::debug!(
                        %cause,
                        "a notification was not sent; other processes find the change at their next poll"
                    );
                }
                tokio::time::sleep(GATHERED_FOR).await;
            }
        });
        Self { sender, pending, pool, task: task.abort_handle() }
    }

    /// Wakes the listeners soon; calls made before then count as one.
    pub(super) fn wake(&self) {
        self.pending.notify_one();
    }

    pub(super) async fn close(&self) {
        self.task.abort();
        self.pool.close().await;
    }
}

async fn send(pool: &PgPool, limit: Duration, notify: &str) -> Result<(), DbError> {
    Pooled::take(pool, limit).await?.control(notify).await
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}
