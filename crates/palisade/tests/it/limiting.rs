//! The rate limit of an account's own requests.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::testing::{Answer, Call, On, Plan, TestApp};
use serde_json::json;

palisade::on_both! {
    the_requests_of_an_account_are_counted_together => |on| super::counted(on);
    an_account_that_sends_too_much_can_still_end_its_sessions => |on| super::braking(on);
}

const ME: &str = "/api/v1/users/me";
const SESSIONS: &str = "/api/v1/users/me/sessions";

#[tokio::test]
async fn an_account_sends_three_thousand_requests_a_minute() {
    let app = TestApp::on(On::Sqlite).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let answer = root.get("/api/v1/limits").await;
    assert!(!answer.headers.contains_key("ratelimit"), "nothing to tell yet");
    let listed = answer.body["items"].as_array().unwrap();
    let rule = listed.iter().find(|rule| rule["name"] == "account").unwrap();
    assert_eq!((&rule["burst"], &rule["per"]), (&json!(3000), &json!(60)));
    assert_eq!((&rule["key"], &rule["enabled"]), (&json!("account"), &json!(true)));
    app.stop().await;
}

async fn small(on: On) -> TestApp {
    let settings = vec![("limits.rules.account.burst", "12")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    for email in ["ann@example.com", "bob@example.com"] {
        app.user(email).await;
    }
    app
}

fn left(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let said = answer.headers["ratelimit"].to_str().unwrap();
    said.split(";t=").next().unwrap().to_owned()
}

async fn counted(on: On) {
    let app = small(on).await;
    let (ann, browser) = (app.token("ann@example.com").await, app.browser("ann@example.com").await);
    let ended = app.token("ann@example.com").await;
    let bob = app.token("bob@example.com").await;
    for _ in 0..3 {
        // The headers appear with less than half of the limit left.
        assert!(!ann.get(ME).await.headers.contains_key("ratelimit"));
        assert!(!browser.get(ME).await.headers.contains_key("ratelimit"));
    }
    assert_eq!(left(&ann.get(ME).await), "\"account\";r=5");
    // Every session of the account, by token and by cookie.
    assert_eq!(left(&browser.get(ME).await), "\"account\";r=4");
    let body = json!({ "name": "CI", "permissions": [] });
    let key = ann.post("/api/v1/users/me/api-keys", body).await.text("api_key");
    // Neither its API keys nor what has ended or is made up.
    assert_eq!(ended.act("/api/v1/auth/logout").await.status, StatusCode::NO_CONTENT);
    for client in [&ended, &app.anyone().with_token("made.up.token")] {
        for _ in 0..4 {
            assert_eq!(client.get(ME).await.status, StatusCode::UNAUTHORIZED);
        }
    }
    let program = app.anyone().with_token(key);
    for _ in 0..4 {
        assert!(left(&program.get(ME).await).starts_with("\"api_key\";"));
    }
    assert_eq!(left(&ann.get(ME).await), "\"account\";r=2");
    assert_eq!(left(&browser.get(ME).await), "\"account\";r=1");
    assert_eq!(left(&ann.get(ME).await), "\"account\";r=0");
    for client in [&ann, &browser] {
        let answer = client.get(ME).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.raw);
        assert_eq!(answer.code(), "request.too_many");
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(answer.headers["ratelimit-policy"], "\"account\";q=12;w=60");
    }
    assert_eq!(bob.get(ME).await.status, StatusCode::OK);
    app.advance(Duration::from_secs(5)).await;
    assert_eq!(left(&browser.get(ME).await), "\"account\";r=0");
    app.stop().await;
}

async fn braking(on: On) {
    let app = small(on).await;
    let (thief, owner) = (app.token("ann@example.com").await, app.token("ann@example.com").await);
    let other = app.anyone().login("ann@example.com").await;
    let mut sent = 0;
    while thief.get(ME).await.status == StatusCode::OK {
        sent += 1;
        assert!(sent < 10_000, "nothing limits the account");
    }
    assert_eq!(owner.get(SESSIONS).await.status, StatusCode::TOO_MANY_REQUESTS);
    let one = format!("{SESSIONS}/{}", other.text("session_id"));
    assert_eq!(owner.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(owner.delete(SESSIONS).await.status, StatusCode::NO_CONTENT);
    assert_eq!(thief.get(ME).await.status, StatusCode::UNAUTHORIZED);
    // A sign-in, a refresh and a link by mail aren't counted either.
    let again = app.anyone().login("ann@example.com").await;
    let body = json!({ "refresh_token": again.text("refresh_token") });
    let refreshed = app.anyone().send(Call::post("/api/v1/auth/refresh", body)).await;
    assert_eq!(refreshed.status, StatusCode::OK);
    let body = json!({ "email": "ann@example.com" });
    let asked = app.anyone().post("/api/v1/auth/password/forgot", body).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    assert_eq!(owner.act("/api/v1/auth/logout").await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}
