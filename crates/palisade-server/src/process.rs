//! Limits of the process: no core dumps, no access to its memory by other processes, and more open
//! files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// Disables core dumps, which would contain the root key and any passwords in memory.
///
/// SECURITY: the limit keeps the kernel from writing a core dump. The process is also not dumpable: the kernel passes
/// no core dump to a program such as systemd-coredump, which ignores the limit, and other processes of the same user
/// can't read its memory (test: no_memory_of_the_process_reaches_a_disk).
pub(crate) fn forbid_core_dumps() -> Result<(), Failure> {
    let failed = |error| Failure::failed("can't disable core dumps").because(error);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(std::io::Error::from)
        .map_err(failed)?;
    undumpable().map_err(failed)
}

#[cfg(target_os = "linux")]
fn undumpable() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(not(target_os = "linux"))]
fn undumpable() -> std::io::Result<()> {
    Ok(())
}

/// Raises the limit on open files, connections included, as far as the system allows, and returns it. systemd and
/// shells start with 1,024 and allow far more.
pub(crate) fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        tracing::info!(from = limit.current, to = limit.maximum, "raised the limit on open files");
        limit.maximum
    } else {
        limit.current
    };
    now.map_or(usize::MAX, |now| usize::try_from(now).unwrap_or(usize::MAX))
}
