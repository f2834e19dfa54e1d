//! The rules that decide whether another guess is checked and how long guesses are refused. They use no clock and no
//! database.

use std::time::Duration;

use palisade_db::Timestamp;

/// The number of consecutive failures after which waiting no longer helps (NIST SP 800-63B-4, section 3.2.2).
pub(super) const MOST_IN_A_ROW: i64 = 100;
/// The duration of the longest lock that ends on its own.
pub(super) const LONGEST_LOCK: Duration = Duration::from_secs(24 * 3600);
/// The time without a guess after which the next lock is short again.
const CALM_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Longer than any request that checks a guess can last.
const CHECKED_WITHIN: Duration = Duration::from_secs(300);
/// 9999-12-31T23:59:59Z: the end of a lock that doesn't end on its own.
pub const FOR_GOOD: Timestamp = Timestamp::from_seconds(253_402_300_799);

/// The policy that the settings define.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// The number of wrong guesses within the window that locks the account.
    pub(super) threshold: i64,
    pub(super) window: Duration,
    /// The duration of the first lock. Each further lock is twice as long as the one before it, up to [`LONGEST_LOCK`].
    pub(super) duration: Duration,
}

/// The guesses at one account by one known device, or by all clients of another kind: unknown, former or signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) window_began_at: Timestamp,
    /// The number of guesses in the window that were wrong or have not been checked yet.
    pub(super) in_window: i64,
    /// The number of such guesses since the last correct one.
    pub(super) in_a_row: i64,
    /// The number of consecutive locks.
    pub(super) locks: i64,
    pub(super) locked_until: Option<Timestamp>,
    /// When the last guess was counted.
    pub(super) last_at: Timestamp,
}

impl Count {
    /// Counts a guess that is about to be checked. Returns `None` if it may not be checked.
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

    /// Returns the count after a counted guess turned out to be wrong.
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

    /// Takes back a guess that was never checked.
    pub(super) fn unjudged(mut self) -> Self {
        self.in_window = (self.in_window - 1).max(0);
        self.in_a_row = (self.in_a_row - 1).max(0);
        self
    }

    /// Returns whether the count has a lock that was set while the clock was wrong and is therefore ignored.
    pub(super) fn is_outdated(&self, now: Timestamp) -> bool {
        self.locked_until.is_some_and(|until| until > now) && self.locked_until(now).is_none()
    }

    /// Returns whether the guess that reached the threshold was lost: there is no lock, and the guess was counted so
    /// long ago that no request can still settle it. Call this only after [`Self::guess`] has returned `None`.
    pub(super) fn is_lost(&self, now: Timestamp) -> bool {
        self.locked_until(now).is_none() && now >= self.last_at.plus(CHECKED_WITHIN)
    }

    /// Returns the end of the active lock, if there is one.
    pub(super) fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        locked_until(self.locked_until, now)
    }
}

/// Returns the end of the active lock, if there is one.
///
/// A lock that ends later than any temporary lock can end, and isn't [`FOR_GOOD`], was set while the clock was wrong.
/// It is ignored.
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
        // Such a lock is outdated until the clock reaches the last day before its end, and is none after its end.
        let until = count.locked_until.unwrap();
        assert!(count.is_outdated(at(0)));
        assert!(!count.is_outdated(ahead) && !count.is_outdated(until));
        assert!(!count.is_outdated(until.plus(Duration::from_secs(1))));
        assert!(!new(at(0)).is_outdated(at(0)));
        assert!(!Count { locked_until: Some(FOR_GOOD), ..count }.is_outdated(at(0)));
    }

    #[test]
    fn no_lock_but_the_last_is_longer_than_a_day() {
        let day = Duration::from_secs(86_400);
        let count = Count { in_window: 5, in_a_row: 5, locks: 12, ..new(at(0)) };
        assert_eq!(count.wrong(POLICY, at(0)).locked_until, Some(at(0).plus(day)));
    }

    #[test]
    fn locks_are_short_again_after_a_day_without_a_guess() {
        let count = Count { locks: 3, ..new(at(0)) };
        assert_eq!(count.guess(POLICY, at(86_399)).unwrap().locks, 3);
        assert_eq!(count.guess(POLICY, at(86_400)).unwrap().locks, 0);
    }

    #[test]
    fn a_guess_that_was_never_judged_is_one_less() {
        let count = Count { in_window: 4, in_a_row: 7, ..new(at(0)) }.unjudged();
        assert_eq!((count.in_window, count.in_a_row), (3, 6));
        let count = new(at(0)).unjudged();
        assert_eq!((count.in_window, count.in_a_row), (0, 0));
    }

    #[test]
    fn a_guess_is_lost_after_five_minutes_without_a_lock() {
        let count = Count { in_window: 5, in_a_row: 5, ..new(at(0)) };
        assert!(!count.is_lost(at(299)) && count.is_lost(at(300)));
        assert!(!count.wrong(POLICY, at(0)).is_lost(at(300)));
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
