//! Measures a Palisade server over loopback, and its lookups within this process. `bench/run` builds the server and
//! this program and runs the measurements; `docs/benchmarks.md` describes the method and the results.
//!
//! - `palisade-bench requests SERVER ROUNDS SECONDS`: processor time per request against a bare route.
//! - `palisade-bench flood SERVER ROUNDS SECONDS`: reads while 64 people sign in, and memory.
//! - `palisade-bench writes SERVER ROUNDS SECONDS`: changes per second on SQLite and PostgreSQL.
//! - `palisade-bench starts SERVER ROUNDS SECONDS`: how long a start takes, and the program's size.
//! - `palisade-bench accounts`: the lookups of a sign-in and the queries of administrators, with up to a million
//!   accounts.
//! - `palisade-bench floor ANSWER`: the bare route itself.

mod accounts;
mod client;
mod flood;
mod floor;
mod load;
mod process;
mod requests;
mod scene;
mod writes;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The same allocator as in the server, so that the floor is comparable.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The result of a step. Any error ends the measurement.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str =
    "usage: palisade-bench requests|flood|writes|starts SERVER ROUNDS SECONDS, or accounts";

/// The server to measure, the number of rounds, and the length of each window.
struct Plan {
    server: PathBuf,
    rounds: usize,
    window: Duration,
}

impl Plan {
    fn of(server: &str, rounds: &str, seconds: &str) -> Result<Self> {
        let rounds = rounds.parse::<usize>()?.clamp(1, 100);
        let window = Duration::from_secs(seconds.parse::<u64>()?.clamp(1, 60));
        Ok(Self { server: Path::new(server).canonicalize()?, rounds, window })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error can't be written to, there is no other place for the message.
            let _ = writeln!(std::io::stderr(), "palisade-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["floor", answer] => floor::run(Path::new(answer)),
        ["accounts"] => load_runtime()?.block_on(accounts::run()),
        ["requests", server, rounds, seconds] => {
            load_runtime()?.block_on(requests::run(&Plan::of(server, rounds, seconds)?))
        }
        ["flood", server, rounds, seconds] => {
            flood::stay_on(&[flood::last_core()])?;
            load_runtime()?.block_on(flood::run(&Plan::of(server, rounds, seconds)?))
        }
        ["writes", server, rounds, seconds] => {
            load_runtime()?.block_on(writes::run(&Plan::of(server, rounds, seconds)?))
        }
        ["starts", server, rounds, seconds] => writes::starts(&Plan::of(server, rounds, seconds)?),
        _ => Err(USAGE.into()),
    }
}

/// Creates the runtime of the load. It has one thread, which is enough to keep a core of the server busy.
fn load_runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

/// Prints a line of the report.
fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Returns the median, or NaN if there are no values.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
