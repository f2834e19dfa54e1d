//! Measures the lookups that a sign-in makes before it hashes the password, with few and with very many accounts,
//! compared with a bare index lookup of one row in a table with as many rows. Also measures the queries of
//! administrators. Everything runs in this process, because over the network the hash would hide the lookups.

use std::sync::Arc;
use std::time::Duration;

use palisade::clock::Clock;
use palisade::http::{Cursor, Paging};
use palisade::id::UserId;
use palisade::settings::{Settings, Sources};
use palisade::users::{self, Email};
use palisade::{App, Builder, passwords};
use palisade_crypto::random::OsRandom;
use palisade_crypto::root::RootKey;
use palisade_db::testing::Cluster;
use palisade_db::{Args, Backend, Db, Options, args};
use tempfile::TempDir;

use crate::{Result, median, now, say};

const ACCOUNTS: [i64; 3] = [1_000, 100_000, 1_000_000];
/// The number of consecutive lookups before the other kind takes its turn.
const IN_A_ROW: usize = 200;
const TURNS: usize = 40;
/// The statement timeout for filling a table, which takes longer than any request may.
const FILLING: Duration = Duration::from_secs(600);

pub(crate) async fn run() -> Result<()> {
    say(&format!(
        "Lookups of a sign-in before it hashes the password, one after the other, medians of \
         {TURNS} turns of {IN_A_ROW}:\n"
    ))?;
    let directory = TempDir::new()?;
    let file = directory.path().join("palisade.db");
    measure("SQLite", format!("sqlite:{}", file.display())).await?;
    let cluster = Cluster::start();
    measure("PostgreSQL", cluster.url()).await
}

async fn measure(name: &str, url: String) -> Result<()> {
    let db = Db::open(Options { statement_timeout: FILLING, ..Options::new(url) }).await?;
    let loaded =
        Settings::load(Sources::default()).map_err(|_| "the default settings can't be loaded")?;
    let builder = Builder::new(loaded.settings, Clock::system(), Arc::new(OsRandom));
    db.migrate(&builder.migrations(), Clock::system().now()).await?;
    change(&db, "create table bare (email text not null, found text not null)", Args::default())
        .await?;
    change(&db, "create unique index bare_email on bare (email)", Args::default()).await?;
    let app = builder
        .app(db.clone(), RootKey::generate(&OsRandom))
        .await
        .map_err(|error| format!("the app doesn't start: {error:?}"))?;
    say(
        "| database | accounts | sign-in µs | growth | bare lookup µs | growth | growth relative \
         to the bare lookup |",
    )?;
    say("|---|---|---|---|---|---|---|")?;
    let mut filled = 0;
    let mut first = None;
    let mut asked: Vec<Vec<f64>> = Vec::new();
    for accounts in ACCOUNTS {
        fill(&db, filled + 1, accounts).await?;
        filled = accounts;
        let (sign_in, bare) = look_up(&app, accounts).await?;
        asked.push(pages(&app, accounts).await?);
        let (sign_in_first, bare_first) = *first.get_or_insert((sign_in, bare));
        let (grown, bare_grown) = (sign_in / sign_in_first, bare / bare_first);
        say(&format!(
            "| {name} | {accounts} | {sign_in:.0} | {grown:.2} | {bare:.0} | {bare_grown:.2} | {:.2} |",
            grown / bare_grown
        ))?;
    }
    say(&format!("\n| {name}, µs by number of accounts | 1,000 | 100,000 | 1,000,000 | ratio |"))?;
    say("|---|---|---|---|---|")?;
    for (number, what) in PAGES.iter().enumerate() {
        let at: Vec<f64> = asked.iter().filter_map(|times| times.get(number)).copied().collect();
        let cells: Vec<String> = at.iter().map(|time| format!("{time:.0}")).collect();
        let times = at.last().unwrap_or(&0.0) / at.first().unwrap_or(&1.0);
        say(&format!("| {what} | {} | {times:.1} |", cells.join(" | ")))?;
    }
    say("")
}

