//! What a request was let in with, or what was decided for it, is replaced by another request while it waits.

use axum::http::StatusCode;
use palisade::access::AuthLevel;
use palisade::app::{Actor, Hold};
use palisade::id::UserId;
use palisade::sessions::{self, Issued, Proof};
use palisade::testing::phone::{Phone, enrol};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, TestApp, place, unlimited};
use palisade::users::{self, Factors};
use palisade::{deletion, lockout};
use palisade_db::args;
use serde_json::json;

use crate::racing::{a_while, session_of};

palisade::on_both! {
    a_new_proof_refuses_what_waited_with_the_credentials_before_it => |on| super::tokens(on);
    a_new_proof_refuses_what_waited_with_the_cookie_before_it => |on| super::cookies(on);
    of_two_new_proofs_at_once_one_is_refused => |on| super::two_proofs(on);
    a_proof_beside_a_new_factor_is_made_with_that_factor => |on| super::weaker(on);
    a_session_read_before_its_new_factor_is_read_again => |on| super::torn(on);
    a_refusal_beside_a_deletion_is_about_nobody => |on| super::deleted(on);
    a_guess_beside_a_new_password_stays_counted => |on| super::recounted(on);
}

const ME: &str = "/api/v1/users/me";
const KEYS: &str = "/api/v1/users/me/api-keys";
const AGAIN: &str = "/api/v1/auth/reauthenticate";

fn key() -> Call {
    Call::post(KEYS, json!({ "name": "mine", "permissions": [] })).same_origin()
}

fn again() -> Call {
    Call::post(AGAIN, json!({ "password": PASSWORD })).same_origin()
}

/// A new proof of identity is being written while a key is asked for, another proof and the end of the session, all
/// with the credential before it.
async fn beside_a_proof(app: &TestApp, user: UserId, waiting: &Client<'_>) -> Issued {
    let session = session_of(app, user).await;
    let holds = [Hold::Alone(user)];
    let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let proof = Proof { amr: "pwd", level: AuthLevel::Password };
    let issued = sessions::renew(&mut change, user, session, proof).await.unwrap();
    let finish = async {
        a_while().await;
        change.commit_quietly("a test").await.unwrap();
    };
    let out = Call::post("/api/v1/auth/logout", json!({})).same_origin();
    let (made, proved, left, ()) =
        tokio::join!(waiting.send(key()), waiting.send(again()), waiting.send(out), finish);
    for refused in [&made, &proved, &left] {
        assert_eq!(place(refused), (401, "", "access.invalid_token"), "{}", refused.raw);
    }
    let sql = "select (select count(*) from api_keys), (select count(*) from sessions where ended_at is null)";
    // No key was made, and the session lives.
    let (keys, alive): (i64, i64) = app.app.db.one(sql, args![]).await.unwrap();
    assert_eq!((keys, alive), (0, 1));
    issued
}

async fn tokens(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let user = app.user("ann@example.com").await;
    let before = app.token("ann@example.com").await;
    let issued = beside_a_proof(&app, user, &Client { app: &other, ..before.clone() }).await;
    let body = json!({ "refresh_token": issued.secret.expose() });
    let refreshed = app.anyone().post("/api/v1/auth/refresh", body).await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.raw);
    let after = other.anyone().with_token(refreshed.text("access_token"));
    assert_eq!(after.send(key()).await.status, StatusCode::CREATED);
    other.stop().await;
    app.stop().await;
}

