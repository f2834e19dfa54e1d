//! Measures processor time per request, compared with a bare route that returns the same bytes on the same core.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::{Connection, Request};
use crate::load::{Pace, READERS, read};
use crate::process::Process;
use crate::scene::Scene;
use crate::{Plan, Result, median, say};

/// The core that both servers run on. The caller of this program must keep the load off it.
pub(crate) const SERVER_CORE: &str = "0";

/// A server and a request that are measured in each round.
struct Subject<'a> {
    name: &'static str,
    process: &'a Process,
    request: Arc<Request>,
}

/// The measurements of one subject in one window.
#[derive(Clone, Copy)]
struct Sample {
    micros_per_request: f64,
    per_second: f64,
    /// The server's utilization of its core: near 1 if the server, not the load, was the limit.
    busy: f64,
    p99_ms: f64,
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    let scene = Scene::start(&plan.server, Some(SERVER_CORE))?;
    scene.register("reader@example.com").await?;
    let jwt = scene.bearer("reader@example.com", "jwt").await?;
    let paseto = scene.bearer("reader@example.com", "paseto").await?;
    let cookie = scene.cookie("reader@example.com").await?;
    let floor = start_floor(&scene, &jwt).await?;
    let server = &scene.process;
    let subjects = [
        Subject { name: "bare axum route", process: &floor, request: Arc::clone(&jwt) },
        Subject { name: "bearer JWT", process: server, request: jwt },
        Subject { name: "bearer PASETO", process: server, request: paseto },
        Subject { name: "cookie", process: server, request: cookie },
    ];
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let mut round = Vec::new();
        for subject in &subjects {
            round.push(sample(subject, plan).await?);
        }
        rounds.push(round);
    }
    report(plan, &subjects, &rounds)
}

/// Starts the floor with the current response of the server.
async fn start_floor(scene: &Scene, request: &Request) -> Result<Process> {
    let answer = record(scene.process.address, request).await?;
    let file = scene.directory.path().join("answer");
    std::fs::write(&file, answer)?;
    let arguments = ["floor".to_owned(), file.display().to_string()];
    let log = scene.directory.path().join("floor-log");
    Process::start(Some(SERVER_CORE), &std::env::current_exe()?, &arguments, &log)
}

async fn record(address: SocketAddr, request: &Request) -> Result<Vec<u8>> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.exchange(request).await?;
    Ok([answer.head.as_bytes(), answer.body].concat())
}

async fn sample(subject: &Subject<'_>, plan: &Plan) -> Result<Sample> {
    let before = subject.process.cpu_seconds()?;
    let outcome = read(subject.process.address, &subject.request, Pace::Full, plan.window).await?;
    let used = subject.process.cpu_seconds()? - before;
    Ok(Sample {
        micros_per_request: used * 1e6 / outcome.requests(),
        per_second: outcome.per_second(),
        busy: used / outcome.elapsed.as_secs_f64(),
        p99_ms: outcome.latency_ms(0.99),
    })
}

fn report(plan: &Plan, subjects: &[Subject<'_>], rounds: &[Vec<Sample>]) -> Result<()> {
    let seconds = plan.window.as_secs();
    say(&format!(
        "`GET /api/v1/users/me`, server on one core, {READERS} connections, medians of {} rounds of \
         {seconds} s each, interleaved:\n",
        rounds.len()
    ))?;
    say(
        "| | CPU µs per request | relative to the bare route (lowest to highest) | requests/s | core busy | p99 |",
    )?;
    say("|---|---|---|---|---|---|")?;
    for (at, subject) in subjects.iter().enumerate() {
        let of = |value: fn(&Sample) -> f64| median(rounds.iter().map(|round| value(&round[at])));
        let ratios = || rounds.iter().map(|r| r[at].micros_per_request / r[0].micros_per_request);
        say(&format!(
            "| {} | {:.2} | {:.2} ({:.2} to {:.2}) | {:.0} | {:.0}% | {:.2} ms |",
            subject.name,
            of(|sample| sample.micros_per_request),
            median(ratios()),
            ratios().fold(f64::INFINITY, f64::min),
            ratios().fold(0.0, f64::max),
            of(|sample| sample.per_second),
            of(|sample| sample.busy * 100.0),
            of(|sample| sample.p99_ms),
        ))?;
    }
    Ok(())
}
