//! Invitations.

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::{On, PASSWORD, Plan, TestApp, place, unlimited};
use serde_json::json;

use crate::email_change::{DAY, NEW, link, reset, sign_in};

palisade::on_both! {
    an_invited_person_chooses_a_password => |on| super::inviting(on);
}

async fn inviting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let body = json!({ "email": "ann@example.com", "name": "Ann", "roles": ["admin"] });
    let made = root.post("/api/v1/users", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    assert_eq!(made.body["roles"], json!(["admin", "user"]));
    assert_eq!(made.body["email_verified"], false);
    assert_eq!(root.post("/api/v1/users", body).await.code(), "users.email_taken");
    for password in ["", PASSWORD] {
        assert_eq!(sign_in(&app, "ann@example.com", password).await, StatusCode::UNAUTHORIZED);
    }
    let link = link(&app, "ann@example.com", "invite").await;
    assert!(link.starts_with("pal_in_"));
    assert_eq!(place(&reset(&app, &link, "short").await).2, "password.too_short");
    let uses = join_all((0..16).map(|_| reset(&app, &link, NEW))).await;
    let done = uses.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1);
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::OK);
    let id = made.text("id");
    assert_eq!(root.get(&format!("/api/v1/users/{id}")).await.body["email_verified"], true);

    // A week, and no longer.
    root.post("/api/v1/users", json!({ "email": "bob@example.com" })).await;
    let late = self::link(&app, "bob@example.com", "invite").await;
    app.advance(7 * DAY).await;
    assert_eq!(place(&reset(&app, &late, NEW).await), (422, "/token", "recovery.bad_token"));
    app.stop().await;
}

#[tokio::test]
async fn without_mail_nobody_is_invited_and_no_email_is_changed() {
    let settings = vec![("server.environment", "development"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    for (path, body) in [
        ("/api/v1/users", json!({ "email": "no email" })),
        ("/api/v1/users/me/email", json!({ "email": "no email" })),
    ] {
        assert_eq!(place(&root.post(path, body).await), (422, "/email", "email.invalid"), "{path}");
    }
    app.stop().await;
}