/// Adds the accounts numbered `from` to `to`, each with a role and a password.
async fn fill(db: &Db, from: i64, to: i64) -> Result<()> {
    let (bare, people) = match db.backend() {
        Backend::Sqlite => (
            "insert into bare with recursive n(n) as
                 (select $1 union all select n + 1 from n where n < $2)
             select 'person' || n || '@example.com', 'found' from n",
            "insert into users (id, email, email_key, name, name_key, created_at)
             with recursive n(n) as (select $1 union all select n + 1 from n where n < $2)
             select printf('01900000-0000-7000-8000-%012x', n), 'person' || n || '@example.com',
                 'person' || n || '@example.com', 'Name ' || n, 'name ' || n, $3 from n",
        ),
        Backend::Postgres => (
            "insert into bare select 'person' || n || '@example.com', 'found' from generate_series($1, $2) n",
            "insert into users (id, email, email_key, name, name_key, created_at)
             select cast('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') as uuid),
                 'person' || n || '@example.com', 'person' || n || '@example.com', 'Name ' || n,
                 'name ' || n, $3
             from generate_series($1, $2) n",
        ),
    };
    let at = Clock::system().now();
    change(db, bare, args![from, to]).await?;
    change(db, people, args![from, to, at]).await?;
    change(
        db,
        "insert into user_roles (user_id, role) select id, 'user' from users u
         where not exists (select 1 from user_roles where user_id = u.id)",
        Args::default(),
    )
    .await?;
    change(
        db,
        "insert into passwords (user_id, sealed, changed_at) select id, $2, $1 from users u
         where not exists (select 1 from passwords where user_id = u.id)",
        args![at, vec![7_u8; 150]],
    )
    .await?;
    change(db, "analyze", Args::default()).await
}

async fn change(db: &Db, sql: &'static str, args: Args) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.run(sql, args).await?;
    Ok(tx.commit().await?)
}

/// Measures the lookups of a sign-in and a bare lookup, each in µs: medians of alternating turns.
async fn look_up(app: &App, accounts: i64) -> Result<(f64, f64)> {
    let mut numbers = Numbers { state: 1, below: accounts };
    let (mut sign_ins, mut bares) = (Vec::new(), Vec::new());
    // The first two turns only warm the caches.
    for turn in 0..TURNS + 2 {
        let emails: Vec<String> =
            (0..IN_A_ROW).map(|_| format!("person{}@example.com", numbers.next())).collect();
        let began = now();
        for email in &emails {
            sign_in(app, email).await?;
        }
        let between = now();
        for email in &emails {
            let sql = "select found from bare where email = $1";
            let _: (String,) = app.db.one(sql, args![email.as_str()]).await?;
        }
        if turn >= 2 {
            let each = |span: Duration| span.as_secs_f64() * 1e6 / IN_A_ROW as f64;
            sign_ins.push(each(between - began));
            bares.push(each(now() - between));
        }
    }
    Ok((median(sign_ins), median(bares)))
}

/// The queries of administrators, in the order in which `pages` returns their times.
const PAGES: [&str; 7] = [
    "first page of the list",
    "a page in the middle of the list",
    "search by email address, first page",
    "search by email address, a page in the middle",
    "search by name",
    "search that finds nothing",
    "one user",
];

/// Measures each of [`PAGES`] in µs: medians of single calls.
async fn pages(app: &App, accounts: i64) -> Result<Vec<f64>> {
    let middle: UserId = format!("01900000-0000-7000-8000-{:012x}", accounts / 2).parse()?;
    let found = users::find(app, middle).await.map_err(|error| format!("{error:?}"))?;
    let found = found.ok_or("the account in the middle is missing")?;
    let cursor = Cursor(found.created_at, found.id.0).to_string();
    let first = Paging::new(Some("50"), None).map_err(|error| format!("{error:?}"))?;
    let later = Paging::new(Some("50"), Some(&cursor)).map_err(|error| format!("{error:?}"))?;
    let asked = [
        (None, &first),
        (None, &later),
        (Some("person"), &first),
        (Some("person"), &later),
        (Some("name 5"), &first),
        (Some("nobody"), &first),
    ];
    let mut times = vec![Vec::new(); PAGES.len()];
    for turn in 0..TURNS + 2 {
        for (number, (query, paging)) in asked.iter().enumerate() {
            let began = now();
            users::page(app, *query, paging).await.map_err(|error| format!("{error:?}"))?;
            keep(&mut times, turn, number, now() - began);
        }
        let began = now();
        users::find(app, middle).await.map_err(|error| format!("{error:?}"))?;
        keep(&mut times, turn, asked.len(), now() - began);
    }
    Ok(times.into_iter().map(median).collect())
}

/// Records a time, except in the first two turns, which only warm the caches.
fn keep(times: &mut [Vec<f64>], turn: usize, number: usize, took: Duration) {
    if let Some(times) = times.get_mut(number).filter(|_| turn >= 2) {
        times.push(took.as_secs_f64() * 1e6);
    }
}

async fn sign_in(app: &App, email: &str) -> Result<()> {
    let email = Email::parse(email).map_err(|error| format!("{error:?}"))?;
    let found = passwords::of_email(app, &email).await.map_err(|error| format!("{error:?}"))?;
    found.and_then(|found| found.stored).map(drop).ok_or_else(|| "an account is missing".into())
}

/// Pseudorandom numbers from 1 to `below`, the same in every run (a linear congruential generator with Knuth's
/// constants).
struct Numbers {
    state: u64,
    below: i64,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + (self.state >> 33) % self.below.unsigned_abs()
    }
}
