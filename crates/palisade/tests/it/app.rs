//! A whole Palisade for a test: clock and randomness in hand, a real database, clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use palisade::app::{Actor, App};
use palisade::clock::Clock;
use palisade::http::Frame;
use palisade::http::serve::{Carrier, Connection, Stopping};
use palisade::id::UserId;
use palisade::module::Module;
use palisade::registration::{self, Wanted};
use palisade::settings::{LimitDefault, Settings, Sources};
use palisade::users::{ADMIN, Email};
use palisade::{Builder, MODULES, Running};
use palisade_crypto::random::SeededRandom;
use palisade_crypto::root::RootKey;
use palisade_db::testing::{TestDb, options};
use palisade_db::{Db, Options, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::recounting::recount;

pub const PASSWORD: &str = "seven purple teapots orbit";

/// Which database a test runs on.
#[derive(Clone, Copy, Debug)]
pub enum On {
    Sqlite,
    Postgres,
}

/// A running app; its background work stops when it is dropped.
pub struct TestApp {
    pub app: App,
    pub clock: Clock,
    pub builder: Builder,
    pub database: Arc<TestDb>,
    service: Frame,
    running: Option<Running>,
    root: String,
    chosen: Vec<(&'static str, &'static str)>,
    modules: Vec<Module>,
}

/// What a test wants different from the defaults.
#[derive(Default)]
pub struct Plan {
    pub settings: Vec<(&'static str, &'static str)>,
    pub modules: Vec<Module>,
    pub root: Option<String>,
    /// How long a statement may take, and a change may wait for its turn.
    pub statement_timeout: Option<Duration>,
}

impl TestApp {
    pub async fn on(on: On) -> TestApp {
        TestApp::with(on, Plan::default()).await
    }

    pub async fn with(on: On, plan: Plan) -> TestApp {
        let database = match on {
            On::Sqlite => TestDb::sqlite().await,
            On::Postgres => TestDb::postgres().await,
        };
        TestApp::over(Arc::new(database), plan, Clock::by_hand(start())).await
    }

    /// On the database at this address, which is empty.
    pub async fn at(url: &str) -> TestApp {
        let database = TestDb::at(url).await;
        TestApp::over(Arc::new(database), Plan::default(), Clock::by_hand(start())).await
    }

    /// Another process on the same database: a second node, or this one after a restart.
    pub async fn second(&self) -> TestApp {
        self.second_with(self.chosen.clone()).await
    }

    /// The same, with other settings.
    pub async fn second_with(&self, settings: Vec<(&'static str, &'static str)>) -> TestApp {
        let (root, modules) = (Some(self.root.clone()), self.modules.clone());
        let plan = Plan { root, settings, modules, ..Plan::default() };
        TestApp::over(Arc::clone(&self.database), plan, self.clock.clone()).await
    }

    async fn over(database: Arc<TestDb>, plan: Plan, clock: Clock) -> TestApp {
        // The cause of a failure of ours stands in the log alone. Only the first test sets it up.
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR);
        let _ = log.with_test_writer().try_init();
        let seed = database.url().bytes().map(u64::from).fold(7u64, |a, b| a.wrapping_mul(31) ^ b);
        // No two processes draw the same.
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let random = Arc::new(SeededRandom::new(seed.wrapping_add(started << 32)));
        let (chosen, modules) = (plan.settings.clone(), plan.modules.clone());
        let settings = settings(&plan.settings);
        let mut builder = Builder::new(settings, clock.clone(), random.clone());
        for module in plan.modules {
            builder = builder.module(module);
        }
        // Every app has connections of its own, as a process has.
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
        let test = TestApp { app, clock, builder, database, service, running, root, chosen, modules };
        test.catch_up().await;
        test
    }

    /// Waits until the feed has been read at the clock's present time.
    pub async fn catch_up(&self) {
        for _ in 0..400 {
            if self.app.feed.is_current(self.clock.monotonic()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the feed is not read");
    }

    /// Moves the clock and lets the feed catch up with it.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.catch_up().await;
    }

    pub async fn stop(mut self) {
        recount(&self).await;
        self.stop_reading_the_feed().await;
    }

    /// Ends the background work: what other processes do isn't heard of any more.
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
            address: "198.51.100.7:50000".parse().unwrap(),
        }
    }

    /// Makes a user.
    pub async fn user(&self, email: &str) -> UserId {
        self.create(email, None).await
    }

    /// Makes an administrator.
    pub async fn admin(&self, email: &str) -> UserId {
        self.create(email, Some(ADMIN)).await
    }

    async fn create(&self, email: &str, role: Option<&'static str>) -> UserId {
        let wanted =
            Wanted { email: Email::parse(email).unwrap(), password: PASSWORD.into(), name: None };
        let roles = role.into_iter().map(str::to_owned).collect();
        registration::create_user(&self.app, &Actor::operator(), wanted, roles).await.unwrap()
    }

    /// A client of this user, signed in with tokens.
    pub async fn token(&self, email: &str) -> Client<'_> {
        let answer = self.anyone().login(email).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        self.anyone().with_token(answer.text("access_token"))
    }

    /// A client of this user, signed in with a cookie.
    pub async fn browser(&self, email: &str) -> Client<'_> {
        let body = json!({ "email": email, "password": PASSWORD, "transport": "cookie" });
        let answer = self.anyone().send(Call::post("/api/v1/auth/login", body).same_origin()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let mut client = self.anyone();
        client.cookie = Some(answer.cookie());
        client
    }

    /// The names of the events in the audit log since the start, oldest first.
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

