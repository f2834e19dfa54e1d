//! Which other sites' scripts may call the API.

use axum::http::{Method, StatusCode};
use palisade::testing::{Answer, Call, On, Plan, TestApp};

const FRIEND: &str = "https://app.example.com";

async fn preflight(app: &TestApp, origin: &str) -> Answer {
    let call = Call::new(Method::OPTIONS, "/api/v1/users/me")
        .header("origin", origin)
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "authorization,content-type");
    app.anyone().send(call).await
}

async fn read(app: &TestApp, origin: &str) -> Answer {
    let call = Call::new(Method::GET, "/api/v1/users/me").header("origin", origin);
    app.anyone().send(call).await
}

#[tokio::test]
async fn without_named_origins_no_site_is_let_in() {
    let app = TestApp::on(On::Sqlite).await;
    for origin in [FRIEND, "null", "http://localhost:8000"] {
        let answer = preflight(&app, origin).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
        let answer = read(&app, origin).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_named_origin_is_let_in_and_its_look_alikes_are_not() {
    let plan = Plan { settings: vec![("cors.origins", FRIEND)], ..Plan::default() };
    let app = TestApp::with(On::Sqlite, plan).await;
    let answer = preflight(&app, FRIEND).await;
    assert!(answer.status.is_success(), "{}", answer.status);
    assert_eq!(answer.headers["access-control-allow-origin"], FRIEND);
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    let answer = read(&app, FRIEND).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers["access-control-allow-origin"], FRIEND);
    assert!(answer.headers["vary"].to_str().unwrap().contains("origin"));
    for stranger in [
        "null",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://APP.example.com.",
        "*",
    ] {
        for answer in [preflight(&app, stranger).await, read(&app, stranger).await] {
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{stranger}");
        }
    }
    app.stop().await;
}
