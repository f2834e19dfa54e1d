//! Determines whether changes can be stored again after one couldn't be, which only a test write can show.
//!
//! A database may answer every query, and report that it accepts writes, even if the disk is full, the role has lost
//! its privileges, or the synchronous standby is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::{DbError, DbErrorKind};

/// How long a test write may take. A readiness probe waits for it, and probes don't wait long.
pub(crate) const TRY_FOR: Duration = Duration::from_secs(1);

/// A counter of the changes that could not be stored, until a test write succeeds.
#[derive(Default)]
pub(crate) struct Doubts {
    raised: AtomicU64,
    /// The count when the last successful test write began.
    settled: AtomicU64,
    turn: Mutex<()>,
}

impl Doubts {
    /// Records a change that failed, if others may fail for the same reason.
    pub(crate) fn note(&self, error: &DbError) {
        use DbErrorKind::{OutcomeUnknown, Timeout, Unavailable};
        if matches!(error.kind(), Unavailable | Timeout | OutcomeUnknown) {
            self.raised.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns whether a change has failed since the last successful test write began.
    pub(crate) fn exist(&self) -> bool {
        self.raised.load(Ordering::Acquire) > self.settled.load(Ordering::Acquire)
    }

    /// Returns whether a test write succeeds. Only one runs at a time, because each may occupy a connection until it
    /// times out.
    pub(crate) async fn settle(&self, write: impl Future<Output = Result<(), DbError>>) -> bool {
        let tried = async {
            let _turn = self.turn.lock().await;
            let raised = self.raised.load(Ordering::Acquire);
            if !self.exist() {
                return true;
            }
            let written = write.await.is_ok();
            if written {
                self.settled.fetch_max(raised, Ordering::AcqRel);
            }
            written
        };
        timeout(TRY_FOR, tried).await.unwrap_or(false)
    }
}
