//! A password typed into the field of the email, and what is kept of it: nothing.

use axum::http::{Method, StatusCode};
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    what_is_typed_in_place_of_an_email_is_kept_nowhere => |on| super::kept_nowhere(on);
    an_email_in_another_form_is_the_same_account => |on| super::one_account(on);
}

fn plan() -> Plan {
    let settings = vec![
        ("limits.enabled", "false"),
        ("compat.login_form", "true"),
        ("mail.smtp_url", "smtp://127.0.0.1:9"),
        ("mail.from", "palisade@example.com"),
    ];
    Plan { settings, ..Plan::default() }
}

/// Every text and every sealed part that any table holds, opened where it can be.
async fn everything(app: &TestApp) -> String {
    let mut all = String::new();
    for sql in [
        "select record from audit_events",
        "select client from lockout_counts",
        "select template || ' ' || coalesce(problem, '') from outbox",
        "select email || ' ' || email_key from registrations",
        "select email from email_changes",
        "select email || ' ' || email_key from users",
    ] {
        let rows: Vec<(String,)> = app.app.db.all(sql, args![]).await.unwrap();
        rows.into_iter().for_each(|(text,)| all.push_str(&text));
    }
    let rows: Vec<(Vec<u8>,)> =
        app.app.db.all("select account from lockout_counts", args![]).await.unwrap();
    rows.iter().for_each(|(bytes,)| all.push_str(&String::from_utf8_lossy(bytes)));
    let events = palisade::audit_log::list(&app.app, palisade::audit_log::Filter::default(), 1000);
    for event in events.await.unwrap() {
        all.push_str(&serde_json::to_string(&event).unwrap());
    }
    all
}

async fn kept_nowhere(on: On) {
    let app = TestApp::with(on, plan()).await;
    app.user("ann@example.com").await;
    let secrets = ["Tr0ub4dor&3-typed", "Typed@Tr0ub4dor.example", "Tr0ub4dor typed\u{202e}"];
    let quiet = |answer: &Answer, what: &str| {
        assert!(!answer.raw.to_lowercase().contains("tr0ub4dor"), "{what}: {}", answer.raw);
    };
    for secret in secrets {
        let login = json!({ "email": secret, "password": "ann@example.com" });
        let answer = app.anyone().post("/api/v1/auth/login", login).await;
        assert_eq!(answer.code(), "login.denied", "{secret}: {}", answer.raw);
        quiet(&answer, "login");
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", secret)
            .append_pair("password", "x")
            .finish();
        let form = Call::new(Method::POST, "/api/v1/login/access-token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let answer = app.anyone().send(form).await;
        assert_eq!(answer.code(), "login.denied", "{secret}: {}", answer.raw);
        quiet(&answer, "form");
        if !secret.contains('@') {
            let ann = app.token("ann@example.com").await;
            let body = json!({ "email": secret, "password": PASSWORD });
            quiet(&app.anyone().post("/api/v1/auth/register", body).await, "register");
            let body = json!({ "email": secret });
            for path in ["/api/v1/auth/password/forgot", "/api/v1/auth/verify-email/resend"] {
                let answer = app.anyone().post(path, body.clone()).await;
                assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
                quiet(&answer, path);
            }
            let answer = ann.post("/api/v1/users/me/email", body).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.raw);
            quiet(&answer, "email change");
        }
    }
    let all = everything(&app).await;
    assert!(all.contains("ann@example.com") && all.contains("email_digest"));
    assert!(!all.to_lowercase().contains("tr0ub4dor"), "{all}");
    // The same email has the same digest, so that it can be told from another one.
    let login = |email: &'static str| json!({ "email": email, "password": "x" });
    for email in ["who@example.com", "WHO@example.com", "other@example.com"] {
        app.anyone().post("/api/v1/auth/login", login(email)).await;
    }
    let events = palisade::audit_log::list(&app.app, palisade::audit_log::Filter::default(), 3);
    let digests: Vec<String> = events
        .await
        .unwrap()
        .into_iter()
        .map(|event| event.details["email_digest"].clone())
        .collect();
    assert!(digests[1] == digests[2] && digests[0] != digests[1], "{digests:?}");
    app.stop().await;
}

async fn one_account(on: On) {
    let app = TestApp::with(on, Plan::default()).await;
    app.admin("root@example.com").await;
    app.user("stra\u{df}e@example.com").await;
    let root = app.token("root@example.com").await;
    for same in ["stra\u{1e9e}e@example.com", "STRASSE@example.com", "strasse@EXAMPLE.com."] {
        // It signs in to the one account, and no other can be made for it.
        assert_eq!(app.anyone().login(same).await.status, StatusCode::OK, "{same}");
        let body = json!({ "email": same, "password": "five green kettles whistle" });
        let answer = app.anyone().post("/api/v1/auth/register", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{same}: {}", answer.raw);
    }
    let users: (i64,) = app.app.db.one("select count(*) from users", args![]).await.unwrap();
    assert_eq!(users.0, 2);
    // Wrong passwords for any form count against the one account.
    for form in ["stra\u{1e9e}e", "strasse", "STRASSE", "stra\u{df}e", "stra\u{1e9e}e"] {
        let body =
            json!({ "email": format!("{form}@example.com"), "password": "wrong wrong wrong" });
        app.anyone().post("/api/v1/auth/login", body).await;
    }
    let found = root.get("/api/v1/users?query=stra%E1%BA%9E").await;
    assert_eq!(found.body["items"].as_array().unwrap().len(), 1, "{}", found.raw);
    assert!(found.body["items"][0]["locked_until"].is_string(), "{}", found.raw);
    app.stop().await;
}
