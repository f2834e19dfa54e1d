//! API keys and service accounts: what they open, what ends them, and what they never are.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::app::{Actor, Hold};
use palisade::id::UserId;
use palisade::testing::mailbox::{emails, newest_email, token};
use palisade::testing::{
    Answer, Call, Client, On, PASSWORD, TestApp, patch, place, put, unlimited,
};
use palisade::{deletion, passwords, sessions, users};
use palisade_db::args;
use serde_json::{Value, json};

palisade::on_both! {
    an_api_key_is_shown_once_listed_and_revoked => |on| super::one_key(on);
    an_api_key_may_do_what_its_owner_may_and_no_more => |on| super::no_more(on);
    an_api_key_never_exceeds_its_maker => |on| super::beyond(on);
    nobody_makes_an_api_key_for_another_person => |on| super::for_another(on);
    what_revokes_an_api_key => |on| super::revoking(on);
    an_api_key_expires => |on| super::expiring(on);
    an_api_key_works_from_its_allowed_networks_alone => |on| super::allowed_networks(on);
    the_end_of_an_api_key_is_told_a_week_before_once => |on| super::warning(on);
    an_api_key_is_no_way_around_the_second_factor => |on| super::no_way_around(on);
    a_warm_api_key_reads_no_database => |on| super::from_memory(on);
    a_service_account_never_signs_in => |on| super::service(on);
    a_service_account_is_nobodys_last_administrator => |on| super::last_admin(on);
}

const KEYS: &str = "/api/v1/users/me/api-keys";
const ME: &str = "/api/v1/users/me";
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn make(client: &Client<'_>, body: Value) -> Answer {
    let answer = client.post(KEYS, body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.raw);
    answer
}

/// A client with a new key of anyone who `owner` is.
async fn key<'a>(app: &'a TestApp, owner: &Client<'_>, permissions: &[&str]) -> Client<'a> {
    let made = make(owner, json!({ "name": "CI", "permissions": permissions })).await;
    app.anyone().with_token(made.text("api_key"))
}

async fn status(client: &Client<'_>) -> (u16, String) {
    let answer = client.get(ME).await;
    (answer.status.as_u16(), answer.code().to_owned())
}

fn refused() -> (u16, String) {
    (401, "access.invalid_token".to_owned())
}

fn good() -> (u16, String) {
    (200, String::new())
}

