//! Responses to a refresh that never arrive, and what the client gets when it asks again much later.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::sessions;
use palisade::testing::mailbox::emails;
use palisade::testing::{Answer, Call, On, PASSWORD, TestApp, unlimited};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    a_lost_response_is_recovered_once => |on| super::once(on);
    a_lost_response_is_recovered_for_seven_days => |on| super::seven_days(on);
    only_the_sessions_own_device_recovers_it => |on| super::own_device(on);
    the_replaced_successor_ends_the_family => |on| super::replaced(on);
    a_recovered_session_needs_the_device_again => |on| super::again(on);
    a_used_successor_was_not_lost => |on| super::used(on);
    nothing_is_recovered_past_a_new_proof => |on| super::past_a_proof(on);
    recoveries_at_once_have_one_child => |on| super::at_once(on);
    nothing_is_recovered_of_an_ended_session => |on| super::ended(on);
}

const LATE: Duration = Duration::from_secs(31);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ME: &str = "/api/v1/users/me";

async fn refresh(app: &TestApp, token: &str, device: Option<&str>) -> Answer {
    let mut body = json!({ "refresh_token": token });
    if let Some(device) = device {
        body["device_token"] = json!(device);
    }
    app.anyone().post("/api/v1/auth/refresh", body).await
}

async fn start(on: On) -> TestApp {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app
}

/// A session whose last response was lost.
struct Lost {
    parent: String,
    /// What the client never received.
    lost: Answer,
    device: String,
}

async fn lose(app: &TestApp, email: &str) -> Lost {
    let answer = app.anyone().login(email).await;
    let (parent, device) = (answer.text("refresh_token"), answer.text("device_token"));
    let lost = refresh(app, &parent, None).await;
    assert_eq!(lost.status, StatusCode::OK, "{}", lost.raw);
    Lost { parent, lost, device }
}

impl Lost {
    async fn ask(&self, app: &TestApp) -> Answer {
        refresh(app, &self.parent, Some(&self.device)).await
    }
}

async fn recovered(app: &TestApp, lost: &Lost) -> Answer {
    let answer = lost.ask(app).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    assert_ne!(answer.text("refresh_token"), lost.lost.text("refresh_token"), "another one");
    answer
}

/// The session of this answer has ended, and the log says why.
async fn is_over(app: &TestApp, answer: &Answer, refused: &Answer) {
    assert_eq!(refused.code(), "sessions.ended", "{}", refused.raw);
    let held = app.anyone().with_token(answer.text("access_token"));
    assert_eq!(held.get(ME).await.status, StatusCode::UNAUTHORIZED);
    let events = app.events().await;
    assert_eq!(events[events.len() - 2..], ["sessions.ended", "sessions.replayed"]);
}

async fn recoveries(app: &TestApp) -> usize {
    app.events().await.iter().filter(|event| *event == "sessions.recovered").count()
}

async fn once(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    // Within the grace, the device changes nothing.
    assert_eq!(lost.ask(&app).await.text("refresh_token"), lost.lost.text("refresh_token"));
    app.advance(LATE).await;
    let before = emails(&app).await.len();
    let new = recovered(&app, &lost).await;
    assert_eq!(new.body["session_id"], lost.lost.body["session_id"]);
    assert_eq!(recoveries(&app).await, 1);
    let sent = emails(&app).await;
    assert_eq!(sent.len(), before + 1);
    let mail = sent.last().unwrap();
    assert_eq!(mail.to, "ann@example.com");
    assert!(mail.text.contains("198.51.100.7") && !mail.text.contains("pal_"), "{}", mail.text);
    // The response may get lost again.
    assert_eq!(lost.ask(&app).await.text("refresh_token"), new.text("refresh_token"));
    assert_eq!(recoveries(&app).await, 1);
    // The chain goes on, and each of its tokens may be lost once.
    let next = refresh(&app, &new.text("refresh_token"), None).await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.raw);
    app.advance(LATE).await;
    let second =
        Lost { parent: new.text("refresh_token"), device: lost.device.clone(), lost: next };
    recovered(&app, &second).await;
    app.advance(LATE).await;
    let refused = second.ask(&app).await;
    is_over(&app, &second.lost, &refused).await;
    app.stop().await;
}

