//! The sign-in form that clients of other servers know.

use axum::http::{Method, StatusCode};
use palisade::testing::{Call, On, Plan, TestApp, place, unlimited};
use serde_json::json;

use crate::reauthentication::status;

#[tokio::test]
async fn the_form_of_other_servers_is_taken_only_where_it_is_switched_on() {
    let form = |fields: &'static str| {
        Call::new(Method::POST, "/api/v1/login/access-token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(fields)
    };
    let good =
        "username=ann%40example.com&password=seven+purple+teapots+orbit&grant_type=password&scope=";
    let off = TestApp::with(On::Sqlite, unlimited()).await;
    assert_eq!(off.anyone().send(form(good)).await.status, StatusCode::NOT_FOUND);
    off.stop().await;
    let settings = vec![("compat.login_form", "true"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let answer = app.anyone().send(form(good)).await;
    assert_eq!(answer.text("token_type"), "Bearer");
    assert_eq!(status(&app.anyone().with_token(answer.text("access_token"))).await, 200);
    // The same counts as for every other sign-in.
    let wrong = "username=ann%40example.com&password=not+the+right+one";
    for _ in 0..5 {
        assert_eq!(app.anyone().send(form(wrong)).await.code(), "login.denied");
    }
    assert_eq!(app.anyone().send(form(good)).await.code(), "login.denied");
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    let twice = form("username=a&username=b&password=c");
    assert_eq!(place(&app.anyone().send(twice).await).2, "request.repeated");
    let json = Call::post("/api/v1/login/access-token", json!({}));
    assert_eq!(app.anyone().send(json).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    app.stop().await;
}
