//! Runs CPU-intensive work, mainly password hashing, on separate threads.
//!
//! # Promises
//!
//! - The threads run at low priority, so every other request stays fast while passwords are hashed.
//! - A flood of other requests doesn't stop all sign-ins: if no work is finished for some time, a helper thread does
//!   one piece of work at normal priority and then rests four times as long. A thread that gets hardly any CPU time
//!   takes no more work until it can get enough, and the helper repeats work on which a thread is stuck.
//! - Other programs on the same cores don't stop all sign-ins either: while this process does little else, the helper
//!   steps in much sooner and doesn't rest.
//! - The queue is bounded, in total and per group of callers. Work that does not fit is refused immediately, with an
//!   estimate of when to try again; nothing waits without a place in the queue.
//! - Groups take turns: one IP address with a hundred waiting attempts delays another by only one attempt. A group that
//!   wasn't served recently doesn't have to wait for all the others.
//! - Known devices are served first, three to one, and a quarter of the queue is reserved for them.
//! - A caller that gives up leaves the queue; its work is not done.
//! - Every caller whose work was accepted gets an answer, even when the work panics or the pool is dropped.
//! - Memory is limited to one scratch value for each thread, including the helper, and is released after some time
//!   without work.

mod load;
mod queue;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard as Guard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::oneshot;

use queue::{Job, Queue, Slot};

/// The limits on how many pieces of work may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// The limit for all groups and lanes together. Callers in the [`Lane::Unknown`] lane may fill three quarters of
    /// it.
    pub total: usize,
    /// The limit for one group, in both lanes together.
    pub per_group: usize,
}

/// The lane in which a caller waits, depending on whether it proved that it is a known device before it requested work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A device that has signed in before. Served three times as often as the other lane while both have waiting work.
    Known,
    /// All others.
    Unknown,
}

/// The caller on whose behalf work is requested.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The number of the caller's group, for example derived from an IP address prefix. Callers with the same number
    /// share their turns.
    pub group: u64,
    /// The caller's lane.
    pub lane: Lane,
}

/// The reason why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDone {
    /// The queue is full for this caller; the work was never queued.
    Busy {
        /// The estimated time until a place is free.
        retry_after: Duration,
    },
    /// The work panicked.
    Panicked,
    /// The pool was stopped before the work began.
    Stopped,
}

impl std::fmt::Display for NotDone {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy { retry_after } => {
                write!(out, "too much work is queued; try again in {} s", retry_after.as_secs())
            }
            Self::Panicked => out.write_str("the work failed unexpectedly"),
            Self::Stopped => {
                out.write_str("the work was not started because the server is stopping")
            }
        }
    }
}

impl std::error::Error for NotDone {}

/// The configuration of a pool. `S` is the type of the scratch value that each piece of work gets, which may have been
/// used before.
#[derive(Debug)]
pub struct Setup<S> {
    /// Number of threads, usually one per core.
    pub threads: usize,
    /// The limits on waiting work.
    pub queue: QueueLimits,
    /// When the helper thread steps in. `None` means that there is no helper.
    pub help: Option<Help>,
    /// The time without work after which all scratch values are dropped.
    pub idle_release: Duration,
    /// Creates a scratch value.
    pub scratch: fn() -> S,
}

/// When the helper thread, an additional thread at normal priority, does work that the other threads can't get to.
#[derive(Debug, Clone, Copy)]
pub struct Help {
    /// The helper steps in if work is waiting and none has been finished for this long (a quarter of it if a known
    /// device is waiting, or immediately if all threads give way), or if a thread has been working on one piece for
    /// this long, or for five times the average CPU time of a piece if that is longer.
    pub starved_after: Duration,
    /// Replaces `starved_after`, if it is shorter, while other programs keep the cores busy and this process does
    /// little besides hashing. Known devices don't shorten it. The effective value is at least twice the average CPU
    /// time of a piece of work.
    pub crowded_after: Duration,
    /// Returns the CPU time that this process has used so far, or `None` if it is not known.
    pub core_time: fn() -> Option<Duration>,
}

impl Help {
    /// Creates a configuration that measures the CPU time of this process.
    pub fn new(starved_after: Duration, crowded_after: Duration) -> Self {
        Self { starved_after, crowded_after, core_time: load::of_this_process }
    }
}

/// A pool of a fixed number of low-priority threads that take work from a bounded, fair queue.
///
/// Dropping the pool refuses waiting work with [`NotDone::Stopped`]. A thread that has begun a piece of work finishes
/// it, returns the result and then ends.
pub struct WorkPool<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    setup: Setup<S>,
    queue: Mutex<Queue<S>>,
    changed: Condvar,
    /// Wakes the helper thread, when new work is waiting, a thread gives way or the pool stops.
    waiting: Condvar,
    /// Wakes the threads that give way, when new work is waiting, scratch values must be dropped or the pool stops.
    resting: Condvar,
    /// Scratch values that are not in use.
    spare: Mutex<Vec<S>>,
    hashers: load::Hashers,
}

/// Locks `behind`, even if it is poisoned. Work never runs while one of the pool's locks is held, so the data is
/// consistent even after a panic.
fn lock<T>(behind: &Mutex<T>) -> Guard<'_, T> {
    behind.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `woken` is notified or `at_most` has passed.