async fn one_key(on: On) {
    let app = TestApp::on(on).await;
    app.admin("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let made = make(&ann, json!({ "name": "CI", "permissions": ["users:read"] })).await;
    let secret = made.text("api_key");
    assert!(secret.starts_with("pal_ak_") && secret.len() == 50, "{secret}");
    assert!(secret.ends_with(&made.text("hint")));
    let mail = newest_email(&app).await;
    assert!(mail.text.contains("CI"), "{}", mail.text);
    assert!(!mail.text.contains(&secret));
    // Nothing that is kept is the key, or a part of it but the hint.
    let listed = ann.get(KEYS).await;
    assert_eq!(listed.body["items"][0]["id"], made.body["id"]);
    assert!(!listed.raw.contains("pal_ak_"));
    let export = ann.get("/api/v1/users/me/export").await;
    assert_eq!(export.body["api_keys"][0]["id"], made.body["id"]);
    assert!(!export.raw.contains("digest"));
    let program = app.anyone().with_token(secret.as_str());
    assert_eq!(program.get("/api/v1/users").await.status, StatusCode::OK);
    let answer = program.get(ME).await;
    assert_eq!(answer.text("email"), "ann@example.com");
    assert!(answer.headers["ratelimit"].to_str().unwrap().contains("\"api_key\";r=59"));
    // What it wasn't made for, and what asks for a session.
    assert_eq!(program.get("/api/v1/roles").await.code(), "access.denied");
    for path in [KEYS, "/api/v1/users/me/sessions", "/api/v1/users/me/export"] {
        assert_eq!(program.get(path).await.code(), "access.session_needed", "{path}");
    }
    // The use is written down, once a minute.
    let mut used = Value::Null;
    for _ in 0..100 {
        used = ann.get(KEYS).await.body["items"][0]["last_used_at"].clone();
        if !used.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(used.is_string(), "{used}");
    let path = format!("{KEYS}/{}", made.text("id"));
    assert_eq!(ann.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(status(&program).await, refused());
    assert_eq!(ann.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ann.get(KEYS).await.body["items"], json!([]));
    let events = app.events().await;
    assert!(events.contains(&"api_keys.created".to_owned()), "{events:?}");
    assert!(events.contains(&"api_keys.revoked".to_owned()), "{events:?}");
    app.stop().await;
}

async fn no_more(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let role = json!({ "name": "readers", "permissions": ["users:read"] });
    root.post("/api/v1/roles", role).await;
    let ann = app.user("ann@example.com").await;
    put(&root, &format!("/api/v1/users/{ann}/roles/readers")).await;
    let program = key(&app, &app.token("ann@example.com").await, &["users:read"]).await;
    assert_eq!(program.get("/api/v1/users").await.status, StatusCode::OK);
    let path = format!("/api/v1/users/{ann}/roles/readers");
    assert_eq!(root.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(program.get("/api/v1/users").await.code(), "access.denied");
    // It lives on, and does again what its owner may do again.
    assert_eq!(status(&program).await, good());
    put(&root, &path).await;
    assert_eq!(program.get("/api/v1/users").await.status, StatusCode::OK);
    app.stop().await;
}

async fn beyond(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let wanted = |permissions: Value| json!({ "name": "CI", "permissions": permissions });
    let answer = ann.post(KEYS, wanted(json!(["users:read"]))).await;
    assert_eq!(answer.code(), "access.exceeds_own");
    let answer = root.post(KEYS, wanted(json!(["users:read", "users:fly"]))).await;
    assert_eq!(place(&answer), (422, "/permissions/1", "api_keys.unknown_permission"));
    let bad = [
        (json!({ "expires_in": 0 }), "/expires_in"),
        (json!({ "expires_in": 366 * 24 * 3600 + 1 }), "/expires_in"),
        (json!({ "expires_at": "2020-01-01T00:00:00Z" }), "/expires_at"),
        (json!({ "expires_at": "2099-01-01T00:00:00Z" }), "/expires_at"),
        (json!({ "expires_at": "2030-04-01T00:00:00Z", "expires_in": 60 }), "/expires_in"),
        (json!({ "allowed_networks": [] }), "/allowed_networks"),
        (json!({ "allowed_networks": ["192.0.2.0/33"] }), "/allowed_networks"),
        (json!({ "requests_per_minute": 0 }), "/requests_per_minute"),
        (json!({ "requests_per_minute": 601 }), "/requests_per_minute"),
        (json!({ "name": "" }), "/name"),
    ];
    for (more, pointer) in bad {
        let mut body = wanted(json!([]));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ann.post(KEYS, body).await;
        assert_eq!(place(&answer).1, pointer, "{more}: {}", answer.raw);
    }
    // A found session isn't enough to make one.
    app.advance(Duration::from_secs(11 * 60)).await;
    assert_eq!(ann.post(KEYS, wanted(json!([]))).await.code(), "access.not_fresh");
    let ann = app.token("ann@example.com").await;
    for _ in 0..50 {
        make(&ann, wanted(json!([]))).await;
    }
    assert_eq!(ann.post(KEYS, wanted(json!([]))).await.code(), "api_keys.too_many");
    app.stop().await;
}

async fn for_another(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    let body = json!({ "name": "CI", "permissions": [] });
    let theirs = format!("/api/v1/users/{ann}/api-keys");
    let answer = root.post(&theirs, body.clone()).await;
    assert_eq!(answer.code(), "api_keys.not_a_service_account");
    // An administrator sees and revokes them.
    let made = make(&app.token("ann@example.com").await, body.clone()).await;
    assert_eq!(root.get(&theirs).await.body["items"][0]["id"], made.body["id"]);
    let path = format!("{theirs}/{}", made.text("id"));
    assert_eq!(root.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(status(&app.anyone().with_token(made.text("api_key"))).await, refused());
    // No one revokes that of another with their own path.
    let mine = make(&root, body).await;
    let path = format!("{KEYS}/{}", mine.text("id"));
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.delete(&path).await.status, StatusCode::NOT_FOUND);
    let root_id = root.get(ME).await.text("id");
    let path = format!("/api/v1/users/{root_id}/api-keys");
    assert_eq!(ann.get(&path).await.code(), "access.denied");
    app.stop().await;
}

const HOWS: [&str; 8] =
    ["owner", "revoke", "operator", "password", "recovery", "disable", "leave", "delete"];

async fn end(
    apps: [&TestApp; 2],
    how: &str,
    user: UserId,
    root: &Client<'_>,
    key: &str,
) -> StatusCode {
    let app = apps[0];
    let done = StatusCode::NO_CONTENT;
    let ann = || app.token("ann@example.com");
    match how {
        "owner" => ann().await.delete(&format!("{KEYS}/{key}")).await.status,
        "revoke" => root.act(&format!("/api/v1/users/{user}/revoke-sessions")).await.status,
        "operator" => {
            let holds = [Hold::Alone(user)];
            let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
            sessions::revoke_all(change, user).await.unwrap();
            done
        }
        "password" => {
            let password = "five green kettles whistle".into();
            passwords::reset(&app.app, &Actor::operator(), user, &password).await.unwrap();
            passwords::reset(&app.app, &Actor::operator(), user, &PASSWORD.into()).await.unwrap();
            done
        }
        "recovery" => {
            let body = json!({ "email": "ann@example.com" });
            app.anyone().post("/api/v1/auth/password/forgot", body).await;
            // Either process may have sent it.
            let mut sent = emails(apps[0]).await;
            sent.extend(emails(apps[1]).await);
            let found = sent.iter().rfind(|mail| mail.text.contains("/account/reset#"));
            let token = token(found.unwrap());
            let body = json!({ "token": token, "password": PASSWORD });
            app.anyone().post("/api/v1/auth/password/reset", body).await.status
        }
        "disable" => root.act(&format!("/api/v1/users/{user}/disable")).await.status,
        "leave" => ann().await.delete(ME).await.status,
        "delete" => root.delete(&format!("/api/v1/users/{user}")).await.status,
        _ => unreachable!(),
    }
}

/// Another process hears of it within the feed's poll.
async fn eventually(client: &Client<'_>, expected: (u16, String), how: &str) {
    let mut last = status(client).await;
    for _ in 0..100 {
        if last == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        last = status(client).await;
    }
    assert_eq!(last, expected, "{how}: another process");
}

async fn revoking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let user = app.user("ann@example.com").await;
    let other = app.second().await;
    for how in HOWS {
        let ann = app.token("ann@example.com").await;
        let made = make(&ann, json!({ "name": "CI", "permissions": [] })).await;
        let secret = made.text("api_key");
        let here = app.anyone().with_token(secret.as_str());
        let there = other.anyone().with_token(secret.as_str());
        assert_eq!((status(&here).await, status(&there).await), (good(), good()), "{how}");
        let answered = end([&app, &other], how, user, &root, &made.text("id")).await;
        assert_eq!(answered, StatusCode::NO_CONTENT, "{how}");
        assert_eq!(status(&here).await, refused(), "{how}");
        eventually(&there, refused(), how).await;
        if how == "disable" {
            root.act(&format!("/api/v1/users/{user}/enable")).await;
            assert_eq!(status(&here).await, good(), "enabled again");
            eventually(&there, good(), "enabled again").await;
        }
    }
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_password_by_its_owner_leaves_the_api_keys() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let program = key(&app, &ann, &[]).await;
    let body =
        json!({ "current_password": PASSWORD, "new_password": "five green kettles whistle" });
    let answer = ann.post("/api/v1/users/me/password", body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(status(&program).await, good());
    app.stop().await;
}

async fn expiring(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "name": "CI", "permissions": [], "expires_in": 3600 });
    let short = app.anyone().with_token(make(&ann, body).await.text("api_key"));
    let by_default = key(&app, &ann, &[]).await;
    app.advance(Duration::from_secs(3599)).await;
    assert_eq!(status(&short).await, good());
    app.advance(Duration::from_secs(1)).await;
    assert_eq!(status(&short).await, refused());
    // Also for a process that never saw it alive.
    let other = app.second().await;
    let there = other.anyone().with_token(short.bearer.clone().unwrap());
    assert_eq!(status(&there).await, refused());
    other.stop().await;
    app.advance(89 * DAY).await;
    assert_eq!(status(&by_default).await, good());
    app.advance(DAY).await;
    assert_eq!(status(&by_default).await, refused());
    for bad in ["pal_ak_", &format!("pal_ak_{}", "A".repeat(43)), "pal_xx_AAAA"] {
        assert_eq!(status(&app.anyone().with_token(bad)).await, refused(), "{bad}");
    }
    app.stop().await;
}

async fn allowed_networks(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let networks = json!(["203.0.113.0/28", "2001:db8::/32", "192.0.2.9"]);
    let body = json!({ "name": "CI", "permissions": [], "allowed_networks": networks });
    let made = make(&ann, body).await;
    assert_eq!(made.body["allowed_networks"][2], "192.0.2.9/32");
    let program = app.anyone().with_token(made.text("api_key"));
    for (ip, expected) in [
        ("203.0.113.15", good()),
        ("203.0.113.16", refused()),
        ("[2001:db8:1::7]", good()),
        ("[2001:db9::7]", refused()),
        ("192.0.2.9", good()),
        ("[::ffff:192.0.2.9]", good()),
        ("192.0.2.10", refused()),
    ] {
        let there = program.clone().from(ip);
        assert_eq!(status(&there).await, expected, "{ip}");
        let forged = Call::new(axum::http::Method::GET, ME).header("x-forwarded-for", "192.0.2.9");
        assert_eq!(there.send(forged).await.status.as_u16(), expected.0, "{ip}");
    }
    app.stop().await;
}

async fn warning(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    make(&ann, json!({ "name": "long", "permissions": [], "expires_in": 8 * 24 * 3600 })).await;
    make(&ann, json!({ "name": "short", "permissions": [], "expires_in": 6 * 24 * 3600 })).await;
    let before = emails(&app).await.len();
    let warn = palisade::MODULES.iter().flat_map(|module| module.jobs);
    let warn = warn.into_iter().find(|job| job.name == "api_keys.warn").unwrap().run;
    warn(&app.app).await.unwrap();
    assert_eq!(emails(&app).await.len(), before);
    app.advance(DAY + Duration::from_secs(60)).await;
    warn(&app.app).await.unwrap();
    warn(&app.app).await.unwrap();
    let sent = emails(&app).await;
    assert_eq!(sent.len(), before + 1, "{sent:?}");
    assert!(sent[before].to == "ann@example.com" && sent[before].text.contains("named long"));
    assert!(sent[before].subject.contains("expire"));
    app.stop().await;
}

async fn no_way_around(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let role = json!({ "name": "readers", "permissions": ["users:read", "tokens:introspect"] });
    root.post("/api/v1/roles", role).await;
    let own = key(&app, &root, &["users:read"]).await;
    let id = make_service(&root).await.text("id");
    put(&root, &format!("/api/v1/users/{id}/roles/readers")).await;
    let body = json!({ "name": "CI", "permissions": ["users:read", "tokens:introspect"] });
    let service = root.post(&format!("/api/v1/users/{id}/api-keys"), body).await;
    let service = app.anyone().with_token(service.text("api_key"));
    assert_eq!(own.get("/api/v1/users").await.status, StatusCode::OK);
    // From now on administrators need a second factor, and this one has none; or everyone needs one.
    for required in [("access.admin_mfa", "required"), ("mfa.required", "true")] {
        let mut settings = unlimited().settings;
        settings.push(required);
        let strict = app.second_with(settings).await;
        opens_nothing(&strict, &own, &service).await;
        strict.stop().await;
    }
    app.stop().await;
}

/// The key of a person who must set up a factor first opens nothing there and isn't active; a service account's
/// goes on.
async fn opens_nothing(strict: &TestApp, own: &Client<'_>, service: &Client<'_>) {
    let there = |client: &Client<'_>| strict.anyone().with_token(client.bearer.clone().unwrap());
    assert_eq!(there(own).get("/api/v1/users").await.code(), "access.mfa_required");
    let resources = there(own).get("/api/v1/resources/document").await;
    assert_eq!(resources.code(), "access.mfa_required");
    let call = Call::new(axum::http::Method::POST, "/api/v1/auth/introspect")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", own.bearer.clone().unwrap()));
    let worth = there(service).send(call).await;
    assert_eq!(worth.body["active"], false, "{}", worth.raw);
    assert_eq!(there(service).get("/api/v1/users").await.status, StatusCode::OK);
}

async fn from_memory(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("ann@example.com").await;
    let program = key(&app, &app.token("ann@example.com").await, &["users:read"]).await;
    assert_eq!(status(&program).await, good());
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.app.db.close().await;
    assert_eq!(status(&program).await, good());
    app.stop().await;
}

async fn make_service(client: &Client<'_>) -> Answer {
    let answer = client.post("/api/v1/service-accounts", json!({ "name": "Deployer" })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.raw);
    answer
}

async fn service(on: On) {
    let app = TestApp::on(on).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let made = make_service(&root).await;
    let (id, email) = (made.text("id"), made.text("email"));
    assert_eq!(email, format!("{id}@service.invalid"));
    assert_eq!(made.body["service"], true);
    let listed = root.get("/api/v1/service-accounts").await;
    assert_eq!(listed.body["items"], json!([made.body]));
    // Its keys: of what it may do, made by who may do it too.
    let keys = format!("/api/v1/users/{id}/api-keys");
    let body = json!({ "name": "CI", "permissions": ["users:read"], "requests_per_minute": 6000 });
    assert_eq!(root.post(&keys, body.clone()).await.code(), "access.exceeds_own");
    let role = json!({ "name": "readers", "permissions": ["users:read"] });
    root.post("/api/v1/roles", role).await;
    put(&root, &format!("/api/v1/users/{id}/roles/readers")).await;
    let key = root.post(&keys, body).await;
    assert_eq!(key.status, StatusCode::CREATED, "{}", key.raw);
    let program = app.anyone().with_token(key.text("api_key"));
    assert_eq!(program.get("/api/v1/users").await.status, StatusCode::OK);
    let left = program.get(ME).await.headers["ratelimit"].to_str().unwrap().to_owned();
    assert!(left.contains("r=5998"), "{left}");
    // Whatever might let someone in as it.
    let answer = app.anyone().login(&email).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "login.denied"));
    emails(&app).await;
    app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": email })).await;
    assert!(emails(&app).await.is_empty());
    let account: UserId = id.parse().unwrap();
    let operator = Actor::operator();
    let refused = passwords::reset(&app.app, &operator, account, &PASSWORD.into()).await;
    assert_eq!(refused.unwrap_err().code(), "users.service_account");
    let change = app.app.change_holding(&operator, &[Hold::Shared(account)]).await.unwrap();
    let refused = palisade::invitations::send_link(change, account).await;
    assert_eq!(refused.unwrap_err().code(), "users.service_account");
    let body = json!({ "email": "mallory@example.com" });
    let answer = patch(&root, &format!("/api/v1/users/{id}"), body).await;
    assert_eq!(answer.code(), "users.service_account");
    // Even with a password in the table it can't sign in.
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run("update users set service = null where id = $1", args![account]).await.unwrap();
    tx.commit().await.unwrap();
    passwords::reset(&app.app, &operator, account, &PASSWORD.into()).await.unwrap();
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run("update users set service = $2 where id = $1", args![account, true]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(app.anyone().login(&email).await.code(), "login.denied");
    assert!(emails(&app).await.is_empty(), "no email has such an email");
    let user = users::find(&app.app, account).await.unwrap().unwrap();
    let holds = deletion::held_for_deletion(account);
    let change = app.app.change_holding(&operator, &holds).await.unwrap();
    deletion::delete(change, &user).await.unwrap();
    assert!(emails(&app).await.is_empty());
    app.stop().await;
}

async fn last_admin(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let only = app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let id = make_service(&root).await.text("id");
    let answer = put(&root, &format!("/api/v1/users/{id}/roles/admin")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let answer = root.act(&format!("/api/v1/users/{only}/disable")).await;
    assert_eq!(answer.code(), "users.last_admin");
    let answer = root.delete(&format!("/api/v1/users/{only}/roles/admin")).await;
    assert_eq!(answer.code(), "users.last_admin");
    // It may go itself.
    let answer = root.delete(&format!("/api/v1/users/{id}/roles/admin")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_has_a_limit_of_its_own() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "name": "slow", "permissions": [], "requests_per_minute": 2 });
    let slow = app.anyone().with_token(make(&ann, body).await.text("api_key"));
    let other = key(&app, &ann, &[]).await;
    assert_eq!(status(&slow).await, good());
    assert_eq!(status(&slow).await, good());
    let answer = slow.get(ME).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers["ratelimit-policy"].to_str().unwrap().contains("q=2;w=60"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(status(&other).await, good());
    app.advance(Duration::from_secs(31)).await;
    assert_eq!(status(&slow).await, good());
    app.stop().await;
}
