//! Determines whether this process or other programs keep the cores busy.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use super::worker::{CoreTime, now};

/// Below one part in this many of all cores, the other work of the process needs no protection from hashing.
const LITTLE: u32 = 8;
/// How long one measurement lasts at least: shorter ones say little.
const MEASURED_OVER: Duration = Duration::from_millis(100);

/// The threads that hash, by their thread ids.
#[derive(Default)]
pub(super) struct Hashers(Mutex<Vec<i32>>);

impl Hashers {
    /// Adds the calling thread.
    pub(super) fn add_this_thread(&self) {
        #[cfg(target_os = "linux")]
        lock(&self.0).push(rustix::thread::gettid().as_raw_pid());
    }

    /// The core time of all of them so far, including unfinished work. `None` if the system doesn't report it. Always
    /// zero on systems other than Linux, where all work counts as other work.
    pub(super) fn ran(&self) -> Option<Duration> {
        let of = |thread: &i32| CoreTime::of(&thread.to_string()).map(|had| had.ran);
        lock(&self.0).iter().map(of).sum()
    }
}

/// The core time that this process uses for work other than hashing.
pub(super) struct OwnLoad {
    cores: u32,
    /// The core time that the whole process has had so far; `None` if the system doesn't report it.
    used: fn() -> Option<Duration>,
    at: Instant,
    before: Option<Duration>,
    is_little: bool,
}

impl OwnLoad {
    pub(super) fn new(cores: usize, used: fn() -> Option<Duration>) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        Self { cores, used, at: now(), before: used(), is_little: false }
    }

    /// Whether the process has done little besides hashing since the last measurement.
    pub(super) fn is_little(&mut self, hashers: &Hashers) -> bool {
        let lasted = now().saturating_duration_since(self.at);
        if lasted >= MEASURED_OVER {
            // The threads first: what they do meanwhile counts as something else, never the other way round.
            let hashed = hashers.ran();
            let used = (self.used)();
            let beside = used.zip(hashed).map(|(used, hashed)| used.saturating_sub(hashed));
            self.is_little = match (self.before, beside) {
                (Some(before), Some(beside)) => {
                    beside.saturating_sub(before) * LITTLE < lasted * self.cores
                }
                _ => false,
            };
            (self.at, self.before) = (now(), beside);
        }
        self.is_little
    }
}

/// The core time that the whole process has had so far.
#[cfg(unix)]
pub(super) fn of_this_process() -> Option<Duration> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(used.tv_sec).ok()?, u32::try_from(used.tv_nsec).ok()?);
    Some(Duration::new(seconds, nanos))
}

#[cfg(not(unix))]
pub(super) fn of_this_process() -> Option<Duration> {
    None
}