fn wait<'a, T>(woken: &Condvar, guard: Guard<'a, T>, at_most: Option<Duration>) -> Guard<'a, T> {
    match at_most {
        None => woken.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(long) => woken.wait_timeout(guard, long).unwrap_or_else(PoisonError::into_inner).0,
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> Guard<'_, Queue<S>> {
        lock(&self.queue)
    }

    /// Returns whether there is a helper thread.
    fn has_help(&self) -> bool {
        self.setup.help.is_some()
    }

    /// Waits until `woken` is notified, while there is no work to do. Spare scratch values are dropped after
    /// `idle_release`.
    fn idle<'a>(&'a self, woken: &Condvar, queue: Guard<'a, Queue<S>>) -> Guard<'a, Queue<S>> {
        if self.spare().is_empty() {
            return wait(woken, queue, None);
        }
        let kept = self.setup.idle_release.saturating_sub(queue.idle_for());
        if !kept.is_zero() {
            return wait(woken, queue, Some(kept));
        }
        // Outside the lock: dropping the values takes a while.
        drop(queue);
        let spare = std::mem::take(&mut *self.spare());
        drop(spare);
        self.lock()
    }

    /// Locks the spare scratch values. This lock is always taken last, so it can be taken while the queue's lock is
    /// held.
    fn spare(&self) -> Guard<'_, Vec<S>> {
        lock(&self.spare)
    }

    /// Wakes the threads that may handle a piece of work that has just been queued.
    fn work_waits(&self) {
        self.changed.notify_one();
        self.waiting.notify_one();
        self.resting.notify_all();
    }

    /// Wakes threads so that they drop the spare scratch values in time, because there may be more of them now.
    fn nothing_waits(&self) {
        self.changed.notify_one();
        self.resting.notify_one();
    }

    fn stops(&self) {
        self.changed.notify_all();
        self.waiting.notify_all();
        self.resting.notify_all();
    }
}

impl<S: Send + 'static> WorkPool<S> {
    /// Creates a pool and starts its threads.
    ///
    /// # Errors
    /// Returns an error if the operating system can't start a thread. Threads that were already started end again.
    pub fn start(mut setup: Setup<S>) -> io::Result<Self> {
        let threads = setup.threads.max(1);
        setup.threads = threads;
        let queue = Mutex::new(Queue::new(setup.queue, threads));
        let shared = Shared {
            setup,
            queue,
            changed: Condvar::new(),
            waiting: Condvar::new(),
            resting: Condvar::new(),
            spare: Mutex::default(),
            hashers: load::Hashers::default(),
        };
        let pool = Self { shared: Arc::new(shared) };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("hashing-{number}"))
                .spawn(move || worker::work(&shared))?;
        }
        if let Some(help) = pool.shared.setup.help {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name("hashing-help".into())
                .spawn(move || worker::help_out(&shared, help))?;
        }
        Ok(pool)
    }

    /// Checks whether there is currently a place for this caller, so that a request can be refused before it causes any
    /// other work.
    ///
    /// # Errors
    /// Returns [`NotDone::Busy`] if [`run`](Self::run) would return it at this moment. If the queue can't be checked
    /// immediately, this returns `Ok`, and `run` decides.
    pub fn check_capacity(&self, caller: Caller) -> Result<(), NotDone> {
        // A thread that is suspended while it holds the lock must not delay callers that only check.
        match self.shared.queue.try_lock() {
            Ok(queue) => queue.check_capacity(caller),
            Err(TryLockError::Poisoned(queue)) => queue.into_inner().check_capacity(caller),
            Err(TryLockError::WouldBlock) => Ok(()),
        }
    }

    /// Returns how many pieces of work have been accepted into the queue since the start. Refused work isn't counted.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted()
    }

    /// Returns how many pieces of work are waiting.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting()
    }

    /// Returns the limit on waiting work.
    pub fn limit(&self) -> usize {
        self.shared.setup.queue.total
    }

    /// Runs `work` on one of the threads and returns its result.
    ///
    /// If a thread gets stuck, the helper thread repeats its work, so `work` must not change anything except the
    /// scratch value. Dropping the returned future before the work has begun removes the work from the queue.
    ///
    /// # Errors
    /// Returns [`NotDone::Busy`] immediately if there is no place for this caller, [`NotDone::Panicked`] if the work
    /// panics, and [`NotDone::Stopped`] if the pool is dropped before the work begins.
    pub async fn run<T, F>(&self, caller: Caller, work: F) -> Result<T, NotDone>
    where
        T: Send + 'static,
        F: Fn(&mut S) -> T + Send + Sync + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let job: Job<S> = Arc::new(move |scratch| {
            // The caller has given up, or already has the result of another run.
            if lock(&answer).as_ref().is_none_or(oneshot::Sender::is_closed) {
                return Ok(());
            }
            let result = catch_unwind(AssertUnwindSafe(|| work(scratch)));
            let outcome = if result.is_ok() { Ok(()) } else { Err(queue::Panicked) };
            if let Some(answer) = lock(&answer).take() {
                // The caller may have given up meanwhile; then no one wants the result.
                let _ = answer.send(result.map_err(|_| NotDone::Panicked));
            }
            outcome
        });
        let slot = self.shared.lock().push(caller, job)?;
        self.shared.work_waits();
        let _place = Place { shared: &self.shared, slot };
        answered.await.unwrap_or(Err(NotDone::Stopped))
    }
}

impl<S> Drop for WorkPool<S> {
    fn drop(&mut self) {
        let waiting = self.shared.lock().stop();
        self.shared.stops();
        // Outside the lock: dropping a job wakes its caller.
        drop(waiting);
    }
}

/// A caller's place in the queue, released when the caller stops waiting.
struct Place<'a, S> {
    shared: &'a Shared<S>,
    slot: Slot,
}

impl<S> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let abandoned = self.shared.lock().remove(self.slot);
        drop(abandoned);
    }
}
