//! The system calls with which threads are placed on cores and yield to others.
//!
//! A filter of system calls (seccomp(2)) may forbid them, and may kill a process that makes them. A process can't ask
//! whether a call is allowed. A program that runs under a filter tries each call in another process
//! ([`Call::try_out`]) and leaves out those that fail ([`Call::leave_out`]).
//!
//! # Promises
//!
//! - No other module makes these calls.
//! - A call that is left out is made by no thread of the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The increase in the niceness of a thread that yields, which is the maximum. It matters if `SCHED_IDLE` isn't
/// available.
const NICENESS: i32 = 19;

/// Whether each call is left out, in the order of [`Call::ALL`].
static LEFT_OUT: [AtomicBool; 3] =
    [AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false)];

/// A call that concerns only the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Sets the cores on which the thread runs.
    Affinity,
    /// Schedules the thread as idle. This sets the niceness too.
    Policy,
    /// Increases the niceness of the thread.
    Niceness,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 3] = [Self::Affinity, Self::Policy, Self::Niceness];

    /// Returns the name of the system call.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Affinity => "sched_setaffinity",
            Self::Policy => "sched_setscheduler",
            Self::Niceness => "setpriority",
        }
    }

    /// Returns what is different without the call, as a message for the operator.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Affinity => "workers are not kept on their cores",
            Self::Policy => "password hashing is not scheduled as idle",
            Self::Niceness => "the niceness of password hashing is not increased",
        }
    }

    /// Leaves the call out from now on, in the whole process. Call this before the first thread is started.
    pub fn leave_out(self) {
        LEFT_OUT[self as usize].store(true, Ordering::Relaxed);
    }

    /// Returns whether the call is left out.
    #[must_use]
    pub fn is_left_out(self) -> bool {
        LEFT_OUT[self as usize].load(Ordering::Relaxed)
    }

    /// Makes the call for the calling thread, even if it is left out.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses the call.
    pub fn try_out(self) -> io::Result<()> {
        match self {
            Self::Affinity => cores::set(&cores::of_process()),
            Self::Policy => idle(),
            Self::Niceness => nice(),
        }
    }

    /// Makes the call unless it is left out.
    fn make(self, call: impl FnOnce() -> io::Result<()>) {
        if self.is_left_out() {
            return;
        }
        if let Err(error) = call() {
            tracing::debug!(%error, "{}: {}", self.name(), self.consequence());
        }
    }
}

/// Returns the cores that the process may use: those of its first thread, which is never pinned. Returns none if the
/// system doesn't tell.
pub(super) fn cores_of_process() -> Vec<usize> {
    cores::of_process()
}

/// Pins this thread to these cores.
pub(super) fn stay_on(cores: &[usize]) {
    Call::Affinity.make(|| cores::set(cores));
}

/// Lowers the priority of the calling thread. On Linux, policy and niceness apply to one thread; elsewhere, niceness
/// would slow down the whole process.
///
/// With `SCHED_IDLE` (sched(7)), any other thread that wakes up takes the core immediately. A thread that is only nice
/// keeps it for a few milliseconds, and the threads of a busy server wake up and fall asleep all the time. During a
/// flood of sign-ins, reads kept 66% of their rate with niceness 19 and 88% with this policy (measured before workers
/// stayed on their cores).
pub(super) fn lower_priority() {
    Call::Policy.make(idle);
    Call::Niceness.make(nice);
}

#[cfg(target_os = "linux")]
mod cores {
    use std::io;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn of_process() -> Vec<usize> {
        let first = Some(rustix::process::getpid());
        let Ok(set) = sched_getaffinity(first) else { return Vec::new() };
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    }

    pub(super) fn set(cores: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(target_os = "linux")]
fn idle() -> io::Result<()> {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    match thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle) {
        // It sets the niceness too, which fails in a process that is already nice.
        Err(error) if thread_priority::thread_schedule_policy().ok() != Some(idle) => {
            Err(io::Error::other(error.to_string()))
        }
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn nice() -> io::Result<()> {
    rustix::process::nice(NICENESS)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
mod cores {
    use std::io;

    pub(super) fn of_process() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn set(_: &[usize]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(not(target_os = "linux"))]
fn idle() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn nice() -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("niceness {NICENESS} would slow down the process"),
    ))
}
