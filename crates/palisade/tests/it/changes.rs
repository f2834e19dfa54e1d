//! Changes that waited: what ended meanwhile ends them.

use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use palisade::app::{Actor, Hold};
use palisade::credential::{Credential, SecretRef};
use palisade::credentials::{self, Act, End};
use palisade::testing::{Call, On, TestApp, place, unlimited};
use palisade::{api_keys, sessions, users};
use palisade_db::args;
use serde_json::json;

use crate::racing::{actor_of, session_of};

palisade::on_both! {
    a_request_that_waited_does_nothing_after_its_session_has_ended => |on| super::waiting(on);
    a_request_that_waited_past_the_end_of_its_session_is_refused => |on| super::past_the_end(on);
    a_change_of_a_disabled_account_is_refused => |on| super::disabled(on);
}

async fn keys(app: &TestApp) -> i64 {
    let (count,): (i64,) = app
        .app
        .db
        .one("select count(*) from api_keys where revoked_at is null", args![])
        .await
        .unwrap();
    count
}

async fn waiting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let body = json!({ "name": "mine", "permissions": [] }).to_string();
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(4);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    });
    // SECURITY: let in, and its body comes only after the session has ended.
    let ann = app.token("ann@example.com").await;
    let call = Call::new(Method::POST, "/api/v1/users/me/api-keys")
        .header("content-type", "application/json")
        .body(axum::body::Body::from_stream(stream));
    let end = async {
        let (first, rest) = body.as_bytes().split_at(5);
        sender.send(Ok(Bytes::copy_from_slice(first))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let holds = [Hold::Alone(id)];
        let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
        sessions::revoke_all(change, id).await.unwrap();
        sender.send(Ok(Bytes::copy_from_slice(rest))).await.unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(ann.send(call), end);
    assert_eq!(place(&answer), (401, "", "access.invalid_token"), "{}", answer.raw);
    assert_eq!(keys(&app).await, 0);

    // SECURITY: let in, and waiting for the user whom the ending holds.
    let ann = app.token("ann@example.com").await;
    let holds = [Hold::Alone(id)];
    let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    assert!(users::lock_row(&mut change, id).await.unwrap());
    credentials::end(&mut change, End::of(id, Act::Revoked)).await.unwrap();
    let body = json!({ "name": "mine", "permissions": [] });
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        change.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(ann.post("/api/v1/users/me/api-keys", body), end);
    assert_eq!(place(&answer), (401, "", "access.invalid_token"), "{}", answer.raw);
    assert_eq!(keys(&app).await, 0);
    app.stop().await;
}

async fn past_the_end(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    app.token("ann@example.com").await;
    let actor = actor_of(id, session_of(&app, id).await);
    app.app.change(&actor).await.map(drop).unwrap();
    app.advance(app.app.settings.sessions.absolute_timeout).await;
    let refused = app.app.change(&actor).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), "access.invalid_token");
    app.stop().await;
}

/// Whether or not its credentials have ended with it.
async fn disabled(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let made = ann.post("/api/v1/users/me/api-keys", json!({ "name": "CI", "permissions": [] }));
    let key = made.await.text("id").parse().unwrap();
    let by_session = actor_of(id, session_of(&app, id).await);
    let secret = SecretRef::Only;
    let credential = Some(Credential { kind: &api_keys::KIND, id: key, secret });
    let by_key = Actor { credential, ..by_session.clone() };
    for disabled in [false, true] {
        let now = disabled.then(|| app.clock.now());
        let mut tx = app.app.upkeep("a test").begin().await.unwrap();
        tx.run("update users set disabled_at = $2 where id = $1", args![id, now]).await.unwrap();
        tx.commit().await.unwrap();
        for actor in [&by_session, &by_key] {
            let begun = app.app.change(actor).await.map(drop);
            assert_eq!(begun.is_ok(), !disabled);
            assert!(begun.err().is_none_or(|error| error.code() == "access.invalid_token"));
        }
    }
    app.stop().await;
}
