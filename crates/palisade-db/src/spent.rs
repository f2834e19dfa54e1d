//! How long a piece of work waits for the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static SPENT: Spent;
}

/// The time that a piece of work has waited for the database so far: for a connection, a lock, a statement or a commit.
/// Work that runs in another task isn't counted, and concurrent waits are added up. Clones share the time.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<AtomicU64>);

impl Spent {
    /// Returns the time spent so far.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Runs `work`, and counts its waits.
    pub async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        SPENT.scope(self.clone(), work).await
    }

    /// Counts the whole of `work` as a wait, if the work around it is counted. For work that hands its statements to
    /// another task.
    pub async fn waiting<T>(work: impl Future<Output = T>) -> T {
        let Ok(spent) = SPENT.try_with(Self::clone) else {
            return work.await;
        };
        let began = Instant::now();
        let done = work.await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        spent.0.fetch_add(took, Ordering::Relaxed);
        done
    }
}
