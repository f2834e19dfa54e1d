//! The queue in which changes of this process wait for each other's locks, before they take a connection.
//!
//! SECURITY: a change that waits for a lock in the database keeps a connection while it waits. A client that sends many
//! changes to one account could use up the connections of everyone else (test:
//! changes_that_wait_for_a_lock_take_no_connection).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use crate::{DbError, Lock};

/// The locks that changes of this process hold or wait for, by their keys.
#[derive(Default)]
pub(super) struct LockQueue(Mutex<HashMap<i64, Arc<RwLock<()>>>>);

/// The locks that a change holds in this process, until this value is dropped.
pub(super) struct Held {
    /// The locks in the order of their keys; the last one may still be waited for.
    guards: Vec<(i64, Option<Guard>)>,
    queue: Arc<LockQueue>,
}

enum Guard {
    Alone { _held: OwnedRwLockWriteGuard<()> },
    Shared { _held: OwnedRwLockReadGuard<()> },
}

impl LockQueue {
    /// Waits for all of `locks` in order, first come, first served.
    pub(super) async fn take(
        self: Arc<Self>,
        locks: &[Lock],
        at_most: Duration,
    ) -> Result<Held, DbError> {
        let mut held = Held { guards: Vec::with_capacity(locks.len()), queue: self };
        let all = async {
            for lock in locks {
                let place = Arc::clone(held.queue.places().entry(lock.key).or_default());
                held.guards.push((lock.key, None));
                let guard = if lock.alone {
                    Guard::Alone { _held: place.write_owned().await }
                } else {
                    Guard::Shared { _held: place.read_owned().await }
                };
                if let Some((_, held)) = held.guards.last_mut() {
                    *held = Some(guard);
                }
            }
        };
        let in_time = timeout(at_most, all).await;
        in_time.map_err(|_| {
            DbError::unavailable("the change waited too long for a lock that another change holds")
        })?;
        Ok(held)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<i64, Arc<RwLock<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places().len()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (key, guard) in self.guards.drain(..) {
            drop(guard);
            let mut places = self.queue.places();
            // A waiting change has its own handle, taken under this lock.
            if places.get(&key).is_some_and(|place| Arc::strong_count(place) == 1) {
                places.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    fn lock(key: i64, alone: bool) -> Lock {
        Lock { key, alone }
    }

    #[tokio::test]
    async fn who_shares_a_lock_waits_for_who_holds_it_alone_and_for_nobody_else() {
        let queue = Arc::new(LockQueue::default());
        let take = async |lock: Lock, at_most| Arc::clone(&queue).take(&[lock], at_most).await;
        let shared = take(lock(1, false), LONG).await.unwrap();
        drop(take(lock(1, false), LONG).await.unwrap());
        assert!(take(lock(1, true), SOON).await.is_err());
        drop(take(lock(2, true), LONG).await.unwrap());
        drop(shared);
        let alone = take(lock(1, true), LONG).await.unwrap();
        assert!(take(lock(1, false), SOON).await.is_err());
        drop(alone);
        drop(take(lock(1, false), LONG).await.unwrap());
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn places_that_nobody_needs_are_forgotten() {
        let queue = Arc::new(LockQueue::default());
        for key in 0..100 {
            let locks = [lock(key, false), lock(key + 1, true)];
            drop(Arc::clone(&queue).take(&locks, LONG).await.unwrap());
        }
        assert_eq!(queue.len(), 0);
    }
}
