//! Faults inside: a handler that panics, a pool without a free connection. Each is told once, and the process serves
//! on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use palisade::access::ANYONE;
use palisade::app::{Actor, App};
use palisade::error::Result;
use palisade::http::{NoContent, Routes};
use palisade::module::Module;
use palisade_db::args;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::app::{Call, On, Plan, TestApp};

crate::on_both! {
    a_panic_is_told_and_the_process_serves_on => |on| super::panicking(on);
}

const PANICS: Module = Module {
    name: "test_panics",
    routes: || {
        Routes::at("/panics")
            .get("/", ANYONE, at_once)
            .says("Panics.")
            .post("/", ANYONE, within)
            .says("Panics.")
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
struct Log(Arc<Mutex<Vec<u8>>>);

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
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
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
            // Nothing of it is left, and nobody waits for it.
            let me = ann.get("/api/v1/users/me").await;
            assert_eq!((me.status, &me.body["name"]), (StatusCode::OK, &Value::Null), "{round}");
            assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
        }
    }
    drop(listening);
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
    while let Ok(tx) = app.app.db.begin().await {
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
