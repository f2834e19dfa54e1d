//! Signing out with a refresh token, by a client whose access token may have expired.

use axum::http::{Method, StatusCode};
use palisade::testing::{Answer, Call, On, TestApp, place, unlimited};
use serde_json::{Value, json};

palisade::on_both! {
    a_sign_out_with_a_refresh_token_ends_its_session_alone => |on| super::alone(on);
    any_refresh_token_of_a_session_signs_out => |on| super::any(on);
    a_sign_out_beside_a_refresh_ends_the_session => |on| super::beside(on);
}

const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/users/me";

fn out(token: &str) -> Call {
    Call::post(LOGOUT, json!({ "refresh_token": token }))
}

async fn refresh(app: &TestApp, token: &str) -> Answer {
    app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await
}

async fn is_in(app: &TestApp, held: &Answer) -> bool {
    app.anyone().with_token(held.text("access_token")).get(ME).await.status == StatusCode::OK
}

async fn alone(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app.user("bob@example.com").await;
    let bob = app.anyone().login("bob@example.com").await;
    let browser = app.browser("bob@example.com").await;
    // Whatever else the request holds.
    for with in ["nothing", "bad", "basic", "bob", "cookie", "both"] {
        let ann = app.anyone().login("ann@example.com").await;
        let token = ann.text("refresh_token");
        let call = match with {
            "bad" => out(&token).header("authorization", "Bearer a.b.c"),
            "basic" => out(&token).header("authorization", "Basic YTpi"),
            "bob" => {
                let value = format!("Bearer {}", bob.text("access_token"));
                out(&token).header("authorization", &value)
            }
            "both" => out(&token).header("authorization", "Bearer a.b.c"),
            _ => out(&token),
        };
        let answer = match with {
            "cookie" | "both" => browser.send(call).await,
            _ => app.anyone().send(call).await,
        };
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{with}: {}", answer.raw);
        // Nothing of the browser's own session is cleared.
        for header in ["set-cookie", "clear-site-data"] {
            assert!(!answer.headers.contains_key(header), "{with}: {header}");
        }
        assert!(!is_in(&app, &ann).await, "{with}");
        assert_eq!(refresh(&app, &token).await.code(), "sessions.ended", "{with}");
        assert_eq!(browser.get(ME).await.status, StatusCode::OK, "{with}");
        assert!(is_in(&app, &bob).await, "{with}");
    }
    let events = app.events().await;
    assert_eq!(events.iter().filter(|event| *event == "sessions.ended").count(), 6);
    let activity = app.token("ann@example.com").await.get("/api/v1/users/me/activity").await;
    assert!(activity.raw.contains("signed_out"), "{}", activity.raw);
    app.stop().await;
}

async fn any(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    // A used one too: its holder wants out.
    let first = app.anyone().login("ann@example.com").await;
    let second = refresh(&app, &first.text("refresh_token")).await;
    let third = refresh(&app, &second.text("refresh_token")).await;
    let answer = app.anyone().send(out(&first.text("refresh_token"))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!is_in(&app, &third).await);
    assert_eq!(refresh(&app, &third.text("refresh_token")).await.code(), "sessions.ended");
    // One that is unknown, or whose session has ended, is out already.
    let unknown = format!("pal_rt_{}", "A".repeat(43));
    for token in [&first.text("refresh_token"), &unknown, "pal_rt_", "what?"] {
        let answer = app.anyone().send(out(token)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{token}: {}", answer.raw);
    }
    // Another credential isn't taken for one: success would be a lie.
    let held = app.anyone().login("ann@example.com").await;
    let client = app.anyone().with_token(held.text("access_token"));
    let key = json!({ "name": "CI", "permissions": [] });
    let key = client.post("/api/v1/users/me/api-keys", key).await.text("api_key");
    for token in [&held.text("access_token"), &key] {
        let answer = app.anyone().send(out(token)).await;
        assert_eq!(place(&answer), (422, "/refresh_token", "sessions.not_refresh_token"));
    }
    let answer = app.anyone().post(LOGOUT, json!({ "refresh_token": 1 })).await;
    assert_eq!(place(&answer), (422, "/refresh_token", "request.wrong_type"));
    let answer = app.anyone().post(LOGOUT, json!({ "refresh_token": "x", "more": 1 })).await;
    assert_eq!(place(&answer), (422, "/more", "request.unknown"));
    // Without one, the caller's own session is meant, and there must be one.
    for body in [json!({}), json!({ "refresh_token": null })] {
        assert_eq!(app.anyone().post(LOGOUT, body).await.code(), "access.not_signed_in");
    }
    for body in ["{\"refresh_token\":\"a\",\"refresh_token\":\"b\"}", "{", "[]"] {
        let call = Call::post(LOGOUT, Value::Null).body(body);
        assert_eq!(app.anyone().send(call).await.code(), "access.not_signed_in", "{body}");
    }
    let plain = Call::new(Method::POST, LOGOUT).header("content-type", "text/plain");
    let plain = plain.body(json!({ "refresh_token": held.text("refresh_token") }).to_string());
    assert_eq!(app.anyone().send(plain).await.status, StatusCode::UNAUTHORIZED);
    assert!(is_in(&app, &held).await);
    let answer = client.post(LOGOUT, json!({ "refresh_token": null })).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!is_in(&app, &held).await);
    app.stop().await;
}

async fn beside(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    for _ in 0..10 {
        let held = app.anyone().login("ann@example.com").await;
        let token = held.text("refresh_token");
        let anyone = app.anyone();
        let (left, again, refreshed) =
            tokio::join!(anyone.send(out(&token)), anyone.send(out(&token)), refresh(&app, &token));
        for answer in [left, again] {
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
        }
        assert!(!is_in(&app, &held).await);
        if refreshed.status == StatusCode::OK {
            assert!(!is_in(&app, &refreshed).await);
            let token = refreshed.text("refresh_token");
            assert_eq!(refresh(&app, &token).await.code(), "sessions.ended");
        }
    }
    app.stop().await;
}
