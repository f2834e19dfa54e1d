//! The counts of one rule: the arithmetic and the bounded memory.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Decision, EffectiveRule, LimitKey};

/// The number of independent locks per rule.
const SHARDS: usize = 16;
/// How many stored keys are checked for removal when a new one is added. Two would keep up with any rate of new keys; a
/// higher number empties a full shard sooner.
const SWEPT_PER_NEW_KEY: usize = 4;
/// 100 years in nanoseconds: the longest window, so that sums of times stay far from overflow.
const LONGEST_WINDOW: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
/// The latest clock reading, about 290 years. Later readings count as this one.
const LATEST: u64 = u64::MAX / 2;

/// A point in time or a span, in nanoseconds.
type Nanos = u64;

/// The numbers of a rule in the form that the algorithm uses.
#[derive(Clone, Copy)]
struct Pace {
    name: &'static str,
    enabled: bool,
    burst: u32,
    window: Duration,
    /// What one attempt costs, rounded up so that the limit is never exceeded.
    cost: Nanos,
    /// The most that may be owed: `cost * burst`.
    capacity: Nanos,
}

impl Pace {
    fn new(rule: &EffectiveRule) -> Self {
        Self::of(rule.rule.name, rule.enabled, rule.burst, rule.per)
    }

    fn of(name: &'static str, enabled: bool, burst: u32, per: Duration) -> Self {
        let window = nanos(per).min(LONGEST_WINDOW);
        let cost = window.div_ceil(u64::from(burst.max(1)));
        let capacity = cost * u64::from(burst);
        Self { name, enabled, burst, window: Duration::from_nanos(window), cost, capacity }
    }

    /// Returns the new time at which nothing will be owed, or `None` if one more attempt doesn't fit.
    fn charge(&self, clear_at: Nanos, now: Nanos) -> Option<Nanos> {
        let charged = clear_at.max(now) + self.cost;
        (self.burst > 0 && charged - now <= self.capacity).then_some(charged)
    }

    fn decision(&self, allowed: bool, clear_at: Nanos, now: Nanos) -> Decision {
        let owed = clear_at.saturating_sub(now);
        let free = self.capacity.saturating_sub(owed);
        // A window of zero costs nothing and refills at once.
        let remaining = free.checked_div(self.cost).unwrap_or(u64::from(self.burst));
        // With a burst of zero, an attempt costs the whole window.
        let wait = if remaining == 0 { self.cost - free } else { 0 };
        Decision {
            rule: self.name,
            allowed,
            limit: self.burst,
            window: self.window,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            retry_after: Duration::from_nanos(wait),
            reset_after: Duration::from_nanos(owed),
        }
    }
}

/// All counts of one rule.
pub(super) struct Buckets {
    pace: Pace,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Buckets {
    pub(super) fn new(rule: &EffectiveRule, keys: usize) -> Self {
        let room = keys.div_ceil(SHARDS).max(1);
        Self {
            pace: Pace::new(rule),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(room))),
        }
    }

    pub(super) fn take(&self, key: LimitKey, now: Duration) -> Decision {
        self.take_pace(&self.pace, key, now)
    }

    /// Like [`take`](Self::take), but with the key's own burst, which refills in a minute.
    pub(super) fn take_at(&self, key: LimitKey, burst: u32, now: Duration) -> Decision {
        let minute = Duration::from_secs(60);
        self.take_pace(&Pace::of(self.pace.name, self.pace.enabled, burst, minute), key, now)
    }

    fn take_pace(&self, pace: &Pace, key: LimitKey, now: Duration) -> Decision {
        let now = nanos(now).min(LATEST);
        if !pace.enabled {
            return pace.decision(true, now, now);
        }
        self.shard(key).with_count(key, now, |clear_at| match pace.charge(*clear_at, now) {
            Some(charged) => {
                *clear_at = charged;
                pace.decision(true, charged, now)
            }
            None => pace.decision(false, *clear_at, now),
        })
    }

    #[cfg(test)]
    pub(super) fn peek(&self, key: LimitKey, now: Duration) -> Decision {
        let now = nanos(now).min(LATEST);
        if !self.pace.enabled {
            return self.pace.decision(true, now, now);
        }
        let clear_at = self.shard(key).known_count_of(key);
        self.pace.decision(self.pace.charge(clear_at, now).is_some(), clear_at, now)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock().unwrap().clear_at.len();
        self.shards.iter().map(count).sum()
    }

    fn shard(&self, key: LimitKey) -> MutexGuard<'_, Shard> {
        let hash = key.account_hash().unwrap_or_else(|| self.hasher.hash_one(key));
        // The remainder is below SHARDS, so nothing is cut and the index is in range.
        let number = (hash % SHARDS as u64) as usize;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a rule's keys.
struct Shard {
    room: usize,
    /// For each key, the time at which it will owe nothing.
    clear_at: HashMap<LimitKey, Nanos>,
    /// Every stored key once, in the order in which the keys are checked for removal.
    to_sweep: VecDeque<LimitKey>,
    /// The bucket shared by all keys for which there is no room.
    overflow: Nanos,
}

impl Shard {
    fn new(room: usize) -> Self {
        Self { room, clear_at: HashMap::new(), to_sweep: VecDeque::new(), overflow: 0 }
    }

    /// Passes the key's count to `use_it`. A missing count is created if there is room; otherwise, the shared one is
    /// passed.
    fn with_count<T>(
        &mut self,
        key: LimitKey,
        now: Nanos,
        use_it: impl FnOnce(&mut Nanos) -> T,
    ) -> T {
        if let Some(clear_at) = self.clear_at.get_mut(&key) {
            return use_it(clear_at);
        }
        self.sweep(now);
        if self.clear_at.len() >= self.room {
            return use_it(&mut self.overflow);
        }
        self.to_sweep.push_back(key);
        use_it(self.clear_at.entry(key).or_insert(0))
    }

    #[cfg(test)]
    fn known_count_of(&self, key: LimitKey) -> Nanos {
        let full = self.clear_at.len() >= self.room;
        let otherwise = if full { self.overflow } else { 0 };
        self.clear_at.get(&key).copied().unwrap_or(otherwise)
    }

    /// Removes some of the keys that no longer owe anything.
    fn sweep(&mut self, now: Nanos) {
        for _ in 0..SWEPT_PER_NEW_KEY {
            let Some(key) = self.to_sweep.pop_front() else { return };
            // SECURITY: a key that still owes stays, however many new ones arrive (test:
            // rotating_keys_resets_nobody_and_takes_bounded_memory).
            if self.clear_at.get(&key).is_some_and(|clear_at| *clear_at > now) {
                self.to_sweep.push_back(key);
            } else {
                self.clear_at.remove(&key);
            }
        }
    }
}

fn nanos(span: Duration) -> Nanos {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