async fn seven_days(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    app.advance(7 * DAY - Duration::from_secs(1)).await;
    recovered(&app, &lost).await;
    let lost = lose(&app, "ann@example.com").await;
    app.advance(7 * DAY).await;
    let refused = lost.ask(&app).await;
    is_over(&app, &lost.lost, &refused).await;
    assert_eq!(recoveries(&app).await, 1);
    app.stop().await;
}

async fn own_device(on: On) {
    let app = start(on).await;
    app.user("bob@example.com").await;
    let another_session = app.anyone().login("ann@example.com").await.text("device_token");
    let another_user = app.anyone().login("bob@example.com").await.text("device_token");
    let altered = format!("{}A", &another_session[..another_session.len() - 1]);
    let refresh_token = app.anyone().login("ann@example.com").await.text("refresh_token");
    for foreign in [
        None,
        Some(another_session.as_str()),
        Some(another_user.as_str()),
        Some(altered.as_str()),
        Some(refresh_token.as_str()),
        Some(""),
    ] {
        let lost = lose(&app, "ann@example.com").await;
        app.advance(LATE).await;
        let refused = refresh(&app, &lost.parent, foreign).await;
        is_over(&app, &lost.lost, &refused).await;
        // Too late for the right one.
        assert_eq!(lost.ask(&app).await.code(), "sessions.ended");
    }
    // A device that signs in again is the same device, with the token of either sign-in.
    let first = app.anyone().login("ann@example.com").await.text("device_token");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "device_token": first });
    for device in [None, Some(first.as_str())] {
        let answer = app.anyone().post("/api/v1/auth/login", body.clone()).await;
        let own = answer.text("device_token");
        let (parent, device) = (answer.text("refresh_token"), device.unwrap_or(&own));
        let lost = refresh(&app, &parent, None).await;
        app.advance(LATE).await;
        recovered(&app, &Lost { parent, device: device.to_owned(), lost }).await;
    }
    app.stop().await;
}

async fn replaced(on: On) {
    let app = start(on).await;
    for within in [true, false] {
        let lost = lose(&app, "ann@example.com").await;
        app.advance(LATE).await;
        let new = recovered(&app, &lost).await;
        if !within {
            app.advance(LATE).await;
        }
        // Not even with the device: whoever uses it had it from the response.
        let device = within.then_some(lost.device.as_str());
        let refused = refresh(&app, &lost.lost.text("refresh_token"), device).await;
        is_over(&app, &new, &refused).await;
        let refused = refresh(&app, &new.text("refresh_token"), Some(&lost.device)).await;
        assert_eq!(refused.code(), "sessions.ended");
    }
    app.stop().await;
}

async fn again(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    app.advance(LATE).await;
    let new = recovered(&app, &lost).await;
    // The database holds no copy of what was issued that outlives its grace.
    let refused = refresh(&app, &lost.parent, None).await;
    is_over(&app, &new, &refused).await;
    app.stop().await;
}

async fn used(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    let next = refresh(&app, &lost.lost.text("refresh_token"), None).await;
    assert_eq!(next.status, StatusCode::OK);
    app.advance(LATE).await;
    let refused = lost.ask(&app).await;
    is_over(&app, &next, &refused).await;
    assert_eq!(recoveries(&app).await, 0);
    // The successor of a recovery, too.
    let lost = lose(&app, "ann@example.com").await;
    app.advance(LATE).await;
    let new = recovered(&app, &lost).await;
    let next = refresh(&app, &new.text("refresh_token"), None).await;
    let refused = lost.ask(&app).await;
    is_over(&app, &next, &refused).await;
    app.stop().await;
}

async fn past_a_proof(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    let held = app.anyone().with_token(lost.lost.text("access_token"));
    let body = json!({ "password": PASSWORD });
    let proved = held.post("/api/v1/auth/reauthenticate", body).await;
    assert_eq!(proved.status, StatusCode::OK, "{}", proved.raw);
    app.advance(LATE).await;
    let refused = lost.ask(&app).await;
    is_over(&app, &proved, &refused).await;
    assert_eq!(recoveries(&app).await, 0);
    app.stop().await;
}

