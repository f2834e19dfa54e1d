//! Which passwords are refused.

use axum::http::StatusCode;
use palisade::testing::{On, PASSWORD, Plan, TestApp, place};
use serde_json::json;

use crate::reauthentication::{MINUTE, NEW};

palisade::on_both! {
    earlier_passwords_are_refused => |on| super::history(on);
}

async fn history(on: On) {
    let settings = vec![("limits.enabled", "false"), ("passwords.history", "3")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let change = |from: &str, to: &str| {
        let body = json!({ "current_password": from, "new_password": to });
        let ann = ann.clone();
        async move { ann.post("/api/v1/users/me/password", body).await }
    };
    let list = [PASSWORD, NEW, "mossy lantern drifts inland", "crooked violin tastes of rain"];
    for pair in list.windows(2) {
        app.advance(MINUTE).await;
        assert_eq!(change(pair[0], pair[1]).await.status, StatusCode::NO_CONTENT);
    }
    let reused = (422, "/new_password", "password.reused");
    for earlier in &list[1..] {
        assert_eq!(place(&change(list[3], earlier).await), reused, "{earlier}");
    }
    assert_eq!(change(list[3], PASSWORD).await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test]
async fn the_common_passwords_and_those_of_the_site_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Purple Haze Over Grantchester Meadows\n").unwrap();
    let path: &'static str = file.path().to_str().unwrap().to_owned().leak();
    let settings = vec![
        ("passwords.blocklist_path", path),
        ("passwords.min_strength", "0"),
        ("passwords.min_length", "8"),
        ("server.public_url", "http://gadgets.localhost:8000"),
        ("limits.enabled", "false"),
    ];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let code = |password: &'static str| {
        let body = json!({ "email": "ann@example.com", "password": password });
        let anyone = app.anyone();
        async move { place(&anyone.post("/api/v1/auth/register", body).await).2.to_owned() }
    };
    for refused in
        ["purple haze OVER grantchester meadows", "1234567890123456", "gadgets-gadgets-2031"]
    {
        assert_eq!(code(refused).await, "password.blocklisted", "{refused}");
    }
    assert_eq!(code("crooked violin tastes of rain").await, "");
    app.stop().await;
}
