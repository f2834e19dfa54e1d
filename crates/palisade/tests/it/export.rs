//! What users take out of their own account.

use axum::http::{Method, StatusCode};
use palisade::testing::{Call, On, TestApp, unlimited};
use palisade_db::testing::schema;
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

/// The columns of `users` whose contents the export has, and those that it leaves out: each with the reason.
const COLUMNS: [(&str, &str); 16] = [
    ("created_at", "exported"),
    ("delete_at", "exported"),
    ("disabled_at", "exported"),
    ("email", "exported"),
    ("email_key", "made from the email address"),
    ("email_verified_at", "exported"),
    ("has_totp", "exported"),
    ("id", "exported"),
    ("last_login_at", "exported"),
    ("locked_until", "exported"),
    ("name", "exported"),
    ("name_key", "made from the name"),
    ("passkeys", "exported"),
    ("recovery_codes_left", "exported"),
    ("service", "exported"),
    ("unproven", "how the address was proved: a state of the program"),
];

#[tokio::test]
async fn each_column_of_a_user_is_exported_or_left_out_for_a_reason() {
    let app = TestApp::on(On::Sqlite).await;
    let tables = schema(&app.app.db).await.unwrap();
    let users = tables.iter().find(|table| table.name == "users").unwrap();
    let mut columns: Vec<&str> = users.columns.iter().map(|column| column.name.as_str()).collect();
    columns.sort_unstable();
    let decided: Vec<&str> = COLUMNS.iter().map(|(column, _)| *column).collect();
    assert_eq!(columns, decided, "export a new column, or say here why not");
    app.stop().await;
}
