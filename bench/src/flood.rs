//! Measures reads while 64 people sign in concurrently, the rate of sign-ins, and memory, with the server on all cores.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_crypto::password::{Cost, Memory, hash};
use palisade_crypto::random::OsRandom;
use palisade_crypto::secret::SecretString;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::Connection;
use crate::load::{Outcome, Pace, READERS, read};
use crate::scene::{Scene, sign_in};
use crate::{Plan, Result, median, now, say};

/// The number of sign-ins that a flood keeps in flight.
const SIGN_INS: usize = 64;
/// How long a flood runs before anything is measured.
const SETTLING: Duration = Duration::from_secs(1);
/// How long sign-ins without reads, and bare hashing, are counted each time.
const COUNTING: Duration = Duration::from_secs(5);
const READER: &str = "reader@example.com";
/// The email address of a legitimate user, who signs in from an IP address that the flood doesn't use.
const HONEST: &str = "honest@example.com";
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The rate of the open loop, as a share of what the closed loop reached without the flood.
const OPEN_SHARE: f64 = 0.5;

/// The resident memory at each stage, in MiB.
struct Resident {
    idle: f64,
    flood: f64,
    minute_after: f64,
}

/// Windows without the flood and windows during it, taken one right after the other.
struct Pair {
    quiet: Outcome,
    flooded: Outcome,
    quiet_open: Outcome,
    flooded_open: Outcome,
    /// How long each legitimate sign-in took during the flood, in seconds.
    honest: Vec<f64>,
    /// Successful sign-ins during the reads, per second.
    sign_ins: f64,
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    let cores = format!("0-{}", last_core());
    let scene = Scene::start(&plan.server, Some(&cores))?;
    tokio::time::sleep(SETTLING).await;
    let idle = scene.process.resident_mib()?;
    scene.register(READER).await?;
    let people: Vec<String> = (0..SIGN_INS).map(|at| format!("p{at}@example.com")).collect();
    scene.register(HONEST).await?;
    for person in &people {
        scene.register(person).await?;
    }
    let request = scene.bearer(READER, "jwt").await?;
    let mut alone = Vec::new();
    for _ in 0..plan.rounds {
        let bound = hashes_per_second();
        alone.push(Alone { bound, sign_ins: sign_ins_alone(&scene, &people).await? });
    }
    let mut most = 0.0;
    let mut pairs = Vec::new();
    let mut answers = BTreeMap::new();
    for _ in 0..plan.rounds {
        let (address, window) = (scene.process.address, plan.window);
        let quiet = read(address, &request, Pace::Full, window).await?;
        let open = Pace::PerSecond(quiet.per_second() * OPEN_SHARE);
        let quiet_open = read(address, &request, open, window).await?;
        let flood = Flood::start(address, &people);
        tokio::time::sleep(SETTLING).await;
        let honest = Honest::start(address);
        let before = flood.signed_in();
        let flooded = read(address, &request, Pace::Full, window).await?;
        let sign_ins = (flood.signed_in() - before) as f64 / flooded.elapsed.as_secs_f64();
        let flooded_open = read(address, &request, open, window).await?;
        most = f64::max(most, scene.process.resident_mib()?);
        let honest = honest.end().await?;
        flood.end(&mut answers).await?;
        pairs.push(Pair { quiet, flooded, quiet_open, flooded_open, honest, sign_ins });
    }
    report_reads(&pairs)?;
    report_sign_ins(&alone, &pairs, &answers)?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let resident = Resident { idle, flood: most, minute_after: scene.process.resident_mib()? };
    report_memory(&resident)
}

/// The rates that all cores reach without other load, per second.
struct Alone {
    /// Passwords hashed, without signing in.
    bound: f64,
    sign_ins: f64,
}

/// A legitimate user who signs in repeatedly, with one request at a time.
struct Honest {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<f64>>>,
}

impl Honest {
    fn start(address: SocketAddr) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let request = sign_in(HONEST);
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = now();
                let mut connection = Connection::open_from(ELSEWHERE, address).await?;
                let status = connection.exchange(&request).await?.status;
                if status != 200 {
                    return Err(format!("a legitimate sign-in returned {status}").into());
                }
                took.push((now() - began).as_secs_f64());
            }
            Ok(took)
        });
        Self { stop, task }
    }

    async fn end(self) -> Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Connections that sign in repeatedly.
struct Flood {
    stop: Arc<AtomicBool>,
    signed_in: Arc<AtomicUsize>,
    answers: Arc<Mutex<BTreeMap<u16, usize>>>,
    connections: JoinSet<Result<()>>,
}

impl Flood {
    fn start(address: SocketAddr, people: &[String]) -> Self {
        let mut flood = Self {
            stop: Arc::default(),
            signed_in: Arc::default(),
            answers: Arc::default(),
            connections: JoinSet::new(),
        };
        for person in people {
            let request = sign_in(person);
            let stop = Arc::clone(&flood.stop);
            let (signed_in, answers) = (Arc::clone(&flood.signed_in), Arc::clone(&flood.answers));
            flood.connections.spawn(async move {
                let mut connection = Connection::open(address).await?;
                while !stop.load(Ordering::Relaxed) {
                    let status = connection.exchange(&request).await?.status;
                    signed_in.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                    *answers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(status)
                        .or_default() += 1;
                }
                Ok(())
            });
        }
        flood
    }

    fn signed_in(&self) -> usize {
        self.signed_in.load(Ordering::Relaxed)
    }

