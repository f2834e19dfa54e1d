//! What is found out about a request while it is handled, for its log line and the metrics.
//!
//! A trace belongs to the task that handles the request. The layers that find something out (the route, the gate, the
//! hashing of passwords) add it without passing it on to each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use palisade_db::Spent;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics::RouteMetrics;

tokio::task_local! {
    static TRACE: Trace;
}

/// What is known about the handling of a request so far. Clones share it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Parts>);

#[derive(Default)]
struct Parts {
    route: OnceLock<Arc<RouteMetrics>>,
    caller: OnceLock<TracedCaller>,
    admission: AtomicU64,
    hashing: AtomicU64,
    database: Spent,
}

/// Who sent a request, as its credential states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedCaller {
    /// The user.
    pub user: Uuid,
    /// The name of the credential's kind.
    pub kind: &'static str,
    /// The credential's id.
    pub credential: Uuid,
}

impl Trace {
    /// Runs `work`, which may add to the trace.
    pub async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        TRACE.scope(self.clone(), self.0.database.of(work)).await
    }

    /// Returns the route. `None` if no route matches.
    pub fn route(&self) -> Option<&RouteMetrics> {
        self.0.route.get().map(|route| &**route)
    }

    /// Returns the caller. `None` if the route needs no credential, or there was no valid one.
    pub fn caller(&self) -> Option<TracedCaller> {
        self.0.caller.get().copied()
    }

    /// Returns how long it took to decide whether the request is admitted. Zero if that was not decided.
    pub fn admission(&self) -> Duration {
        Duration::from_micros(self.0.admission.load(Ordering::Relaxed))
    }

    /// Returns how long the request waited for the hashing of passwords.
    pub fn hashing(&self) -> Duration {
        Duration::from_micros(self.0.hashing.load(Ordering::Relaxed))
    }

    /// Returns how long the request waited for the database.
    pub fn database(&self) -> Duration {
        self.0.database.time()
    }
}

fn add(note: impl FnOnce(&Parts)) {
    // There is none in background work.
    let _ = TRACE.try_with(|trace| note(&trace.0));
}

/// Notes the route of the current request.
pub(crate) fn found_route(route: &Arc<RouteMetrics>) {
    add(|parts| {
        let _ = parts.route.set(Arc::clone(route));
    });
}

/// Notes the caller of the current request.
pub(crate) fn found_caller(caller: TracedCaller) {
    add(|parts| {
        let _ = parts.caller.set(caller);
    });
}

/// Counts `work` as the admission of the current request.
pub(crate) async fn admitting<T>(work: impl Future<Output = T>) -> T {
    timed(work, |parts| &parts.admission).await
}

/// Counts `work` as the hashing of passwords for the current request.
pub(crate) async fn hashing<T>(work: impl Future<Output = T>) -> T {
    timed(work, |parts| &parts.hashing).await
}

async fn timed<T>(work: impl Future<Output = T>, part: fn(&Parts) -> &AtomicU64) -> T {
    let began = Instant::now();
    let done = work.await;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    add(|parts| {
        part(parts).fetch_add(took, Ordering::Relaxed);
    });
    done
}
