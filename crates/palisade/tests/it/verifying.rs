//! What other services ask about tokens, and the signed feed of what has ended.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt as _;
use palisade_db::{Timestamp, args};
use serde_json::{Value, json};

use crate::restoring::{highest, restore_feed};
use palisade::testing::{Answer, Call, Client, On, Plan, TestApp, put, unlimited};

palisade::on_both! {
    a_token_of_an_ended_session_is_not_active => |on| super::state(on);
    a_revoked_token_ends_what_it_belongs_to => |on| super::revoking(on);
    the_feed_holds_every_ending_in_order => |on| super::feed(on);
    a_reader_outside_is_told_that_its_place_is_unknown => |on| super::unknown(on);
    a_number_that_commits_late_is_on_a_later_page => |on| super::late(on);
    a_stream_ends_with_the_key_that_opened_it => |on| super::stream(on);
    a_stream_ends_with_the_credential_that_opened_it => |on| super::outlived(on);
}

const FEED: &str = "/api/v1/auth/revocations";

/// Another service: a service account with a key.
pub async fn verifier<'a>(app: &'a TestApp, root: &Client<'_>) -> Client<'a> {
    let made = root.post("/api/v1/service-accounts", json!({ "name": "Gateway" })).await;
    let role = json!({ "name": "verifiers", "permissions": ["tokens:introspect"] });
    root.post("/api/v1/roles", role).await;
    let path = format!("/api/v1/users/{}", made.text("id"));
    put(root, &format!("{path}/roles/verifiers")).await;
    let body = json!({ "name": "gateway", "permissions": ["tokens:introspect"] });
    let key = root.post(&format!("{path}/api-keys"), body).await;
    assert_eq!(key.status, StatusCode::CREATED, "{}", key.raw);
    app.anyone().with_token(key.text("api_key"))
}

