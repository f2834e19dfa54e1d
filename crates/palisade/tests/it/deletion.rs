//! What is left of a user who was deleted.

use axum::http::{Method, StatusCode};
use palisade::testing::mailbox::emails;
use palisade::testing::{Call, On, TestApp, unlimited};
use palisade_db::args;
use serde_json::{Value, json};

use crate::reauthentication::{MINUTE, status};

palisade::on_both! {
    a_deleted_person_is_gone_and_the_log_still_verifies => |on| super::leaving(on);
}

/// Everything in the database that names the person, but for the log: each table with a user's id.
async fn traces(app: &TestApp, user: &str) -> i64 {
    let mut all = 0;
    let id = uuid::Uuid::parse_str(user).unwrap();
    for (table, sql) in [
        ("users", "select count(*) from users where id = $1"),
        ("user_roles", "select count(*) from user_roles where user_id = $1"),
        ("passwords", "select count(*) from passwords where user_id = $1"),
        ("password_history", "select count(*) from password_history where user_id = $1"),
        ("sessions", "select count(*) from sessions where user_id = $1"),
        ("lockout_counts", "select count(*) from lockout_counts where user_id = $1"),
        ("recovery_tokens", "select count(*) from recovery_tokens where user_id = $1"),
        ("email_changes", "select count(*) from email_changes where user_id = $1"),
        ("factor_recoveries", "select count(*) from factor_recoveries where user_id = $1"),
        ("grants", "select count(*) from grants where user_id = $1"),
        ("person_keys", "select count(*) from person_keys where user_id = $1"),
        ("registrations", "select count(*) from registrations where user_id = $1"),
        ("challenges", "select count(*) from challenges where user_id = $1"),
        ("totp_secrets", "select count(*) from totp_secrets where user_id = $1"),
        ("totp_enrolments", "select count(*) from totp_enrolments where user_id = $1"),
        ("recovery_codes", "select count(*) from recovery_codes where user_id = $1"),
        ("passkeys", "select count(*) from passkeys where user_id = $1"),
        ("api_keys", "select count(*) from api_keys where user_id = $1"),
    ] {
        let (count,): (i64,) = app.app.db.one(sql, args![id]).await.unwrap();
        assert!(sql.contains(table));
        all += count;
    }
    all
}

async fn leaving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await.to_string();
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    ann.post("/api/v1/users/me/email", json!({ "email": "ann@new.example" })).await;
    let call = Call::new(Method::PUT, &format!("/api/v1/resources/document/7/grants/user:{id}"));
    root.send(call.json(json!({ "actions": ["read"] }))).await;
    app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": "ann@example.com" })).await;
    assert_eq!(ann.delete("/api/v1/users/me").await.status, StatusCode::NO_CONTENT);
    assert_eq!(status(&ann).await, 401);
    let told = emails(&app).await;
    assert!(told.iter().any(|mail| mail.subject.contains("will be deleted")), "{told:?}");
    let view = root.get(&format!("/api/v1/users/{id}")).await;
    assert!(view.body["delete_at"].is_string(), "{}", view.raw);

    // Signing in takes it back.
    app.advance(13 * 24 * 60 * MINUTE).await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me").await.body["delete_at"], Value::Null);
    ann.delete("/api/v1/users/me").await;
    app.advance(14 * 24 * 60 * MINUTE).await;
    // It is over from that moment on, whenever the rows go.
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::UNAUTHORIZED);
    for module in palisade::MODULES {
        for job in module.jobs.iter().filter(|job| job.name == "deletion.delete_due") {
            (job.run)(&app.app).await.unwrap();
        }
    }
    assert_eq!(traces(&app, &id).await, 0);
    let root = app.token("root@example.com").await;
    let past = root.get(&format!("/api/v1/audit?target={id}&limit=200")).await;
    assert!(!past.raw.contains("ann@"), "{}", past.raw);
    let past = past.body["items"].as_array().unwrap().clone();
    assert!(past.iter().any(|event| event["event"] == "account.deleted"));
    // What an administrator did carries the administrator's own IP address.
    let theirs = past.iter().filter(|event| event["event"] != "grants.given");
    assert!(theirs.clone().count() > 5);
    assert!(theirs.clone().all(|event| event["personal"] == json!({})), "{past:?}");
    let all = root.get("/api/v1/audit?limit=200").await;
    let denied = "login.denied";
    let mut rest = all.body["items"].as_array().unwrap().iter().filter(|e| e["event"] != denied);
    assert!(rest.all(|event| !event["personal"].to_string().contains("ann@")));
    palisade::audit_log::seal_pending(&app.app).await.unwrap();
    let verified = palisade::audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    // The email is free, and its next owner someone else.
    let again = app.user("ann@example.com").await.to_string();
    assert_ne!(again, id);
    let events = app.events().await;
    for event in ["account.deletion_asked", "users.kept", "account.deleted"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    app.stop().await;
}
