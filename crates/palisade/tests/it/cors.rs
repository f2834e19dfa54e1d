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

#[tokio::test]
async fn an_application_with_a_scheme_of_its_own_is_let_in() {
    let app_origins = ["capacitor://localhost", "chrome-extension://abcdefghijklmnop"];
    let plan = Plan {
        settings: vec![(
            "cors.origins",
            "capacitor://localhost,chrome-extension://abcdefghijklmnop",
        )],
        ..Plan::default()
    };
    let app = TestApp::with(On::Sqlite, plan).await;
    for origin in app_origins {
        for answer in [preflight(&app, origin).await, read(&app, origin).await] {
            assert_eq!(answer.headers["access-control-allow-origin"], origin);
            assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        }
    }
    for stranger in ["capacitor://localhost:1", "ionic://localhost", "chrome-extension://a", "null"]
    {
        let answer = preflight(&app, stranger).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{stranger}");
    }
    app.stop().await;
}

#[tokio::test]
async fn usual_and_configured_headers_may_be_sent_and_prove_nothing() {
    let settings = vec![("cors.origins", FRIEND), ("cors.headers", "X-Client-Version, x-app")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let answer = preflight(&app, FRIEND).await;
    let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap();
    let usual = "authorization,content-type,traceparent,tracestate,baggage,sentry-trace,\
                 idempotency-key,x-requested-with,x-client-version,x-app";
    assert_eq!(allowed, usual);
    let answer = read(&app, FRIEND).await;
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["retry-after", "ratelimit", "x-request-id", "www-authenticate"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    // With the cookie, neither the origin nor any of these headers stands for this site.
    let browser = app.browser("ann@example.com").await;
    let mut call = Call::new(Method::POST, "/api/v1/auth/logout").header("origin", FRIEND);
    for name in
        ["traceparent", "baggage", "sentry-trace", "idempotency-key", "x-requested-with", "x-app"]
    {
        call = call.header(name, "1");
    }
    assert_eq!(browser.send(call).await.code(), "access.cross_site");
    assert_eq!(browser.get("/api/v1/users/me").await.status, StatusCode::OK);
    app.stop().await;
}