async fn cookies(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let user = app.user("ann@example.com").await;
    let before = app.browser("ann@example.com").await;
    let issued = beside_a_proof(&app, user, &Client { app: &other, ..before.clone() }).await;
    let name = before.cookie.as_ref().unwrap().split('=').next().unwrap().to_owned();
    let cookie = format!("{name}={}", issued.secret.expose());
    // The other process may not have heard of it yet.
    let after = other.anyone().with_cookie(cookie);
    let made = after.send(key()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    other.stop().await;
    app.stop().await;
}

async fn two_proofs(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    for round in 0..10 {
        let email = format!("ann{round}@example.com");
        app.user(&email).await;
        let one = match round % 2 {
            0 => app.token(&email).await,
            _ => app.browser(&email).await,
        };
        let two = Client { app: &other, ..one.clone() };
        let (first, second) = tokio::join!(one.send(again()), two.send(again()));
        let answers: [&Answer; 2] = [&first, &second];
        let done = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        assert_eq!(done, 1, "{round}: {} {}", first.raw, second.raw);
        let refused = if first.status == StatusCode::OK { &second } else { &first };
        assert_eq!(place(refused), (401, "", "access.invalid_token"), "{}", refused.raw);
    }
    other.stop().await;
    app.stop().await;
}

async fn weaker(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let user = app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let ann = Client { app: &other, ..ann };
    let session = session_of(&app, user).await;
    // A second factor is being confirmed within the same session.
    let holds = [Hold::Alone(user)];
    let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let now = change.now();
    change
        .run(
            "insert into totp_secrets (user_id, sealed, used_step, created_at) values ($1, $2, 0, $3)",
            args![user, vec![0_u8], now],
        )
        .await
        .unwrap();
    let factors = Factors { totp: true, ..Factors::default() };
    users::set_factors(&mut change, user, factors).await.unwrap();
    let proof = Proof { amr: "otp mfa", level: AuthLevel::Code };
    sessions::raise_level(&mut change, user, session, proof).await.unwrap();
    let finish = async {
        a_while().await;
        change.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(ann.send(again()), finish);
    assert_eq!(place(&answer), (403, "", "login.stronger_needed"), "{}", answer.raw);
    assert_eq!(answer.body["methods"], json!(["totp", "recovery_code"]));
    other.stop().await;
    app.stop().await;
}

async fn torn(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    for cookie in [false, true] {
        let mut other = app.second().await;
        let email = format!("ann-{cookie}@example.com");
        let user = app.user(&email).await;
        let ann = if cookie { app.browser(&email).await } else { app.token(&email).await };
        let there = Client { app: &other, ..ann.clone() };
        assert_eq!(there.get(ME).await.status, StatusCode::OK);
        other.stop_reading_the_feed().await;
        let there = Client { app: &other, ..ann.clone() };
        if cookie {
            let made = ann.send(Call::post("/api/v1/users/me/totp", json!({})).same_origin()).await;
            let phone = Phone::new(&made.text("secret"));
            let body = json!({ "code": phone.code(&app) });
            let call = Call::post("/api/v1/users/me/totp/confirm", body).same_origin();
            let done = ann.send(call).await;
            assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
        } else {
            enrol(&ann).await;
        }
        // Of the news the half has come: the user has a factor, and the session is remembered from before it.
        other.app.apply("users.changed", user.0);
        let answer = there.get(ME).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
        other.stop().await;
    }
    app.stop().await;
}

async fn deleted(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;
    let user = users::find(&app.app, id).await.unwrap().unwrap();
    let holds = deletion::held_for_deletion(id);
    let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let finish = async {
        a_while().await;
        deletion::delete(change, &user).await.unwrap();
    };
    let body = json!({ "email": "ann@example.com", "password": "five green kettles whistle" });
    let anyone = other.anyone();
    let (answer, ()) = tokio::join!(anyone.post("/api/v1/auth/login", body), finish);
    assert_eq!(place(&answer), (401, "", "login.denied"), "{}", answer.raw);
    let sql =
        "select record, about_id is null and person_id is null from audit_events where event = $1";
    let (record, nobody): (String, bool) =
        app.app.db.one(sql, args!["login.denied"]).await.unwrap();
    assert!(
        nobody && record.contains("unknown_email") && record.contains("email_digest"),
        "{record}"
    );
    let sql = "select (select count(*) from person_keys where user_id = $1),
        (select count(*) from lockout_counts where user_id = $1)";
    let kept: (i64, i64) = app.app.db.one(sql, args![id]).await.unwrap();
    assert_eq!(kept, (0, 0));
    other.stop().await;
    app.stop().await;
}

async fn recounted(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let user = app.user("ann@example.com").await;
    // The password is being changed, and with that every count forgotten.
    let holds = [Hold::Alone(user)];
    let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let finish = async {
        a_while().await;
        let sql = "update passwords set generation = generation + 1 where user_id = $1";
        change.run(sql, args![user]).await.unwrap();
        lockout::clear(&mut change, user).await.unwrap();
        change.commit_quietly("a test").await.unwrap();
    };
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let anyone = other.anyone();
    let (answer, ()) = tokio::join!(anyone.post("/api/v1/auth/login", body), finish);
    assert_eq!(place(&answer), (401, "", "login.denied"), "{}", answer.raw);
    let sql = "select in_window, in_a_row from lockout_counts where user_id = $1";
    let counted: Vec<(i64, i64)> = app.app.db.all(sql, args![user]).await.unwrap();
    assert_eq!(counted, [(1, 1)]);
    other.stop().await;
    app.stop().await;
}
