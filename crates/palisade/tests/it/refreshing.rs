//! Refresh tokens: used once, no matter who comes when.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::{Answer, Client, On, PASSWORD, Plan, TestApp};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::json;

palisade::on_both! {
    fifty_uses_at_once_have_one_child => |on| super::fifty(on);
    a_repeat_within_the_grace_gets_the_same_successor => |on| super::grace(on);
    a_late_replay_ends_the_family => |on| super::replay(on);
    a_token_of_one_kind_opens_no_other_door => |on| super::kinds(on);
    a_refresh_that_races_with_an_ending_leaves_nothing_alive => |on| super::race(on);
    a_refresh_beside_an_ending_is_one_or_the_other => |on| super::beside(on);
    a_refresh_that_waited_for_an_ending_is_refused => |on| super::waited(on);
    a_replaced_cookie_lives_for_the_grace => |on| super::cookie(on);
}

async fn refresh(app: &TestApp, token: &str) -> Answer {
    app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await
}

async fn sign_in(app: &TestApp) -> Answer {
    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer
}

async fn start(on: On) -> TestApp {
    let settings = vec![("limits.enabled", "false")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    app
}

async fn fifty(on: On) {
    let app = start(on).await;
    let second = app.second().await;
    let mut token = sign_in(&app).await.text("refresh_token");
    for round in 0..10 {
        // Half of them at another process; from round 5 on at one that was started again.
        let restarted = if round == 5 { Some(app.second().await) } else { None };
        let other = restarted.as_ref().unwrap_or(&second);
        let uses =
            (0..50).map(|number| refresh(if number % 2 == 0 { &app } else { other }, &token));
        let answers = join_all(uses).await;
        let children: BTreeSet<String> =
            answers.iter().map(|answer| answer.text("refresh_token")).collect();
        assert_eq!(children.len(), 1, "round {round}");
        let (rows,): (i64,) =
            app.app.db.one("select count(*) from session_secrets", args![]).await.unwrap();
        assert_eq!(rows, i64::from(round) + 2, "round {round}");
        token = children.into_iter().next().unwrap();
        if let Some(restarted) = restarted {
            restarted.stop().await;
        }
    }
    second.stop().await;
    app.stop().await;
}

async fn grace(on: On) {
    let app = start(on).await;
    let first = sign_in(&app).await.text("refresh_token");
    let second = refresh(&app, &first).await.text("refresh_token");
    app.advance(Duration::from_secs(29)).await;
    assert_eq!(refresh(&app, &first).await.text("refresh_token"), second);
    let third = refresh(&app, &second).await;
    assert_eq!(third.status, StatusCode::OK);
    // The database holds no copy that anyone but the parent's holder could read, and none at all
    // of what was used.
    let (sealed,): (i64,) = app
        .app
        .db
        .one("select count(*) from session_secrets where successor_sealed is not null", args![])
        .await
        .unwrap();
    assert_eq!(sealed, 1);
    assert_eq!(refresh(&app, &first).await.code(), "sessions.ended", "its successor was used");
    assert_eq!(refresh(&app, &third.text("refresh_token")).await.code(), "sessions.ended");
    assert!(app.events().await.contains(&"sessions.replayed".to_owned()));
    app.stop().await;
}

async fn replay(on: On) {
    let app = start(on).await;
    let first = sign_in(&app).await.text("refresh_token");
    let second = refresh(&app, &first).await;
    app.advance(Duration::from_secs(31)).await;
    let ann = app.anyone().with_token(second.text("access_token"));
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    assert_eq!(refresh(&app, &first).await.code(), "sessions.ended");
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&app, &second.text("refresh_token")).await.code(), "sessions.ended");
    let events = app.events().await;
    assert_eq!(events[events.len() - 2..], ["sessions.ended", "sessions.replayed"]);
    app.stop().await;
}

