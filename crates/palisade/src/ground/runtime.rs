//! The runtime that a server runs on: one worker per core, and each worker stays on its core.
//!
//! # Promises
//!
//! - Two workers never take turns on one core while another core is idle. Linux counts a core as busy while a hashing
//!   thread runs on it, although that thread yields to every other. Without pinning, no other core would take over a
//!   waiting worker, and requests would wait for milliseconds (`docs/decisions/0013`).
//! - Only workers are kept on a core. The runtime's threads for blocking work may use every core; any other thread that
//!   a worker starts stays on that worker's core until it calls [`leave_core`].
//! - If there are fewer workers than cores, as in a container with a quota, or if `TOKIO_WORKER_THREADS` sets their
//!   number, no worker is kept on a core. The same applies to every operating system other than Linux, and if a filter
//!   of system calls forbids it ([`crate::scheduling`]).

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

use crate::scheduling::{self, Call, cores_of_process};

thread_local! {
    /// Whether this thread is a worker that already has its core.
    static SETTLED: Cell<bool> = const { Cell::new(false) };
}

/// Creates a multi-threaded runtime with all features enabled, as used by `palisade serve`.
///
/// # Errors
/// Returns an error if the operating system refuses to start a thread.
#[expect(
    clippy::disallowed_methods,
    reason = "tokio reads this variable, and it isn't one of Palisade's settings"
)]
pub fn new() -> io::Result<Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let chosen = std::env::var_os("TOKIO_WORKER_THREADS").is_some();
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    let pinned = !chosen && !Call::Affinity.is_left_out();
    if pinned && cores_of_process().len() == workers {
        let settled = AtomicUsize::new(0);
        // Only workers park. Each parks whenever it has nothing to do, for the first time soon after it starts. When a
        // thread of tokio's starts, it isn't known yet whether it becomes a worker.
        builder.on_thread_start(leave_core).on_thread_park(move || {
            if !SETTLED.replace(true) {
                stay_on_core(settled.fetch_add(1, Ordering::Relaxed));
            }
        });
    }
    builder.build()
}

/// Lets this thread use all cores of the process again. A new thread inherits the cores of the thread that starts it.
pub fn leave_core() {
    scheduling::stay_on(&cores_of_process());
}

/// Pins this thread to the core with this number among the cores of the process.
fn stay_on_core(number: usize) {
    if let Some(core) = cores_of_process().get(number) {
        scheduling::stay_on(&[*core]);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc;
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    /// Returns the cores that the calling thread may use.
    fn mine() -> Vec<usize> {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    }

    /// Returns the cores of each worker that ran at least one of a few tasks.
    fn of_workers(runtime: &Runtime) -> Vec<Vec<usize>> {
        let (say, said) = mpsc::channel();
        for _ in 0..4 * runtime.metrics().num_workers() {
            let say = say.clone();
            runtime.spawn(async move {
                std::thread::sleep(Duration::from_millis(1));
                say.send((std::thread::current().id(), mine())).unwrap();
            });
        }
        drop(say);
        let by_thread: HashMap<ThreadId, Vec<usize>> = said.into_iter().collect();
        let mut seen: Vec<_> = by_thread.into_values().collect();
        seen.sort();
        seen
    }

    #[test]
    fn each_worker_stays_on_a_core_of_its_own() {
        let runtime = new().unwrap();
        let all = cores_of_process();
        assert_eq!(mine(), all, "the thread that created the runtime may use every core");
        let workers = runtime.metrics().num_workers();
        let own: Vec<Vec<usize>> = if workers == all.len() {
            all.into_iter().map(|core| vec![core]).collect()
        } else {
            vec![all; workers]
        };
        // A worker may receive work before it parks for the first time.
        let settles = (0..1000).any(|_| of_workers(&runtime) == own);
        assert!(settles, "{:?} instead of {own:?}", of_workers(&runtime));
    }

    #[test]
    fn what_workers_start_may_use_every_core() {
        let runtime = new().unwrap();
        let all = cores_of_process();
        for _ in 0..20 {
            let blocking = runtime.block_on(async {
                let asked = async { tokio::task::spawn_blocking(mine).await.unwrap() };
                tokio::spawn(asked).await.unwrap()
            });
            assert_eq!(blocking, all);
        }
        let left = runtime.block_on(async {
            let thread = || std::thread::spawn(|| (leave_core(), mine()).1).join().unwrap();
            tokio::spawn(async move { thread() }).await.unwrap()
        });
        assert_eq!(left, all);
    }
}
