//! What ends the verification of a registration.

use axum::http::StatusCode;
use palisade::app::Actor;
use palisade::id::UserId;
use palisade::testing::{Answer, On, PASSWORD, Plan, TestApp, patch, place};
use palisade::{audit, audit_log};
use palisade_db::args;
use serde_json::json;

use crate::email_change::{NEW, ask, confirm, link, undo};

palisade::on_both! {
    a_verification_link_ends_with_its_email_and_its_account => |on| super::verifying(on);
}

/// An account is made at once, and its email waits to be proved. Answers the account and the link.
async fn registered(app: &TestApp, email: &str) -> (UserId, String) {
    let body = json!({ "email": email, "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    let sql = "select id from users where email = $1";
    let (id,): (UserId,) = app.app.db.one(sql, args![email]).await.unwrap();
    (id, link(app, email, "verify").await)
}

async fn prove(app: &TestApp, token: &str) -> Answer {
    let body = json!({ "token": token, "password": PASSWORD });
    app.anyone().post("/api/v1/auth/verify-email", body).await
}

/// How many registrations wait for their email to be proved.
async fn waiting(app: &TestApp) -> i64 {
    let (count,): (i64,) =
        app.app.db.one("select count(*) from registrations", args![]).await.unwrap();
    count
}

async fn verifying(on: On) {
    let settings =
        vec![("limits.enabled", "false"), ("registration.email_verification", "optional")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let refused = (422, "/token", "registration.bad_token");

    // An administrator gives the account another email.
    let (id, of_ann) = registered(&app, "ann@example.com").await;
    let path = format!("/api/v1/users/{id}");
    let moved = patch(&root, &path, json!({ "email": "ann@new.example" })).await;
    assert_eq!(moved.status, StatusCode::OK, "{}", moved.raw);
    assert_eq!(waiting(&app).await, 0);
    assert_eq!(place(&prove(&app, &of_ann).await), refused);

    // Its owner does, and takes it back from a thief. Anyone who registers the email meanwhile gains nothing.
    let (_, of_bob) = registered(&app, "bob@example.com").await;
    ask(&app.token("bob@example.com").await, "bob@new.example").await;
    let confirming = link(&app, "bob@new.example", "email").await;
    assert_eq!(confirm(&app, &confirming, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(waiting(&app).await, 0);
    assert_eq!(place(&prove(&app, &of_bob).await), refused);
    let body = json!({ "email": "bob@example.com", "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    assert_eq!(waiting(&app).await, 1);
    let undoing = link(&app, "bob@example.com", "undo").await;
    assert_eq!(undo(&app, &undoing, NEW).await.status, StatusCode::NO_CONTENT);
    assert_eq!(waiting(&app).await, 0);

    // However an account came to another email: the link proves nothing, and doesn't outlive the account.
    let (id, of_dan) = registered(&app, "dan@example.com").await;
    let mut change = app.app.change(&Actor::system()).await.unwrap();
    let sql = "update users set email = $2, email_key = $2 where id = $1";
    change.run(sql, args![id, "dan@new.example"]).await.unwrap();
    change.commit_quietly("a test").await.unwrap();
    assert_eq!(place(&prove(&app, &of_dan).await), refused);
    assert!(!app.events().await.contains(&"registration.verified".to_owned()));
    let path = format!("/api/v1/users/{id}");
    assert_eq!(root.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(place(&prove(&app, &of_dan).await), refused);
    assert_eq!(root.get(&path).await.status, StatusCode::NOT_FOUND);
    audit_log::seal_pending(&app.app).await.unwrap();
    let verified = audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    app.stop().await;
}
