//! Rights outside: none in a token whose user must set up a second factor first, and none for a refresh token. And
//! what doesn't make earlier tokens outdated.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::sessions;
use palisade::testing::phone::{STEP, enrol, sign_in};
use palisade::testing::{Answer, Client, On, Plan, TestApp, patch, put};
use palisade_db::args;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::token_claims::{ALL, claims, is_refused, refresh, sign_in_as, works};
use crate::verifying::{introspect, verifier};

palisade::on_both! {
    a_token_that_must_enrol_contains_no_rights => |on| super::enrolling(on);
    a_change_of_what_a_user_must_set_up_outdates_earlier_tokens => |on| super::changes(on);
    a_refresh_token_shows_no_rights => |on| super::refresh_tokens(on);
    a_users_many_sessions_are_outdated_in_batches => |on| super::batches(on);
    an_update_that_changes_nothing_outdates_nothing => |on| super::unchanged(on);
}

const ROOT: &str = "root@example.com";
const ANN: &str = "ann@example.com";
const READERS: &str = "/api/v1/roles/readers";

async fn start(on: On, claims: &'static str, admin_mfa: &'static str) -> TestApp {
    let settings = vec![
        ("limits.enabled", "false"),
        ("tokens.claims", claims),
        ("access.admin_mfa", admin_mfa),
    ];
    TestApp::with(on, Plan { settings, ..Plan::default() }).await
}

/// An administrator with a second factor.
async fn root(app: &TestApp) -> Client<'_> {
    app.admin(ROOT).await;
    let (phone, _) = enrol(&app.token(ROOT).await).await;
    app.advance(STEP).await;
    let root = sign_in(app, ROOT, &phone).await;
    let made = root.post("/api/v1/roles", json!({ "name": "readers", "permissions": [] })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    root
}

/// The client with a token.
fn client<'a>(app: &'a TestApp, held: &Answer) -> Client<'a> {
    app.anyone().with_token(held.text("access_token"))
}

/// Roles and permissions in a token. `None` where the claim is absent.
fn rights(held: &Answer) -> (Option<Value>, Option<Value>) {
    let claims = claims(held);
    (claims.get("roles").cloned(), claims.get("scope").cloned())
}

fn no_rights() -> (Option<Value>, Option<Value>) {
    (Some(json!([])), Some(json!("")))
}

async fn enrolling(on: On) {
    let app = start(on, ALL, "required").await;
    let second = app.second().await;
    for format in ["jwt", "paseto"] {
        let email = format!("{format}@example.com");
        app.admin(&email).await;
        let held = sign_in_as(&app, &email, format).await;
        assert_eq!(rights(&held), no_rights());
        assert_eq!(claims(&held)["email"], email);
        let held = refresh(&second, &held).await;
        assert_eq!(rights(&held), no_rights());
        enrol(&client(&app, &held)).await;
        assert!(!works(&app, &held).await);
        is_refused(&second, &held).await;
        let held = refresh(&second, &held).await;
        assert_eq!(rights(&held).0, Some(json!(["admin", "user"])));
        assert!(claims(&held)["scope"].as_str().unwrap().contains("users:write"));
        assert!(works(&app, &held).await);
    }
    // Where everyone needs a factor, the roles of others are left out too.
    app.user(ANN).await;
    assert_eq!(rights(&sign_in_as(&app, ANN, "jwt").await).0, Some(json!(["user"])));
    let settings =
        vec![("limits.enabled", "false"), ("tokens.claims", ALL), ("mfa.required", "true")];
    let strict = app.second_with(settings).await;
    let held = sign_in_as(&strict, ANN, "jwt").await;
    assert_eq!(rights(&held), no_rights());
    enrol(&client(&strict, &held)).await;
    assert!(!works(&strict, &held).await);
    assert_eq!(rights(&refresh(&strict, &held).await).0, Some(json!(["user"])));
    strict.stop().await;
    second.stop().await;
    app.stop().await;
}

async fn changes(on: On) {
    for names in ["roles,scope", "roles", "scope"] {
        let app = start(on, names, "required").await;
        let root = root(&app).await;
        let ann = app.user(ANN).await;
        let user = format!("/api/v1/users/{ann}");
        put(&root, &format!("{user}/roles/readers")).await;
        let has = |held: &Answer, roles: Value, scope: &str| {
            let (roles, scope) = (Some(roles), Some(json!(scope)));
            let wanted = (
                roles.filter(|_| names.contains("roles")),
                scope.filter(|_| names.contains("scope")),
            );
            assert_eq!(rights(held), wanted, "{names}");
        };
        let mut held = sign_in_as(&app, ANN, "jwt").await;
        has(&held, json!(["readers", "user"]), "");
        for (permissions, roles) in
            [(json!(["users:write"]), json!([])), (json!([]), json!(["readers", "user"]))]
        {
            let answer = patch(&root, READERS, json!({ "permissions": permissions })).await;
            assert!(answer.status.is_success(), "{}", answer.raw);
            assert!(!works(&app, &held).await, "{names}: {permissions}");
            held = refresh(&app, &held).await;
            has(&held, roles, "");
        }
        patch(&root, READERS, json!({ "permissions": ["users:write"] })).await;
        held = refresh(&app, &held).await;
        has(&held, json!([]), "");
        enrol(&client(&app, &held)).await;
        assert!(!works(&app, &held).await, "{names}");
        held = refresh(&app, &held).await;
        has(&held, json!(["readers", "user"]), "users:write");
        let reset = root.act(&format!("{user}/reset-mfa")).await;
        assert_eq!(reset.status, StatusCode::NO_CONTENT, "{}", reset.raw);
        assert!(!works(&app, &held).await, "{names}");
        has(&sign_in_as(&app, ANN, "jwt").await, json!([]), "");
        app.stop().await;
    }
    // Tokens without rights stay as they are.
    let app = start(on, "email", "required").await;
    app.admin(ROOT).await;
    let held = sign_in_as(&app, ROOT, "jwt").await;
    enrol(&client(&app, &held)).await;
    assert!(works(&app, &held).await);
    app.stop().await;
}

