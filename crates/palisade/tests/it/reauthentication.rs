//! Proving one's identity again within a session.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, TestApp, place, unlimited};
use palisade::{deletion, users};
use palisade_db::testing::until_one_waits;
use serde_json::{Value, json};

palisade::on_both! {
    a_new_proof_of_identity_ends_the_credentials_before_it => |on| super::proving(on);
    what_needs_fresh_proof_is_refused_later => |on| super::freshness(on);
    a_deletion_that_was_taken_back_while_it_waited_is_none => |on| super::taking_back(on);
}

pub const NEW: &str = "five green kettles whistle";
pub const MINUTE: Duration = Duration::from_secs(60);

async fn prove(client: &Client<'_>, password: &str) -> Answer {
    let call = Call::post("/api/v1/auth/reauthenticate", json!({ "password": password }));
    client.send(call.same_origin()).await
}

pub async fn status(client: &Client<'_>) -> u16 {
    client.get("/api/v1/users/me").await.status.as_u16()
}

async fn proving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let second = app.second().await;
    let login = app.anyone().login("ann@example.com").await;
    let ann = app.anyone().with_token(login.text("access_token"));
    assert_eq!(place(&prove(&ann, NEW).await), (422, "/password", "passwords.wrong"));
    let elsewhere = second.anyone().with_token(login.text("access_token"));
    assert_eq!((status(&ann).await, status(&elsewhere).await), (200, 200));
    app.advance(MINUTE).await;
    second.catch_up().await;
    let proved = prove(&ann, PASSWORD).await;
    assert_eq!(proved.status, StatusCode::OK, "{}", proved.raw);
    assert_eq!(proved.text("session_id"), login.text("session_id"));
    let fresh = app.anyone().with_token(proved.text("access_token"));
    assert_eq!((status(&ann).await, status(&fresh).await), (401, 200));
    for _ in 0..200 {
        if status(&elsewhere).await == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(&elsewhere).await, 401);
    // Anyone who kept the refresh token doesn't become fresh with it.
    let refresh = |token: String| {
        let app = &app;
        async move { app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await }
    };
    assert_eq!(refresh(login.text("refresh_token")).await.code(), "sessions.ended");
    assert_eq!(status(&fresh).await, 200, "a late refresh is no theft");
    let next = refresh(proved.text("refresh_token")).await;
    assert_eq!(status(&app.anyone().with_token(next.text("access_token"))).await, 200);
    app.advance(MINUTE).await;
    assert_eq!(refresh(login.text("refresh_token")).await.code(), "sessions.ended");
    assert_eq!(status(&fresh).await, 401, "a copy that is used later ends the session");

    let browser = app.browser("ann@example.com").await;
    let proved = prove(&browser, PASSWORD).await;
    assert_eq!(proved.body["access_token"], Value::Null);
    let fresh = app.anyone().with_cookie(proved.cookie());
    assert_eq!((status(&browser).await, status(&fresh).await), (401, 200));
    let events = app.events().await;
    assert_eq!(events.iter().filter(|event| *event == "login.reauthenticated").count(), 2);
    second.stop().await;
    app.stop().await;
}

async fn freshness(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.admin("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    let ann = app.token("ann@example.com").await;
    let browser = app.browser("ann@example.com").await;
    let refresh = app.anyone().login("ann@example.com").await.text("refresh_token");
    app.advance(10 * MINUTE).await;
    let refreshed =
        app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": refresh })).await;
    let refreshed = app.anyone().with_token(refreshed.text("access_token"));
    let routes = app.builder.routes();
    let fresh: Vec<_> = routes.iter().filter(|route| route.access.fresh).collect();
    assert!(fresh.len() >= 3);
    for client in [&ann, &browser, &refreshed] {
        for route in &fresh {
            let path = route.path.replace("{id}", &bob.to_string());
            let answer = client.send(Call::new(route.method.clone(), &path).same_origin()).await;
            assert_eq!(answer.code(), "access.not_fresh", "{} {path}", route.method);
        }
        assert_eq!(status(client).await, 200);
    }
    let proved = prove(&browser, PASSWORD).await;
    let proved = app.anyone().with_cookie(proved.cookie());
    let answer =
        proved.send(Call::new(Method::DELETE, &format!("/api/v1/users/{bob}")).same_origin()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    app.stop().await;
}

async fn taking_back(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.delete("/api/v1/users/me").await.status, StatusCode::NO_CONTENT);
    app.advance(15 * 24 * 60 * MINUTE).await;
    let other = app.second().await;
    let holds = [Hold::Alone(id), Hold::Administrators];
    let mut change = other.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    users::keep(&mut change, id).await.unwrap();
    let finish = async {
        until_one_waits(&app.app.db).await;
        change.commit_quietly("what was taken back is an event").await.unwrap();
    };
    let job = deletion::MODULE.jobs[0];
    let (done, ()) = tokio::join!((job.run)(&app.app), finish);
    done.unwrap();
    assert!(users::find(&app.app, id).await.unwrap().is_some());
    other.stop().await;
    app.stop().await;
}
