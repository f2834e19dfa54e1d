//! What each thread of the pool does.

use std::time::{Duration, Instant};

use super::load::OwnLoad;
use super::queue::Taken;
use super::{Help, Shared, wait};
use crate::runtime::leave_core;
use crate::scheduling::lower_priority;

/// Runs jobs until the pool is stopped.
pub(super) fn work<S>(shared: &Shared<S>) {
    leave_core();
    lower_priority();
    shared.hashers.add_this_thread();
    while let Some(job) = next(shared) {
        let had = run(shared, job);
        if had.tells() && had.is_less_than_a(LEAST) && shared.has_help() {
            give_way(shared);
        }
    }
}

/// Runs one job, with a previously used scratch value, if there is one. Returns the CPU time that the job took.
///
/// The job is dropped at the end, together with the password that it contains.
fn run<S>(shared: &Shared<S>, taken: Taken<S>) -> CoreTime {
    let (started, before) = (now(), CoreTime::of_this_thread());
    let spare = shared.spare().pop();
    let mut scratch = spare.unwrap_or_else(shared.setup.scratch);
    let done = (taken.job)(&mut scratch);
    let took = now().saturating_duration_since(started);
    let mut spare = shared.spare();
    // A scratch value left behind by a panic isn't reused, and one value for each thread is enough.
    if done.is_ok() && spare.len() < shared.setup.threads {
        spare.push(scratch);
    }
    drop(spare);
    let had = before.map_or(CoreTime { ran: took, waited: Duration::ZERO }, CoreTime::so_far);
    shared.lock().finished(&taken, took, had.ran);
    had
}

/// A thread that got less than a fifth of a core for its work takes no more work.
const LEAST: u32 = 5;
/// A thread continues when it gets a third of a core again.
const ENOUGH: u32 = 3;
/// How often a thread that gives way checks whether it can get enough CPU time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How much CPU time a check takes.
const LOOK: Duration = Duration::from_millis(3);

/// Takes no work until the thread can get enough CPU time or the pool ends. The helper thread does the work in the
/// meantime.
///
/// A thread that takes work but gets no core delays a caller for seconds, although the queue would have served that
/// caller sooner.
fn give_way<S>(shared: &Shared<S>) {
    let mut queue = shared.lock();
    queue.gives_way();
    shared.waiting.notify_one();
    let mut look_at = now() + LOOK_EVERY;
    while !queue.is_stopped() {
        let rest = look_at.saturating_duration_since(now());
        if !queue.has_work() {
            queue = shared.idle(&shared.resting, queue);
        } else if !rest.is_zero() {
            queue = wait(&shared.resting, queue, Some(rest));
        } else {
            drop(queue);
            let enough = look();
            queue = shared.lock();
            if enough {
                break;
            }
            look_at = now() + LOOK_EVERY;
        }
    }
    queue.goes_on();
}

/// Keeps a core busy for a moment. Returns whether this thread got enough of it.
fn look() -> bool {
    let Some(before) = CoreTime::of_this_thread() else { return true };
    let began = now();
    while before.so_far().ran < LOOK && now() - began < LOOK * LEAST {
        (0..5_000).for_each(|_| std::hint::spin_loop());
    }
    !before.so_far().is_less_than_a(ENOUGH)
}

/// The CPU time of a thread, and how long it has waited for a core while it had work to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreTime {
    pub(super) ran: Duration,
    pub(super) waited: Duration,
}

impl CoreTime {
    /// Returns the CPU time of the calling thread since it started, or `None` if the system doesn't report it.
    pub(super) fn of_this_thread() -> Option<Self> {
        Self::at("/proc/thread-self/schedstat")
    }

    /// Returns the CPU time of a thread of this process, given its thread id.
    pub(super) fn of(thread: &str) -> Option<Self> {
        Self::at(&format!("/proc/self/task/{thread}/schedstat"))
    }