pub async fn form(client: &Client<'_>, path: &str, token: &str) -> Answer {
    let call = Call::new(Method::POST, path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={token}&token_type_hint=anything"));
    client.send(call).await
}

pub async fn introspect(client: &Client<'_>, token: &str) -> Value {
    let answer = form(client, "/api/v1/auth/introspect", token).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer.body
}

pub async fn is_nothing(client: &Client<'_>, token: &str) {
    assert_eq!(introspect(client, token).await, json!({ "active": false }), "{token}");
}

async fn sign_in(app: &TestApp, format: &str) -> Answer {
    let body = json!({
        "email": "ann@example.com", "password": palisade::testing::PASSWORD, "token_format": format,
    });
    let answer = app.anyone().post("/api/v1/auth/login", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer
}

async fn state(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    for format in ["jwt", "paseto"] {
        let held = sign_in(&app, format).await;
        let (access, refresh) = (held.text("access_token"), held.text("refresh_token"));
        let state = introspect(&gateway, &access).await;
        assert_eq!(state["active"], true);
        assert_eq!(
            (state["sub"].as_str(), &state["sid"]),
            (Some(&*ann.to_string()), &held.body["session_id"])
        );
        assert_eq!(state["token_type"], "Bearer");
        assert_eq!(state["amr"], json!(["pwd"]));
        for number in ["exp", "iat", "auth_time"] {
            assert!(state[number].is_i64(), "{number}: {state}");
        }
        for text in ["iss", "aud", "client_id", "jti"] {
            assert!(state[text].is_string(), "{text}: {state}");
        }
        // A refresh token isn't used up by asking.
        for _ in 0..2 {
            let state = introspect(&gateway, &refresh).await;
            assert_eq!((&state["active"], &state["sid"]), (&json!(true), &held.body["session_id"]));
        }
        let body = json!({ "refresh_token": refresh });
        let next = app.anyone().post("/api/v1/auth/refresh", body).await;
        assert_eq!(next.status, StatusCode::OK);
        is_nothing(&gateway, &refresh).await;
        app.anyone().with_token(access.as_str()).act("/api/v1/auth/logout").await;
        for over in [&access, &next.text("access_token"), &next.text("refresh_token")] {
            is_nothing(&gateway, over).await;
        }
    }
    let signed_in = app.token("ann@example.com").await;
    let made = json!({ "name": "CI", "permissions": [], "allowed_networks": ["192.0.2.0/24"] });
    let key = signed_in.post("/api/v1/users/me/api-keys", made).await;
    let state = introspect(&gateway, &key.text("api_key")).await;
    assert_eq!((&state["active"], &state["scope"]), (&json!(true), &json!("")));
    assert_eq!(state["allowed_networks"], json!(["192.0.2.0/24"]));
    for bad in ["x", "a.b.c", "pal_ak_x", "pal_rt_x", "v4.public.x"] {
        is_nothing(&gateway, bad).await;
    }
    // Disabled: everything of theirs is worth nothing.
    root.act(&format!("/api/v1/users/{ann}/disable")).await;
    is_nothing(&gateway, &signed_in.bearer.clone().unwrap()).await;
    is_nothing(&gateway, &key.text("api_key")).await;
    // Without the permission no one learns anything.
    app.user("bob@example.com").await;
    let bob = app.token("bob@example.com").await;
    for path in ["/api/v1/auth/introspect", "/api/v1/auth/revoke"] {
        assert_eq!(form(&bob, path, "x").await.code(), "access.denied");
        let call = Call::post(path, json!({ "token": "x" }));
        assert_eq!(gateway.send(call).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    app.stop().await;
}

async fn revoking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.user("ann@example.com").await;
    let gateway = verifier(&app, &app.token("root@example.com").await).await;
    let revoke = async |token: &str| {
        let answer = form(&gateway, "/api/v1/auth/revoke", token).await;
        assert_eq!((answer.status, answer.raw.as_str()), (StatusCode::OK, ""));
    };
    for which in ["access_token", "refresh_token"] {
        let held = sign_in(&app, "jwt").await;
        let other = sign_in(&app, "jwt").await;
        let client = |held: &Answer| app.anyone().with_token(held.text("access_token"));
        assert_eq!(client(&held).get("/api/v1/users/me").await.status, StatusCode::OK);
        revoke(&held.text(which)).await;
        let answer = client(&held).get("/api/v1/users/me").await;
        assert_eq!(answer.code(), "access.invalid_token", "{which}");
        assert_eq!(client(&other).get("/api/v1/users/me").await.status, StatusCode::OK);
        revoke(&held.text(which)).await;
    }
    let body = json!({ "name": "CI", "permissions": [] });
    let key = app.token("ann@example.com").await.post("/api/v1/users/me/api-keys", body).await;
    let program = app.anyone().with_token(key.text("api_key"));
    assert_eq!(program.get("/api/v1/users/me").await.status, StatusCode::OK);
    revoke(&key.text("api_key")).await;
    assert_eq!(program.get("/api/v1/users/me").await.code(), "access.invalid_token");
    for unknown in ["x", "pal_ak_x", "a.b.c"] {
        revoke(unknown).await;
    }
    app.stop().await;
}

/// Header and claims of a page; that its signature is good is PyJWT's to say (tests/clients/test_introspection.py).
fn opened(signed: &str) -> (Value, Value) {
    let parts: Vec<&str> = signed.split('.').collect();
    assert_eq!(parts.len(), 3, "{signed}");
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    (part(parts[0]), part(parts[1]))
}

pub async fn page(client: &Client<'_>, after: Option<&str>) -> Value {
    let path = after.map_or(FEED.to_owned(), |after| format!("{FEED}?after={after}"));
    let answer = client.get(&path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let (header, claims) = opened(&answer.raw);
    assert_eq!(header["typ"], "revocations+jwt");
    assert!(header["kid"].is_string());
    claims
}

fn ended(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    let id = |item: &Value| item.get("session_id").or(item.get("api_key_id")).unwrap().clone();
    items.map(|item| id(item).as_str().unwrap().to_owned()).collect()
}

async fn feed(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.user("ann@example.com").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let held = sign_in(&app, "jwt").await;
        app.anyone().with_token(held.text("access_token")).act("/api/v1/auth/logout").await;
        expected.push(held.text("session_id"));
    }
    let ann = app.token("ann@example.com").await;
    let body = json!({ "name": "CI", "permissions": [] });
    let key = ann.post("/api/v1/users/me/api-keys", body).await.text("id");
    ann.delete(&format!("/api/v1/users/me/api-keys/{key}")).await;
    expected.push(key);
    let first = page(&gateway, None).await;
    assert_eq!(ended(&first), expected);
    assert_eq!(first["more"], false);
    let now = app.clock.now();
    assert_eq!(first["iat"], now.as_seconds());
    assert_eq!(first["exp"], now.as_seconds() + 10);
    let time = Timestamp::parse_rfc3339(first["head"]["time"].as_str().unwrap()).unwrap();
    assert!(now.since(time) < Duration::from_millis(1), "{time}");
    let sequences: Vec<i64> = first["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["sequence"].as_i64().unwrap())
        .collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    // What is young comes again, what is certain doesn't, and what can't be alive isn't there.
    let next = first["next"].as_str().unwrap();
    let again = page(&gateway, Some(next)).await;
    assert_eq!((ended(&again), &again["after"]), (expected.clone(), &json!(next)));
    app.advance(Duration::from_secs(61)).await;
    let second = page(&gateway, Some(next)).await;
    assert_eq!(ended(&second), expected);
    let next = second["next"].as_str().unwrap();
    assert!(ended(&page(&gateway, Some(next)).await).is_empty());
    assert_eq!(ended(&page(&gateway, None).await), expected);
    // A cursor without its mark is of an earlier version.
    assert_eq!(ended(&page(&gateway, Some("999999.999999")).await), expected);
    app.advance(Duration::from_secs(16 * 60)).await;
    assert!(ended(&page(&gateway, None).await).is_empty());
    for bad in ["x", "5", "-1.2", "1.99999999999999999999", "1.2.3", "1.2.0123456789abcdeg", ""] {
        let answer = gateway.get(&format!("{FEED}?after={bad}")).await;
        assert_eq!(answer.body["errors"][0]["code"], "request.bad_cursor", "{bad}");
    }
    let bob = app.token("ann@example.com").await;
    assert_eq!(bob.get(FEED).await.code(), "access.denied");
    app.stop().await;
}

async fn unknown(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.user("ann@example.com").await;
    let gateway = verifier(&app, &app.token("root@example.com").await).await;
    let low = highest(&app).await;
    let end_one = async || {
        let held = sign_in(&app, "jwt").await;
        app.anyone().with_token(held.text("access_token")).act("/api/v1/auth/logout").await;
        held.text("session_id")
    };
    for _ in 0..3 {
        end_one().await;
    }
    app.advance(Duration::from_secs(61)).await;
    let first = page(&gateway, None).await;
    assert_eq!((ended(&first).len(), first.get("restarted")), (3, None));
    let next = first["next"].as_str().unwrap().to_owned();
    // The reader's place is known for as long as nothing else happens, however long that is.
    app.advance(Duration::from_secs(3 * 3600)).await;
    let root = app.token("root@example.com").await;
    let upkeep = app.app.upkeep("a test");
    app.app.feed.prune(upkeep, app.clock.now(), Duration::ZERO).await.unwrap();
    let gateway = verifier(&app, &root).await;
    let known = page(&gateway, Some(&next)).await;
    assert_eq!((ended(&known).len(), known.get("restarted")), (0, None));
    // The database is restored, and its numbers grow beyond the reader's place again.
    restore_feed(&app, low, 20).await;
    let again = end_one().await;
    app.advance(Duration::from_secs(61)).await;
    let told = page(&gateway, Some(&next)).await;
    assert_eq!((ended(&told), &told["restarted"]), (vec![again], &json!(true)));
    assert_eq!(told["after"], next);
    let on = told["next"].as_str().unwrap();
    assert_eq!(page(&gateway, Some(on)).await.get("restarted"), None);
    app.stop().await;
}

/// Endings as other processes write them: number, subject, age in seconds.
async fn write(app: &TestApp, rows: impl IntoIterator<Item = (i64, u128, u64)>) {
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    for (seq, subject, age) in rows {
        let at: Timestamp = app.clock.now().minus(Duration::from_secs(age));
        let sql = match app.app.db.backend() {
            palisade_db::Backend::Sqlite => {
                "insert into feed (seq, topic, subject, origin, at) values ($1, 'sessions.ended', $2, $2, $3)"
            }
            palisade_db::Backend::Postgres => {
                "insert into feed (seq, topic, subject, origin, at) overriding system value
                 values ($1, 'sessions.ended', $2, $2, $3)"
            }
        };
        tx.run(sql, args![seq, uuid::Uuid::from_u128(subject), at]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn late(on: On) {
    let app =
        TestApp::with(on, Plan { settings: vec![("limits.enabled", "false")], ..unlimited() })
            .await;
    app.admin("root@example.com").await;
    let gateway = verifier(&app, &app.token("root@example.com").await).await;
    // So many that a pass takes several pages; two numbers are missing when it begins.
    let numbers = (2000..3200).filter(|number| ![2010, 3100].contains(number));
    write(&app, numbers.map(|number| (number, u128::try_from(number).unwrap(), 5))).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut next = "0.0".to_owned();
    for round in 0..12 {
        let page = page(&gateway, Some(&next)).await;
        seen.extend(ended(&page));
        next = page["next"].as_str().unwrap().to_owned();
        match round {
            // In the middle of the first pass, behind where the reader is.
            0 => write(&app, [(2010, 2010, 6)]).await,
            1 => app.advance(Duration::from_secs(70)).await,
            _ => {}
        }
    }
    assert!(seen.contains(&uuid::Uuid::from_u128(2010).to_string()), "passed over");
    assert_eq!(seen.len(), 1199);
    app.stop().await;
}

/// The next event of a stream: its page.
async fn event(body: &mut axum::body::Body) -> Option<Value> {
    let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap()?;
    let text = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: "));
    assert!(text.contains("event: revocations\n") && text.ends_with("\n\n"), "{text}");
    Some(opened(data.unwrap()).1)
}

async fn stream(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.user("ann@example.com").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    let open = || Call::new(Method::GET, FEED).header("accept", "text/event-stream");
    let answer = gateway.open(open()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let first = event(&mut body).await.unwrap();
    assert!(ended(&first).is_empty());
    assert_eq!((&first["after"], &first["stream"]["page"]), (&json!("0.0"), &json!(0)));
    let held = sign_in(&app, "jwt").await;
    app.anyone().with_token(held.text("access_token")).act("/api/v1/auth/logout").await;
    let second = event(&mut body).await.unwrap();
    assert_eq!(ended(&second), [held.text("session_id")]);
    assert_eq!(second["stream"], json!({ "id": first["stream"]["id"], "page": 1 }));
    // Without news there is a heartbeat, and what was sent isn't sent again.
    assert!(ended(&event(&mut body).await.unwrap()).is_empty());
    // No more than 8 of one user at once; what was left gives its seat back.
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(gateway.open(open()).await);
    }
    let refused = gateway.send(open()).await;
    assert_eq!(refused.code(), "verifiers.too_many_streams");
    drop(held);
    let second = gateway.open(open()).await;
    assert_eq!(second.status(), StatusCode::OK);
    drop(second);
    let owner = gateway.get("/api/v1/users/me").await.text("id");
    let keys = root.get(&format!("/api/v1/users/{owner}/api-keys")).await;
    let id = keys.body["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/users/{owner}/api-keys/{id}");
    assert_eq!(root.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(event(&mut body).await, None, "the stream outlives its key");
    app.stop().await;
}

fn events() -> Call {
    Call::new(Method::GET, FEED).header("accept", "text/event-stream")
}

/// A stream that has begun.
async fn follow(client: &Client<'_>) -> axum::body::Body {
    let answer = client.open(events()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    event(&mut body).await.unwrap();
    body
}

async fn outlived(on: On) {
    let here = TestApp::with(on, unlimited()).await;
    let strict = here.second_with(vec![("access.admin_mfa", "required")]).await;
    here.admin("root@example.com").await;
    let ann = here.user("ann@example.com").await;
    let root = here.token("root@example.com").await;
    verifier(&here, &root).await;
    let ann_is = format!("/api/v1/users/{ann}/roles");
    put(&root, &format!("{ann_is}/verifiers")).await;
    // A new proof of identity replaces the credential. The session lives.
    let again = || {
        let body = json!({ "password": palisade::testing::PASSWORD });
        Call::post("/api/v1/auth/reauthenticate", body).same_origin()
    };
    for client in [here.token("ann@example.com").await, here.browser("ann@example.com").await] {
        let mut body = follow(&client).await;
        assert_eq!(client.send(again()).await.status, StatusCode::OK);
        let what = if client.cookie.is_some() { "cookie" } else { "token" };
        assert_eq!(event(&mut body).await, None, "the stream outlives its {what}");
    }
    // The credential expires.
    let mut body = follow(&here.token("ann@example.com").await).await;
    here.advance(Duration::from_secs(14 * 60)).await;
    assert!(event(&mut body).await.is_some());
    here.advance(Duration::from_secs(60)).await;
    assert_eq!(event(&mut body).await, None, "the stream outlives its token's time");
    // The user has to set up a second factor first.
    let there = Client { app: &strict, ..here.token("ann@example.com").await };
    strict.catch_up().await;
    let mut body = follow(&there).await;
    put(&here.token("root@example.com").await, &format!("{ann_is}/admin")).await;
    let mut ended = false;
    for _ in 0..3 {
        ended = ended || event(&mut body).await.is_none();
    }
    assert!(ended, "the stream outlives the gate");
    assert_eq!(there.get(FEED).await.code(), "access.mfa_required");
    strict.stop().await;
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_one_use_of_its_key() {
    let app = TestApp::on(On::Sqlite).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    let owner = gateway.get("/api/v1/users/me").await.text("id");
    let body = json!({
        "name": "slow", "permissions": ["tokens:introspect"], "requests_per_minute": 1,
        "allowed_networks": ["198.51.100.0/24"],
    });
    let key = root.post(&format!("/api/v1/users/{owner}/api-keys"), body).await;
    let slow = app.anyone().with_token(key.text("api_key"));
    let mut body = follow(&slow).await;
    // Several looks at the right to it, from the same place.
    assert!(event(&mut body).await.is_some());
    assert_eq!(slow.get(FEED).await.code(), "request.too_many");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_all_streams() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let open = || Call::new(Method::GET, FEED).header("accept", "text/event-stream");
    let mut held = Vec::new();
    for _ in 0..8 {
        let gateway = verifier(&app, &root).await;
        for _ in 0..8 {
            let answer = gateway.open(open()).await;
            assert_eq!(answer.status(), StatusCode::OK);
            held.push(answer);
        }
        // SECURITY: not one more, however many are free.
        assert_eq!(gateway.send(open()).await.code(), "verifiers.too_many_streams");
    }
    // And 64 in all.
    let late = verifier(&app, &root).await;
    assert_eq!(late.send(open()).await.code(), "verifiers.too_many_streams");
    held.truncate(63);
    assert_eq!(late.open(open()).await.status(), StatusCode::OK);
    app.stop().await;
}
