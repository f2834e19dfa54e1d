//! Ending the sessions of every user at once.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::app::{Actor, App, Hold};
use palisade::credentials::{Ending, Kind};
use palisade::id::UserId;
use palisade::module::Module;
use palisade::users::{self, Email, NewUser};
use palisade::{roles, sessions};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::json;

use crate::racing::{actor_of, insert_key};
use palisade::testing::passkey::{key, register};
use palisade::testing::{Call, Client, On, PASSWORD, Plan, TestApp, put, unlimited};

palisade::on_both! {
    everyone_is_signed_out_and_the_caller_last => |on| super::signed_out(on);
    only_an_administrator_signs_everyone_out => |on| super::administrators(on);
    a_role_taken_away_stops_the_ending_of_everyones_sessions => |on| super::role_taken(on);
    a_role_taken_away_between_two_accounts_spares_the_second => |on| super::taken_between(on);
    what_failed_half_way_goes_on_when_it_is_repeated => |on| super::half_way(on);
    a_key_that_the_callers_session_makes_meanwhile_ends => |on| super::key_meanwhile(on);
    the_operator_signs_everyone_out => |on| super::operator(on);
    accounts_beyond_a_page_are_signed_out => |on| super::many(on);
}

const ALL: &str = "/api/v1/users/revoke-sessions";
const ME: &str = "/api/v1/users/me";

/// How many sessions, API keys and challenges of everyone are good for something.
async fn living(app: &TestApp) -> (i64, i64, i64) {
    let sql = "select (select count(*) from sessions where ended_at is null),
        (select count(*) from api_keys where revoked_at is null),
        (select count(*) from challenges where user_id is not null)";
    app.app.db.one(sql, args![]).await.unwrap()
}

async fn count(app: &TestApp, event: &str) -> i64 {
    let sql = "select count(*) from audit_events where event = $1";
    app.app.db.one::<(i64,)>(sql, args![event]).await.unwrap().0
}

async fn alive(client: &Client<'_>) -> bool {
    client.get(ME).await.status == StatusCode::OK
}

/// A service account with a key.
async fn program<'a>(app: &'a TestApp, root: &Client<'_>) -> Client<'a> {
    let made = root.post("/api/v1/service-accounts", json!({ "name": "program" })).await;
    let path = format!("/api/v1/users/{}/api-keys", made.text("id"));
    let key = root.post(&path, json!({ "name": "CI", "permissions": [] })).await;
    app.anyone().with_token(key.text("api_key"))
}

async fn signed_out(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    for email in ["root@example.com", "second@example.com"] {
        app.admin(email).await;
    }
    for email in ["ann@example.com", "bob@example.com", "carol@example.com"] {
        app.user(email).await;
    }
    let root = app.token("root@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "name": "mine", "permissions": [] });
    let ann_key = ann.post("/api/v1/users/me/api-keys", body).await.text("api_key");
    // Carol has nothing but a challenge.
    let carol = app.token("carol@example.com").await;
    register(&carol, &mut key()).await;
    assert_eq!(carol.act("/api/v1/auth/logout").await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.anyone().login("carol@example.com").await.code(), "login.mfa_required");
    let clients = [
        ann,
        app.anyone().with_token(ann_key),
        app.browser("bob@example.com").await,
        app.token("root@example.com").await,
        app.token("second@example.com").await,
        program(&app, &root).await,
        root.clone(),
    ];
    for client in &clients {
        assert!(alive(client).await);
    }
    assert_eq!(living(&app).await, (5, 2, 1));
    let ended = count(&app, "sessions.ended").await;

    let answer = root.act(ALL).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    assert_eq!(living(&app).await, (0, 0, 0));
    other.catch_up().await;
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.get(ME).await.status, StatusCode::UNAUTHORIZED, "{number}");
        let elsewhere = Client { app: &other, ..client.clone() };
        assert_eq!(elsewhere.get(ME).await.status, StatusCode::UNAUTHORIZED, "{number}");
    }
    // One event for each session and each account, and one for all.
    assert_eq!(count(&app, "sessions.ended").await, ended + 5);
    assert_eq!(count(&app, "sessions.revoked").await, 6);
    let sql = "select record from audit_events where event = 'sessions.all_revoked'";
    let (record,): (String,) = app.app.db.one(sql, args![]).await.unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["details"], json!({ "accounts": "6", "sessions": "5" }));
    // They sign in again, and what has no session stays untouched.
    let ann = app.token("ann@example.com").await;
    assert!(alive(&ann).await);
    assert_eq!(root.act(ALL).await.code(), "access.invalid_token");
    assert!(alive(&ann).await);
    other.stop().await;
    app.stop().await;
}

