//! Changes per second: new names and refreshes, by one writer and by many, on SQLite and PostgreSQL, both with every
//! commit on disk before it is acknowledged. Also measures how long a start takes, and the size of the program.

use std::path::Path;
use std::time::{Duration, Instant};

use palisade_db::testing::Cluster;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Connection, Request};
use crate::process::Process;
use crate::scene::{Scene, sign_in};
use crate::{Plan, Result, median, now, say};

/// The numbers of concurrent writers.
const WRITERS: [usize; 2] = [1, 64];
/// Settings for durability that the tests' PostgreSQL switches off.
const DURABLE: &str = "fsync = on\nfull_page_writes = on\n";

/// The change that a writer makes repeatedly.
#[derive(Clone, Copy)]
enum Work {
    /// A new name: one row changed, one event written.
    Name,
    /// A refresh: one refresh token used and replaced.
    Refresh,
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    say(&format!(
        "Changes per second, each acknowledged after it is on disk, medians of {} rounds of {} s:\n",
        plan.rounds,
        plan.window.as_secs()
    ))?;
    say(
        "| database | change | 1 writer | 64 writers | ratio | CPU µs per change, 1 writer | 64 writers |\n\
         |---|---|---|---|---|---|---|",
    )?;
    measure(plan, "SQLite", Scene::start(&plan.server, None)?).await?;
    let cluster = Cluster::start_with(DURABLE, &[]);
    let url = format!("database.url={}", cluster.url());
    measure(plan, "PostgreSQL", Scene::start_with(&plan.server, None, &[url])?).await
}

async fn measure(plan: &Plan, database: &str, scene: Scene) -> Result<()> {
    let most = WRITERS.into_iter().max().unwrap_or(1);
    let people: Vec<String> = (0..most).map(|at| format!("w{at}@example.com")).collect();
    for person in &people {
        scene.register(person).await?;
    }
    for (name, work) in [("new name", Work::Name), ("refresh", Work::Refresh)] {
        let (mut rates, mut micros) = (Vec::new(), Vec::new());
        for writers in WRITERS {
            let mut rounds = Vec::new();
            for _ in 0..plan.rounds {
                rounds.push(changes(&scene.process, &people[..writers], work, plan.window).await?);
            }
            rates.push(median(rounds.iter().map(|round| round.per_second)));
            micros.push(median(rounds.iter().map(|round| round.micros_per_change)));
        }
        say(&format!(
            "| {database} | {name} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} |",
            rates[0],
            rates[1],
            rates[1] / rates[0],
            micros[0],
            micros[1]
        ))?;
    }
    Ok(())
}

/// The measurements of one window of changes.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    /// The processor time of the server per change, in µs. A database in a separate process is not included.
    micros_per_change: f64,
}

async fn changes(
    process: &Process,
    people: &[String],
    work: Work,
    window: Duration,
) -> Result<Sample> {
    let mut sessions = Vec::new();
    for person in people {
        let mut connection = Connection::open(process.address).await?;
        let answer = answer(&mut connection, &sign_in(person), 200).await?;
        sessions.push((connection, answer));
    }
    let (began, before) = (now(), process.cpu_seconds()?);
    let mut writers = JoinSet::new();
    for (connection, session) in sessions {
        writers.spawn(write_until(connection, session, work, began + window));
    }
    let mut done = 0;
    while let Some(count) = writers.join_next().await {
        done += count??;
    }
    let used = process.cpu_seconds()? - before;
    Ok(Sample {
        per_second: done as f64 / (now() - began).as_secs_f64(),
        micros_per_change: used * 1e6 / done as f64,
    })
}

async fn write_until(
    mut connection: Connection,
    mut session: Value,
    work: Work,
    until: Instant,
) -> Result<usize> {
    let mut done = 0;
    while now() < until {
        done += 1;
        match work {
            Work::Name => {
                let token = session["access_token"].as_str().ok_or("no access token")?;
                let body = json!({ "name": format!("n{done}") });
                let request = Request::patch("/api/v1/users/me", token, &body);
                answer(&mut connection, &request, 200).await?;
            }
            Work::Refresh => {
                let body = json!({ "refresh_token": session["refresh_token"] });
                let request = Request::post("/api/v1/auth/refresh", &body);
                session = answer(&mut connection, &request, 200).await?;
            }
        }
    }
    Ok(done)
}

async fn answer(connection: &mut Connection, request: &Request, status: u16) -> Result<Value> {
    let answer = connection.exchange(request).await?;
    if answer.status != status {
        let text = String::from_utf8_lossy(answer.body);
        return Err(format!("a change returned {}: {text}", answer.status).into());
    }
    Ok(serde_json::from_slice(answer.body)?)
}

/// Measures how long a start takes, and the size of the program.
pub(crate) fn starts(plan: &Plan) -> Result<()> {
    let first = (0..plan.rounds).map(|_| start(&plan.server, None)).collect::<Result<Vec<_>>>()?;
    let kept = tempfile::TempDir::new()?;
    start(&plan.server, Some(kept.path()))?;
    let again = (0..plan.rounds)
        .map(|_| start(&plan.server, Some(kept.path())))
        .collect::<Result<Vec<_>>>()?;
    let size = std::fs::metadata(&plan.server)?.len() as f64 / f64::from(1 << 20);
    say("| time from start to listening | ms |\n|---|---|")?;
    say(&format!("| first start, with new keys and an empty schema | {:.0} |", median(first)))?;
    say(&format!("| any later start | {:.0} |\n", median(again)))?;
    say(&format!("The program is {size:.1} MiB."))
}

fn start(server: &Path, data: Option<&Path>) -> Result<f64> {
    let at = data.map(|data| format!("data.directory={}", data.join("data").display()));
    let began = now();
    let scene = Scene::start_with(server, None, at.as_slice())?;
    let took = (now() - began).as_secs_f64() * 1000.0;
    drop(scene);
    Ok(took)
}