#[tokio::test]
async fn without_a_grace_every_repeat_ends_the_family() {
    let settings = vec![("sessions.refresh_grace", "0s")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let first = sign_in(&app).await.text("refresh_token");
    let second = refresh(&app, &first).await.text("refresh_token");
    assert_eq!(refresh(&app, &first).await.code(), "sessions.ended");
    assert_eq!(refresh(&app, &second).await.code(), "sessions.ended");
    app.stop().await;
}

async fn kinds(on: On) {
    let app = start(on).await;
    let signed_in = sign_in(&app).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let call = palisade::testing::Call::post("/api/v1/auth/login", body).same_origin();
    let cookie = app.anyone().send(call).await.cookie();
    let value = cookie.split_once('=').unwrap().1.to_owned();
    let access = signed_in.text("access_token");
    let secret = signed_in.text("refresh_token");
    for wrong in [&access, &value, &"pal_rt_".to_owned(), &secret.replace("pal_rt_", "pal_sc_")] {
        let answer = refresh(&app, wrong).await;
        assert_eq!(answer.code(), "sessions.ended", "{wrong} as a refresh token");
    }
    for wrong in [&secret, &value, &format!("{access}x"), &access.to_uppercase()] {
        let answer = app.anyone().with_token(wrong).get("/api/v1/users/me").await;
        assert_eq!(answer.code(), "access.invalid_token", "{wrong} as a bearer token");
    }
    for wrong in [&secret, &access, &value.replace("pal_sc_", "pal_rt_")] {
        let client = app.anyone().with_cookie(format!("palisade-8000={wrong}"));
        let answer = client.get("/api/v1/users/me").await;
        assert_eq!(answer.code(), "access.invalid_token", "{wrong} as a cookie");
    }
    for two in [format!("palisade-8000=x; {cookie}"), format!("{cookie}; palisade-8000=x")] {
        let answer = app.anyone().with_cookie(two).get("/api/v1/users/me").await;
        assert_eq!(answer.code(), "access.invalid_token");
    }
    let host = app.anyone().with_cookie(format!("__Host-{cookie}"));
    assert_eq!(host.get("/api/v1/users/me").await.code(), "access.not_signed_in");
    // A bad header isn't overlooked because a good cookie stands beside it.
    let both = app.anyone().with_cookie(&cookie).with_token("nonsense");
    assert_eq!(both.get("/api/v1/users/me").await.code(), "access.invalid_token");
    let good = app.anyone().with_cookie(&cookie).get("/api/v1/users/me").await;
    assert_eq!(good.status, StatusCode::OK);
    app.stop().await;
}

async fn race(on: On) {
    let app = start(on).await;
    for _ in 0..15 {
        let signed_in = sign_in(&app).await;
        let ann = app.anyone().with_token(signed_in.text("access_token"));
        let token = signed_in.text("refresh_token");
        let (answer, ended) = tokio::join!(refresh(&app, &token), ann.act("/api/v1/auth/logout"));
        assert_eq!(ended.status, StatusCode::NO_CONTENT, "{}", ended.raw);
        if answer.status == StatusCode::OK {
            let late: Client<'_> = app.anyone().with_token(answer.text("access_token"));
            assert_eq!(late.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
            let again = refresh(&app, &answer.text("refresh_token")).await;
            assert_eq!(again.code(), "sessions.ended");
        }
    }
    app.stop().await;
}

/// Replays, sign-outs and a refresh of one session at the same moment, at two processes.
async fn beside(on: On) {
    let app = start(on).await;
    let second = app.second().await;
    for round in 0..15 {
        let first = sign_in(&app).await;
        let refreshed = refresh(&app, &first.text("refresh_token")).await;
        let next = refresh(&app, &refreshed.text("refresh_token")).await;
        let (used, good) = (first.text("refresh_token"), next.text("refresh_token"));
        let ann = app.anyone().with_token(next.text("access_token"));
        let there = second.anyone().with_token(next.text("access_token"));
        let replays =
            join_all(
                (0..6).map(|number| {
                    let (app, used) = (if number % 2 == 0 { &app } else { &second }, &used);
                    async move {
                        if round % 3 == 0 { refresh(app, used).await.raw } else { String::new() }
                    }
                }),
            );
        let (replays, late, here, there) = tokio::join!(
            replays,
            refresh(&second, &good),
            ann.act("/api/v1/auth/logout"),
            there.act("/api/v1/auth/logout")
        );
        for replay in replays.iter().filter(|raw| !raw.is_empty()) {
            assert!(replay.contains("\"sessions.ended\""), "{replay}");
        }
        assert!(late.status == StatusCode::OK || late.code() == "sessions.ended", "{}", late.raw);
        for out in [here, there] {
            // The session may have ended before the gate was reached.
            let signed_out = out.status == StatusCode::NO_CONTENT;
            assert!(signed_out || out.code() == "access.invalid_token", "{out:?}");
        }
        assert_eq!(refresh(&app, &good).await.code(), "sessions.ended");
        if late.status == StatusCode::OK {
            let again = refresh(&app, &late.text("refresh_token")).await;
            assert_eq!(again.code(), "sessions.ended");
        }
    }
    second.stop().await;
    app.stop().await;
}

/// Both a refresh and a late replay find the session alive, and wait for the change that ends it.
async fn waited(on: On) {
    let app = start(on).await;
    for late in [false, true] {
        let first = sign_in(&app).await.text("refresh_token");
        if late {
            let second = refresh(&app, &first).await.text("refresh_token");
            assert_eq!(refresh(&app, &second).await.status, StatusCode::OK);
        }
        let mut tx = app.app.upkeep("a test").begin().await.unwrap();
        let now = app.app.clock.now();
        let ended = tx
            .run("update sessions set ended_at = $1 where ended_at is null", args![now])
            .await
            .unwrap();
        assert_eq!(ended, 1);
        let waits = refresh(&app, &first);
        let ends = async {
            until_one_waits(&app.app.db).await;
            tx.commit().await.unwrap();
        };
        let (answer, ()) = tokio::join!(waits, ends);
        let told = (answer.status, answer.code());
        assert_eq!(told, (StatusCode::UNAUTHORIZED, "sessions.ended"), "{late}: {}", answer.raw);
    }
    app.stop().await;
}

async fn cookie(on: On) {
    let app = start(on).await;
    let second = app.second().await;
    let ann = app.browser("ann@example.com").await;
    let there = Client { app: &second, ..ann.clone() };
    assert_eq!(there.get("/api/v1/users/me").await.status, StatusCode::OK);
    let answer = ann.act("/api/v1/auth/refresh").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let new = app.anyone().with_cookie(answer.cookie());
    assert_ne!(new.cookie, ann.cookie);
    assert_eq!(ann.act("/api/v1/auth/refresh").await.cookie(), answer.cookie(), "a lost answer");
    for client in [&ann, &new, &there] {
        assert_eq!(client.get("/api/v1/users/me").await.status, StatusCode::OK);
    }
    app.advance(Duration::from_secs(31)).await;
    second.catch_up().await;
    assert_eq!(new.get("/api/v1/users/me").await.status, StatusCode::OK);
    for old in [&ann, &there] {
        assert_eq!(old.get("/api/v1/users/me").await.code(), "access.invalid_token");
    }
    second.stop().await;
    app.stop().await;
}
