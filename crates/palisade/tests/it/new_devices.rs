//! The email about a sign-in from a device that is new.

use palisade::testing::mailbox::emails;
use palisade::testing::{Call, On, PASSWORD, TestApp, unlimited};
use serde_json::json;

palisade::on_both! {
    a_sign_in_from_a_new_device_is_told => |on| super::devices(on);
}

async fn devices(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let login = |ip: &'static str, agent: &'static str, device: Option<String>| {
        let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
        if let Some(device) = device {
            body["device_token"] = json!(device);
        }
        let call = Call::post("/api/v1/auth/login", body).header("user-agent", agent);
        let client = app.anyone().from(ip);
        async move { client.send(call).await }
    };
    let count = || async {
        let all = emails(&app).await;
        all.iter().filter(|mail| mail.subject.contains("New sign-in")).count()
    };
    let first = login("203.0.113.1", "one", None).await;
    assert_eq!(count().await, 0, "the first sign-in is nobody else's");
    login("203.0.113.1", "one", None).await;
    assert_eq!(count().await, 0, "the same software at the same IP address");
    login("203.0.113.2", "two", Some(first.text("device_token"))).await;
    assert_eq!(count().await, 0, "a known device");
    login("203.0.113.2", "one", None).await;
    login("203.0.113.1", "three <b>", None).await;
    assert_eq!(count().await, 2);
    let told = emails(&app).await;
    let told = told.iter().find(|mail| mail.text.contains("three")).unwrap();
    assert!(told.text.contains("203.0.113.1") && told.html.contains("three &lt;b&gt;"), "{told:?}");
    app.stop().await;
}
