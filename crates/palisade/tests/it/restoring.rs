//! The database gets another history under running processes: an older dump was restored, or a standby took
//! over before it had everything.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::testing::{Answer, Client, On, TestApp};
use palisade_db::{Backend, args};
use serde_json::json;
use tokio::time::Instant;

palisade::on_both! {
    a_sign_out_is_heard_after_the_database_was_restored => |on| super::numbers(on);
    a_sign_out_is_heard_after_the_sequence_went_back => |on| super::sequence(on);
    everything_is_forgotten_when_the_database_was_restored => |on| super::forgotten(on);
    what_a_process_knows_to_have_ended_stays_ended => |on| super::ended(on);
}

const ME: &str = "/api/v1/users/me";
const LOGOUT: &str = "/api/v1/auth/logout";

async fn sign_in<'a>(app: &'a TestApp) -> (Client<'a>, Answer) {
    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    (app.anyone().with_token(answer.text("access_token")), answer)
}

/// Brings the feed back to what it was at number `low`, then gives `again` numbers to other content: as the
/// numbers of a restored dump are given again.
pub async fn restore_feed(app: &TestApp, low: i64, again: i64) {
    let app = &app.app;
    let mut tx = app.upkeep("a test").begin().await.unwrap();
    tx.run("delete from feed where seq > $1", args![low]).await.unwrap();
    let count_from = match app.db.backend() {
        Backend::Sqlite => "update sqlite_sequence set seq = $1 where name = 'feed' returning 1",
        Backend::Postgres => "select setval(pg_get_serial_sequence('feed', 'seq'), $1 + 1, false)",
    };
    tx.all::<(i64,)>(count_from, args![low]).await.unwrap();
    for _ in 0..again {
        tx.run(
            "insert into feed (topic, subject, origin, at) values ('other', $1, $1, $2)",
            args![app.new_id(), app.clock.now()],
        )
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

pub async fn highest(app: &TestApp) -> i64 {
    let sql = "select coalesce(max(seq), 0) from feed";
    app.app.db.one::<(i64,)>(sql, args![]).await.unwrap().0
}

/// Waits until the other process says that it isn't signed in any more.
async fn until_refused(client: &Client<'_>, what: &str) {
    let began = Instant::now();
    loop {
        let answer = client.get(ME).await;
        if answer.status == StatusCode::UNAUTHORIZED {
            assert_eq!(answer.code(), "access.invalid_token", "{what}");
            return;
        }
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.raw);
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: never heard of");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn numbers(on: On) {
    let here = TestApp::on(on).await;
    let there = here.second().await;
    here.user("ann@example.com").await;
    for (how, again) in [("numbers go back", 0), ("numbers are given again", 40)] {
        let low = highest(&here).await;
        for _ in 0..12 {
            let (ann, answer) = sign_in(&here).await;
            ann.act(LOGOUT).await;
            until_refused(&there.anyone().with_token(answer.text("access_token")), how).await;
        }
        restore_feed(&here, low, again).await;
        let (ann, answer) = sign_in(&here).await;
        let elsewhere = there.anyone().with_token(answer.text("access_token"));
        assert_eq!(elsewhere.get(ME).await.status, StatusCode::OK, "{how}");
        assert_eq!(ann.act(LOGOUT).await.status, StatusCode::NO_CONTENT, "{how}");
        until_refused(&elsewhere, how).await;
    }
    there.stop().await;
    here.stop().await;
}

async fn sequence(on: On) {
    let here = TestApp::on(on).await;
    let there = here.second().await;
    here.user("ann@example.com").await;
    for (how, pruned) in [("the numbers are taken", false), ("old rows were deleted", true)] {
        for _ in 0..6 {
            let (ann, answer) = sign_in(&here).await;
            ann.act(LOGOUT).await;
            until_refused(&there.anyone().with_token(answer.text("access_token")), how).await;
        }
        let (ann, answer) = sign_in(&here).await;
        let before = highest(&here).await;
        let app = &here.app;
        let mut tx = app.upkeep("a test").begin().await.unwrap();
        if pruned {
            let sql = "delete from feed where seq < (select max(seq) from feed)";
            tx.run(sql, args![]).await.unwrap();
        }
        // The rows stay, as where they were copied without the sequence.
        let count_again = match app.db.backend() {
            Backend::Sqlite => "update sqlite_sequence set seq = 0 where name = 'feed' returning 1",
            Backend::Postgres => "select setval(pg_get_serial_sequence('feed', 'seq'), 1, false)",
        };
        tx.all::<(i64,)>(count_again, args![]).await.unwrap();
        tx.commit().await.unwrap();
        let elsewhere = there.anyone().with_token(answer.text("access_token"));
        assert_eq!(elsewhere.get(ME).await.status, StatusCode::OK, "{how}");
        let out = ann.act(LOGOUT).await;
        assert_eq!(out.status, StatusCode::NO_CONTENT, "{how}: {}", out.raw);
        until_refused(&elsewhere, how).await;
        assert!(highest(&here).await > before, "{how}");
    }
    there.stop().await;
    here.stop().await;
}

async fn forgotten(on: On) {
    let here = TestApp::on(on).await;
    let there = here.second().await;
    here.admin("root@example.com").await;
    here.user("ann@example.com").await;
    let (ann, answer) = sign_in(&here).await;
    let browser = here.browser("ann@example.com").await;
    let body = json!({ "name": "CI", "permissions": [] });
    let key = ann.post("/api/v1/users/me/api-keys", body).await.text("api_key");
    let token = answer.text("access_token");
    let clients = |app| {
        let anyone = TestApp::anyone(app);
        [
            ("token", anyone.clone().with_token(&*token)),
            ("cookie", anyone.clone().with_cookie(browser.cookie.clone().unwrap())),
            ("API key", anyone.with_token(&*key)),
        ]
    };
    for (what, client) in clients(&here).into_iter().chain(clients(&there)) {
        assert_eq!(client.get(ME).await.status, StatusCode::OK, "{what}");
    }
    let root = here.token("root@example.com").await;
    assert_eq!(there.anyone().with_token(root.bearer.clone().unwrap()).get(ME).await.status, 200);
    // A dump from before all of them: no row of the feed tells of a sign-in.
    let mut tx = here.app.upkeep("a test").begin().await.unwrap();
    for sql in [
        "delete from api_keys where name = 'CI'",
        "delete from sessions where user_id = (select id from users where email = 'ann@example.com')",
        "update users set name = 'As it was' where email = 'root@example.com'",
    ] {
        tx.run(sql, args![]).await.unwrap();
    }
    let made_again = match here.app.db.backend() {
        // A copy that is brought back raises the counter of the schema.
        Backend::Sqlite => "create table restored (n bigint)",
        // The same rows, but written again.
        Backend::Postgres => "cluster feed using feed_pkey",
    };
    tx.run(made_again, args![]).await.unwrap();
    tx.commit().await.unwrap();
    for (what, client) in clients(&here).into_iter().chain(clients(&there)) {
        until_refused(&client, what).await;
    }
    for app in [&here, &there] {
        let root = app.anyone().with_token(root.bearer.clone().unwrap());
        assert_eq!(root.get(ME).await.text("name"), "As it was");
    }
    there.stop().await;
    here.stop().await;
}

async fn ended(on: On) {
    let here = TestApp::on(on).await;
    here.user("ann@example.com").await;
    let (ann, answer) = sign_in(&here).await;
    assert_eq!(ann.act(LOGOUT).await.status, StatusCode::NO_CONTENT);
    // The sign-out was after the dump: in the database the session lives again.
    let mut tx = here.app.upkeep("a test").begin().await.unwrap();
    tx.run("update sessions set ended_at = null, ended_because = null", args![]).await.unwrap();
    tx.commit().await.unwrap();
    restore_feed(&here, 0, 0).await;
    let before = here.app.clock.monotonic();
    here.advance(Duration::from_secs(2)).await;
    assert!(here.app.feed.is_current(before + Duration::from_secs(2)));
    assert_eq!(ann.get(ME).await.code(), "access.invalid_token", "{}", answer.raw);
    here.stop().await;
}