async fn administrators(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let all = root.get("/api/v1/roles/admin").await.body["permissions"].clone();
    for (name, permissions) in [("clerk", json!(["users:write"])), ("everything", all.clone())] {
        let id = app.user(&format!("{name}@example.com")).await;
        let body = json!({ "name": name, "permissions": permissions });
        assert_eq!(root.post("/api/v1/roles", body).await.status, StatusCode::CREATED);
        put(&root, &format!("/api/v1/users/{id}/roles/{name}")).await;
        let client = app.token(&format!("{name}@example.com")).await;
        let answer = client.act(ALL).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        assert_eq!(answer.code(), "access.exceeds_own", "{name}");
    }
    let body = json!({ "name": "all", "permissions": all });
    let key = root.post("/api/v1/users/me/api-keys", body).await.text("api_key");
    let key = app.anyone().with_token(key).act(ALL).await;
    assert_eq!(key.code(), "access.session_needed");
    // In a browser: its session outlives an access token.
    let root = app.browser("root@example.com").await;
    app.advance(app.app.settings.sessions.fresh_for).await;
    assert_eq!(root.act(ALL).await.code(), "access.not_fresh");
    assert_eq!(living(&app).await, (4, 1, 0));
    assert_eq!(count(&app, "sessions.revoked").await, 0);
    let proof = json!({ "password": PASSWORD });
    let call = Call::post("/api/v1/auth/reauthenticate", proof).same_origin();
    let answer = root.send(call).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let root = Client { cookie: Some(answer.cookie()), ..root };
    let answer = root.act(ALL).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    // The browser forgets the cookie.
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    app.stop().await;
}

async fn role_taken(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.admin("root@example.com").await;
    app.admin("second@example.com").await;
    app.user("ann@example.com").await;
    let root = other.token("root@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "name": "clerks", "permissions": ["users:write"] });
    assert_eq!(root.post("/api/v1/roles", body).await.status, StatusCode::CREATED);
    put(&root, &format!("/api/v1/users/{id}/roles/clerks")).await;

    // The request is let in while the role is being taken away in another process. `users:write` stays.
    let holds = roles::held_for_revoking(id);
    let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let finish = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        roles::revoke(change, id, &"admin".parse().unwrap()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(root.act(ALL), finish);
    assert_eq!(answer.code(), "access.exceeds_own", "{}", answer.raw);
    assert!(alive(&ann).await);
    assert_eq!(count(&app, "sessions.all_revoked").await, 0);
    other.stop().await;
    app.stop().await;
}

/// Takes the role of an administrator from `root@example.com`, in the change that ends an account's sessions:
/// at no other moment is it certain that one account is done and the next is not.
const TAKES_THE_ROLE: Module = Module {
    name: "takes_the_role",
    endings: &[Ending {
        kind: Kind::Sessions,
        owners: None,
        end: |change, _, _| {
            Box::pin(async move {
                let sql = "delete from user_roles where role = 'admin'
                    and user_id = (select id from users where email = 'root@example.com')";
                change.run(sql, args![]).await?;
                Ok(0)
            })
        },
    }],
    ..Module::EMPTY
};

async fn taken_between(on: On) {
    let app = TestApp::with(on, Plan { modules: vec![TAKES_THE_ROLE], ..unlimited() }).await;
    let id = app.admin("root@example.com").await;
    app.admin("second@example.com").await;
    let root = app.token("root@example.com").await;
    let body = json!({ "name": "clerks", "permissions": ["users:write"] });
    assert_eq!(root.post("/api/v1/roles", body).await.status, StatusCode::CREATED);
    put(&root, &format!("/api/v1/users/{id}/roles/clerks")).await;
    let mut accounts = vec![];
    for email in ["ann@example.com", "bob@example.com", "carol@example.com"] {
        accounts.push((app.user(email).await.0, app.token(email).await));
    }
    accounts.sort_by_key(|(id, _)| *id);

    // `users:write`, by which the request is let in, stays.
    let answer = root.act(ALL).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "access.denied"));
    assert!(!alive(&accounts[0].1).await);
    assert!(alive(&accounts[1].1).await && alive(&accounts[2].1).await && alive(&root).await);
    assert_eq!(count(&app, "sessions.revoked").await, 1);
    assert_eq!(count(&app, "sessions.all_revoked").await, 0);
    app.stop().await;
}

