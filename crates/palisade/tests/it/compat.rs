//! The sign-in form that clients of other servers know.

use axum::http::{Method, StatusCode};
use palisade::testing::{Call, On, Plan, TestApp, place, unlimited};
use serde_json::json;

use crate::reauthentication::status;

#[tokio::test]
async fn the_form_of_other_servers_is_taken_only_where_it_is_switched_on() {
    let form = |fields: &'static str| {
        Call::new(Method::POST, "/api/v1/login/access-token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(fields)
    };
    let good =
        "username=ann%40example.com&password=seven+purple+teapots+orbit&grant_type=password&scope=";
    let off = TestApp::with(On::Sqlite, unlimited()).await;
    assert_eq!(off.anyone().send(form(good)).await.status, StatusCode::NOT_FOUND);
    off.stop().await;
    let settings = vec![("compat.login_form", "true"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let answer = app.anyone().send(form(good)).await;
    assert_eq!(answer.text("token_type"), "Bearer");
    assert_eq!(status(&app.anyone().with_token(answer.text("access_token"))).await, 200);
    // The same counts as for every other sign-in.
    let wrong = "username=ann%40example.com&password=not+the+right+one";
    for _ in 0..5 {
        assert_eq!(app.anyone().send(form(wrong)).await.code(), "login.denied");
    }
    assert_eq!(app.anyone().send(form(good)).await.code(), "login.denied");
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    let twice = form("username=a&username=b&password=c");
    assert_eq!(place(&app.anyone().send(twice).await).2, "request.repeated");
    let json = Call::post("/api/v1/login/access-token", json!({}));
    assert_eq!(app.anyone().send(json).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    app.stop().await;
}

fn form(fields: &str) -> Call {
    Call::new(Method::POST, "/api/v1/login/access-token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(fields.to_owned())
}

async fn with_form(on: On, more: &[(&'static str, &'static str)]) -> TestApp {
    let mut settings = vec![("compat.login_form", "true")];
    settings.extend_from_slice(more);
    TestApp::with(on, Plan { settings, ..Plan::default() }).await
}

palisade::on_both! {
    the_form_refreshes_a_session => |on| super::refreshes(on);
}

async fn refreshes(on: On) {
    let app = with_form(on, &[("limits.enabled", "false")]).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let refresh = async |token: &str| {
        let fields = format!(
            "grant_type=refresh_token&refresh_token={token}&client_id=&client_secret=x&scope=a+b"
        );
        app.anyone().send(form(&fields).header("authorization", "Basic YTpi")).await
    };
    let second = refresh(&first.text("refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.raw);
    assert_eq!(second.text("token_type"), "Bearer");
    assert_eq!(second.text("session_id"), first.text("session_id"));
    assert_ne!(second.text("refresh_token"), first.text("refresh_token"));
    let third = refresh(&second.text("refresh_token")).await;
    assert_eq!(status(&app.anyone().with_token(third.text("access_token"))).await, 200);
    // A used one ends the session, as everywhere.
    for token in [&first.text("refresh_token"), &third.text("refresh_token"), "x"] {
        let answer = refresh(token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.raw);
        assert_eq!(
            (answer.code(), &answer.body["error"]),
            ("sessions.ended", &json!("invalid_grant"))
        );
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    // A cookie's secret is no refresh token.
    let browser = app.browser("ann@example.com").await;
    let cookie = browser.cookie.clone().unwrap();
    let answer = refresh(cookie.split_once('=').unwrap().1).await;
    assert_eq!(answer.body["error"], "invalid_grant");
    assert_eq!(status(&browser).await, 200);
    app.stop().await;
}

#[tokio::test]
async fn the_form_has_the_errors_of_oauth() {
    let app = with_form(On::Sqlite, &[("limits.enabled", "false")]).await;
    let password = "username=ann%40example.com&password=not+the+right+one";
    for (fields, status, code, error) in [
        (password, 401, "login.denied", "invalid_grant"),
        (
            "grant_type=client_credentials",
            400,
            "compat.unsupported_grant",
            "unsupported_grant_type",
        ),
        ("grant_type=refresh_token", 400, "request.invalid", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=", 400, "request.invalid", "invalid_request"),
        ("grant_type=password&username=a", 400, "request.invalid", "invalid_request"),
        ("", 400, "request.invalid", "invalid_request"),
    ] {
        let answer = app.anyone().send(form(fields)).await;
        assert_eq!(answer.status.as_u16(), status, "{fields}: {}", answer.raw);
        assert_eq!((answer.code(), &answer.body["error"]), (code, &json!(error)), "{fields}");
        assert_eq!(answer.body["error_description"], answer.body["detail"]);
    }
    let both = app.anyone().send(form("grant_type=password")).await;
    assert_eq!(both.body["errors"].as_array().unwrap().len(), 2, "{}", both.raw);
    app.stop().await;
}

#[tokio::test]
async fn every_form_is_counted_before_it_is_read() {
    let small = [("limits.rules.login_ip.burst", "1"), ("limits.rules.refresh_ip.burst", "4")];
    let app = with_form(On::Sqlite, &small).await;
    let refresh = || form("grant_type=refresh_token&refresh_token=x");
    assert_eq!(app.anyone().send(refresh()).await.code(), "sessions.ended");
    let unknown = form("grant_type=client_credentials");
    assert_eq!(app.anyone().send(unknown).await.code(), "compat.unsupported_grant");
    let wrong = || form("username=ann%40example.com&password=not+the+right+one");
    assert_eq!(app.anyone().send(wrong()).await.code(), "login.denied");
    let answer = app.anyone().send(wrong()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "request.too_many"));
    assert!(answer.headers["ratelimit-policy"].to_str().unwrap().contains("login_ip"));
    let answer = app.anyone().send(refresh()).await;
    assert_eq!(answer.body["error"], "temporarily_unavailable");
    assert!(answer.headers["ratelimit-policy"].to_str().unwrap().contains("refresh_ip"));
    app.stop().await;
}
