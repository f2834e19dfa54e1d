//! Claims about the user in access tokens, and what happens to tokens whose claims have changed.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade::id::UserId;
use palisade::sessions;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, patch, put};
use palisade_db::args;
use serde_json::{Value, json};

use crate::verifying::{introspect, page, verifier};

palisade::on_both! {
    tokens_contain_the_claims_that_are_asked_for => |on| super::contents(on);
    a_change_of_claims_outdates_earlier_tokens => |on| super::changes(on);
    a_change_of_other_claims_outdates_nothing => |on| super::others(on);
    a_token_issued_beside_a_change_is_new_or_outdated => |on| super::beside(on);
    a_token_that_would_be_too_long_is_not_issued => |on| super::too_long(on);
    a_role_of_many_is_outdated_in_batches => |on| super::batches(on);
    introspection_tells_about_people_only_who_may_see_them => |on| super::introspection(on);
    a_new_proof_of_identity_is_told_to_verifiers => |on| super::proved(on);
}

const ME: &str = "/api/v1/users/me";
pub const ALL: &str = "roles,scope,email,email_verified,name";

async fn start(on: On, claims: &'static str) -> (TestApp, UserId) {
    let mut settings = vec![("limits.enabled", "false")];
    settings.extend((!claims.is_empty()).then_some(("tokens.claims", claims)));
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    (app, ann)
}

async fn sign_in(app: &TestApp, format: &str) -> Answer {
    sign_in_as(app, "ann@example.com", format).await
}

