//! A refused sign-in says nothing of second factors.

use axum::http::{Method, StatusCode};
use palisade::testing::passkey::{ORIGIN, begin, finish, key};
use palisade::testing::phone::{MFA, answer_with, challenge, enrol, with_phone};
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp, unlimited};
use palisade_crypto::webauthn::testing::{USER_PRESENT, USER_VERIFIED};
use serde_json::json;

use crate::mfa_changes::with_key;

palisade::on_both! {
    a_wrong_password_says_nothing_of_a_factor => |on| super::one_refusal(on);
    a_passkey_that_is_refused_says_nothing_of_its_owner => |on| super::one_refusal_of_passkeys(on);
}

const LOGIN: &str = "/api/v1/auth/login";
const FORM: &str = "/api/v1/login/access-token";
const OTHER: &str = "five green kettles whistle";

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

/// Who knows the password alone may learn of the factor; no one else does.
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

/// Whose passkey it is, or would be, no one learns who can't use it.
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
    // What is asked is the same for everyone: it names no passkey.
    let mut asked = begin(&anyone).await;
    asked["challenge"].take();
    let mut again = begin(&anyone).await;
    again["challenge"].take();
    assert_eq!(asked, again);
    assert!(asked["allowCredentials"].as_array().is_none_or(Vec::is_empty), "{asked}");

    // No one's passkey, whoever it names: all that is told is that no one has it.
    let mut nobodys = key();
    nobodys.user_handle = app.app.new_id().as_bytes().to_vec();
    let credential = nobodys.authenticate(&begin(&anyone).await, ORIGIN);
    let unknown = finish(&anyone, credential).await.shown();
    assert_eq!(unknown.0, StatusCode::UNAUTHORIZED, "{}", unknown.1);
    assert!(unknown.1.contains(r#""code":"login.passkey_unknown""#), "{}", unknown.1);
    for named in [&anns.user_handle, &gone.user_handle, &b"nobody".to_vec(), &Vec::new()] {
        nobodys.user_handle.clone_from(named);
        let credential = nobodys.authenticate(&begin(&anyone).await, ORIGIN);
        assert_eq!(finish(&anyone, credential).await.shown(), unknown, "{named:?}");
    }

    // A passkey that someone has, in every other way.
    let right = anns.user_handle.clone();
    anns.flags = USER_PRESENT;
    let unverified = anns.authenticate(&begin(&anyone).await, ORIGIN);
    let expected = finish(&anyone, unverified).await.shown();
    assert_eq!(expected.0, StatusCode::UNAUTHORIZED, "{}", expected.1);
    assert!(expected.1.contains(r#""code":"login.denied""#), "{}", expected.1);
    anns.flags |= USER_VERIFIED;
    let disabled = gone.authenticate(&begin(&anyone).await, ORIGIN);
    assert_eq!(finish(&anyone, disabled).await.shown(), expected);
    for named in [&gone.user_handle, &nobodys.id[..16].to_vec(), &b"nobody".to_vec(), &Vec::new()] {
        anns.user_handle.clone_from(named);
        let credential = anns.authenticate(&begin(&anyone).await, ORIGIN);
        assert_eq!(finish(&anyone, credential).await.shown(), expected, "{named:?}");
    }
    anns.user_handle = right;
    let credential = anns.authenticate(&begin(&anyone).await, ORIGIN);
    assert_eq!(finish(&anyone, credential).await.status, StatusCode::OK);
    app.stop().await;
}