async fn change_schema(app: &App, sql: &'static str) {
    let mut tx = app.upkeep("a test").begin().await.unwrap();
    tx.run(sql, args![]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn half_way(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.admin("root@example.com").await;
    app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let service = program(&app, &root).await;
    // Its two keys are revoked at the same moment, which fails.
    let path = format!("/api/v1/users/{}/api-keys", service.get(ME).await.text("id"));
    let second = root.post(&path, json!({ "name": "CI", "permissions": [] })).await;
    assert_eq!(second.status, StatusCode::CREATED);
    change_schema(&app.app, "create unique index broken on api_keys (revoked_at)").await;
    let session = root.get("/api/v1/users/me/sessions").await.body["items"][0]["id"].clone();
    let session = session.as_str().unwrap().parse().unwrap();
    let actor = actor_of(id, session);
    assert!(sessions::revoke_everyone(&app.app, &actor).await.is_err());
    // People come first, then service accounts, and the caller last.
    assert!(!alive(&ann).await);
    assert!(alive(&root).await);
    assert_eq!(living(&app).await, (1, 2, 0));
    assert_eq!(count(&app, "sessions.all_revoked").await, 0);
    change_schema(&app.app, "drop index broken").await;
    assert_eq!(root.act(ALL).await.status, StatusCode::NO_CONTENT);
    assert!(!alive(&root).await && !alive(&service).await);
    assert_eq!(living(&app).await, (0, 0, 0));
    assert_eq!(count(&app, "sessions.all_revoked").await, 1);
    app.stop().await;
}

async fn key_meanwhile(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.admin("root@example.com").await;
    let root = other.token("root@example.com").await;
    let service = program(&app, &app.token("root@example.com").await).await;
    let service_id = service.get(ME).await.text("id").parse().unwrap();

    // On PostgreSQL the service account's first key has been revoked, and the caller waits to be the last. Meanwhile
    // the proof, which was fresh at the beginning, grows old. On SQLite nothing has begun.
    let begun = matches!(on, On::Postgres);
    let mut change = app.app.change_holding(&Actor::operator(), &[Hold::Shared(id)]).await.unwrap();
    insert_key(&mut change, service_id).await;
    let finish = async {
        until_one_waits(&other.app.db).await;
        if begun {
            app.advance(app.app.settings.sessions.fresh_for).await;
        }
        change.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(root.act(ALL), finish);
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    assert_eq!(living(&app).await, (0, 0, 0));
    other.stop().await;
    app.stop().await;
}

async fn operator(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let service = program(&app, &root).await;
    let ended = sessions::revoke_everyone(&app.app, &Actor::operator()).await.unwrap();
    assert_eq!((ended.accounts, ended.sessions), (2, 1));
    assert!(!alive(&root).await && !alive(&service).await);
    // With nothing left to end, the act is an event all the same.
    let ended = sessions::revoke_everyone(&app.app, &Actor::operator()).await.unwrap();
    assert_eq!((ended.accounts, ended.sessions), (0, 0));
    assert_eq!(count(&app, "sessions.all_revoked").await, 2);
    assert_eq!(count(&app, "sessions.revoked").await, 2);
    app.stop().await;
}

async fn many(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut change = app.app.change(&Actor::operator()).await.unwrap();
    for _ in 0..401 {
        let id = app.app.new_id();
        let new = NewUser {
            id: Some(UserId(id)),
            verified: true,
            email: Email::parse(&format!("{id}@example.com")).unwrap(),
            name: None,
            roles: vec![],
            service: false,
        };
        users::create(&mut change, &new).await.unwrap().unwrap();
    }
    let now = change.now();
    let sql = "insert into sessions (id, user_id, transport, token_format, amr, created_at,
            authenticated_at, last_used_at, idle_expires_at, expires_at)
         select id, id, 'token', 'jwt', 'pwd', $1, $1, $1, $2, $2 from users";
    let until = now.plus(Duration::from_secs(3600));
    assert_eq!(change.run(sql, args![now, until]).await.unwrap(), 401);
    change.commit_quietly("a test").await.unwrap();
    let ended = sessions::revoke_everyone(&app.app, &Actor::operator()).await.unwrap();
    assert_eq!((ended.accounts, ended.sessions), (401, 401));
    assert_eq!(living(&app).await, (0, 0, 0));
    app.stop().await;
}
