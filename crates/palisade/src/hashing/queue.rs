//! The waiting work: two lanes, in each the groups in turn, in each group first come, first served.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::worker::now;
use super::{Caller, Lane, NotDone, QueueLimits};

/// So many from the known lane, then one from the unknown lane, while both have work.
const KNOWN_PER_UNKNOWN: u32 = 3;
/// What a piece of work is taken to last before one has been measured.
const FIRST_GUESS: Duration = Duration::from_millis(100);
/// A measured duration moves the average by one part in this many.
const AVERAGE_OVER: u32 = 8;
/// Bounds of the advice when to come back: HTTP counts whole seconds, and a busy minute passes.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The work inside a job panicked; its scratch value is not to be reused.
pub(super) struct Panicked;

/// One piece of work, its answer channel included.
pub(super) type Job<S> = Box<dyn FnOnce(&mut S) -> Result<(), Panicked> + Send>;

/// Where a job waits.
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
    /// Every group of `groups` once, the next to be served in front.
    turns: VecDeque<u64>,
}

impl<S> LaneQueue<S> {
    fn new() -> Self {
        Self { groups: HashMap::new(), turns: VecDeque::new() }
    }

    fn len(&self, group: u64) -> usize {
        self.groups.get(&group).map_or(0, VecDeque::len)
    }

    fn push(&mut self, group: u64, waiting: Waiting<S>) {
        let line = self.groups.entry(group).or_default();
        if line.is_empty() {
            self.turns.push_back(group);
        }
        line.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Job<S>> {
        let group = self.turns.pop_front()?;
        let line = self.groups.get_mut(&group)?;
        let waiting = line.pop_front();
        if line.is_empty() {
            self.groups.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        waiting.map(|waiting| waiting.job)
    }

    fn remove(&mut self, group: u64, number: u64) -> Option<Job<S>> {
        let line = self.groups.get_mut(&group)?;
        let at = line.iter().position(|waiting| waiting.number == number)?;
        let waiting = line.remove(at);
        if line.is_empty() {
            self.groups.remove(&group);
            self.turns.retain(|turn| *turn != group);
        }
        waiting.map(|waiting| waiting.job)
    }
}

/// All waiting work and what is needed to estimate how long it will wait.
pub(super) struct Queue<S> {
    limits: QueueLimits,
    threads: usize,
    known: LaneQueue<S>,
    unknown: LaneQueue<S>,
    waiting: usize,
    running: usize,
    known_in_a_row: u32,
    next_number: u64,
    average: Duration,
    /// When a job last ended, or the first began to wait after nobody did.
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
            waiting: 0,
            running: 0,
            known_in_a_row: 0,
            next_number: 0,
            average: FIRST_GUESS,
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
            // SECURITY: a flood of strangers, however many addresses it has, leaves places for
            // known devices (test: a_flood_of_strangers_leaves_room_for_known_devices).
            Lane::Unknown => self.limits.total - self.limits.total / 4,
        };
        let of_group = self.known.len(caller.group) + self.unknown.len(caller.group);
        self.waiting < total && of_group < self.limits.per_group
    }

    pub(super) fn has_room(&self, caller: Caller) -> Result<(), NotDone> {
        if self.room_for(caller) {
            return Ok(());
        }
        Err(NotDone::Busy { retry_after: self.retry_after() })
    }

    pub(super) fn push(&mut self, caller: Caller, job: Job<S>) -> Result<Slot, NotDone> {
        if self.stopped {
            return Err(NotDone::Stopped);
        }
        self.has_room(caller)?;
        if self.waiting == 0 {
            self.progress = now();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        self.lane(caller.lane).push(caller.group, Waiting { number, job });
        Ok(Slot { caller, number })
    }

    /// The next job to run; `None` when nothing waits.
    pub(super) fn take(&mut self) -> Option<Job<S>> {
        let known_had_its_share =
            self.known_in_a_row >= KNOWN_PER_UNKNOWN && !self.unknown.turns.is_empty();
        let known = if known_had_its_share { None } else { self.known.pop() };
        self.known_in_a_row =
            if known.is_some() { self.known_in_a_row.saturating_add(1) } else { 0 };
        let job = known.or_else(|| self.unknown.pop())?;
        self.waiting -= 1;
        self.running += 1;
        Some(job)
    }

    /// Takes a job out that has not begun; the caller drops it outside the lock.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Job<S>> {
        let job = self.lane(slot.caller.lane).remove(slot.caller.group, slot.number)?;
        self.waiting -= 1;
        Some(job)
    }

    /// Notes that a job has ended after `took`.
    pub(super) fn finished(&mut self, took: Duration) {
        self.running -= 1;
        self.progress = now();
        let rest = self.average.saturating_mul(AVERAGE_OVER - 1);
        self.average = rest.saturating_add(took) / AVERAGE_OVER;
    }

    pub(super) fn has_work(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn known_waits(&self) -> bool {
        !self.known.turns.is_empty()
    }

    /// How long work has been waiting while none was finished.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.has_work().then(|| now().saturating_duration_since(self.progress))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Refuses everything from now on and hands out what waits, to be dropped outside the lock.
    pub(super) fn stop(&mut self) -> Vec<Job<S>> {
        self.stopped = true;
        let mut waiting = Vec::with_capacity(self.waiting);
        while let Some(job) = self.known.pop().or_else(|| self.unknown.pop()) {
            waiting.push(job);
        }
        self.waiting = 0;
        waiting
    }

    fn retry_after(&self) -> Duration {
        let ahead = (self.waiting + self.running).div_ceil(self.threads);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.average.saturating_mul(ahead).clamp(RETRY.0, RETRY.1)
    }
}
