//! The waiting work, in two lanes. In each lane, groups take turns, and each group is served in the order of arrival.
//!
//! Every other turn goes to a group that wasn't served recently, as with the "new" and "old" queues of fq_codel (RFC
//! 8290, section 4.2). An honest sign-in therefore doesn't wait for a round of all IP addresses that a flood comes
//! from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker::now;
use super::{Caller, Lane, NotDone, QueueLimits};

/// How many jobs are taken from the known lane before one from the unknown lane, while both have work.
const KNOWN_PER_UNKNOWN: u32 = 3;
/// The assumed duration of a piece of work before one has been measured.
const FIRST_GUESS: Duration = Duration::from_millis(100);
/// The divisor of the moving average: a measured duration counts as one part in this many.
const AVERAGE_OVER: u32 = 8;
/// The minimum and maximum wait to advise before a retry: HTTP counts in whole seconds, and a busy period passes within
/// a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The work inside a job panicked. Its scratch value must not be reused.
pub(super) struct Panicked;

/// One piece of work, including its answer channel. If it is done twice, the first result is returned.
pub(super) type Job<S> = Arc<dyn Fn(&mut S) -> Result<(), Panicked> + Send + Sync>;

/// A job that was taken but isn't finished.
struct Running<S> {
    number: u64,
    job: Job<S>,
    since: Instant,
    done_again: bool,
}

/// A job to be run by the thread that took it.
pub(super) struct Taken<S> {
    number: u64,
    pub(super) job: Job<S>,
}

/// The place of a job in the queue.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    caller: Caller,
    number: u64,
}

struct Waiting<S> {
    number: u64,
    job: Job<S>,
}

struct LaneQueue<S> {
    groups: HashMap<u64, VecDeque<Waiting<S>>>,
    /// Groups that began to wait and weren't served recently, in the order of arrival.
    fresh: VecDeque<u64>,
    /// Groups already served, with the next one in front. A group without work is removed only when its turn comes, so
    /// it can't become fresh again immediately.
    turns: VecDeque<u64>,
    fresh_was_last: bool,
    waiting: usize,
}

impl<S> LaneQueue<S> {
    fn new() -> Self {
        Self {
            groups: HashMap::new(),
            fresh: VecDeque::new(),
            turns: VecDeque::new(),
            fresh_was_last: false,
            waiting: 0,
        }
    }

    fn len(&self, group: u64) -> usize {
        self.groups.get(&group).map_or(0, VecDeque::len)
    }

    fn has_work(&self) -> bool {
        self.waiting > 0
    }

    fn push(&mut self, group: u64, waiting: Waiting<S>) {
        self.waiting += 1;
        let fresh = &mut self.fresh;
        let line = self.groups.entry(group).or_insert_with(|| {
            fresh.push_back(group);
            VecDeque::new()
        });
        line.push_back(waiting);
    }

    /// Takes the next job. Fresh groups alternate with groups that had a turn, so neither keeps the other waiting.
    fn pop(&mut self) -> Option<Waiting<S>> {
        let in_turn =
            if self.fresh_was_last || self.fresh.is_empty() { self.next_in_turn() } else { None };
        self.fresh_was_last = in_turn.is_none();
        let group = in_turn.or_else(|| self.fresh.pop_front())?;
        let waiting = self.groups.get_mut(&group)?.pop_front()?;
        self.turns.push_back(group);
        self.waiting -= 1;
        Some(waiting)
    }

    /// Returns the next group that had a turn and has work. Removes the groups before it that have no work.
    fn next_in_turn(&mut self) -> Option<u64> {
        while let Some(group) = self.turns.pop_front() {
            if self.len(group) > 0 {
                return Some(group);
            }
            self.groups.remove(&group);
        }
        None
    }

    fn remove(&mut self, group: u64, number: u64) -> Option<Job<S>> {
        let line = self.groups.get_mut(&group)?;
        let at = line.iter().position(|waiting| waiting.number == number)?;
        let waiting = line.remove(at);
        self.waiting -= usize::from(waiting.is_some());
        if line.is_empty()
            && let Some(at) = self.fresh.iter().position(|fresh| *fresh == group)
        {
            self.fresh.remove(at);
            self.groups.remove(&group);
        }
        waiting.map(|waiting| waiting.job)
    }
}

/// All waiting work, and the data to estimate how long it will wait.
pub(super) struct Queue<S> {
    limits: QueueLimits,
    threads: usize,
    known: LaneQueue<S>,
    unknown: LaneQueue<S>,
    running: Vec<Running<S>>,
    giving_way: usize,
    known_in_a_row: u32,
    next_number: u64,
    /// How long a job takes on average, and how much CPU time it uses.
    average: Duration,
    cost: Duration,
    /// When a job last ended, or when the first job began to wait in an empty queue.
    progress: Instant,
    stopped: bool,
}

