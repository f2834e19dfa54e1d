//! Second factors: what is left beside `factors` and `passkeys`.

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use palisade::testing::passkey::{self, MINE, ORIGIN, begin, finish, key, register};
use palisade::testing::phone::{MFA, answer_with, challenge, enrol, with_phone};
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp, place, unlimited};
use palisade_crypto::webauthn::testing::{SoftAuthenticator, USER_PRESENT};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    a_challenge_of_one_step_is_none_of_another => |on| super::purposes(on);
    sessions_that_the_first_factor_ended_stay_ended => |on| super::ended(on);
    the_counter_of_a_passkey_is_kept_from_use_to_use => |on| super::counting(on);
    a_wrong_password_says_nothing_of_a_factor => |on| super::one_refusal(on);
    a_passkey_that_is_refused_says_nothing_of_its_owner => |on| super::one_refusal_of_passkeys(on);
}

const ME: &str = "/api/v1/users/me";
const AGAIN: &str = "/api/v1/auth/reauthenticate";
const LOGIN: &str = "/api/v1/auth/login";
const FORM: &str = "/api/v1/login/access-token";
const OTHER: &str = "five green kettles whistle";

/// A user with a passkey.
async fn with_key(app: &TestApp, email: &str, mut key: SoftAuthenticator) -> SoftAuthenticator {
    app.user(email).await;
    let made = register(&app.token(email).await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    key
}

/// Two steps of one session, which nothing but their purpose tells apart.
async fn purposes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let mut key = key();
    assert_eq!(register(&ann, &mut key).await.status, StatusCode::CREATED);
    let mut making = ann.act(&format!("{MINE}/begin")).await.body;
    let mut proving = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let for_making = std::mem::take(&mut making["challenge"]);
    making["challenge"] = std::mem::replace(&mut proving["challenge"], for_making);

    let body = json!({ "credential": key.authenticate(&proving, ORIGIN) });
    assert_eq!(place(&ann.post(AGAIN, body).await), (422, "/credential", "mfa.wrong_passkey"));
    let body = json!({ "credential": passkey::key().register(&making, ORIGIN) });
    let made = ann.post(&format!("{MINE}/finish"), body).await;
    assert_eq!(place(&made), (422, "/credential/response/clientDataJSON", "mfa.bad_passkey"));
    assert_eq!(ann.get(ME).await.body["mfa"]["passkeys"], 1);
    app.stop().await;
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

/// The ways to give a password.
const WAYS: [&str; 3] = ["token", "cookie", "form"];

async fn give(app: &TestApp, way: &str, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password, "transport": way });
    let call = match way {
        "form" => {
            let form = format!("username={email}&password={password}");
            Call::new(Method::POST, FORM)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.replace('@', "%40").replace(' ', "+"))
        }
        _ => Call::post(LOGIN, body).same_origin(),
    };
    app.anyone().send(call).await
}

/// Who knows the password alone may learn of the factor; nobody else does.
async fn one_refusal(on: On) {
    let settings = vec![("compat.login_form", "true")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    app.user("plain@example.com").await;
    with_phone(&app, "phone@example.com").await;
    with_key(&app, "key@example.com", key()).await;
    for email in ["disabled@example.com", "disabled-phone@example.com"] {
        let id = app.user(email).await;
        if email.contains("phone") {
            enrol(&app.token(email).await).await;
        }
        root.act(&format!("/api/v1/users/{id}/disable")).await;
    }
    // Locked by its password, and by its factor.
    with_phone(&app, "locked@example.com").await;
    for _ in 0..5 {
        give(&app, "token", "locked@example.com", OTHER).await;
    }
    let (phone, _) = with_phone(&app, "guessed@example.com").await;
    for _ in 0..6 {
        let token = challenge(&app.anyone(), "guessed@example.com").await;
        answer_with(&app.anyone(), &token, "totp", &phone.wrong(&app)).await;
    }
    let token = challenge(&app.anyone(), "guessed@example.com").await;
    let body = json!({ "mfa_token": token, "method": "totp", "code": phone.code(&app) });
    assert_eq!(app.anyone().post(MFA, body).await.code(), "lockout.locked");

    for way in WAYS {
        let expected = give(&app, way, "nobody@example.com", PASSWORD).await.shown();
        assert_eq!(expected.0, StatusCode::UNAUTHORIZED, "{}", expected.1);
        assert!(expected.1.contains(r#""code":"login.denied""#), "{}", expected.1);
        assert!(expected.2.iter().all(|header| !header.starts_with("set-cookie")));
        for (email, password) in [
            ("phone@example.com", OTHER),
            ("key@example.com", OTHER),
            ("plain@example.com", OTHER),
            ("disabled@example.com", PASSWORD),
            ("disabled-phone@example.com", PASSWORD),
            ("disabled-phone@example.com", OTHER),
            ("locked@example.com", PASSWORD),
            ("locked@example.com", OTHER),
            ("guessed@example.com", OTHER),
        ] {
            let refused = give(&app, way, email, password).await.shown();
            assert_eq!(refused, expected, "{way} {email} {password}");
        }
    }
    app.stop().await;
}

/// Whose passkey it is, or would be, nobody learns who can't use it.
async fn one_refusal_of_passkeys(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let mut anns = with_key(&app, "ann@example.com", key()).await;
    let mut gone = with_key(&app, "gone@example.com", key()).await;
    let found = root.get("/api/v1/users?query=gone").await;
    let id = found.body["items"][0]["id"].as_str().unwrap().to_owned();
    root.act(&format!("/api/v1/users/{id}/disable")).await;
    let anyone = app.anyone();
    // What is asked is the same for everybody: it names no passkey.
    let mut asked = begin(&anyone).await;
    asked["challenge"].take();
    let mut again = begin(&anyone).await;
    again["challenge"].take();
    assert_eq!(asked, again);
    assert!(asked["allowCredentials"].as_array().is_none_or(Vec::is_empty), "{asked}");

    // Nobody's passkey, of nobody.
    let mut nobodys = key();
    nobodys.user_handle = app.app.new_id().as_bytes().to_vec();
    let credential = nobodys.authenticate(&begin(&anyone).await, ORIGIN);
    let expected = finish(&anyone, credential).await.shown();
    assert_eq!(expected.0, StatusCode::UNAUTHORIZED, "{}", expected.1);
    assert!(expected.1.contains(r#""code":"login.denied""#), "{}", expected.1);
    let mut unverified = anns.authenticate(&begin(&anyone).await, ORIGIN);
    anns.flags = USER_PRESENT;
    for (name, credential) in [
        ("not verified", anns.authenticate(&begin(&anyone).await, ORIGIN)),
        ("disabled", gone.authenticate(&begin(&anyone).await, ORIGIN)),
        ("a stranger's, for ann", {
            nobodys.user_handle.clone_from(&anns.user_handle);
            nobodys.authenticate(&begin(&anyone).await, ORIGIN)
        }),
        ("ann's name for a stranger's", {
            unverified["id"] = nobodys.authenticate(&begin(&anyone).await, ORIGIN)["id"].clone();
            unverified["rawId"] = unverified["id"].clone();
            unverified
        }),
    ] {
        assert_eq!(finish(&anyone, credential).await.shown(), expected, "{name}");
    }
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