pub async fn sign_in_as(app: &TestApp, email: &str, format: &str) -> Answer {
    let body = json!({ "email": email, "password": PASSWORD, "token_format": format });
    let answer = app.anyone().post("/api/v1/auth/login", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer
}

pub async fn refresh(app: &TestApp, held: &Answer) -> Answer {
    let body = json!({ "refresh_token": held.text("refresh_token") });
    app.anyone().post("/api/v1/auth/refresh", body).await
}

/// The claims of a token of either format.
pub fn claims(answer: &Answer) -> Value {
    let token = answer.text("access_token");
    let parts: Vec<&str> = token.split('.').collect();
    let is_paseto = parts[0] == "v4";
    let bytes = URL_SAFE_NO_PAD.decode(parts[if is_paseto { 2 } else { 1 }]).unwrap();
    let signature = if is_paseto { 64 } else { 0 };
    serde_json::from_slice(&bytes[..bytes.len() - signature]).unwrap()
}

pub async fn works(app: &TestApp, held: &Answer) -> bool {
    let answer = app.anyone().with_token(held.text("access_token")).get(ME).await;
    assert!(answer.status == StatusCode::OK || answer.code() == "access.invalid_token");
    answer.status == StatusCode::OK
}

/// Another process hears of it within the feed's poll.
pub async fn is_refused(app: &TestApp, held: &Answer) {
    for _ in 0..200 {
        if !works(app, held).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an outdated token is still accepted");
}

async fn contents(on: On) {
    let (app, _) = start(on, ALL).await;
    for format in ["jwt", "paseto"] {
        let held = sign_in(&app, format).await;
        for answer in [&held, &refresh(&app, &held).await] {
            let claims = claims(answer);
            assert_eq!((&claims["roles"], &claims["scope"]), (&json!(["user"]), &json!("")));
            assert_eq!(claims["email"], "ann@example.com");
            assert_eq!(claims["email_verified"], false);
            assert_eq!(claims.get("name"), None, "no name");
            assert!(works(&app, answer).await);
        }
    }
    let root = app.anyone().login("root@example.com").await;
    let claims_of_root = claims(&root);
    assert_eq!(claims_of_root["roles"], json!(["admin", "user"]));
    assert!(claims_of_root["scope"].as_str().unwrap().contains("users:read users:write"));
    // Rights come from the server's own state. By default, tokens tell nothing about the user.
    let plain = app.second_with(vec![("limits.enabled", "false")]).await;
    let held = sign_in(&plain, "jwt").await;
    for claim in ALL.split(',') {
        assert_eq!(claims(&held).get(claim), None, "{claim}");
    }
    plain.stop().await;
    app.stop().await;
}

/// The items of the feed about a session.
async fn told(gateway: &Client<'_>, session: &str) -> Vec<Value> {
    let page = page(gateway, None).await;
    let items = page["items"].as_array().unwrap().iter();
    items.filter(|item| item["session_id"] == session).cloned().collect()
}

/// Changes what tokens tell about Ann.
async fn alter(root: &Client<'_>, ann: UserId, which: &str) {
    let user = format!("/api/v1/users/{ann}");
    let role = "/api/v1/roles/readers";
    let answer = match which {
        "grant" => put(root, &format!("{user}/roles/readers")).await,
        "permissions" => patch(root, role, json!({ "permissions": ["users:read"] })).await,
        "revoke" => root.delete(&format!("{user}/roles/readers")).await,
        "grant again" => put(root, &format!("{user}/roles/readers")).await,
        "delete" => root.delete(role).await,
        "name" => patch(root, &user, json!({ "name": "Ann Example" })).await,
        "email" => patch(root, &user, json!({ "email": "ann@example.net" })).await,
        "back" => patch(root, &user, json!({ "email": "ann@example.com" })).await,
        _ => unreachable!(),
    };
    assert!(answer.status.is_success(), "{which}: {}", answer.raw);
}

const CHANGES: [&str; 8] =
    ["grant", "permissions", "revoke", "grant again", "delete", "name", "email", "back"];

async fn changes(on: On) {
    let (app, ann) = start(on, ALL).await;
    let second = app.second().await;
    let root = app.token("root@example.com").await;
    root.post("/api/v1/roles", json!({ "name": "readers", "permissions": [] })).await;
    let gateway = verifier(&app, &root).await;
    let bystander = app.anyone().login("root@example.com").await;
    let mut held = sign_in(&app, "jwt").await;
    let session = held.text("session_id");
    let mut before = claims(&held);
    for (number, which) in (2..).zip(CHANGES) {
        assert!(works(&app, &held).await && works(&second, &held).await, "{which}");
        alter(&root, ann, which).await;
        assert!(!works(&app, &held).await, "{which}: refused once the change is answered");
        is_refused(&second, &held).await;
        let items = told(&gateway, &session).await;
        assert_eq!(items.last().unwrap()["generation"], number, "{which}: {items:?}");
        assert_eq!(items.last().unwrap().get("ended_at"), None);
        // The session goes on, with a token that is up to date, from any process.
        held = refresh(if number % 2 == 0 { &second } else { &app }, &held).await;
        assert_eq!(held.status, StatusCode::OK, "{which}: {}", held.raw);
        let after = claims(&held);
        assert_eq!(after["gen"], number);
        let facts =
            |claims: &Value| ALL.split(',').map(|name| claims[name].clone()).collect::<Vec<_>>();
        assert_ne!(facts(&after), facts(&before), "{which}");
        before = after;
    }
    assert!(works(&app, &bystander).await, "no one else is affected");
    second.stop().await;
    app.stop().await;
}

async fn others(on: On) {
    let (app, ann) = start(on, "email_verified").await;
    let root = app.token("root@example.com").await;
    root.post("/api/v1/roles", json!({ "name": "readers", "permissions": [] })).await;
    let held = sign_in(&app, "jwt").await;
    for which in CHANGES.into_iter().filter(|which| !["email", "back"].contains(which)) {
        alter(&root, ann, which).await;
        assert!(works(&app, &held).await, "{which}");
    }
    alter(&root, ann, "email").await;
    assert!(!works(&app, &held).await);
    app.stop().await;
}

async fn beside(on: On) {
    let (app, ann) = start(on, ALL).await;
    let second = app.second().await;
    let root = app.token("root@example.com").await;
    root.post("/api/v1/roles", json!({ "name": "readers", "permissions": [] })).await;
    let user = format!("/api/v1/users/{ann}");
    let role_of = format!("{user}/roles/readers");
    for round in 0..12 {
        let root = app.token("root@example.com").await;
        assert!(put(&root, &role_of).await.status.is_success());
        let held = sign_in(&app, "jwt").await;
        // In some rounds, the session has no valid access token any more when it is refreshed.
        if round >= 6 {
            app.advance(Duration::from_secs(2 * 3600)).await;
            second.catch_up().await;
        }
        let root = app.token("root@example.com").await;
        let permissions = if round % 2 == 0 { json!(["users:read"]) } else { json!([]) };
        let name = format!("Ann {round}");
        let change = async {
            let answer = match round % 3 {
                0 => patch(&root, &user, json!({ "name": name })).await,
                1 => {
                    patch(&root, "/api/v1/roles/readers", json!({ "permissions": permissions }))
                        .await
                }
                _ => root.delete(&role_of).await,
            };
            assert!(answer.status.is_success(), "{}", answer.raw);
        };
        let ((), refreshed, new, other) = tokio::join!(
            change,
            refresh(&second, &held),
            sign_in(&second, "jwt"),
            sign_in(&app, "paseto")
        );
        second.catch_up().await;
        let now = claims(&sign_in(&app, "jwt").await);
        for answer in [&refreshed, &new, &other] {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
            let same =
                ["roles", "scope", "name"].iter().all(|name| claims(answer)[name] == now[name]);
            assert!(same || !works(&app, answer).await, "round {round}: {} {now}", claims(answer));
        }
    }
    second.stop().await;
    app.stop().await;
}

async fn too_long(on: On) {
    let (app, ann) = start(on, "roles").await;
    let root = app.token("root@example.com").await;
    let held = sign_in(&app, "jwt").await;
    for number in 10..90 {
        let name = format!("{}{number}", "r".repeat(48));
        let answer = root.post("/api/v1/roles", json!({ "name": name, "permissions": [] })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.raw);
        put(&root, &format!("/api/v1/users/{ann}/roles/{name}")).await;
    }
    let sessions = async || {
        let (count,): (i64,) =
            app.app.db.one("select count(*) from sessions", args![]).await.unwrap();
        count
    };
    let (before, events) = (sessions().await, app.events().await.len());
    for format in ["jwt", "paseto"] {
        let body = json!({
            "email": "ann@example.com", "password": PASSWORD, "token_format": format,
        });
        let answer = app.anyone().post("/api/v1/auth/login", body).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "tokens.too_long"));
        let answer = refresh(&app, &held).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "tokens.too_long"));
    }
    assert_eq!(
        (sessions().await, app.events().await.len()),
        (before, events),
        "nothing is half done"
    );
    // A cookie contains no claims.
    let browser = app.browser("ann@example.com").await;
    assert_eq!(browser.get(ME).await.status, StatusCode::OK);
    let proof = Call::post("/api/v1/auth/reauthenticate", json!({ "password": PASSWORD }));
    assert_eq!(browser.send(proof.same_origin()).await.status, StatusCode::OK);
    // With fewer roles, the refresh token works: it was not used up.
    for number in 10..50 {
        let name = format!("{}{number}", "r".repeat(48));
        root.delete(&format!("/api/v1/users/{ann}/roles/{name}")).await;
    }
    assert_eq!(refresh(&app, &held).await.status, StatusCode::OK);
    app.stop().await;
}

