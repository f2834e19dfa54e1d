//! The metrics of the process, with the names that Prometheus client libraries give them.

use std::fs;

use crate::app::App;
use crate::metrics::Metric;

pub(super) static CPU: Metric =
    Metric::counter("process_cpu_seconds", &[], "CPU time that the process has used, in seconds.");
pub(super) static RESIDENT: Metric = Metric::gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory of the process that is in RAM, in bytes.",
);
pub(super) static FILES: Metric =
    Metric::gauge("process_open_fds", &[], "File descriptors that are open.");
pub(super) static FILES_LIMIT: Metric =
    Metric::gauge("process_max_fds", &[], "File descriptors that can be open.");
pub(super) static START: Metric = Metric::gauge(
    "process_start_time_seconds",
    &[],
    "When the process started, in seconds since 1970-01-01 00:00 UTC.",
);
pub(super) static THREADS: Metric =
    Metric::gauge("process_threads", &[], "Threads of the process.");

/// Sets what the system reports. What it doesn't report keeps its last value.
pub(super) fn measure(app: &App) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let values = [
        (&CPU, cpu()),
        (&RESIDENT, number_after(&status, "VmRSS:").map(|kib| kib * 1024.0)),
        (&THREADS, number_after(&status, "Threads:")),
        (&FILES, fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64)),
        (&FILES_LIMIT, files_limit()),
        (&START, started()),
    ];
    for (metric, value) in values {
        if let Some(value) = value {
            app.metrics.set(metric, value, &[]);
        }
    }
}

/// Returns the number at the beginning of what follows `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn cpu() -> Option<f64> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9)
}

fn files_limit() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map(|files| files as f64)
}

/// Returns when the process started: the time at which the system started, and the time from then on (proc_pid_stat(5),
/// `starttime`).
fn started() -> Option<f64> {
    let system = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(system + ticks / rustix::param::clock_ticks_per_second() as f64)
}