pub fn settings(changes: &[(&'static str, &'static str)]) -> Settings {
    let rules: Vec<LimitDefault> = MODULES
        .iter()
        .flat_map(|module| module.limits)
        .map(|rule| LimitDefault { name: rule.name, burst: rule.burst, per: rule.per })
        .collect();
    let mut flags = vec![("passwords.cost".to_owned(), "light".to_owned())];
    flags.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let sources = Sources { flags, limit_rules: &rules, ..Sources::default() };
    Settings::load(sources).unwrap_or_else(|problems| panic!("{problems:?}")).settings
}

/// Somebody who sends requests.
#[derive(Clone)]
pub struct Client<'a> {
    pub app: &'a TestApp,
    pub bearer: Option<String>,
    pub cookie: Option<String>,
    pub address: SocketAddr,
}

impl Client<'_> {
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    pub fn with_cookie(mut self, cookie: impl Into<String>) -> Self {
        self.cookie = Some(cookie.into());
        self
    }

    pub fn from(mut self, address: &str) -> Self {
        self.address = format!("{address}:50000").parse().unwrap();
        self
    }

    pub async fn login(&self, email: &str) -> Answer {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/api/v1/auth/login", body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Call::new(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Call::post(path, body)).await
    }

    pub async fn act(&self, path: &str) -> Answer {
        self.send(Call::new(Method::POST, path).same_origin()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Call::new(Method::DELETE, path).same_origin()).await
    }

    /// Sends a request and answers the answer as it begins: its body may have no end.
    pub async fn open(&self, call: Call) -> Response {
        let mut request = Request::builder().method(call.method).uri(call.path);
        let headers = request.headers_mut().unwrap();
        *headers = call.headers;
        headers.entry("host").or_insert(HeaderValue::from_static("localhost:8000"));
        if let Some(token) = &self.bearer {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        if let Some(cookie) = &self.cookie {
            headers.insert(COOKIE, cookie.parse().unwrap());
        }
        let mut request = request.body(call.body).unwrap();
        let local = "127.0.0.1:8000".parse().unwrap();
        let connection = Connection { peer: self.address, local, tls: false };
        request.extensions_mut().insert(Carrier::new(connection, Stopping::default()));
        self.app.service.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, call: Call) -> Answer {
        let (method, path) = (call.method.clone(), call.path.clone());
        let response = self.open(call).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        crate::described::check(&method, &path, parts.status, &parts.headers, &raw);
        // What is sent by mail is never answered to whoever asks for it.
        let by_mail = ["pal_vf_", "pal_rs_", "pal_in_", "pal_em_", "pal_un_", "pal_fr_"];
        let told = by_mail.iter().any(|prefix| raw.contains(prefix));
        assert!(!told || path == "/mailbox", "{method} {path} answers what is sent by mail");
        Answer { status: parts.status, headers: parts.headers, body, raw }
    }
}

/// A request to be sent.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Call {
    pub fn new(method: Method, path: &str) -> Call {
        Call { method, path: path.to_owned(), headers: HeaderMap::new(), body: Body::empty() }
    }

    pub fn post(path: &str, body: Value) -> Call {
        Call::new(Method::POST, path).json(body)
    }

    pub fn json(mut self, body: Value) -> Call {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Body::from(body.to_string());
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Call {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Call {
        self.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    /// As a browser sends it from a page of our own.
    pub fn same_origin(self) -> Call {
        self.header("sec-fetch-site", "same-origin")
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub raw: String,
}

impl Answer {
    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.raw)).to_owned()
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    /// `name=value` of the session cookie that was set.
    pub fn cookie(&self) -> String {
        let set = self.headers.get(SET_COOKIE).expect("a cookie").to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

/// Runs a test on both databases, each with an app of its own.
#[macro_export]
macro_rules! on_both {
    ($($name:ident => $test:expr;)+) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let test: fn(_) -> _ = $test;
                test($crate::app::On::Sqlite).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let test: fn(_) -> _ = $test;
                test($crate::app::On::Postgres).await;
            }
        }
    )+};
}