    /// Waits for the requests in flight, and adds up the responses by status.
    async fn end(mut self, answers: &mut BTreeMap<u16, usize>) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(connection) = self.connections.join_next().await {
            connection??;
        }
        let mine = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (status, count) in mine.iter() {
            *answers.entry(*status).or_default() += count;
        }
        Ok(())
    }
}

/// Measures sign-ins per second without reads.
async fn sign_ins_alone(scene: &Scene, people: &[String]) -> Result<f64> {
    let flood = Flood::start(scene.process.address, people);
    tokio::time::sleep(SETTLING).await;
    let (before, began) = (flood.signed_in(), now());
    tokio::time::sleep(COUNTING).await;
    let rate = (flood.signed_in() - before) as f64 / (now() - began).as_secs_f64();
    flood.end(&mut BTreeMap::new()).await?;
    Ok(rate)
}

pub(crate) fn last_core() -> usize {
    std::fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|cores| cores.trim().rsplit(['-', ',']).next()?.parse().ok())
        .unwrap_or(0)
}

/// Pins this thread, and the threads that it starts from now on, to these cores, because otherwise the placement of the
/// load would decide what is measured.
///
/// # Errors
/// Returns an error if the operating system refuses.
pub(crate) fn stay_on(cores: &[usize]) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Measures how many passwords all cores can hash per second without other load, which is an upper bound for sign-ins.
fn hashes_per_second() -> f64 {
    let began = now();
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for core in 0..=last_core() {
            let count = &count;
            scope.spawn(move || {
                // If the thread can't be pinned, it hashes less, and the bound is too low.
                let _ = stay_on(&[core]);
                let mut memory = Memory::new();
                let password = SecretString::from("a password".to_owned());
                while now() - began < COUNTING {
                    let hashed = hash(&Cost::STANDARD, &password, &OsRandom, &mut memory);
                    count.fetch_add(usize::from(hashed.is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    count.into_inner() as f64 / (now() - began).as_secs_f64()
}

fn report_reads(pairs: &[Pair]) -> Result<()> {
    say(&format!(
        "Reads with {READERS} connections, without and with {SIGN_INS} concurrent sign-ins, server \
         on all cores, load on the last core, medians of {} pairs:\n",
        pairs.len()
    ))?;
    say("| | requests/s | p50 | p99 |\n|---|---|---|---|")?;
    let row = |name: &str, of: fn(&Pair) -> &Outcome| {
        say(&format!(
            "| {name} | {:.0} | {:.2} ms | {:.2} ms |",
            median(pairs.iter().map(|pair| of(pair).per_second())),
            median(pairs.iter().map(|pair| of(pair).latency_ms(0.5))),
            median(pairs.iter().map(|pair| of(pair).latency_ms(0.99))),
        ))
    };
    row("quiet", |pair| &pair.quiet)?;
    row("during the flood", |pair| &pair.flooded)?;
    row("open loop at half that rate, quiet", |pair| &pair.quiet_open)?;
    row("open loop at the same rate, during the flood", |pair| &pair.flooded_open)?;
    let kept = || pairs.iter().map(|p| 100.0 * p.flooded.per_second() / p.quiet.per_second());
    say(&format!(
        "\nKept during the flood: {:.0}% of the quiet rate (lowest {:.0}%, highest {:.0}%).\n",
        median(kept()),
        kept().fold(f64::INFINITY, f64::min),
        kept().fold(0.0, f64::max)
    ))
}

fn report_sign_ins(alone: &[Alone], pairs: &[Pair], answers: &BTreeMap<u16, usize>) -> Result<()> {
    let bound = median(alone.iter().map(|alone| alone.bound));
    say("| sign-ins | per second | share of the bound |\n|---|---|---|")?;
    say(&format!("| bare hashing on all cores (the bound) | {bound:.1} | |"))?;
    let rate = median(alone.iter().map(|alone| alone.sign_ins));
    let shares = || alone.iter().map(|alone| 100.0 * alone.sign_ins / alone.bound);
    say(&format!(
        "| 64 concurrent, no reads | {rate:.1} | {:.0}% (lowest {:.0}%, highest {:.0}%) |",
        median(shares()),
        shares().fold(f64::INFINITY, f64::min),
        shares().fold(0.0, f64::max)
    ))?;
    let rate = median(pairs.iter().map(|pair| pair.sign_ins));
    let share = 100.0 * rate / bound;
    say(&format!("| 64 concurrent, reads at full rate | {rate:.1} | {share:.0}% |"))?;
    let answers: Vec<String> =
        answers.iter().map(|(status, count)| format!("{count} times {status}")).collect();
    let honest: Vec<f64> = pairs.iter().flat_map(|pair| pair.honest.iter().copied()).collect();
    say(&format!(
        "\nA legitimate sign-in from another IP address during the flood, with reads at full or \
         half rate: median {:.2} s, slowest {:.2} s of {}.",
        median(honest.iter().copied()),
        honest.iter().copied().fold(0.0, f64::max),
        honest.len()
    ))?;
    say(&format!("\nResponses to the sign-ins during the pairs: {}.\n", answers.join(", ")))
}

fn report_memory(resident: &Resident) -> Result<()> {
    say("| resident memory | MiB |\n|---|---|")?;
    say(&format!("| idle after the start | {:.0} |", resident.idle))?;
    say(&format!("| during the flood | {:.0} |", resident.flood))?;
    say(&format!("| a minute after the flood | {:.0} |", resident.minute_after))
}
