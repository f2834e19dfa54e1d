//! The audit log: complete, sealed, and telling of every change to itself.

use axum::http::StatusCode;
use palisade::testing::{On, PASSWORD, TestApp};
use palisade::{audit, audit_log};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    an_event_and_its_change_are_one => |on| super::together(on);
    what_is_personal_is_sealed => |on| super::sealed(on);
    nothing_in_the_database_is_a_credential => |on| super::canaries(on);
}

async fn together(on: On) {
    let app = TestApp::on(on).await;
    let ann = app.user("ann@example.com").await;
    let change = app.app.change(&palisade::app::Actor::operator()).await.unwrap();
    drop(change);
    let before = app.events().await.len();
    let operator = palisade::app::Actor::operator();
    let holds = [palisade::app::Hold::Alone(ann), palisade::app::Hold::Administrators];
    let mut change = app.app.change_holding(&operator, &holds).await.unwrap();
    let end = palisade::credentials::End::of(ann, palisade::credentials::Act::Revoked);
    palisade::credentials::end(&mut change, end).await.unwrap();
    palisade::users::disable(&mut change, ann).await.unwrap();
    drop(change);
    app.app.db.settled().await.unwrap();
    assert_eq!(app.events().await.len(), before);
    assert!(!palisade::users::find(&app.app, ann).await.unwrap().unwrap().disabled);
    app.stop().await;
}

async fn sealed(on: On) {
    let app = TestApp::on(on).await;
    app.admin("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    app.anyone().from("203.0.113.77").login("ann@example.com").await;
    let wrong = json!({ "email": "stranger@example.com", "password": PASSWORD });
    app.anyone().from("203.0.113.78").post("/api/v1/auth/login", wrong).await;
    let root = app.token("root@example.com").await.from("203.0.113.99");
    let id = ann.to_string();
    root.act(&format!("/api/v1/users/{id}/revoke-sessions")).await;

    let rows: Vec<(String, Option<Vec<u8>>)> =
        app.app.db.all("select record, personal from audit_events", args![]).await.unwrap();
    for (record, personal) in &rows {
        let personal =
            String::from_utf8_lossy(personal.as_deref().unwrap_or_default()).into_owned();
        for secret in ["203.0.113", "example.com", "ann@"] {
            assert!(!record.contains(secret) && !personal.contains(secret), "{record}");
        }
    }
    let log = root.get("/api/v1/audit?limit=200").await;
    let find = |event: &str, about: Option<&str>| {
        let items = log.body["items"].as_array().unwrap();
        let mut found = items.iter().filter(|item| {
            item["event"] == event && about.is_none_or(|about| item["about"]["id"] == about)
        });
        found.next().unwrap_or_else(|| panic!("no {event}")).clone()
    };
    let signed_in = find("login.signed_in", Some(&id));
    assert_eq!(signed_in["personal"]["ip"], "203.0.113.77");
    assert!(signed_in["request_id"].is_string());
    let denied = find("login.denied", None);
    assert!(!denied.to_string().contains("stranger"), "{denied}");
    assert_eq!(denied["details"]["email_digest"].as_str().map(str::len), Some(16), "{denied}");
    assert_eq!(denied["details"]["reason"], "unknown_email");
    let revoked = find("sessions.revoked", Some(&id));
    assert_eq!(revoked["actor"]["kind"], "user");
    assert_eq!(revoked["personal"]["ip"], "203.0.113.99");

    // Ann sees what concerns her, and not where the administrator sits.
    let client = app.token("ann@example.com").await;
    let mine = client.get("/api/v1/users/me/activity?limit=200").await;
    assert!(mine.raw.contains("sessions.revoked") && mine.raw.contains("203.0.113.77"));
    assert!(!mine.raw.contains("203.0.113.99"), "{}", mine.raw);
    assert!(!mine.raw.contains("stranger@example.com"));
    assert_eq!(client.get("/api/v1/audit").await.status, StatusCode::FORBIDDEN);

    // Erasing her key erases what is personal; the log still verifies.
    let mut change = app.app.change(&palisade::app::Actor::operator()).await.unwrap();
    audit_log::forget_person(&mut change, ann).await.unwrap();
    change.commit(palisade::deletion::DELETED.about(ann)).await.unwrap();
    while audit_log::seal_pending(&app.app).await.unwrap() > 0 {}
    let verified = audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    let log = root.get("/api/v1/audit?limit=200").await;
    assert!(!log.raw.contains("203.0.113.77") && log.raw.contains("203.0.113.99"));
    app.stop().await;
}

type TwoBlobs = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Secrets that went in and out must not be found in what is stored.
async fn canaries(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let signed_in = app.anyone().login("ann@example.com").await;
    let refreshed = app
        .anyone()
        .post("/api/v1/auth/refresh", json!({ "refresh_token": signed_in.text("refresh_token") }))
        .await;
    let cookie = app.browser("ann@example.com").await.cookie.unwrap();
    let secrets = [
        PASSWORD.to_owned(),
        signed_in.text("access_token"),
        signed_in.text("refresh_token"),
        refreshed.text("refresh_token"),
        cookie.split_once('=').unwrap().1.to_owned(),
    ];
    let mut stored = Vec::new();
    let text: Vec<(Option<String>, Option<String>)> = app
        .app
        .db
        .all(
            "select record, event from audit_events union all select email, name from users
             union all select device_name, user_agent from sessions
             union all select kid, algorithm from keys",
            args![],
        )
        .await
        .unwrap();
    for (a, b) in text {
        stored.extend(a.unwrap_or_default().into_bytes());
        stored.extend(b.unwrap_or_default().into_bytes());
    }
    let bytes: Vec<TwoBlobs> = app
        .app
        .db
        .all(
            "select digest, successor_sealed from session_secrets
             union all select personal, mac from audit_events
             union all select sealed, null from passwords
             union all select wrapped, null from keys
             union all select wrapped, null from person_keys
             union all select digest, null from setup_links
             union all select sealed, null from outbox
             union all select digest, null from recovery_tokens
             union all select digest, sealed from registrations",
            args![],
        )
        .await
        .unwrap();
    for (a, b) in bytes {
        stored.extend(a.unwrap_or_default());
        stored.extend(b.unwrap_or_default());
    }
    assert!(stored.windows(7).any(|window| window == b"ann@exa"), "the search finds what is there");
    for secret in secrets {
        let raw = secret.trim_start_matches("pal_rt_").trim_start_matches("pal_sc_").as_bytes();
        assert!(!stored.windows(raw.len()).any(|window| window == raw), "{secret} is stored");
    }
    app.stop().await;
}
