//! The rule: when another guess is checked, and for how long guesses are refused. Uses no clock and no database.

use std::time::Duration;

use palisade_db::Timestamp;

/// Failures in a row after which waiting doesn't help any more (NIST SP 800-63B-4, section 3.2.2).
pub(super) const MOST_IN_A_ROW: i64 = 100;
/// The longest lock that ends by itself.
pub(super) const LONGEST_LOCK: Duration = Duration::from_secs(24 * 3600);
/// After so long without a guess the next lock is a short one again.
const CALM_AFTER: Duration = Duration::from_secs(24 * 3600);
/// 9999-12-31T23:59:59Z: until someone with the right to do so unlocks the account, or it gets a new password.
pub const FOR_GOOD: Timestamp = Timestamp::from_seconds(253_402_300_799);

/// What the settings ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Wrong guesses within the window that lock.
    pub(super) threshold: i64,
    pub(super) window: Duration,
    /// The first lock; each further one is twice as long.
    pub(super) duration: Duration,
}

/// What is known of the guesses of one client, or of all unknown ones, at one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) window_began_at: Timestamp,
    /// Guesses in the window that were wrong or aren't judged yet.
    pub(super) in_window: i64,
    /// The same since the last right one.
    pub(super) in_a_row: i64,
    /// Locks one after the other.
    pub(super) locks: i64,
    pub(super) locked_until: Option<Timestamp>,
    /// When the last guess was counted.
    pub(super) last_at: Timestamp,
}

impl Count {
    /// Counts a guess that is about to be judged; none if it may not be.
    pub(super) fn guess(mut self, policy: Policy, now: Timestamp) -> Option<Self> {
        if self.locked_until(now).is_some() {
            return None;
        }
        let began = self.window_began_at;
        if self.locked_until.take().is_some() || now >= began.plus(policy.window) {
            self.in_window = 0;
        }
        if now >= self.last_at.plus(CALM_AFTER) {
            self.locks = 0;
        }
        if self.in_window >= policy.threshold || self.in_a_row >= MOST_IN_A_ROW {
            return None;
        }
        if self.in_window == 0 {
            self.window_began_at = now;
        }
        self.in_window += 1;
        self.in_a_row += 1;
        self.last_at = now;
        Some(self)
    }

    /// What a counted guess that was wrong leads to.
    pub(super) fn wrong(mut self, policy: Policy, now: Timestamp) -> Self {
        if self.in_a_row >= MOST_IN_A_ROW {
            self.locked_until = Some(FOR_GOOD);
        } else if self.in_window >= policy.threshold && self.locked_until.is_none() {
            // The exponent stays small: at 2^30 every duration is past the longest lock.
            let doublings = u32::try_from(self.locks.clamp(0, 30)).unwrap_or(30);
            let lock = policy.duration.saturating_mul(1 << doublings).min(LONGEST_LOCK);
            self.locked_until = Some(now.plus(lock));
            self.locks = self.locks.saturating_add(1);
        }
        self
    }

    /// Takes a guess back that was never judged.
    pub(super) fn unjudged(mut self) -> Self {
        self.in_window = (self.in_window - 1).max(0);
        self.in_a_row = (self.in_a_row - 1).max(0);
        self
    }

    /// Until when guesses are refused, if they are.
    pub(super) fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        locked_until(self.locked_until, now)
    }
}

/// Until when guesses are refused, if they are.
///
/// A lock that seems to last longer than any lock can was set while the clock was wrong, and
/// doesn't count.
pub fn locked_until(until: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    until.filter(|until| *until == FOR_GOOD || (*until > now && until.since(now) <= LONGEST_LOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        threshold: 5,
        window: Duration::from_secs(900),
        duration: Duration::from_secs(900),
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    fn new(now: Timestamp) -> Count {
        Count {
            window_began_at: now,
            in_window: 0,
            in_a_row: 0,
            locks: 0,
            locked_until: None,
            last_at: now,
        }
    }

    fn fail(count: Count, now: Timestamp) -> Option<Count> {
        count.guess(POLICY, now).map(|count| count.wrong(POLICY, now))
    }

    #[test]
    fn five_wrong_ones_lock_and_each_lock_is_twice_as_long() {
        let (mut count, mut now) = (new(at(0)), at(0));
        for lock in [900, 1800, 3600, 7200] {
            for _ in 0..5 {
                assert_eq!(count.locked_until(now), None);
                count = fail(count, now).unwrap();
            }
            assert_eq!(count.locked_until(now), Some(now.plus(Duration::from_secs(lock))));
            assert_eq!(fail(count, now.plus(Duration::from_secs(lock - 1))), None);
            now = now.plus(Duration::from_secs(lock));
        }
    }

    #[test]
    fn a_window_that_is_over_starts_anew() {
        let mut count = new(at(0));
        for _ in 0..4 {
            count = fail(count, at(0)).unwrap();
        }
        count = fail(count, at(900)).unwrap();
        assert_eq!((count.in_window, count.locked_until), (1, None));
    }

    #[test]
    fn guesses_that_are_not_judged_yet_use_up_the_window() {
        let mut count = new(at(0));
        for _ in 0..5 {
            count = count.guess(POLICY, at(0)).unwrap();
        }
        assert_eq!(count.guess(POLICY, at(0)), None);
        assert!(count.unjudged().guess(POLICY, at(0)).is_some());
    }

    #[test]
    fn the_hundredth_in_a_row_locks_for_good() {
        let (mut count, mut now) = (new(at(0)), at(0));
        for _ in 0..99 {
            if let Some(until) = count.locked_until(now) {
                now = until;
            }
            count = fail(count, now).unwrap();
        }
        now = now.plus(LONGEST_LOCK * 2);
        count = fail(count, now).unwrap();
        assert_eq!(count.locked_until(now), Some(FOR_GOOD));
        assert_eq!(fail(count, now.plus(LONGEST_LOCK * 1000)), None);
    }

    #[test]
    fn no_lock_outlives_a_clock_that_was_wrong() {
        let ahead = at(0).plus(LONGEST_LOCK * 3650);
        let mut count = new(ahead);
        for _ in 0..5 {
            count = fail(count, ahead).unwrap();
        }
        assert!(count.locked_until(ahead).is_some());
        assert_eq!(count.locked_until(at(0)), None);
    }

    proptest::proptest! {
        #[test]
        fn no_window_sees_more_than_two_budgets(
            pauses in proptest::collection::vec(0u64..600, 1..200),
        ) {
            let (mut count, mut now, mut judged) = (new(at(0)), at(0), Vec::new());
            for pause in pauses {
                now = now.plus(Duration::from_secs(pause));
                if let Some(next) = fail(count, now) {
                    count = next;
                    judged.push(now);
                }
            }
            // Two budgets can meet at the border of a window, never three.
            for group in judged.windows(10) {
                proptest::prop_assert!(group[9].since(group[0]) >= POLICY.window);
            }
        }
    }
}
