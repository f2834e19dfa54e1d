//! What each thread of the pool does.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Shared;
use super::queue::Job;

/// How much nicer than the rest of the process the threads are: the most there is. A thread gets
/// one or two hundredths of a contended core and all of an idle one. Measured: at 10 reads kept 76 %
/// of their rate in a flood of sign-ins, at 19 they keep 82 %.
const NICENESS: i32 = 19;

/// Runs jobs until the pool is stopped.
pub(super) fn work<S>(shared: &Shared<S>) {
    let setup = &shared.setup;
    lower_priority();
    let mut scratch = (setup.scratch)();
    let mut used = false;
    loop {
        match next(shared, used.then_some(setup.idle_release)) {
            Next::Job(job) => {
                let started = now();
                let done = job(&mut scratch);
                shared.lock().finished(now().saturating_duration_since(started));
                if done.is_err() {
                    scratch = (setup.scratch)();
                }
                used = true;
            }
            Next::Idle => {
                (setup.release)(&mut scratch);
                used = false;
            }
            Next::Stop => return,
        }
    }
}

enum Next<S> {
    Job(Job<S>),
    /// Nothing came for as long as was asked to wait.
    Idle,
    Stop,
}

/// Waits for a job, at most `patience` if given.
fn next<S>(shared: &Shared<S>, patience: Option<Duration>) -> Next<S> {
    let mut queue = shared.lock();
    loop {
        if queue.is_stopped() {
            return Next::Stop;
        }
        if let Some(job) = queue.take() {
            return Next::Job(job);
        }
        let Some(patience) = patience else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let (woken, waited) =
            shared.changed.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        if waited.timed_out() && !queue.has_work() && !queue.is_stopped() {
            return Next::Idle;
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long work takes; nothing is judged by it"
)]
fn now() -> Instant {
    Instant::now()
}

/// On Linux niceness belongs to the thread; elsewhere it would slow down the whole process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the hashing threads keep normal priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    tracing::debug!(niceness = NICENESS, "this system has no priority per thread");
}
