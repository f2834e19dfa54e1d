//! Changes of email: confirmed from the new one, undone from the old one.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::app::{Actor, Hold};
use palisade::sessions;
use palisade::testing::mailbox::{emails, token};
use palisade::testing::{Answer, Client, On, PASSWORD, TestApp, place, unlimited};
use palisade::users::{self, Email, NewUser};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::json;

palisade::on_both! {
    a_change_of_email_needs_the_password_and_can_be_undone => |on| super::moving(on);
    an_undone_change_of_email_voids_those_after_it => |on| super::undoing(on);
    a_link_dies_with_the_password_and_the_email => |on| super::dying(on);
    an_email_is_reserved_while_its_change_commits => |on| super::racing(on);
    a_link_that_waited_for_a_disabling_is_refused => |on| super::disabling(on);
}

pub const NEW: &str = "five green kettles whistle";
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub async fn reset(app: &TestApp, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "password": password });
    app.anyone().post("/api/v1/auth/password/reset", body).await
}

pub async fn confirm(app: &TestApp, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "password": password });
    app.anyone().post("/api/v1/auth/email/confirm", body).await
}

pub async fn undo(app: &TestApp, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "password": password });
    app.anyone().post("/api/v1/auth/email/undo", body).await
}

pub async fn sign_in(app: &TestApp, email: &str, password: &str) -> StatusCode {
    let body = json!({ "email": email, "password": password });
    app.anyone().post("/api/v1/auth/login", body).await.status
}

pub async fn ask(client: &Client<'_>, email: &str) {
    let answer = client.post("/api/v1/users/me/email", json!({ "email": email })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.raw);
}

/// The token of the newest email for a recipient that holds a link to this page.
pub async fn link(app: &TestApp, to: &str, page: &str) -> String {
    let page = format!("/account/{page}#");
    let all = emails(app).await;
    let found = all.iter().rev().find(|mail| mail.to == to && mail.text.contains(&page));
    token(found.unwrap_or_else(|| panic!("no {page} for {to} in {all:?}")))
}

async fn moving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app.user("bob@example.com").await;
    let ann = app.token("ann@example.com").await;
    let known = json!({ "email": "bob@example.com" });
    let unknown = json!({ "email": "ann@new.example" });
    let path = "/api/v1/users/me/email";
    assert_eq!(ann.post(path, known).await.body, ann.post(path, unknown).await.body);
    let all = emails(&app).await;
    assert!(all.iter().all(|mail| mail.to == "ann@new.example"), "{all:?}");
    let good = link(&app, "ann@new.example", "email").await;

    // Nothing has changed yet, and the link alone changes nothing.
    assert_eq!(ann.get("/api/v1/users/me").await.text("email"), "ann@example.com");
    assert_eq!(place(&confirm(&app, &good, NEW).await), (422, "/password", "passwords.wrong"));
    let uses = join_all((0..4).map(|_| confirm(&app, &good, PASSWORD))).await;
    let done = uses.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{:?}", uses.iter().map(|answer| &answer.raw).collect::<Vec<_>>());
    let me = ann.get("/api/v1/users/me").await;
    assert_eq!(
        (me.text("email"), &me.body["email_verified"]),
        ("ann@new.example".into(), &json!(true))
    );
    assert_eq!(sign_in(&app, "ann@example.com", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@new.example", PASSWORD).await, StatusCode::OK);

    // The old email waits for its former owner for a week.
    let undoing = link(&app, "ann@example.com", "undo").await;
    let body = json!({ "email": "ann@example.com", "password": NEW });
    app.anyone().post("/api/v1/auth/register", body.clone()).await;
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::UNAUTHORIZED);
    app.advance(6 * DAY).await;
    let again = app
        .anyone()
        .post("/api/v1/auth/login", json!({ "email": "ann@new.example", "password": PASSWORD }))
        .await;
    let again = app.anyone().with_token(again.text("access_token"));
    assert_eq!(place(&undo(&app, &undoing, "short").await).2, "password.too_short");
    let uses = join_all((0..8).map(|_| undo(&app, &undoing, NEW))).await;
    let done = uses.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{:?}", uses.iter().map(|answer| &answer.raw).collect::<Vec<_>>());
    assert_eq!(place(&undo(&app, &undoing, NEW).await).2, "recovery.bad_token");
    assert_eq!(again.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@new.example", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@example.com", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::OK);
    assert_eq!(place(&confirm(&app, &good, NEW).await).2, "recovery.bad_token");
    let events = app.events().await;
    for event in ["recovery.email_asked", "recovery.email_changed", "recovery.email_restored"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    app.stop().await;
}

/// Ann's account is moved to two emails in turn; she takes it back from the first.
async fn undoing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let thief = app.token("ann@example.com").await;
    for to in ["one@evil.example", "two@evil.example"] {
        ask(&thief, to).await;
        let link = link(&app, to, "email").await;
        assert_eq!(confirm(&app, &link, PASSWORD).await.status, StatusCode::NO_CONTENT);
        app.advance(Duration::from_secs(1)).await;
    }
    ask(&thief, "three@evil.example").await;
    let third = link(&app, "three@evil.example", "email").await;
    let mine = link(&app, "ann@example.com", "undo").await;
    let theirs = link(&app, "one@evil.example", "undo").await;
    assert_eq!(undo(&app, &mine, NEW).await.status, StatusCode::NO_CONTENT);
    assert_eq!(place(&undo(&app, &theirs, PASSWORD).await).2, "recovery.bad_token");
    for password in [NEW, PASSWORD] {
        assert_eq!(place(&confirm(&app, &third, password).await).2, "recovery.bad_token");
    }
    assert_eq!(thief.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::OK);
    // Without an undoing in time the email is free again.
    app.advance(8 * DAY).await;
    let body = json!({ "email": "one@evil.example", "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    assert_eq!(sign_in(&app, "one@evil.example", PASSWORD).await, StatusCode::OK);
    app.stop().await;
}

async fn dying(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    // A reset link that was sent to the old email.
    app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": "ann@example.com" })).await;
    let old = link(&app, "ann@example.com", "reset").await;
    ask(&ann, "ann@new.example").await;
    let confirming = link(&app, "ann@new.example", "email").await;
    confirm(&app, &confirming, PASSWORD).await;
    assert_eq!(place(&reset(&app, &old, NEW).await).2, "recovery.bad_token");

    // A change of email from before a change of the password.
    ask(&ann, "third@new.example").await;
    let confirming = link(&app, "third@new.example", "email").await;
    app.advance(Duration::from_secs(1)).await;
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    assert_eq!(ann.post("/api/v1/users/me/password", body).await.status, StatusCode::NO_CONTENT);
    for password in [PASSWORD, NEW] {
        assert_eq!(place(&confirm(&app, &confirming, password).await).2, "recovery.bad_token");
    }
    // Guesses with a link are counted, and lock nothing but the link.
    ask(&ann, "fourth@new.example").await;
    let confirming = link(&app, "fourth@new.example", "email").await;
    for _ in 0..5 {
        assert_eq!(place(&confirm(&app, &confirming, PASSWORD).await).2, "passwords.wrong");
    }
    assert_eq!(confirm(&app, &confirming, NEW).await.code(), "lockout.locked");
    assert_eq!(sign_in(&app, "ann@new.example", NEW).await, StatusCode::OK);
    app.stop().await;
}

/// Anyone who moved an account on waits at the same moment to take the email that it leaves.
async fn racing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let mut change = app.app.change(&Actor::system()).await.unwrap();
    let moved = change
        .run(
            "update users set email = $1, email_key = $1 where email_key = $2",
            args!["one@evil.example", "ann@example.com"],
        )
        .await;
    assert_eq!(moved.unwrap(), 1);
    let now = change.now();
    change
        .run(
            "insert into email_changes (id, user_id, email, old_email, old_key, created_at, expires_at, undo_until)
             select $1, id, $2, $3, $3, $4, $5, $5 from users where email_key = $2",
            args![
                app.app.new_id(),
                "one@evil.example",
                "ann@example.com",
                now,
                now.plus(DAY)
            ],
        )
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let app = app.app.clone();
        async move {
            let mut change = app.change(&Actor::system()).await.unwrap();
            let email = Email::parse("ann@example.com").unwrap();
            let new = NewUser {
                id: None,
                verified: false,
                email,
                name: None,
                roles: vec![],
                service: false,
            };
            users::create(&mut change, &new).await.unwrap()
        }
    });
    until_one_waits(&app.app.db).await;
    change.commit_quietly("a test").await.unwrap();
    assert_eq!(waiting.await.unwrap(), None);
    app.stop().await;
}