async fn at_once(on: On) {
    let app = start(on).await;
    let second = app.second().await;
    for _ in 0..5 {
        let lost = lose(&app, "ann@example.com").await;
        app.advance(LATE).await;
        second.catch_up().await;
        let before = recoveries(&app).await;
        let asked = (0..8).map(|number| lost.ask(if number % 2 == 0 { &app } else { &second }));
        let children: BTreeSet<String> =
            join_all(asked).await.iter().map(|answer| answer.text("refresh_token")).collect();
        assert_eq!(children.len(), 1, "{children:?}");
        assert_eq!(recoveries(&app).await, before + 1);
        // A use of the void successor at the same moment as the recovery: the session ends.
        let lost = lose(&app, "ann@example.com").await;
        app.advance(LATE).await;
        second.catch_up().await;
        let void = lost.lost.text("refresh_token");
        let (recovered, used) = tokio::join!(lost.ask(&app), refresh(&second, &void, None));
        let either = [&recovered, &used].map(|answer| answer.status == StatusCode::OK);
        assert_eq!(either.iter().filter(|ok| **ok).count(), 1, "{either:?}");
        for answer in [recovered, used].iter().filter(|answer| answer.status == StatusCode::OK) {
            let refused = refresh(&app, &answer.text("refresh_token"), Some(&lost.device)).await;
            assert_eq!(refused.code(), "sessions.ended");
        }
    }
    second.stop().await;
    app.stop().await;
}

async fn ended(on: On) {
    let app = start(on).await;
    let lost = lose(&app, "ann@example.com").await;
    app.anyone().with_token(lost.lost.text("access_token")).act("/api/v1/auth/logout").await;
    app.advance(LATE).await;
    assert_eq!(lost.ask(&app).await.code(), "sessions.ended");
    // The idle timeout.
    let app_of_a_day =
        app.second_with(vec![("sessions.idle_timeout", "1d"), ("limits.enabled", "false")]).await;
    let lost = lose(&app_of_a_day, "ann@example.com").await;
    app_of_a_day.advance(DAY).await;
    assert_eq!(lost.ask(&app_of_a_day).await.code(), "sessions.ended");
    app.catch_up().await;
    assert_eq!(recoveries(&app).await, 0);
    app_of_a_day.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn a_cookie_is_not_recovered() {
    let app = start(On::Sqlite).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let answer = app.anyone().send(Call::post("/api/v1/auth/login", body).same_origin()).await;
    let cookies: Vec<String> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|set| set.to_str().unwrap().split(';').next().unwrap().to_owned())
        .collect();
    let device =
        cookies.iter().find_map(|cookie| cookie.split_once("-device-8000=")).unwrap().1.to_owned();
    let browser = app.anyone().with_cookie(cookies.join("; "));
    assert_eq!(browser.act("/api/v1/auth/refresh").await.status, StatusCode::OK);
    app.advance(LATE).await;
    let call = Call::post("/api/v1/auth/refresh", json!({ "device_token": device }));
    assert_eq!(browser.send(call.same_origin()).await.code(), "sessions.ended");
    assert_eq!(recoveries(&app).await, 0);
    app.stop().await;
}

#[tokio::test]
async fn without_a_grace_nothing_is_recovered() {
    let plan = palisade::testing::Plan {
        settings: vec![("sessions.refresh_grace", "0s")],
        ..palisade::testing::Plan::default()
    };
    let app = TestApp::with(On::Sqlite, plan).await;
    app.user("ann@example.com").await;
    let lost = lose(&app, "ann@example.com").await;
    let refused = lost.ask(&app).await;
    is_over(&app, &lost.lost, &refused).await;
    app.stop().await;
}

#[tokio::test]
async fn a_recovered_secret_is_wiped_after_its_grace() {
    let app = start(On::Sqlite).await;
    let lost = lose(&app, "ann@example.com").await;
    app.advance(LATE).await;
    recovered(&app, &lost).await;
    let sealed = async || {
        let sql = "select count(*) from session_secrets where successor_sealed is not null";
        let (count,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
        count
    };
    let prune = sessions::MODULE.jobs.iter().find(|job| job.name == "sessions.prune").unwrap();
    (prune.run)(&app.app).await.unwrap();
    assert_eq!(sealed().await, 1);
    app.advance(LATE).await;
    (prune.run)(&app.app).await.unwrap();
    assert_eq!(sealed().await, 0);
    app.stop().await;
}
