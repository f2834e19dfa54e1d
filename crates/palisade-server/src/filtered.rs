//! System calls that a filter of the service manager or of a container forbids.
//!
//! `palisade serve` works without the calls of [`palisade::scheduling`]. A filter may kill a process that makes them, and
//! a process can't ask. Where a filter is active, another process of this program tries each call first.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use palisade::scheduling::Call;

use crate::process;

/// The first argument of a process that tries a call. The second is the name of the call.
const TRY: &str = "--try-system-call";
/// This program, even if its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How long a process that tries a call may take. A filter can end one thread of a process and leave the others.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(2);

/// Tries a call if this process was started for this purpose, and returns its exit code.
pub(crate) fn tried() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let (try_it, name, end) = (words.next(), words.next(), words.next());
    if try_it.as_deref() != Some(OsStr::new(TRY)) || end.is_some() {
        return None;
    }
    let name = name?;
    let call = Call::ALL.into_iter().find(|call| name == call.name())?;
    // A core dump of this process would only be noise.
    let tried = process::forbid_core_dumps().is_ok() && call.try_out().is_ok();
    Some(if tried { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Leaves out the calls that a filter forbids. Without a filter, nothing is left out and no process is started. Commands
/// other than `serve` don't need the calls: where a filter is active, they make none of them.
///
/// SECURITY: a filter that kills must not stop the server (test: test_a_filter_of_system_calls_stops_nothing).
pub(crate) fn leave_out_what_is_forbidden(serves: bool) {
    if !is_active() {
        return;
    }
    let tries: Vec<_> =
        Call::ALL.into_iter().map(|call| (call, serves.then(|| start(call)))).collect();
    let mut left = PATIENCE;
    for (call, child) in tries {
        let allowed = child.flatten().is_some_and(|child| succeeds(child, &mut left));
        if !allowed {
            call.leave_out();
        }
    }
}

/// Writes what is left out to the log.
pub(crate) fn report() {
    let left_out: Vec<_> = Call::ALL.into_iter().filter(|call| call.is_left_out()).collect();
    if left_out.is_empty() {
        return;
    }
    let names: Vec<_> = left_out.iter().map(|call| call.name()).collect();
    let consequences: Vec<_> = left_out.iter().map(|call| call.consequence()).collect();
    tracing::info!(
        calls = names.join(", "),
        "a filter forbids some system calls, which the server leaves out: {}. Under load, responses take longer",
        consequences.join("; ")
    );
}

/// Returns whether a filter of system calls is active (proc(5)). What can't be read counts as active.
#[cfg(target_os = "linux")]
fn is_active() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    // A kernel without filters has no such line.
    status.is_empty() || mode.is_some_and(|mode| mode.trim() != "0")
}

#[cfg(not(target_os = "linux"))]
fn is_active() -> bool {
    false
}

/// Starts a process that tries a call. It gets no secret: neither the environment nor an open file.
#[expect(clippy::disallowed_methods, reason = "a process can't survive a forbidden call")]
fn start(call: Call) -> Option<Child> {
    Command::new(THIS_PROGRAM)
        .args([TRY, call.name()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// Waits for a process, up to the time that is left, and returns whether it succeeded.
fn succeeds(mut child: Child, left: &mut Duration) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if !left.is_zero() => {
                sleep(PAUSE);
                *left = left.saturating_sub(PAUSE);
            }
            _ => break,
        }
    }
    // It has ended already if either fails.
    let _ = child.kill();
    let _ = child.wait();
    false
}