/// Each link is found good, and then waits for the change in which its user is disabled.
async fn disabling(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    for (number, page) in ["reset", "email", "undo"].into_iter().enumerate() {
        let email = format!("ann{number}@example.com");
        let to = format!("new{number}@example.com");
        let id = app.user(&email).await;
        let ann = app.token(&email).await;
        let link = if page == "reset" {
            let body = json!({ "email": email });
            app.anyone().post("/api/v1/auth/password/forgot", body).await;
            link(&app, &email, page).await
        } else {
            ask(&ann, &to).await;
            let asked = link(&app, &to, "email").await;
            if page == "undo" {
                let moved = confirm(&app, &asked, PASSWORD).await;
                assert_eq!(moved.status, StatusCode::NO_CONTENT, "{}", moved.raw);
                link(&app, &email, page).await
            } else {
                asked
            }
        };
        // Only now: whichever process sends an email keeps it.
        let other = app.second().await;
        let holds = [Hold::Alone(id), Hold::Administrators];
        let change = other.app.change_holding(&Actor::operator(), &holds).await.unwrap();
        let disable = async {
            until_one_waits(&app.app.db).await;
            sessions::disable(change, id).await.unwrap();
        };
        let using = async {
            match page {
                "reset" => reset(&app, &link, NEW).await,
                "email" => confirm(&app, &link, PASSWORD).await,
                _ => undo(&app, &link, NEW).await,
            }
        };
        let (answer, ()) = tokio::join!(using, disable);
        assert_eq!(place(&answer), (422, "/token", "recovery.bad_token"), "{page}");
        let sql = "select generation from passwords where user_id = $1";
        let (password,): (i64,) = app.app.db.one(sql, args![id]).await.unwrap();
        let sql = "select email from users where id = $1";
        let (kept,): (String,) = app.app.db.one(sql, args![id]).await.unwrap();
        assert_eq!(password, 1, "{page}");
        assert_eq!(kept, if page == "undo" { to } else { email }, "{page}");
        other.stop().await;
    }
    app.stop().await;
}
