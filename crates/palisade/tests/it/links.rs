//! Who received an emailed link, for the page that the link opens.

use axum::http::StatusCode;
use palisade::testing::phone::with_phone;
use palisade::testing::{Answer, On, PASSWORD, Plan, TestApp, place};
use serde_json::json;

use crate::email_change::{NEW, ask, confirm, link, reset, undo};

palisade::on_both! {
    a_link_names_its_recipient_until_it_is_used => |on| super::naming(on);
}

async fn look(app: &TestApp, token: &str) -> Answer {
    app.anyone().post("/api/v1/auth/link", json!({ "token": token })).await
}

/// Asserts that the link is for this email address.
async fn is_for(app: &TestApp, token: &str, email: &str) {
    let answer = look(app, token).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    assert_eq!(answer.body, json!({ "email": email }));
}

async fn is_nothing(app: &TestApp, token: &str) {
    assert_eq!(place(&look(app, token).await), (422, "/token", "links.unusable"));
}

async fn naming(on: On) {
    let settings = vec![
        ("limits.enabled", "false"),
        ("registration.email_verification", "required"),
        ("mfa.recovery_delay", "72h"),
    ];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;

    let body = json!({ "email": "new@example.com", "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    is_for(&app, &link(&app, "new@example.com", "verify").await, "new@example.com").await;

    root.post("/api/v1/users", json!({ "email": "bob@example.com" })).await;
    let invitation = link(&app, "bob@example.com", "invite").await;
    is_for(&app, &invitation, "bob@example.com").await;
    is_for(&app, &invitation, "bob@example.com").await;
    assert_eq!(reset(&app, &invitation, NEW).await.status, StatusCode::NO_CONTENT);
    is_nothing(&app, &invitation).await;

    app.user("ann@example.com").await;
    let forgot = json!({ "email": "ann@example.com" });
    app.anyone().post("/api/v1/auth/password/forgot", forgot).await;
    is_for(&app, &link(&app, "ann@example.com", "reset").await, "ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    ask(&ann, "ann@new.example").await;
    // The new email address may be another person's, who is not told the old one.
    let confirming = link(&app, "ann@new.example", "email").await;
    is_for(&app, &confirming, "ann@new.example").await;
    assert_eq!(confirm(&app, &confirming, PASSWORD).await.status, StatusCode::NO_CONTENT);
    is_nothing(&app, &confirming).await;
    let undoing = link(&app, "ann@example.com", "undo").await;
    is_for(&app, &undoing, "ann@example.com").await;
    assert_eq!(undo(&app, &undoing, NEW).await.status, StatusCode::NO_CONTENT);
    is_nothing(&app, &undoing).await;

    with_phone(&app, "eve@example.com").await;
    let body = json!({ "email": "eve@example.com", "password": PASSWORD });
    let asked = app.anyone().post("/api/v1/auth/login", body).await;
    let lost = json!({ "mfa_token": asked.text("mfa_token") });
    app.anyone().post("/api/v1/auth/login/mfa/lost", lost).await;
    is_for(&app, &link(&app, "eve@example.com", "factors").await, "eve@example.com").await;

    let strange = format!("pal_in_{}", "a".repeat(43));
    for other in ["", "pal_rs_x", &strange, &"x".repeat(300)] {
        let answer = look(&app, other).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{other}: {}", answer.raw);
    }
    app.stop().await;
}