impl<S> Queue<S> {
    pub(super) fn new(limits: QueueLimits, threads: usize) -> Self {
        Self {
            limits,
            threads,
            known: LaneQueue::new(),
            unknown: LaneQueue::new(),
            running: Vec::new(),
            giving_way: 0,
            known_in_a_row: 0,
            next_number: 0,
            average: FIRST_GUESS,
            cost: FIRST_GUESS,
            progress: now(),
            stopped: false,
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue<S> {
        match lane {
            Lane::Known => &mut self.known,
            Lane::Unknown => &mut self.unknown,
        }
    }

    fn room_for(&self, caller: Caller) -> bool {
        let total = match caller.lane {
            Lane::Known => self.limits.total,
            // SECURITY: a flood of strangers, however many IP addresses it has, leaves places for
            // known devices (test: a_flood_of_strangers_leaves_room_for_known_devices).
            Lane::Unknown => self.limits.total - self.limits.total / 4,
        };
        let of_group = self.known.len(caller.group) + self.unknown.len(caller.group);
        self.waiting() < total && of_group < self.limits.per_group
    }

    pub(super) fn check_capacity(&self, caller: Caller) -> Result<(), NotDone> {
        if self.room_for(caller) {
            return Ok(());
        }
        Err(NotDone::Busy { retry_after: self.retry_after() })
    }

    pub(super) fn push(&mut self, caller: Caller, job: Job<S>) -> Result<Slot, NotDone> {
        if self.stopped {
            return Err(NotDone::Stopped);
        }
        self.check_capacity(caller)?;
        if !self.has_work() {
            self.progress = now();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.lane(caller.lane).push(caller.group, Waiting { number, job });
        Ok(Slot { caller, number })
    }

    /// Takes the next job to run. Returns `None` when no job is waiting.
    pub(super) fn take(&mut self) -> Option<Taken<S>> {
        let known_had_its_share =
            self.known_in_a_row >= KNOWN_PER_UNKNOWN && self.unknown.has_work();
        let known = if known_had_its_share { None } else { self.known.pop() };
        self.known_in_a_row =
            if known.is_some() { self.known_in_a_row.saturating_add(1) } else { 0 };
        let Waiting { number, job } = known.or_else(|| self.unknown.pop())?;
        let running = Running { number, job: Arc::clone(&job), since: now(), done_again: false };
        self.running.push(running);
        Some(Taken { number, job })
    }

    /// Returns when the longest-running job that isn't being repeated was started.
    pub(super) fn oldest_running(&self) -> Option<Instant> {
        self.running.iter().filter(|running| !running.done_again).map(|running| running.since).min()
    }

    /// Takes the longest-running job again, because the thread that took it may be stuck for a long time.
    pub(super) fn take_again(&mut self) -> Option<Taken<S>> {
        let oldest = self
            .running
            .iter_mut()
            .filter(|running| !running.done_again)
            .min_by_key(|running| running.since)?;
        oldest.done_again = true;
        Some(Taken { number: oldest.number, job: Arc::clone(&oldest.job) })
    }

    /// Removes a job that has not begun; the caller drops it outside the lock.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Job<S>> {
        self.lane(slot.caller.lane).remove(slot.caller.group, slot.number)
    }

    /// Records that a job ended after `took`, on its first or second run, and used a core for `ran`.
    pub(super) fn finished(&mut self, taken: &Taken<S>, took: Duration, ran: Duration) {
        self.running.retain(|running| running.number != taken.number);
        self.progress = now();
        let moved = |average: Duration, by: Duration| {
            average.saturating_mul(AVERAGE_OVER - 1).saturating_add(by) / AVERAGE_OVER
        };
        self.average = moved(self.average, took);
        self.cost = moved(self.cost, ran);
    }

    /// Returns how many jobs have been accepted into the queue so far.
    pub(super) fn accepted(&self) -> u64 {
        self.next_number
    }

    /// Returns the average CPU time of a job.
    pub(super) fn cost(&self) -> Duration {
        self.cost
    }

    /// Records that a thread takes no work until it [continues](Self::goes_on).
    pub(super) fn gives_way(&mut self) {
        self.giving_way += 1;
    }

    pub(super) fn goes_on(&mut self) {
        self.giving_way -= 1;
    }

    pub(super) fn all_give_way(&self) -> bool {
        self.giving_way == self.threads
    }

    /// Returns how long ago work was last done. Zero while work is in progress.
    pub(super) fn idle_for(&self) -> Duration {
        if self.running.is_empty() {
            now().saturating_duration_since(self.progress)
        } else {
            Duration::ZERO
        }
    }

    /// Returns how many groups of the unknown lane are kept in memory.
    #[cfg(test)]
    pub(super) fn remembers(&self) -> usize {
        self.unknown.groups.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.known.waiting + self.unknown.waiting
    }

    pub(super) fn has_work(&self) -> bool {
        self.waiting() > 0
    }

    pub(super) fn known_waits(&self) -> bool {
        self.known.has_work()
    }

    /// Returns the time since which work has been waiting without any being finished.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.has_work().then_some(self.progress)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Refuses all work from now on and returns the waiting jobs, to be dropped outside the lock.
    pub(super) fn stop(&mut self) -> Vec<Job<S>> {
        self.stopped = true;
        let mut waiting = Vec::with_capacity(self.waiting());
        while let Some(left) = self.known.pop().or_else(|| self.unknown.pop()) {
            waiting.push(left.job);
        }
        waiting
    }

    fn retry_after(&self) -> Duration {
        let ahead = (self.waiting() + self.running.len()).div_ceil(self.threads);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.average.saturating_mul(ahead).clamp(RETRY.0, RETRY.1)
    }
}
