//! Faults inside: a handler or background work that panics, a pool without a free connection, a writer that is held.
//! Each is told, and the process serves on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use palisade::access::ANYONE;
use palisade::app::{Actor, App, Subscription};
use palisade::error::Result;
use palisade::http::{NoContent, Routes};
use palisade::module::{Job, Module};
use palisade::sessions;
use palisade::testing::{Call, Client, On, Plan, TestApp, patch};
use palisade_db::args;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

palisade::on_both! {
    a_panic_is_told_and_the_process_serves_on => |on| super::panicking(on);
    a_panic_in_background_work_does_not_end_it => |on| super::panicking_behind(on);
}

const PANICS: Module = Module {
    name: "test_panics",
    routes: || {
        Routes::at("/panics")
            .get("/", ANYONE, at_once)
            .summary("Panics.")
            .post("/", ANYONE, within)
            .summary("Panics.")
    },
    ..Module::EMPTY
};

async fn at_once() -> NoContent {
    panic!("what only the operator may read")
}

/// Panics between a write and its commit.
async fn within(State(app): State<App>) -> Result<NoContent> {
    let mut change = app.change(&Actor::system()).await?;
    change.run("update users set name = $1", args!["half done"]).await?;
    panic!("what only the operator may read")
}

/// The log, as a test reads it.
#[derive(Clone, Default)]
pub struct Log(pub Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn panicking(on: On) {
    let settings = vec![("limits.enabled", "false")];
    let plan = Plan { settings, modules: vec![PANICS], ..Plan::default() };
    let app = TestApp::with(on, plan).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let log = Log::default();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let listening = tracing::subscriber::set_default(lines);
    for round in 0..3 {
        for method in [Method::GET, Method::POST] {
            let response = app.anyone().open(Call::new(method.clone(), "/api/v1/panics")).await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{method}");
            assert!(response.headers().contains_key("content-security-policy"));
            let request = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"], "server.internal");
            assert_eq!(body["request_id"], json!(request));
            assert!(!body.to_string().contains("operator"), "{body}");
            let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let told = |line: &&str| line.contains("ERROR") && line.contains(&request);
            let told: Vec<&str> = log.lines().filter(told).collect();
            assert_eq!(told.len(), 1, "{log}");
            assert!(told[0].contains("a handler panicked"), "{told:?}");
            // Nothing of it is left, and no one waits for it.
            let me = ann.get("/api/v1/users/me").await;
            assert_eq!((me.status, &me.body["name"]), (StatusCode::OK, &Value::Null), "{round}");
            assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
        }
    }
    drop(listening);
    app.stop().await;
}

const PANICS_BEHIND: Module = Module {
    name: "test_panics_behind",
    jobs: &[Job {
        name: "test_panics_behind.job",
        every: Duration::from_millis(10),
        run: |app| {
            Box::pin(async {
                assert_ne!(app.state::<Behind>().runs.fetch_add(1, Ordering::SeqCst), 0, "once");
                Ok(())
            })
        },
    }],
    subscriptions: &[Subscription {
        topic: sessions::ENDED_TOPIC,
        apply: |app, _| assert!(!app.state::<Behind>().armed.swap(false, Ordering::SeqCst), "once"),
        forget_all: |_| {},
    }],
    state: |_, state| {
        state.put(Behind::default());
        Ok(())
    },
    ..Module::EMPTY
};

/// What panics the next time.
#[derive(Default)]
struct Behind {
    runs: AtomicU32,
    armed: AtomicBool,
}

async fn panicking_behind(on: On) {
    let plan = Plan { modules: vec![PANICS_BEHIND], ..Plan::default() };
    let app = TestApp::with(on, plan).await;
    let elsewhere = app.second().await;
    app.user("ann@example.com").await;
    let behind = app.app.state::<Behind>();
    let ended = async |clients: &[Client<'_>]| {
        for _ in 0..500 {
            let mut left = 0;
            for client in clients {
                left += u32::from(client.get("/api/v1/users/me").await.status == StatusCode::OK);
            }
            if left == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    };
    // By another process, panicking at the first of three rows; then without a panic; then by this process.
    for (panics, here) in [(true, false), (false, false), (true, true)] {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let client = app.token("ann@example.com").await;
            assert_eq!(client.get("/api/v1/users/me").await.status, StatusCode::OK);
            clients.push(client);
        }
        let last = clients.pop().unwrap();
        behind.armed.store(panics, Ordering::SeqCst);
        let by = Client { app: if here { &app } else { &elsewhere }, ..last };
        let answer = by.delete("/api/v1/users/me/sessions").await;
        assert_eq!(answer.status.is_success(), !here, "{}", answer.raw);
        assert!(ended(&clients).await, "{panics} {here}: what has ended is still served");
        assert!(!behind.armed.load(Ordering::SeqCst), "it panicked");
    }
    for _ in 0..500 {
        if behind.runs.load(Ordering::SeqCst) > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(behind.runs.load(Ordering::SeqCst) > 1, "the job is not run any more");
    elsewhere.stop().await;
    app.stop().await;
}

/// Every connection is taken: who needs one is told to come again, at once, and is served once there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_is_said_at_once_and_is_over_with_the_load() {
    let settings = vec![("limits.enabled", "false")];
    let app = TestApp::with(On::Postgres, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    let mut held = Vec::new();
    while let Ok(tx) = app.app.upkeep("a test").begin().await {
        held.push(tx);
        assert!(held.len() < 100, "a pool without an end");
    }
    assert!(held.len() > 1);
    let anyone = app.anyone();
    let asked = join_all((0..20).map(|_| anyone.login("ann@example.com")));
    // A second is promised; a busy machine gets some more.
    let answers =
        tokio::time::timeout(Duration::from_secs(5), asked).await.expect("an answer soon");
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.raw);
        assert_eq!(answer.code(), "server.database_unavailable");
        assert!(answer.headers.contains_key(RETRY_AFTER));
    }
    // What needs no connection is served all the while.
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    held.clear();
    let answers = join_all((0..20).map(|_| anyone.login("ann@example.com"))).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    }
    app.stop().await;
}

/// Another change has SQLite's only writer: who needs it is told so in time, and is served once it is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_held_is_said_in_time_and_is_over_with_the_holder() {
    let settings = vec![("limits.enabled", "false")];
    // A change may be open for twice as long: on a busy machine too the last request has waited before it ends.
    let statement_timeout = Some(Duration::from_secs(3));
    let plan = Plan { settings, statement_timeout, ..Plan::default() };
    let app = TestApp::with(On::Sqlite, plan).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let held = app.app.upkeep("a test").begin().await.unwrap();
    let refused = async {
        // No sign-ins: on a busy machine the last of their hashes takes longer than the change may be open.
        let name = |n: i32| patch(&ann, "/api/v1/users/me", json!({ "name": format!("Ann {n}") }));
        let asked = join_all((0..20).map(name));
        tokio::time::timeout(Duration::from_secs(15), asked).await.expect("an answer in time")
    };
    // What only reads is served all the while.
    let read = async {
        for path in ["/api/v1/users/me", "/api/v1/users/me/sessions"] {
            assert_eq!(ann.get(path).await.status, StatusCode::OK, "{path}");
        }
    };
    let (answers, ()) = tokio::join!(refused, read);
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.raw);
        assert_eq!(answer.code(), "server.database_unavailable");
        assert!(answer.headers.contains_key(RETRY_AFTER));
    }
    drop(held);
    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    app.stop().await;
}
