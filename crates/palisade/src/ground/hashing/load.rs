//! Determines whether other work of this process, rather than other programs, keeps the cores busy.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use super::worker::{CoreTime, now};

/// Other work of the process that uses less than 1/`LITTLE` of all cores needs no protection from hashing.
const LITTLE: u32 = 8;
/// The minimum length of a measurement. Shorter ones are not meaningful.
const MEASURED_OVER: Duration = Duration::from_millis(100);

/// The thread ids of the hashing threads.
#[derive(Default)]
pub(super) struct Hashers(Mutex<Vec<i32>>);

impl Hashers {
    /// Adds the calling thread.
    pub(super) fn add_this_thread(&self) {
        #[cfg(target_os = "linux")]
        lock(&self.0).push(rustix::thread::gettid().as_raw_pid());
    }

    /// Returns the CPU time of all hashing threads so far, including unfinished work. Returns `None` if the system
    /// doesn't report it, and always zero on systems other than Linux, where all work counts as other work.
    pub(super) fn ran(&self) -> Option<Duration> {
        let of = |thread: &i32| CoreTime::of(&thread.to_string()).map(|had| had.ran);
        lock(&self.0).iter().map(of).sum()
    }
}

/// The CPU time that this process uses for work other than hashing.
pub(super) struct OwnLoad {
    cores: u32,
    /// The CPU time that the whole process has used so far; `None` if the system doesn't report it.
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

    /// Returns whether the process did little besides hashing in the most recently measured period. Returns `false` if
    /// this is not known.
    pub(super) fn is_little(&mut self, hashers: &Hashers) -> bool {
        let lasted = now().saturating_duration_since(self.at);
        if lasted >= MEASURED_OVER {
            // The hashing threads are measured first: what they do between the two measurements counts as other work,
            // and other work never counts as hashing.
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

/// Returns the CPU time that the whole process has used so far.
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
