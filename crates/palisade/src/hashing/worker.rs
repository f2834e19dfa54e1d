//! What each thread of the pool does.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Shared;
use super::queue::Job;

/// How much nicer than the rest of the process the threads are where the policy below can't be had: the
/// most there is.
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

/// How much longer than its work took the helping thread rests: others keep at least two thirds of a core.
const REST: u32 = 2;

/// How much sooner the helping thread steps in when a known device waits.
const SOONER_FOR_KNOWN: u32 = 4;

/// Does a piece of work at normal priority whenever the others get nowhere.
///
/// SECURITY: at their priority a core that is kept busy by anything else, refusals for example, leaves them next
/// to nothing, and nobody could sign in (test: work_goes_on_when_the_threads_get_nowhere).
pub(super) fn help_out<S>(shared: &Shared<S>, starved_after: Duration) {
    let mut rest = Duration::ZERO;
    while let Some(job) = neglected(shared, starved_after, rest) {
        let started = now();
        // Of its own and only for now: it is seldom needed, and large.
        let mut scratch = (shared.setup.scratch)();
        // A panic was answered already, and this scratch value ends here anyway.
        let _ = job(&mut scratch);
        let took = now().saturating_duration_since(started);
        shared.lock().finished(took);
        rest = took * REST;
    }
}

/// Waits for `rest`, then for a job that waits while nothing is finished; `None` at the end of the pool.
fn neglected<S>(shared: &Shared<S>, starved_after: Duration, rest: Duration) -> Option<Job<S>> {
    let rested = now() + rest;
    let mut queue = shared.lock();
    loop {
        if queue.is_stopped() {
            return None;
        }
        let rest = rested.saturating_duration_since(now());
        // Whoever has signed in here before isn't kept waiting by a flood of those who haven't.
        let starved_after =
            if queue.known_waits() { starved_after / SOONER_FOR_KNOWN } else { starved_after };
        let patience = match queue.stalled_for() {
            Some(stalled) => rest.max(starved_after.saturating_sub(stalled)),
            None if rest.is_zero() => {
                queue = shared.waiting.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            None => rest,
        };
        if patience.is_zero() {
            return queue.take();
        }
        let (woken, _) =
            shared.waiting.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner);
        queue = woken;
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
pub(super) fn now() -> Instant {
    Instant::now()
}

/// On Linux policy and niceness belong to the thread; elsewhere niceness would slow down the whole process.
///
/// `SCHED_IDLE` (sched(7)): whatever else wakes up takes the core at once. A thread that is only nice keeps it for
/// some milliseconds, and a busy server wakes up and falls asleep all the time. Measured beside a flood of
/// sign-ins: reads kept 66 % of their rate with niceness 19, 88 % with this.
#[cfg(target_os = "linux")]
fn lower_priority() {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    let set = thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle);
    if let Err(error) = set {
        tracing::debug!(%error, "the hashing threads can't be scheduled as idle; they are nice");
    }
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the hashing threads keep normal priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    tracing::debug!(niceness = NICENESS, "this system has no priority per thread");
}
