//! Where something newer takes the place of something older, the older one is told by a number: the clock stands
//! still in these tests.

use axum::http::StatusCode;
use palisade::testing::mailbox::link;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, TestApp, claims, unlimited};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    a_proof_in_the_same_second_ends_the_tokens_before_it => |on| super::proofs(on);
    a_newer_link_replaces_the_older_ones => |on| super::links(on);
    a_link_from_the_same_moment_dies_with_the_password => |on| super::moment(on);
    a_device_from_the_same_moment_is_one_of_the_earlier_password => |on| super::device(on);
}

const NEW: &str = "five green kettles whistle";
const ME: &str = "/api/v1/users/me";

async fn status(client: &Client<'_>) -> u16 {
    client.get(ME).await.status.as_u16()
}

async fn prove(client: &Client<'_>) -> Answer {
    let call = Call::post("/api/v1/auth/reauthenticate", json!({ "password": PASSWORD }));
    let answer = client.send(call.same_origin()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer
}

/// The token of the newest email that leads to a page.
async fn proofs(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut second = app.second().await;
    app.user("ann@example.com").await;
    for format in ["jwt", "paseto"] {
        let body =
            json!({ "email": "ann@example.com", "password": PASSWORD, "token_format": format });
        let first = app.anyone().post("/api/v1/auth/login", body).await;
        let first = app.anyone().with_token(first.text("access_token"));
        let there = Client { app: &second, ..first.clone() };
        assert_eq!((status(&first).await, status(&there).await), (200, 200));
        let again = app.anyone().with_token(prove(&first).await.text("access_token"));
        assert_eq!((status(&first).await, status(&again).await), (401, 200), "{format}");
        let third = app.anyone().with_token(prove(&again).await.text("access_token"));
        assert_eq!((status(&again).await, status(&third).await), (401, 200), "{format}");
        assert_eq!(status(&first).await, 401);
    }
    // A process to which the news is still on its way takes the newer token at once, and the older no more.
    let login = app.anyone().login("ann@example.com").await;
    let first = app.anyone().with_token(login.text("access_token"));
    assert_eq!(claims(&login.text("access_token"))["gen"], json!(1));
    let there = Client { app: &second, ..first.clone() };
    assert_eq!(status(&there).await, 200);
    second.stop_reading_the_feed().await;
    let proved = prove(&first).await.text("access_token");
    assert_eq!(claims(&proved)["gen"], json!(2));
    let newer = second.anyone().with_token(proved);
    let there = second.anyone().with_token(login.text("access_token"));
    assert_eq!((status(&newer).await, status(&there).await), (200, 401));
    second.stop().await;

    let mut browser = app.browser("ann@example.com").await;
    for _ in 0..3 {
        assert_eq!(status(&browser).await, 200);
        let fresh = app.anyone().with_cookie(prove(&browser).await.cookie());
        assert_eq!((status(&browser).await, status(&fresh).await), (401, 200));
        browser = fresh;
    }
    app.stop().await;
}

async fn links(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let body = json!({ "email": "ann@example.com" });
    assert_eq!(root.post("/api/v1/users", body.clone()).await.status, StatusCode::CREATED);
    let invitation = link(&app, "invite").await;
    let ask = || async {
        let answer = app.anyone().post("/api/v1/auth/password/forgot", body.clone()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        link(&app, "reset").await
    };
    let reset = |token: String, password: &'static str| {
        let body = json!({ "token": token, "password": password });
        let anyone = app.anyone();
        async move {
            let answer = anyone.post("/api/v1/auth/password/reset", body).await;
            (answer.status.as_u16(), answer.body["errors"][0]["code"].clone())
        }
    };
    // Anyone may ask for a reset, which therefore leaves the invitation alone.
    let (first, second) = (ask().await, ask().await);
    assert_eq!(reset(first, NEW).await, (422, json!("recovery.bad_token")));
    let (kept,): (i64,) =
        app.app.db.one("select count(*) from recovery_tokens", args![]).await.unwrap();
    assert_eq!(kept, 2, "the invitation and the newest reset");
    assert_eq!(reset(invitation.clone(), PASSWORD).await.0, 204);
    assert_eq!(reset(second, NEW).await, (422, json!("recovery.bad_token")));
    let (older, newer) = (ask().await, ask().await);
    assert_eq!(reset(older, NEW).await, (422, json!("recovery.bad_token")));
    assert_eq!(reset(newer, NEW).await.0, 204);

    // A change of email.
    app.user("bob@example.com").await;
    let bob = app.token("bob@example.com").await;
    let mut links = Vec::new();
    for email in ["mistyped@example.com", "bob@example.net"] {
        let asked = bob.post("/api/v1/users/me/email", json!({ "email": email })).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.raw);
        links.push(link(&app, "email").await);
    }
    let confirm = |token: String| {
        let body = json!({ "token": token, "password": PASSWORD });
        let anyone = app.anyone();
        async move { anyone.post("/api/v1/auth/email/confirm", body).await.status.as_u16() }
    };
    let newer = links.pop().unwrap();
    assert_eq!(confirm(links.pop().unwrap()).await, 422);
    assert_eq!(confirm(newer).await, 204);
    assert_eq!(bob.get(ME).await.body["email"], "bob@example.net");
    app.stop().await;
}

async fn moment(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "email": "ann@example.com" });
    app.anyone().post("/api/v1/auth/password/forgot", body).await;
    let reset = link(&app, "reset").await;
    ann.post("/api/v1/users/me/email", json!({ "email": "ann@example.net" })).await;
    let moving = link(&app, "email").await;
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    assert_eq!(ann.post("/api/v1/users/me/password", body).await.status, StatusCode::NO_CONTENT);
    let body = json!({ "token": reset, "password": PASSWORD });
    let refused = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!(refused.body["errors"][0]["code"], "recovery.bad_token", "{}", refused.raw);
    let body = json!({ "token": moving, "password": NEW });
    let refused = app.anyone().post("/api/v1/auth/email/confirm", body).await;
    assert_eq!(refused.body["errors"][0]["code"], "recovery.bad_token", "{}", refused.raw);
    app.stop().await;
}

async fn device(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let login = app.anyone().login("ann@example.com").await;
    let ann = app.anyone().with_token(login.text("access_token"));
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    assert_eq!(ann.post("/api/v1/users/me/password", body).await.status, StatusCode::NO_CONTENT);
    let guess = |password: &'static str, device: String| {
        let body =
            json!({ "email": "ann@example.com", "password": password, "device_token": device });
        let anyone = app.anyone();
        async move { anyone.post("/api/v1/auth/login", body).await }
    };
    let old = login.text("device_token");
    assert_eq!(guess(PASSWORD, old.clone()).await.code(), "login.denied");
    let former = || async {
        let (count,): (i64,) = app
            .app
            .db
            .one("select count(*) from lockout_counts where client = 'former'", args![])
            .await
            .unwrap();
        count
    };
    assert_eq!(former().await, 1);
    // With the new password it is known again.
    let known = guess(NEW, old).await.text("device_token");
    assert_eq!(former().await, 0);
    assert_eq!(guess(PASSWORD, known).await.code(), "login.denied");
    assert_eq!(former().await, 0);
    app.stop().await;
}
