//! Second factors that are added, used and removed.

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::passkey::{MINE, ORIGIN, begin, finish, key, register};
use palisade::testing::phone::enrol;
use palisade::testing::{On, Plan, TestApp, place, unlimited};
use palisade_crypto::webauthn::testing::SoftAuthenticator;
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    sessions_that_the_first_factor_ended_stay_ended => |on| super::ended(on);
    the_counter_of_a_passkey_is_kept_from_use_to_use => |on| super::counting(on);
}

pub const ME: &str = "/api/v1/users/me";

/// A user with a passkey.
pub async fn with_key(app: &TestApp, email: &str, mut key: SoftAuthenticator) -> SoftAuthenticator {
    app.user(email).await;
    let made = register(&app.token(email).await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    key
}

/// The gate refuses a session without the factor anyway; it must be over even so.
async fn ended(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let old = app.anyone().with_token(first.text("access_token"));
    let browser = app.browser("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    enrol(&ann).await;
    // As if something had gone wrong: the factor is lost, and nothing else is done.
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run("delete from totp_secrets", args![]).await.unwrap();
    tx.run("update users set has_totp = $1", args![false]).await.unwrap();
    tx.commit().await.unwrap();
    app.app.forget_all();
    assert_eq!(ann.get(ME).await.body["mfa"]["totp"], false);
    for client in [&old, &browser] {
        assert_eq!(client.get(ME).await.status, StatusCode::UNAUTHORIZED);
    }
    let body = json!({ "refresh_token": first.text("refresh_token") });
    assert_eq!(app.anyone().post("/api/v1/auth/refresh", body).await.code(), "sessions.ended");
    app.stop().await;
}

async fn counting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = key();
    key.sign_count = 1;
    let mut key = with_key(&app, "ann@example.com", key).await;
    let anyone = app.anyone();
    for _ in 0..3 {
        let credential = key.authenticate(&begin(&anyone).await, ORIGIN);
        assert_eq!(finish(&anyone, credential).await.status, StatusCode::OK);
    }
    assert_eq!(key.sign_count, 4);
    // Above that of the registration, not above that of the last use.
    for copied in [1, 3] {
        key.sign_count = copied;
        let credential = key.authenticate(&begin(&anyone).await, ORIGIN);
        let refused = finish(&anyone, credential).await;
        assert_eq!(place(&refused), (401, "", "login.denied"), "{copied}");
    }
    // SECURITY: the passkey and its copy at the same moment, through two processes.
    let other = app.second().await;
    let there = other.anyone();
    let mut credentials = Vec::new();
    for _ in 0..6 {
        key.sign_count = 9;
        credentials.push(key.authenticate(&begin(&anyone).await, ORIGIN));
    }
    let uses = credentials.into_iter().zip([&anyone, &there].into_iter().cycle());
    let answers = join_all(uses.map(|(credential, client)| finish(client, credential))).await;
    let good = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1, "{answers:?}");
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_keeps_the_last_passkey() {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        let made = register(&root, &mut key()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
        paths.push(format!("{MINE}/{}", made.text("id")));
    }
    assert_eq!(root.delete(&paths[0]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(place(&root.delete(&paths[1]).await), (409, "", "mfa.required"));
    // Each of two kinds of factor is the last one without the other.
    enrol(&root).await;
    assert_eq!(root.delete(&format!("{ME}/totp")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(place(&root.delete(&paths[1]).await), (409, "", "mfa.required"));
    assert_eq!(root.get(ME).await.body["mfa"]["passkeys"], 1);
    app.stop().await;
}
