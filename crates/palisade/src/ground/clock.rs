//! The source of the current time.
//!
//! All other code receives a [`Clock`], so a test can advance the time instead of waiting. The exceptions are the
//! listener's deadlines and the measurements of the hashing threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use palisade_db::Timestamp;

/// A source of time: the system clock, or a clock that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    ByHand { micros: Arc<AtomicI64>, started: i64, ahead: Arc<AtomicI64> },
}

impl Clock {
    /// Creates a clock that reads the system clock.
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// Creates a clock that moves only with [`Clock::advance`] and [`Clock::set_ahead`], and by one microsecond each
    /// time it is read, so that later events have later times.
    pub fn by_hand(start: Timestamp) -> Self {
        let micros = start.as_micros();
        let (micros, started) = (Arc::new(AtomicI64::new(micros)), micros);
        Self(Source::ByHand { micros, started, ahead: Arc::default() })
    }

    /// Returns the time of day in UTC.
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Source::ByHand { micros, ahead, .. } => {
                let passed = micros.fetch_add(1, Ordering::SeqCst);
                Timestamp::from_micros(passed.saturating_add(ahead.load(Ordering::SeqCst)))
            }
        }
    }

    /// Returns the time since this clock was created. It never goes backward, even if the time of day does.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::ByHand { micros, started, .. } => {
                let passed = micros.fetch_add(1, Ordering::SeqCst).saturating_sub(*started);
                Duration::from_micros(u64::try_from(passed).unwrap_or(0))
            }
        }
    }

    /// Advances a clock created by [`Clock::by_hand`]. Has no effect on the system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::ByHand { micros, .. } = &self.0 {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Moves the time of day of a clock created by [`Clock::by_hand`] forward, as happens when the system clock is set
    /// or the machine is suspended. [`Clock::monotonic`] is not affected.
    pub fn set_ahead(&self, by: Duration) {
        if let Source::ByHand { ahead, .. } = &self.0 {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            ahead.fetch_add(by, Ordering::SeqCst);
        }
    }
}