async fn refresh_tokens(on: On) {
    let app = start(on, "roles", "required").await;
    let root = root(&app).await;
    let gateway = verifier(&app, &root).await;
    let body = json!({ "name": "directory", "permissions": ["tokens:introspect", "users:read"] });
    let key = root.post("/api/v1/users/me/api-keys", body).await;
    let directory = app.anyone().with_token(key.text("api_key"));
    app.user(ANN).await;
    // One must set up a second factor first, the other has all rights that she will have.
    app.admin("bare@example.com").await;
    for email in [ANN, "bare@example.com"] {
        let held = sign_in_as(&app, email, "jwt").await;
        for caller in [&gateway, &directory] {
            let state = introspect(caller, &held.text("refresh_token")).await;
            assert_eq!(state["active"], true);
            let names: Vec<&String> = state.as_object().unwrap().keys().collect();
            assert_eq!(names, ["active", "exp", "sid", "sub"], "{email}");
            let state = introspect(caller, &held.text("access_token")).await;
            assert_eq!(state["active"], email == ANN, "{state}");
        }
    }
    app.stop().await;
}

async fn copies(app: &TestApp, held: &Answer, marked: bool) {
    let session: Uuid = held.text("session_id").parse().unwrap();
    let marked = marked.then(|| app.clock.now());
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    for _ in 0..600 {
        tx.run(
            "insert into sessions (id, user_id, transport, token_format, amr, created_at, authenticated_at,
                last_used_at, idle_expires_at, expires_at, outdated_at)
             select $1, user_id, transport, token_format, amr, created_at, authenticated_at, last_used_at,
                idle_expires_at, expires_at, $3
             from sessions where id = $2",
            args![app.app.new_id(), session, marked],
        )
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn batches(on: On) {
    let app = start(on, "scope", "optional").await;
    let root = root(&app).await;
    // The sessions of a role's holders are waiting.
    app.user("bob@example.com").await;
    copies(&app, &sign_in_as(&app, "bob@example.com", "jwt").await, true).await;
    let ann = app.user(ANN).await;
    let role = format!("/api/v1/users/{ann}/roles/readers");
    put(&root, &role).await;
    let (held, long_ago) = (sign_in_as(&app, ANN, "jwt").await, sign_in_as(&app, ANN, "jwt").await);
    copies(&app, &held, false).await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let session: Uuid = long_ago.text("session_id").parse().unwrap();
    let old = app.clock.now().minus(Duration::from_secs(60));
    let sql = "update sessions set expires_at = $2 where id = $1";
    tx.run(sql, args![session, old]).await.unwrap();
    tx.commit().await.unwrap();
    let count = async |generation: i64| {
        let sql = "select count(*) from sessions where user_id = $1 and generation = $2";
        let (count,): (i64,) = app.app.db.one(sql, args![ann, generation]).await.unwrap();
        count
    };
    assert_eq!(count(1).await, 602);
    assert!(root.delete(&role).await.status.is_success());
    assert!(!works(&app, &held).await, "before those that waited already");
    let first = count(2).await;
    assert!((500..=601).contains(&first), "{first}");
    let job = sessions::MODULE.jobs.iter().find(|job| job.name == "sessions.outdate").unwrap();
    (job.run)(&app.app).await.unwrap();
    // A session that has expired stays as it is.
    assert_eq!((count(1).await, count(2).await), (1, 601));
    app.stop().await;
}

async fn unchanged(on: On) {
    let app = start(on, ALL, "optional").await;
    let root = root(&app).await;
    let ann = app.user(ANN).await;
    let user = format!("/api/v1/users/{ann}");
    put(&root, &format!("{user}/roles/readers")).await;
    for name in [Value::Null, json!("Ann")] {
        patch(&root, &user, json!({ "name": name })).await;
        let held = sign_in_as(&app, ANN, "jwt").await;
        let before = app.events().await.len();
        for answer in [
            patch(&root, &user, json!({ "name": name, "email": ANN })).await,
            patch(&client(&app, &held), "/api/v1/users/me", json!({ "name": name })).await,
        ] {
            assert_eq!((answer.status, &answer.body["name"]), (StatusCode::OK, &name));
        }
        put(&root, &format!("{user}/roles/readers")).await;
        assert_eq!(app.events().await.len(), before);
        let about = json!({ "description": format!("Read {name}"), "permissions": [] });
        assert_eq!(patch(&root, READERS, about).await.status, StatusCode::OK);
        assert!(works(&app, &held).await, "{name}");
    }
    let unknown = format!("/api/v1/users/{}", app.app.new_id());
    let gone = patch(&root, &unknown, json!({ "name": "x" })).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    app.stop().await;
}
