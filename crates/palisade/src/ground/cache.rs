//! Caches of database values. A request whose values are cached doesn't read the database.
//!
//! There are two kinds:
//!
//! - [`TombstoneCache`]: values that a notice from the feed may invalidate (sessions, API keys, users);
//! - [`Bounded`]: values that expire at a known time (verified tokens, the owners of cookies and API keys).
//!
//! Both hold a bounded number of entries, in shards so that readers don't wait for each other. Their keys are ids that
//! the server generates and digests of secrets that it generates. Clients can't choose colliding keys, so the hash
//! function doesn't have to resist collisions. It runs several times per request and costs a fraction of what the one
//! in `std` costs.
//!
//! # Promises
//!
//! - **What was ended can't come back.** A value read from the database before an ending may arrive here after it.
//!   [`TombstoneCache`] detects and refuses such a value.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foldhash::quality::RandomState;

const SHARDS: usize = 32;
/// How long a read of the database may take before its result is too old to be cached.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Values that stay valid until a notice from the feed invalidates them.
pub struct TombstoneCache<K, V> {
    shards: Vec<RwLock<Shard<K, V>>>,
    hasher: RandomState,
    per_shard: usize,
}

struct Shard<K, V> {
    slots: HashMap<K, Slot<V>, RandomState>,
    /// Increases with each invalidation and each cleanup of this shard.
    generation: u64,
    /// The minimum generation: insertions whose read began earlier are refused, regardless of the key.
    floor: u64,
}

struct Slot<V> {
    /// The shard's generation when this key was last invalidated.
    invalidated: u64,
    stored_at: Duration,
    state: State<V>,
}

enum State<V> {
    Forgotten,
    Known(Arc<V>),
    Ended { until: Duration },
}

/// What is cached for a key.
pub enum Cached<V> {
    /// Nothing. Read the database, then call [`TombstoneCache::insert_if_unchanged`].
    Nothing,
    /// This value.
    Known(Arc<V>),
    /// A tombstone: what the key identifies has ended for good.
    Ended,
}

/// A record of when a read of the database began, taken before the read.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    generation: u64,
    began: Duration,
}

