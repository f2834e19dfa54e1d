//! The whole path of a person: register, sign in, be recognised, refresh, sign out.

use axum::http::{Method, StatusCode};
use palisade::testing::{Call, On, PASSWORD, TestApp};
use serde_json::json;

palisade::on_both! {
    a_person_registers_signs_in_and_signs_out => |on| super::whole_path(on);
    refreshing_replaces_the_token => |on| super::refreshing(on);
    a_browser_lives_on_a_cookie => |on| super::cookie(on);
}

async fn whole_path(on: On) {
    let app = TestApp::on(on).await;
    let anyone = app.anyone();
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "name": "Ann" });
    let answer = anyone.post("/api/v1/auth/register", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.raw);
    assert_eq!(answer.body, json!({ "status": "accepted" }));

    let answer = anyone.login("Ann@Example.com").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    assert_eq!(answer.text("token_type"), "Bearer");
    let ann = app.anyone().with_token(answer.text("access_token"));
    let me = ann.get("/api/v1/users/me").await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.raw);
    assert_eq!(me.text("email"), "ann@example.com");
    assert_eq!(me.text("name"), "Ann");

    let call = Call::new(Method::PATCH, "/api/v1/users/me").json(json!({ "name": null }));
    let me = ann.send(call).await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.raw);
    assert!(me.body["name"].is_null());

    assert_eq!(ann.act("/api/v1/auth/logout").await.status, StatusCode::NO_CONTENT);
    let gone = ann.get("/api/v1/users/me").await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gone.code(), "access.invalid_token");
    let refreshed = anyone
        .post("/api/v1/auth/refresh", json!({ "refresh_token": answer.text("refresh_token") }))
        .await;
    assert_eq!((refreshed.status, refreshed.code()), (StatusCode::UNAUTHORIZED, "sessions.ended"));
    assert_eq!(
        app.events().await,
        ["registration.registered", "login.signed_in", "users.changed", "sessions.ended"]
    );
    app.stop().await;
}

async fn refreshing(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let refresh = |token: String| {
        let app = &app;
        async move { app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await }
    };
    let second = refresh(first.text("refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.raw);
    assert_ne!(second.text("refresh_token"), first.text("refresh_token"));
    assert_eq!(second.text("session_id"), first.text("session_id"));
    let ann = app.anyone().with_token(second.text("access_token"));
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    app.stop().await;
}

async fn cookie(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let ann = app.browser("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    let call = Call::new(Method::POST, "/api/v1/auth/logout");
    let foreign = ann.send(call).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::FORBIDDEN, "access.cross_site"));
    assert_eq!(ann.act("/api/v1/auth/logout").await.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    app.stop().await;
}
