//! Locks that a transaction takes when it begins.

/// A lock that a transaction holds until it ends (on PostgreSQL, a transaction-level advisory lock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The number that identifies what is locked.
    pub key: i64,
    /// Whether the lock is exclusive. Otherwise, any number of transactions may share it.
    pub alone: bool,
}

/// Returns each key once, lowest first. A key that is requested both shared and exclusive is held exclusively.
pub(crate) fn in_order(mut locks: Vec<Lock>) -> Vec<Lock> {
    locks.sort_unstable_by_key(|lock| (lock.key, !lock.alone));
    locks.dedup_by_key(|lock| lock.key);
    locks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_taken_once_in_its_strongest_form_and_in_order() {
        let lock = |key, alone| Lock { key, alone };
        let given = vec![lock(7, false), lock(-2, false), lock(7, true), lock(7, false)];
        assert_eq!(in_order(given), [lock(-2, false), lock(7, true)]);
    }
}