    /// Reads the first two numbers that Linux reports about a thread.
    fn at(path: &str) -> Option<Self> {
        let told = std::fs::read_to_string(path).ok()?;
        let mut nanos = told.split_ascii_whitespace().map_while(|number| number.parse().ok());
        let (ran, waited) = (nanos.next()?, nanos.next()?);
        Some(Self { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) })
    }

    /// Returns the CPU time of the calling thread since this measurement.
    pub(super) fn so_far(self) -> Self {
        let now = Self::of_this_thread().unwrap_or(self);
        Self {
            ran: now.ran.saturating_sub(self.ran),
            waited: now.waited.saturating_sub(self.waited),
        }
    }

    /// Returns whether the time is long enough to be meaningful. A shorter time is not, because a thread that wakes
    /// another is often suspended for a moment.
    pub(super) fn tells(self) -> bool {
        self.ran + self.waited > LOOK
    }

    /// Returns whether the thread got less than one `part`th of a core while it had work.
    pub(super) fn is_less_than_a(self, part: u32) -> bool {
        self.ran * part < self.ran + self.waited
    }
}

/// The helper thread rests this many times as long as its work used a core, so it uses at most a fifth of a core.
const REST: u32 = 4;

/// How many times sooner the helper thread steps in when a known device waits.
const SOONER_FOR_KNOWN: u32 = 4;

/// How many times as long as usual a piece of work takes when other programs compete for the cores.
const CROWDED: u32 = 2;

/// The maximum time that the helper thread waits before it checks again what keeps the cores busy.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Does a piece of work at normal priority whenever the other threads make no progress: waiting work if nothing is
/// being finished, or work that another thread took long ago and has not finished.
///
/// SECURITY: at their low priority, the other threads get hardly any time on a core that other work, such as refusals,
/// keeps busy. Without this thread, no one could sign in (test: work_goes_on_when_the_threads_get_nowhere).
pub(super) fn help_out<S>(shared: &Shared<S>, help: Help) {
    leave_core();
    shared.hashers.add_this_thread();
    let mut load = OwnLoad::new(shared.setup.threads, help.core_time);
    let mut rested = now();
    while let Some(taken) = neglected(shared, help, &mut load, rested) {
        let rest = run(shared, taken).ran * REST;
        let alone = load.is_little(&shared.hashers);
        // No other work of this process needs the core.
        rested = if alone { now() } else { now() + rest };
        shared.nothing_waits();
    }
}

/// Waits until `rested` has passed and work is neglected, and takes that work. Returns `None` when the pool ends.
fn neglected<S>(
    shared: &Shared<S>,
    help: Help,
    load: &mut OwnLoad,
    rested: Instant,
) -> Option<Taken<S>> {
    let mut queue = shared.lock();
    while !queue.is_stopped() {
        // When other programs keep the cores busy, giving way to them gains this process nothing.
        let crowded = load.is_little(&shared.hashers);
        // Anyone who has signed in here before isn't kept waiting by a flood of those who haven't.
        let sooner = if queue.known_waits() { SOONER_FOR_KNOWN } else { 1 };
        let for_others = help.crowded_after.max(queue.cost() * CROWDED);
        let patience = match (queue.all_give_way(), crowded) {
            (true, _) => Duration::ZERO,
            (false, true) => for_others.min(help.starved_after / sooner),
            (false, false) => help.starved_after / sooner,
        };
        let stalled = queue.stalled_since().map(|since| since + patience);
        // Work that merely takes long is not stuck.
        let stuck_after =
            if crowded { for_others } else { help.starved_after.max(queue.cost() * LEAST) };
        let stuck = queue.oldest_running().map(|since| since + stuck_after);
        let Some(due) = stalled.into_iter().chain(stuck).min() else {
            queue = wait(&shared.waiting, queue, None);
            continue;
        };
        let patience = due.max(rested).saturating_duration_since(now());
        if patience.is_zero() {
            let known_first = queue.known_waits() && stalled.is_some_and(|due| due <= now());
            return if stuck == Some(due) && !known_first {
                queue.take_again()
            } else {
                queue.take()
            };
        }
        queue = wait(&shared.waiting, queue, Some(patience.min(LOOK_AGAIN)));
    }
    None
}

/// Waits for a job. Returns `None` when the pool ends.
fn next<S>(shared: &Shared<S>) -> Option<Taken<S>> {
    let mut queue = shared.lock();
    while !queue.is_stopped() {
        if let Some(job) = queue.take() {
            return Some(job);
        }
        queue = shared.idle(&shared.changed, queue);
    }
    None
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long work takes; no check depends on it"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
