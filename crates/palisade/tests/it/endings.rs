//! Ended means ended: every kind of ending against every kind of credential.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::sessions;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, TestApp, unlimited};
use palisade_db::testing::Cluster;
use serde_json::json;

palisade::on_both! {
    every_ending_ends_every_credential_at_once => |on| super::every_ending(on);
    every_ending_is_honoured_by_another_process => |on| super::another_process(on);
    a_warm_request_and_a_refusal_read_no_database => |on| super::from_memory(on);
    no_request_revives_a_session_that_is_being_ended => |on| super::no_resurrection(on);
    idle_and_absolute_time_outs_end_a_session => |on| super::time_outs(on);
    a_disabled_administrator_has_no_rights_anywhere => |on| super::disabled(on);
}

const ME: &str = "/api/v1/users/me";

/// One session of Ann's with everything that could speak for it.
struct Held<'a> {
    name: &'static str,
    client: Client<'a>,
    refresh: Option<String>,
    id: String,
}

async fn sign_in<'a>(app: &'a TestApp, name: &'static str) -> Held<'a> {
    let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
    match name {
        "paseto" => body["token_format"] = "paseto".into(),
        "cookie" => body["transport"] = "cookie".into(),
        _ => {}
    }
    let answer = app.anyone().send(Call::post("/api/v1/auth/login", body).same_origin()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let (client, refresh) = if name == "cookie" {
        assert!(answer.body.get("access_token").is_none(), "{}", answer.raw);
        (app.anyone().with_cookie(answer.cookie()), None)
    } else {
        let token = answer.text("access_token");
        assert_eq!(token.starts_with("v4.public."), name == "paseto", "{token}");
        (app.anyone().with_token(token), Some(answer.text("refresh_token")))
    };
    Held { name, client, refresh, id: answer.text("session_id") }
}

async fn refresh(held: &Held<'_>, app: &TestApp) -> Answer {
    match &held.refresh {
        Some(token) => {
            app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await
        }
        None => held.client.act("/api/v1/auth/refresh").await,
    }
}

async fn is_over(held: &Held<'_>, app: &TestApp, how: &str) {
    let answer = held.client.get(ME).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{how}: {} still reads", held.name);
    assert_eq!(answer.code(), "access.invalid_token", "{how}: {}", held.name);
    let answer = refresh(held, app).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{how}: {} refreshes", held.name);
    assert_eq!(answer.code(), "sessions.ended", "{how}: {}", held.name);
}

const NAMES: [&str; 3] = ["jwt", "paseto", "cookie"];
const HOWS: [&str; 7] =
    ["logout", "end_one", "end_others", "password", "disable", "revoke", "operator"];

/// Ends `held` in one of the ways; `other` is another session of the same user.
async fn end(app: &TestApp, how: &str, held: &Held<'_>, other: &Client<'_>, admin: &Client<'_>) {
    let ann = app.app.db.one::<(palisade::id::UserId,)>(
        "select id from users where email = $1",
        palisade_db::args!["ann@example.com"],
    );
    let ann = ann.await.unwrap().0;
    let answer = match how {
        "logout" => held.client.act("/api/v1/auth/logout").await,
        "end_one" => other.delete(&format!("{ME}/sessions/{}", held.id)).await,
        "end_others" => other.delete(&format!("{ME}/sessions")).await,
        "password" => {
            let body = json!({ "current_password": PASSWORD, "new_password": PASSWORD });
            other.post(&format!("{ME}/password"), body).await
        }
        "disable" => admin.act(&format!("/api/v1/users/{ann}/disable")).await,
        "revoke" => admin.act(&format!("/api/v1/users/{ann}/revoke-sessions")).await,
        "operator" => {
            let holds = [Hold::Alone(ann)];
            let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
            sessions::revoke_all(change, ann).await.unwrap();
            return;
        }
        _ => unreachable!(),
    };
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{how}: {}", answer.raw);
}

async fn every_ending(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app.admin("root@example.com").await;
    let admin = app.token("root@example.com").await;
    for how in HOWS {
        for name in NAMES {
            let other = app.token("ann@example.com").await;
            let held = sign_in(&app, name).await;
            assert_eq!(held.client.get(ME).await.status, StatusCode::OK, "{name}");
            end(&app, how, &held, &other, &admin).await;
            is_over(&held, &app, how).await;
            let others_stay = matches!(how, "logout" | "end_one" | "end_others" | "password");
            let status = other.get(ME).await.status;
            assert_eq!(status == StatusCode::OK, others_stay, "{how}: the other session");
            if how == "disable" {
                assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
                let ann = app.app.db.one::<(palisade::id::UserId,)>(
                    "select id from users where email = $1",
                    palisade_db::args!["ann@example.com"],
                );
                let path = format!("/api/v1/users/{}/enable", ann.await.unwrap().0);
                assert_eq!(admin.act(&path).await.status, StatusCode::NO_CONTENT);
                is_over(&held, &app, "enabled again").await;
            }
        }
    }
    app.stop().await;
}

async fn another_process(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app.admin("root@example.com").await;
    let second = app.second().await;
    let admin = app.token("root@example.com").await;
    let mut late = Vec::new();
    for how in HOWS {
        for name in NAMES {
            let other = app.token("ann@example.com").await;
            let held = sign_in(&app, name).await;
            let there = Client { app: &second, ..held.client.clone() };
            assert_eq!(there.get(ME).await.status, StatusCode::OK, "{name}");
            end(&app, how, &held, &other, &admin).await;
            let ended = now();
            while there.get(ME).await.status == StatusCode::OK {
                // A busy machine may be late once; never later than the feed may be old.
                assert!(now() - ended < Duration::from_secs(1), "{how}, {name}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            late.push(now() - ended);
            if how == "disable" {
                let ann = app.app.db.one::<(palisade::id::UserId,)>(
                    "select id from users where email = $1",
                    palisade_db::args!["ann@example.com"],
                );
                let path = format!("/api/v1/users/{}/enable", ann.await.unwrap().0);
                admin.act(&path).await;
                // That she is back takes as long to arrive there; until then she is refused.
                let back = Client { app: &second, ..app.token("ann@example.com").await };
                let enabled = now();
                while back.get(ME).await.status != StatusCode::OK {
                    assert!(now() - enabled < Duration::from_secs(1), "enabled, {name}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    }
    late.sort();
    assert!(late[late.len() * 9 / 10] < Duration::from_millis(250), "{late:?}");
    second.stop().await;
    app.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

async fn from_memory(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let (live, over) = (sign_in(&app, "jwt").await, sign_in(&app, "jwt").await);
    let cookie = sign_in(&app, "cookie").await;
    for client in [&live.client, &over.client, &cookie.client, &cookie.client] {
        assert_eq!(client.get(ME).await.status, StatusCode::OK);
    }
    over.client.act("/api/v1/auth/logout").await;
    // Without its database the process knows what it knew, for as long as its feed is current.
    app.app.db.close().await;
    for client in [&live.client, &cookie.client] {
        let answer = client.get(ME).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
        assert_eq!(answer.text("email"), "ann@example.com");
    }
    assert_eq!(over.client.get(ME).await.code(), "access.invalid_token");
    // A second later it doesn't know what was ended meanwhile, and lets no one in.
    app.clock.advance(Duration::from_millis(1100));
    for client in [&live.client, &cookie.client, &over.client] {
        let answer = client.get(ME).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.code(), "server.feed_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(app.anyone().get("/livez").await.status, StatusCode::OK);
    let ready = app.anyone().get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.body["checks"]["database"], "down");
    assert_eq!(app.anyone().login("ann@example.com").await.status, 503);
    app.stop().await;
}

async fn no_resurrection(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    for _ in 0..15 {
        let held = sign_in(&app, "jwt").await;
        let readers = (0..8).map(|_| async {
            for _ in 0..6 {
                held.client.get(ME).await;
                app.app.apply("users.changed", uuid::Uuid::nil());
                app.app.forget_all();
            }
        });
        let readers = futures_util::future::join_all(readers);
        let ending = async {
            tokio::task::yield_now().await;
            held.client.act("/api/v1/auth/logout").await;
            assert_eq!(held.client.get(ME).await.status, StatusCode::UNAUTHORIZED);
        };
        tokio::join!(readers, ending);
        is_over(&held, &app, "raced").await;
    }
    app.stop().await;
}

async fn time_outs(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let cookie = sign_in(&app, "cookie").await;
    // Used every hour it lives beyond its 12 idle hours.
    for _ in 0..20 {
        app.advance(Duration::from_secs(3600)).await;
        assert_eq!(cookie.client.get(ME).await.status, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.advance(Duration::from_secs(12 * 3600 + 1)).await;
    is_over(&cookie, &app, "idle").await;

    let token = sign_in(&app, "jwt").await;
    app.advance(Duration::from_secs(15 * 60)).await;
    assert_eq!(token.client.get(ME).await.code(), "access.invalid_token", "the token expired");
    app.advance(Duration::from_secs(14 * 24 * 3600)).await;
    assert_eq!(refresh(&token, &app).await.code(), "sessions.ended", "idle");

    let mut held = sign_in(&app, "jwt").await;
    for day in 1..=31 {
        app.advance(Duration::from_secs(24 * 3600)).await;
        let answer = refresh(&held, &app).await;
        assert_eq!(answer.status == StatusCode::OK, day < 30, "day {day}: {}", answer.raw);
        if day < 30 {
            held.refresh = Some(answer.text("refresh_token"));
        }
    }
    app.stop().await;
}

async fn disabled(on: On) {
    let app = TestApp::on(on).await;
    let second = app.second().await;
    let ids = [app.admin("root@example.com").await, app.admin("ann@example.com").await];
    let root = app.token("root@example.com").await;
    let ann = app.token("ann@example.com").await;
    let there = Client { app: &second, ..ann.clone() };
    assert_eq!(there.get("/api/v1/users").await.status, StatusCode::OK);
    let answer = root.act(&format!("/api/v1/users/{}/disable", ids[1])).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.get("/api/v1/users").await.status, StatusCode::UNAUTHORIZED);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(there.get("/api/v1/users").await.status, StatusCode::UNAUTHORIZED);
    let last = root.act(&format!("/api/v1/users/{}/disable", ids[0])).await;
    assert_eq!((last.status, last.code()), (StatusCode::CONFLICT, "users.last_admin"));
    second.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_administrators_cannot_disable_each_other_at_once() {
    for on in [On::Sqlite, On::Postgres] {
        let app = TestApp::on(on).await;
        let a = app.admin("a@example.com").await;
        let b = app.admin("b@example.com").await;
        let (as_a, as_b) = (app.token("a@example.com").await, app.token("b@example.com").await);
        let (path_a, path_b) =
            (format!("/api/v1/users/{a}/disable"), format!("/api/v1/users/{b}/disable"));
        let (one, two) = tokio::join!(as_a.act(&path_b), as_b.act(&path_a));
        let good = [one.status, two.status].iter().filter(|s| **s == 204).count();
        assert!(good <= 1, "{on:?}: {} {}", one.raw, two.raw);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_and_comes_back() {
    let cluster = Cluster::start();
    let url = cluster.create_database("away", "template1");
    let app = TestApp::at(&url).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    cluster.stop();
    let began = now();
    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.raw);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(now() - began < Duration::from_millis(1300), "{:?}", now() - began);
    assert_eq!(app.anyone().get("/livez").await.status, StatusCode::OK);
    app.clock.advance(Duration::from_secs(2));
    assert_eq!(ann.get(ME).await.status, StatusCode::SERVICE_UNAVAILABLE);
    cluster.start_again();
    let began = now();
    while ann.get(ME).await.status != StatusCode::OK {
        assert!(now() - began < Duration::from_secs(5), "not back after {:?}", now() - began);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test]
async fn an_unknown_session_is_not_found_and_another_users_too() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    app.user("bob@example.com").await;
    let ann = sign_in(&app, "jwt").await;
    let bob = app.token("bob@example.com").await;
    let answer = bob.delete(&format!("{ME}/sessions/{}", ann.id)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(ann.client.get(ME).await.status, StatusCode::OK);
    let list = ann.client.send(Call::new(Method::GET, &format!("{ME}/sessions"))).await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(list.body["items"][0]["current"], true);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_cannot_read_the_feed_lets_nobody_in() {
    let mut app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    let (token, cookie) = {
        let (ann, browser) =
            (app.token("ann@example.com").await, app.browser("ann@example.com").await);
        assert_eq!(ann.get(ME).await.status, StatusCode::OK);
        (ann.bearer.unwrap(), browser.cookie.unwrap())
    };
    app.stop_reading_the_feed().await;
    app.clock.advance(Duration::from_millis(900));
    assert_eq!(app.anyone().with_token(&*token).get(ME).await.status, StatusCode::OK);
    app.clock.advance(Duration::from_millis(200));
    for client in [app.anyone().with_token(&*token), app.anyone().with_cookie(&*cookie)] {
        let answer = client.get(ME).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.code(), "server.feed_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remembered_token_expires_by_the_time_of_day() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    for format in ["jwt", "paseto"] {
        let body =
            json!({ "email": "ann@example.com", "password": PASSWORD, "token_format": format });
        let answer = app.anyone().post("/api/v1/auth/login", body).await;
        let ann = app.anyone().with_token(answer.text("access_token"));
        assert_eq!(ann.get(ME).await.status, StatusCode::OK, "{format}");
        // The machine slept: its monotonic clock stood still.
        app.clock.set_ahead(Duration::from_secs(15 * 60));
        assert_eq!(ann.get(ME).await.code(), "access.invalid_token", "{format}");
    }
    app.stop().await;
}