impl<K: Hash + Eq + Clone, V> TombstoneCache<K, V> {
    /// Creates a cache with room for about `capacity` values.
    pub fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS)
            .map(|_| RwLock::new(Shard { slots: HashMap::default(), generation: 1, floor: 0 }))
            .collect();
        Self { shards, hasher: RandomState::default(), per_shard: (capacity / SHARDS).max(16) }
    }

    /// Returns what is cached for `key`.
    pub fn get(&self, key: &K) -> Cached<V> {
        match self.read(key).slots.get(key).map(|slot| &slot.state) {
            Some(State::Known(value)) => Cached::Known(Arc::clone(value)),
            Some(State::Ended { .. }) => Cached::Ended,
            Some(State::Forgotten) | None => Cached::Nothing,
        }
    }

    /// Returns a ticket. Call this before you read the database for `key`.
    pub fn begin(&self, key: &K, now: Duration) -> Ticket {
        Ticket { generation: self.read(key).generation, began: now }
    }

    /// Caches `value` and returns `true`, unless the value may be outdated: if `key` has ended or was invalidated since
    /// `ticket` was taken, if its shard was cleaned up in the meantime, or if the read took more than 30 seconds.
    pub fn insert_if_unchanged(
        &self,
        ticket: Ticket,
        key: K,
        value: Arc<V>,
        now: Duration,
    ) -> bool {
        let mut shard = self.write(&key);
        if now.saturating_sub(ticket.began) > READ_LIMIT || ticket.generation < shard.floor {
            return false;
        }
        // SECURITY: an ending between the read and this line must win
        // (test: an_ending_beats_a_value_read_before_it).
        if shard.slots.get(&key).is_some_and(|slot| {
            slot.invalidated > ticket.generation || matches!(slot.state, State::Ended { .. })
        }) {
            return false;
        }
        shard.make_room(self.per_shard, now);
        let invalidated = shard.slots.get(&key).map_or(0, |slot| slot.invalidated);
        let slot = Slot { invalidated, stored_at: now, state: State::Known(value) };
        shard.slots.insert(key, slot);
        true
    }

    /// Replaces `old` with `new`, if `old` is still cached for `key`. Returns whether it was.
    pub fn replace(&self, key: &K, old: &Arc<V>, new: Arc<V>) -> bool {
        match self.write(key).slots.get_mut(key).map(|slot| &mut slot.state) {
            Some(State::Known(known)) if Arc::ptr_eq(known, old) => {
                *known = new;
                true
            }
            _ => false,
        }
    }

    /// Drops the value cached for `key`; a read that began earlier can't bring it back. A tombstone stays.
    pub fn forget(&self, key: &K, now: Duration) {
        self.invalidate(key, now, State::Forgotten);
    }

    /// Marks `key` as ended, for at least the duration `keep`. During this time, nothing can bring it back.
    pub fn end(&self, key: &K, keep: Duration, now: Duration) {
        self.invalidate(key, now, State::Ended { until: now.saturating_add(keep) });
    }

    /// Drops everything except the tombstones.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.generation += 1;
            shard.floor = shard.generation;
            shard.slots.retain(|_, slot| matches!(slot.state, State::Ended { .. }));
        }
    }

    fn invalidate(&self, key: &K, now: Duration, state: State<V>) {
        let mut shard = self.write(key);
        shard.generation += 1;
        let invalidated = shard.generation;
        let state = match shard.slots.get(key).map(|slot| &slot.state) {
            Some(State::Ended { until }) if matches!(state, State::Forgotten) => {
                State::Ended { until: *until }
            }
            _ => state,
        };
        shard.make_room(self.per_shard, now);
        shard.slots.insert(key.clone(), Slot { invalidated, stored_at: now, state });
    }

    fn index(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0) % SHARDS
    }

    fn read(&self, key: &K) -> RwLockReadGuard<'_, Shard<K, V>> {
        self.shards[self.index(key)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &K) -> RwLockWriteGuard<'_, Shard<K, V>> {
        self.shards[self.index(key)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, V> Shard<K, V> {
    /// Makes room when the shard is full: drops expired tombstones, forgotten keys and values cached more than 30
    /// seconds ago, then, if that is not enough, all values, which can be read again. Tombstones that are still needed
    /// are never dropped; their number is limited by the number of recent endings.
    fn make_room(&mut self, limit: usize, now: Duration) {
        if self.slots.len() < limit {
            return;
        }
        self.generation += 1;
        self.floor = self.generation;
        let half = now.saturating_sub(READ_LIMIT);
        self.slots.retain(|_, slot| match slot.state {
            State::Ended { until } => until > now,
            State::Known(_) => slot.stored_at > half,
            State::Forgotten => false,
        });
        if self.slots.len() >= limit {
            self.slots.retain(|_, slot| matches!(slot.state, State::Ended { .. }));
        }
    }
}

type Slots<K, V> = HashMap<K, (Duration, V), RandomState>;

/// Values whose expiry is known when they are stored.
pub struct Bounded<K, V> {
    shards: Vec<Mutex<Slots<K, V>>>,
    hasher: RandomState,
    per_shard: usize,
}

impl<K: Hash + Eq, V: Clone> Bounded<K, V> {
    /// Creates a cache with room for about `capacity` values.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            per_shard: (capacity / SHARDS).max(16),
        }
    }

    /// Returns the value of `key`, if it is still valid.
    pub fn get(&self, key: &K, now: Duration) -> Option<V> {
        let shard = self.shard(key);
        shard.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value.clone())
    }

    /// Caches `value` until `until`.
    pub fn put(&self, key: K, value: V, until: Duration, now: Duration) {
        let mut shard = self.shard(&key);
        if shard.len() >= self.per_shard {
            shard.retain(|_, (until, _)| *until > now);
            if shard.len() >= self.per_shard {
                shard.clear();
            }
        }
        shard.insert(key, (until, value));
    }

    /// Drops everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Slots<K, V>> {
        let index = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn an_ending_beats_a_value_read_before_it() {
        let cache = TombstoneCache::new(100);
        let ticket = cache.begin(&1, NOW);
        cache.end(&1, Duration::from_secs(60), NOW);
        assert!(!cache.insert_if_unchanged(ticket, 1, Arc::new("alive"), NOW));
        assert!(matches!(cache.get(&1), Cached::Ended));
    }

    #[test]
    fn an_ending_beats_a_value_read_after_it() {
        let cache = TombstoneCache::new(100);
        cache.end(&1, Duration::from_secs(60), NOW);
        let ticket = cache.begin(&1, NOW);
        assert!(!cache.insert_if_unchanged(ticket, 1, Arc::new("alive"), NOW));
    }

    #[test]
    fn a_forgotten_value_comes_back_only_from_a_later_read() {
        let cache = TombstoneCache::new(100);
        let early = cache.begin(&1, NOW);
        cache.forget(&1, NOW);
        assert!(!cache.insert_if_unchanged(early, 1, Arc::new("old"), NOW));
        let late = cache.begin(&1, NOW);
        assert!(cache.insert_if_unchanged(late, 1, Arc::new("new"), NOW));
        assert!(matches!(cache.get(&1), Cached::Known(value) if *value == "new"));
    }

    #[test]
    fn only_what_is_remembered_is_replaced() {
        let cache = TombstoneCache::new(100);
        let old = Arc::new("old");
        cache.insert_if_unchanged(cache.begin(&1, NOW), 1, Arc::clone(&old), NOW);
        assert!(cache.replace(&1, &old, Arc::new("extended")));
        assert!(!cache.replace(&1, &old, Arc::new("late")), "something else is remembered");
        assert!(matches!(cache.get(&1), Cached::Known(value) if *value == "extended"));
        let Cached::Known(extended) = cache.get(&1) else { panic!("remembered") };
        cache.forget(&1, NOW);
        assert!(!cache.replace(&1, &extended, Arc::new("late")), "it was forgotten");
        assert!(matches!(cache.get(&1), Cached::Nothing));
        cache.end(&1, Duration::from_secs(60), NOW);
        assert!(!cache.replace(&1, &extended, Arc::new("late")));
        assert!(matches!(cache.get(&1), Cached::Ended));
    }

    #[test]
    fn forgetting_does_not_undo_an_ending() {
        let cache: TombstoneCache<i32, &str> = TombstoneCache::new(100);
        cache.end(&1, Duration::from_secs(60), NOW);
        cache.forget(&1, NOW);
        cache.forget_all();
        assert!(matches!(cache.get(&1), Cached::Ended));
    }

    #[test]
    fn a_flood_of_keys_neither_grows_for_ever_nor_drops_an_ending() {
        let cache = TombstoneCache::new(640);
        cache.end(&u64::MAX, Duration::from_secs(600), NOW);
        for key in 0..100_000u64 {
            let ticket = cache.begin(&key, NOW);
            cache.insert_if_unchanged(ticket, key, Arc::new(key), NOW);
        }
        let held: usize = cache.shards.iter().map(|s| s.read().unwrap().slots.len()).sum();
        assert!(held <= 640 + SHARDS, "{held}");
        assert!(matches!(cache.get(&u64::MAX), Cached::Ended));
    }

    #[test]
    fn a_clean_up_refuses_reads_that_began_before_it() {
        let cache = TombstoneCache::new(16 * SHARDS);
        let tickets: Vec<_> = (0..10_000u64).map(|key| (key, cache.begin(&key, NOW))).collect();
        for key in 0..10_000u64 {
            cache.forget(&key, NOW);
        }
        let back = tickets
            .into_iter()
            .filter(|(key, ticket)| cache.insert_if_unchanged(*ticket, *key, Arc::new(0), NOW))
            .count();
        assert_eq!(back, 0);
    }

    #[test]
    fn a_bounded_value_ends_at_its_time() {
        let cache = Bounded::new(100);
        cache.put(1, "one", NOW + Duration::from_secs(5), NOW);
        assert_eq!(cache.get(&1, NOW + Duration::from_secs(4)), Some("one"));
        assert_eq!(cache.get(&1, NOW + Duration::from_secs(5)), None);
    }
}