async fn batches(on: On) {
    let (app, ann) = start(on, "scope").await;
    let root = app.token("root@example.com").await;
    root.post("/api/v1/roles", json!({ "name": "readers", "permissions": [] })).await;
    put(&root, &format!("/api/v1/users/{ann}/roles/readers")).await;
    let held = sign_in(&app, "jwt").await;
    let long_ago = sign_in(&app, "jwt").await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    for _ in 0..600 {
        tx.run(
            "insert into sessions (id, user_id, transport, token_format, amr, created_at, authenticated_at,
                last_used_at, idle_expires_at, expires_at)
             select $1, user_id, transport, token_format, amr, created_at, authenticated_at, last_used_at,
                idle_expires_at, expires_at
             from sessions where id = $2",
            args![app.app.new_id(), held.text("session_id").parse::<uuid::Uuid>().unwrap()],
        )
        .await
        .unwrap();
    }
    let old = app.clock.now().minus(Duration::from_secs(17 * 60));
    tx.run(
        "update sessions set last_used_at = $2 where id = $1",
        args![long_ago.text("session_id").parse::<uuid::Uuid>().unwrap(), old],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let count = async |generation: i64| {
        let sql = "select count(*) from sessions where user_id = $1 and generation = $2";
        let (count,): (i64,) = app.app.db.one(sql, args![ann, generation]).await.unwrap();
        count
    };
    let (first, second) = (count(1).await, count(2).await);
    assert_eq!(first + second, 602);
    let answer =
        patch(&root, "/api/v1/roles/readers", json!({ "permissions": ["users:read"] })).await;
    assert!(answer.status.is_success(), "{}", answer.raw);
    assert!(count(1).await <= 102, "the first batch is part of the change");
    let job = sessions::MODULE.jobs.iter().find(|job| job.name == "sessions.outdate").unwrap();
    (job.run)(&app.app).await.unwrap();
    let left: (i64,) = app
        .app
        .db
        .one("select count(*) from sessions where outdated_at is not null", args![])
        .await
        .unwrap();
    assert_eq!(left, (0,));
    // A session without a valid token stays as it is.
    assert_eq!((count(1).await, count(2).await), (1, 601));
    assert!(!works(&app, &held).await);
    app.stop().await;
}

