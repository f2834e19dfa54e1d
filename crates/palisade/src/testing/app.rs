//! A complete Palisade app for a test: a controlled clock and controlled randomness, a real database, and clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use palisade_crypto::random::SeededRandom;
use palisade_crypto::root::RootKey;
use palisade_db::testing::{TestDb, options};
use palisade_db::{Db, Options, Timestamp};
use serde_json::json;

use super::description::Description;
use super::recounting::recount;
use super::{Call, Client};
use crate::app::{Actor, App};
use crate::clock::Clock;
use crate::http::Frame;
use crate::id::UserId;
use crate::module::Module;
use crate::registration::{self, Wanted};
use crate::settings::{LimitDefault, Settings, Sources};
use crate::users::{ADMIN, Email};
use crate::{Builder, MODULES, Running};

/// The password of every user that [`TestApp`] creates.
pub const PASSWORD: &str = "seven purple teapots orbit";

/// Which database a test runs on.
#[derive(Clone, Copy, Debug)]
pub enum On {
    /// A SQLite file in a separate directory.
    Sqlite,
    /// A separate database on this process's PostgreSQL server.
    Postgres,
}

/// A running app. Its background work stops when the value is dropped.
pub struct TestApp {
    /// The app.
    pub app: App,
    /// Its clock, which the test controls.
    pub clock: Clock,
    /// The builder that created it.
    pub builder: Builder,
    /// Its database.
    pub database: Arc<TestDb>,
    pub(super) service: Frame,
    pub(super) description: Arc<Description>,
    running: Option<Running>,
    /// Its root key.
    pub root: String,
    chosen: Vec<(&'static str, &'static str)>,
    modules: Vec<Module>,
}

/// The differences from the defaults that a test needs.
#[derive(Default)]
pub struct Plan {
    /// Settings, by their dotted names.
    pub settings: Vec<(&'static str, &'static str)>,
    /// Modules in addition to Palisade's own.
    pub modules: Vec<Module>,
    /// The root key. If `None`, a new one is generated.
    pub root: Option<String>,
    /// How long a statement may take, and how long a change may wait for its turn.
    pub statement_timeout: Option<Duration>,
}

/// Returns a plan with rate limits disabled.
pub fn unlimited() -> Plan {
    Plan { settings: vec![("limits.enabled", "false")], ..Plan::default() }
}

impl TestApp {
    /// Starts an app with the defaults, on a fresh database.
    pub async fn on(on: On) -> Self {
        Self::with(on, Plan::default()).await
    }

    /// Starts an app with this plan, on a fresh database.
    pub async fn with(on: On, plan: Plan) -> Self {
        let database = match on {
            On::Sqlite => TestDb::sqlite().await,
            On::Postgres => TestDb::postgres().await,
        };
        Self::over(Arc::new(database), plan, Clock::by_hand(start())).await
    }

    /// Starts an app on the database at this URL, which must be empty.
    pub async fn at(url: &str) -> Self {
        let database = TestDb::at(url).await;
        Self::over(Arc::new(database), Plan::default(), Clock::by_hand(start())).await
    }

    /// Starts another process on the same database: a second node, or this one after a restart.
    pub async fn second(&self) -> Self {
        self.second_with(self.chosen.clone()).await
    }

    /// Starts another process like [`TestApp::second`], but with other settings.
    pub async fn second_with(&self, settings: Vec<(&'static str, &'static str)>) -> Self {
        self.second_of(settings, self.modules.clone()).await
    }

    /// Starts another process like [`TestApp::second`], but with only Palisade's own modules.
    pub async fn second_without_modules(&self) -> Self {
        self.second_of(self.chosen.clone(), Vec::new()).await
    }

    async fn second_of(
        &self,
        settings: Vec<(&'static str, &'static str)>,
        modules: Vec<Module>,
    ) -> Self {
        let plan = Plan { root: Some(self.root.clone()), settings, modules, ..Plan::default() };
        Self::over(Arc::clone(&self.database), plan, self.clock.clone()).await
    }

