//! What users take out of their own account.

use axum::http::{Method, StatusCode};
use palisade::testing::{Call, On, TestApp, unlimited};
use serde_json::json;

palisade::on_both! {
    the_export_holds_what_is_kept => |on| super::export(on);
}

async fn export(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let call = Call::new(Method::PUT, &format!("/api/v1/resources/document/7/grants/user:{id}"));
    root.send(call.json(json!({ "actions": ["read"] }))).await;
    let all = ann.get("/api/v1/users/me/export").await;
    assert_eq!(all.status, StatusCode::OK, "{}", all.raw);
    assert_eq!(all.body["user"]["email"], "ann@example.com");
    assert_eq!(all.body["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(all.body["grants"][0]["resource_id"], "7");
    assert_eq!(all.body["email_changes"], json!([]));
    let activity: Vec<&str> = all.body["activity"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(activity, ["grants.given", "login.signed_in", "users.created"]);
    assert!(app.events().await.contains(&"account.exported".to_owned()));
    app.stop().await;
}