async fn introspection(on: On) {
    let (app, ann) = start(on, "").await;
    let root = app.token("root@example.com").await;
    patch(&root, &format!("/api/v1/users/{ann}"), json!({ "name": "Ann" })).await;
    let gateway = verifier(&app, &root).await;
    let body = json!({ "name": "directory", "permissions": ["tokens:introspect", "users:read"] });
    let key = root.post("/api/v1/users/me/api-keys", body).await;
    let directory = app.anyone().with_token(key.text("api_key"));
    for format in ["jwt", "paseto"] {
        let held = sign_in(&app, format).await;
        let token = held.text("access_token");
        let state = introspect(&gateway, &token).await;
        assert_eq!((&state["scope"], &state["roles"]), (&json!(""), &json!(["user"])));
        assert_eq!((state.get("email"), state.get("name")), (None, None));
        let state = introspect(&directory, &token).await;
        assert_eq!((&state["email"], &state["name"]), (&json!("ann@example.com"), &json!("Ann")));
    }
    let token = app.anyone().login("root@example.com").await.text("access_token");
    let state = introspect(&gateway, &token).await;
    assert_eq!(state["roles"], json!(["admin", "user"]));
    let scope: Vec<&str> = state["scope"].as_str().unwrap().split(' ').collect();
    assert!(scope.contains(&"users:read") && scope.contains(&"tokens:introspect"), "{scope:?}");
    // A key of an administrator has its permissions and no role.
    let state = introspect(&gateway, &key.text("api_key")).await;
    assert_eq!(state["scope"], "tokens:introspect users:read");
    assert_eq!((state.get("roles"), state.get("email")), (None, None));
    assert_eq!(introspect(&gateway, "x").await, json!({ "active": false }));
    app.stop().await;
}

async fn proved(on: On) {
    let (app, _) = start(on, "").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    let held = sign_in(&app, "jwt").await;
    let ann = app.anyone().with_token(held.text("access_token"));
    let answer = ann.post("/api/v1/auth/reauthenticate", json!({ "password": PASSWORD })).await;
    assert_eq!(answer.status, StatusCode::OK);
    let items = told(&gateway, &held.text("session_id")).await;
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!((&items[0]["generation"], &claims(&answer)["gen"]), (&json!(2), &json!(2)));
    app.stop().await;
}

/// The number of transactions that wait for a lock.
async fn waiting(app: &TestApp) -> i64 {
    let sql = "select count(*) from pg_locks l join pg_stat_activity a on a.pid = l.pid
         where not l.granted and a.datname = current_database()";
    let (waiting,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
    waiting
}

async fn until_waiting(app: &TestApp, wanted: i64) {
    for _ in 0..800 {
        if waiting(app).await >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no change waits for another");
}

/// A sign-in has read the claims and is about to commit when they change. SQLite writes one change at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_commits_beside_a_change_of_claims_is_outdated() {
    let (app, ann) = start(On::Postgres, ALL).await;
    let second = app.second().await;
    let root = second.token("root@example.com").await;
    for name in ["readers", "writers"] {
        root.post("/api/v1/roles", json!({ "name": name, "permissions": [] })).await;
    }
    put(&root, &format!("/api/v1/users/{ann}/roles/readers")).await;
    for which in ["permissions", "grant"] {
        let mut tx = app.app.upkeep("a test").begin().await.unwrap();
        tx.run("lock table feed in exclusive mode", args![]).await.unwrap();
        let change = async {
            until_waiting(&app, 1).await;
            match which {
                "grant" => put(&root, &format!("/api/v1/users/{ann}/roles/writers")).await,
                _ => {
                    patch(&root, "/api/v1/roles/readers", json!({ "permissions": ["users:read"] }))
                        .await
                }
            }
        };
        let release = async {
            until_waiting(&app, 2).await;
            tx.commit().await.unwrap();
        };
        let (held, changed, ()) = tokio::join!(sign_in(&app, "jwt"), change, release);
        assert!(changed.status.is_success(), "{which}: {}", changed.raw);
        second.catch_up().await;
        is_refused(&app, &held).await;
        assert!(works(&app, &refresh(&app, &held).await).await, "{which}");
    }
    second.stop().await;
    app.stop().await;
}