    async fn over(database: Arc<TestDb>, plan: Plan, clock: Clock) -> Self {
        // The cause of an internal error appears only in the log, which the first test sets up.
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR);
        let _ = log.with_test_writer().try_init();
        let seed = database.url().bytes().map(u64::from).fold(7u64, |a, b| a.wrapping_mul(31) ^ b);
        // No two processes get the same random numbers.
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let random = Arc::new(SeededRandom::new(seed.wrapping_add(started << 32)));
        let (chosen, modules) = (plan.settings.clone(), plan.modules.clone());
        let settings = settings_of(&plan.modules, &plan.settings);
        let mut builder = Builder::new(settings, clock.clone(), random.clone());
        for module in plan.modules {
            builder = builder.module(module);
        }
        // Every app has its own connections, like a process.
        let usual = options(database.url());
        let statement_timeout = plan.statement_timeout.unwrap_or(usual.statement_timeout);
        let db = Db::open(Options { statement_timeout, ..usual }).await.unwrap();
        db.migrate(&builder.migrations(), clock.now()).await.unwrap();
        let root =
            plan.root.unwrap_or_else(|| RootKey::generate(&*random).to_text().expose().into());
        let app = builder.app(db, RootKey::parse(&root).unwrap()).await.expect("the app starts");
        let running = builder.run(&app).await.unwrap();
        let service = builder.service(&app);
        let running = Some(running);
        let description = Description::of(&builder);
        let test = Self {
            app,
            clock,
            builder,
            database,
            service,
            description,
            running,
            root,
            chosen,
            modules,
        };
        test.catch_up().await;
        test
    }

    /// Waits until the feed is current: last read at most one second ago by the test's clock.
    pub async fn catch_up(&self) {
        for _ in 0..400 {
            if self.app.feed.is_current(self.clock.monotonic()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the feed was not read in time");
    }

    /// Moves the clock and waits until the feed has caught up with it.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.catch_up().await;
    }

    /// Checks the facts stored with each user ([`recount`]), then stops the background work and waits until it has
    /// stopped.
    pub async fn stop(mut self) {
        recount(&self).await;
        self.stop_reading_the_feed().await;
    }

    /// Stops the background work. Changes by other processes are no longer applied.
    pub async fn stop_reading_the_feed(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// A client that isn't signed in.
    pub fn anyone(&self) -> Client<'_> {
        Client {
            app: self,
            bearer: None,
            cookie: None,
            peer: "198.51.100.7:50000".parse().unwrap(),
        }
    }

    /// Creates a user.
    pub async fn user(&self, email: &str) -> UserId {
        self.create(email, None).await
    }

    /// Creates an administrator.
    pub async fn admin(&self, email: &str) -> UserId {
        self.create(email, Some(ADMIN)).await
    }

    async fn create(&self, email: &str, role: Option<&'static str>) -> UserId {
        let wanted =
            Wanted { email: Email::parse(email).unwrap(), password: PASSWORD.into(), name: None };
        let roles = role.into_iter().map(str::to_owned).collect();
        registration::create_user(&self.app, &Actor::operator(), wanted, roles).await.unwrap()
    }

    /// Signs in this user with tokens, and returns the client.
    pub async fn token(&self, email: &str) -> Client<'_> {
        let answer = self.anyone().login(email).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        self.anyone().with_token(answer.text("access_token"))
    }

    /// Signs in this user with a cookie, and returns the client.
    pub async fn browser(&self, email: &str) -> Client<'_> {
        let body = json!({ "email": email, "password": PASSWORD, "transport": "cookie" });
        let answer = self.anyone().send(Call::post("/api/v1/auth/login", body).same_origin()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let mut client = self.anyone();
        client.cookie = Some(answer.cookie());
        client
    }

    /// Returns the names of the events in the audit log except `keys.created`, oldest first.
    pub async fn events(&self) -> Vec<String> {
        let rows: Vec<(String,)> = self
            .app
            .db
            .all(
                "select event from audit_events where event <> $1 order by at, id",
                palisade_db::args!["keys.created"],
            )
            .await
            .unwrap();
        rows.into_iter().map(|row| row.0).collect()
    }
}

fn start() -> Timestamp {
    Timestamp::from_seconds(1_900_000_000)
}

/// Returns the settings that a test runs with: the defaults, a low cost for password hashes, and these changes.
pub fn settings(changes: &[(&'static str, &'static str)]) -> Settings {
    settings_of(&[], changes)
}

fn settings_of(more: &[Module], changes: &[(&'static str, &'static str)]) -> Settings {
    let rules: Vec<LimitDefault> = MODULES
        .iter()
        .chain(more)
        .flat_map(|module| module.limits)
        .map(|rule| LimitDefault { name: rule.name, burst: rule.burst, per: rule.per })
        .collect();
    // The environment takes everything, also passwords. A later change replaces an earlier one.
    let variable = |key: &str| format!("PALISADE_{}", key.to_uppercase().replace('.', "__"));
    let environment: BTreeMap<String, String> = [("passwords.cost", "light")]
        .iter()
        .chain(changes)
        .map(|(key, value)| (variable(key), (*value).to_owned()))
        .collect();
    let environment = environment.into_iter().collect();
    let sources = Sources { environment, limit_rules: &rules, ..Sources::default() };
    Settings::load(sources).unwrap_or_else(|problems| panic!("{problems:?}")).settings
}
