//! What administrators do with users and roles, and what they can't.

use axum::http::{Method, StatusCode};
use palisade::testing::mailbox::{emails, newest_email, token};
use palisade::testing::{
    Answer, Call, Client, On, PASSWORD, Plan, TestApp, patch, place, put, unlimited,
};
use serde_json::{Value, json};

palisade::on_both! {
    roles_take_effect_on_the_next_request => |on| super::roles(on);
    only_rights_that_are_held_are_given => |on| super::may_delegate(on);
    an_account_with_more_rights_stays_untouched => |on| super::acts_on(on);
    the_last_administrator_stays => |on| super::last_admin(on);
    users_are_found_by_email_and_name => |on| super::search(on);
    users_are_changed_and_deleted => |on| super::change_and_delete(on);
}

async fn make_role(client: &Client<'_>, name: &str, permissions: &[&str]) -> Answer {
    client.post("/api/v1/roles", json!({ "name": name, "permissions": permissions })).await
}

async fn roles(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let second = app.second().await;
    let elsewhere = second.anyone().with_token(ann.bearer.clone().unwrap());

    let made = make_role(&root, "auditors", &["audit:read"]).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    assert_eq!(make_role(&root, "auditors", &[]).await.code(), "roles.taken");
    for (body, expected) in [
        (json!({ "name": "A", "permissions": [] }), (422, "/name", "roles.bad_name")),
        (
            json!({ "name": "b", "permissions": ["audit:read", "fly"] }),
            (422, "/permissions/1", "roles.unknown_permission"),
        ),
        (
            json!({ "name": "b", "permissions": [], "description": "\u{202e}" }),
            (422, "/description", "roles.bad_description"),
        ),
    ] {
        assert_eq!(place(&root.post("/api/v1/roles", body).await), expected);
    }
    assert_eq!(ann.get("/api/v1/audit").await.status, StatusCode::FORBIDDEN);
    assert_eq!(elsewhere.get("/api/v1/audit").await.status, StatusCode::FORBIDDEN);
    let path = format!("/api/v1/users/{id}/roles/auditors");
    for _ in 0..2 {
        assert_eq!(put(&root, &path).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(ann.get("/api/v1/audit").await.status, StatusCode::OK);
    eventually(&elsewhere, StatusCode::OK).await;
    let roles = ann.get("/api/v1/users/me").await.body["roles"].clone();
    assert_eq!(roles, json!(["auditors", "user"]));

    // What the role allows changes for everyone who has it, everywhere.
    let changed =
        patch(&root, "/api/v1/roles/auditors", json!({ "permissions": ["users:read"] })).await;
    assert_eq!(changed.body["permissions"], json!(["users:read"]), "{}", changed.raw);
    assert_eq!(ann.get("/api/v1/audit").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ann.get("/api/v1/users").await.status, StatusCode::OK);
    eventually(&elsewhere, StatusCode::FORBIDDEN).await;

    assert_eq!(root.delete("/api/v1/roles/auditors").await.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.get("/api/v1/users").await.status, StatusCode::FORBIDDEN);
    // A role of the same name is another role.
    make_role(&root, "auditors", &["users:read"]).await;
    assert_eq!(ann.get("/api/v1/users").await.status, StatusCode::FORBIDDEN);
    for path in [path.as_str(), "/api/v1/roles/nothing"] {
        assert_eq!(root.delete(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for built_in in ["admin", "user"] {
        let answer = root.delete(&format!("/api/v1/roles/{built_in}")).await;
        assert_eq!(answer.code(), "roles.built_in");
    }
    let all = root.get("/api/v1/permissions").await.body["items"].as_array().unwrap().len();
    let admin = root.get("/api/v1/roles/admin").await;
    assert_eq!(admin.body["permissions"].as_array().unwrap().len(), all);
    second.stop().await;
    app.stop().await;
}

/// Another process hears of it within the bound of the feed.
async fn eventually(client: &Client<'_>, expected: StatusCode) {
    for _ in 0..200 {
        if client.get("/api/v1/audit").await.status == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the other process never answered {expected}");
}

async fn may_delegate(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let all = root.get("/api/v1/permissions").await;
    let all: Vec<&str> =
        all.body["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    make_role(&root, "clerks", &["roles:read", "roles:write", "users:read", "users:write"]).await;
    make_role(&root, "everything", &all).await;
    put(&root, &format!("/api/v1/users/{id}/roles/clerks")).await;

    let exceeds = |answer: Answer| {
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (403, "access.exceeds_own"),
            "{}",
            answer.raw
        );
    };
    exceeds(make_role(&ann, "mine", &["users:read", "audit:read"]).await);
    assert_eq!(make_role(&ann, "mine", &["users:read"]).await.status, StatusCode::CREATED);
    exceeds(patch(&ann, "/api/v1/roles/mine", json!({ "permissions": ["audit:read"] })).await);
    exceeds(patch(&ann, "/api/v1/roles/clerks", json!({ "permissions": all })).await);
    exceeds(ann.delete("/api/v1/roles/everything").await);
    // Anyone who lost a permission could be reached: taking away asks for as much.
    exceeds(patch(&ann, "/api/v1/roles/everything", json!({ "permissions": [] })).await);
    let answer = patch(&ann, "/api/v1/roles/everything", json!({ "description": "All" })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    for role in ["admin", "everything"] {
        exceeds(put(&ann, &format!("/api/v1/users/{bob}/roles/{role}")).await);
        exceeds(put(&ann, &format!("/api/v1/users/{id}/roles/{role}")).await);
        let body = json!({ "email": "new@example.com", "roles": [role] });
        exceeds(ann.post("/api/v1/users", body).await);
    }
    let answer = put(&ann, &format!("/api/v1/users/{bob}/roles/mine")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);

    // A role without permissions may open resources.
    make_role(&root, "editors", &[]).await;
    let give = format!("/api/v1/users/{bob}/roles/editors");
    assert_eq!(put(&ann, &give).await.status, StatusCode::NO_CONTENT);
    let call = Call::new(Method::PUT, "/api/v1/resources/document/7/grants/role:editors");
    root.send(call.json(json!({ "actions": ["read"] }))).await;
    exceeds(put(&ann, &give).await);
    exceeds(put(&ann, &format!("/api/v1/users/{id}/roles/editors")).await);

    // Anyone who holds every permission there is, is no administrator: there may be more tomorrow.
    put(&root, &format!("/api/v1/users/{id}/roles/everything")).await;
    exceeds(put(&ann, &format!("/api/v1/users/{id}/roles/admin")).await);
    let body = json!({ "email": "new@example.com", "roles": ["user", "nothing"] });
    assert_eq!(place(&root.post("/api/v1/users", body).await), (422, "/roles/1", "roles.unknown"));
    app.stop().await;
}

async fn acts_on(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root_id = app.admin("root@example.com").await;
    app.admin("second@example.com").await;
    let id = app.user("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    make_role(&root, "clerks", &["users:read", "users:write"]).await;
    make_role(&root, "auditors", &["audit:read"]).await;
    put(&root, &format!("/api/v1/users/{id}/roles/clerks")).await;
    put(&root, &format!("/api/v1/users/{bob}/roles/auditors")).await;
    for target in [root_id, bob] {
        let at = |rest: &str| format!("/api/v1/users/{target}{rest}");
        let answers = [
            ann.act(&at("/disable")).await,
            ann.act(&at("/enable")).await,
            ann.act(&at("/unlock")).await,
            ann.act(&at("/revoke-sessions")).await,
            patch(&ann, &at(""), json!({ "email": "ann2@example.com" })).await,
            patch(&ann, &at(""), json!({ "name": "Owned" })).await,
            ann.delete(&at("")).await,
            put(&ann, &at("/roles/clerks")).await,
            ann.delete(&at("/roles/admin")).await,
        ];
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.code(), "access.exceeds_own", "{number}: {}", answer.raw);
        }
    }
    // Administrators reach everyone, each other too.
    let revoked = root.act(&format!("/api/v1/users/{bob}/revoke-sessions")).await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

async fn last_admin(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let strip = format!("/api/v1/users/{id}/roles/admin");
    let user = format!("/api/v1/users/{id}");
    for answer in [
        root.delete(&strip).await,
        root.delete(&user).await,
        root.delete("/api/v1/users/me").await,
        root.act(&format!("{user}/disable")).await,
    ] {
        assert_eq!(answer.code(), "users.last_admin", "{}", answer.raw);
    }
    // One who is about to go doesn't count.
    app.admin("second@example.com").await;
    let second = app.token("second@example.com").await;
    assert_eq!(second.delete("/api/v1/users/me").await.status, StatusCode::NO_CONTENT);
    assert_eq!(root.delete(&strip).await.code(), "users.last_admin");
    app.token("second@example.com").await;
    assert_eq!(root.delete(&strip).await.status, StatusCode::NO_CONTENT);
    assert_eq!(root.get("/api/v1/users").await.status, StatusCode::FORBIDDEN);
    app.stop().await;
}

async fn search(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    for (email, name) in [
        ("ann@example.com", "Zoë"),
        ("anna@example.com", "Ben"),
        ("ben@example.com", "Ann Other"),
        ("xavier@example.com", "ANNABEL"),
        ("yuri@example.com", "Joanna"),
    ] {
        let body = json!({ "email": email, "name": name });
        assert_eq!(root.post("/api/v1/users", body).await.status, StatusCode::CREATED);
    }
    let found = |answer: &Answer| -> Vec<String> {
        let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("{}", answer.raw));
        items.iter().map(|user| user["email"].as_str().unwrap()[..3].to_owned()).collect()
    };
    let at = |rest: &str| format!("/api/v1/users?{rest}");
    assert_eq!(found(&root.get(&at("query=ANN")).await), ["ann", "ann", "ben", "xav"]);
    assert_eq!(found(&root.get(&at("query=zo%C3%AB")).await), ["ann"]);
    assert!(found(&root.get(&at("query=an%25")).await).is_empty());
    assert!(found(&root.get(&at("query=oanna")).await).is_empty());
    // Page by page it is the same list.
    let mut paged = Vec::new();
    let mut next = at("query=ann&limit=1");
    loop {
        let answer = root.get(&next).await;
        paged.extend(found(&answer));
        let Some(cursor) = answer.body["next_cursor"].as_str() else { break };
        next = at(&format!("query=ann&limit=1&cursor={cursor}"));
    }
    assert_eq!(paged, ["ann", "ann", "ben", "xav"]);
    for bad in ["query=", "query=%20", "query=%E2%80%AE", &format!("query={}", "a".repeat(201))] {
        assert_eq!(place(&root.get(&at(bad)).await).2, "request.bad_query", "{bad}");
    }
    assert!(root.get(&at("query=a%00")).await.status.is_client_error());
    assert_eq!(root.get("/api/v1/users").await.body["items"].as_array().unwrap().len(), 6);
    app.stop().await;
}

async fn change_and_delete(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    app.user("bob@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let path = format!("/api/v1/users/{id}");
    // Ann moves, and could move back; not after an administrator has moved her on.
    let undoing = moved_once(&app, &ann).await;
    let taken = patch(&root, &path, json!({ "email": "BOB@example.com", "name": "Ann" })).await;
    assert_eq!(taken.code(), "users.email_taken");
    assert_eq!(root.get(&path).await.body["name"], Value::Null, "all of it or nothing");
    let both = json!({ "email": "no email", "name": "\u{0}" });
    let both = patch(&root, &path, both).await;
    assert_eq!(both.body["errors"].as_array().unwrap().len(), 2, "{}", both.raw);
    let done = patch(&root, &path, json!({ "email": "ann2@example.com", "name": "Ann" })).await;
    assert_eq!((done.text("email"), done.text("name")), ("ann2@example.com".into(), "Ann".into()));
    assert_eq!(done.body["email_verified"], false);
    assert_eq!(patch(&root, &path, json!({ "name": null })).await.body["name"], Value::Null);
    assert_eq!(patch(&root, &path, json!({})).await.status, StatusCode::OK);
    assert_eq!(ann.get("/api/v1/users/me").await.text("email"), "ann2@example.com");
    let body = json!({ "token": undoing, "password": "five green kettles whistle" });
    let undone = app.anyone().post("/api/v1/auth/email/undo", body).await;
    assert_eq!(place(&undone).2, "recovery.bad_token");
    let told = emails(&app).await;
    assert!(
        told.iter()
            .any(|mail| mail.to == "ann@new.example" && mail.text.contains("An administrator"))
    );

    let me = root.get("/api/v1/users/me").await.text("id");
    let own = format!("/api/v1/users/{me}");
    let own = patch(&root, &own, json!({ "email": "new@example.com" })).await;
    assert_eq!(own.code(), "users.own_email");

    assert_eq!(root.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(root.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(root.delete(&path).await.status, StatusCode::NOT_FOUND);
    let events = app.events().await;
    for event in ["users.changed", "recovery.email_changed", "account.deleted"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    app.stop().await;
}

/// Changes the email of a client's account; answers the token that undoes it.
async fn moved_once(app: &TestApp, ann: &Client<'_>) -> String {
    ann.post("/api/v1/users/me/email", json!({ "email": "ann@new.example" })).await;
    let link = token(&newest_email(app).await);
    let body = json!({ "token": link, "password": PASSWORD });
    let confirmed = app.anyone().post("/api/v1/auth/email/confirm", body).await;
    assert_eq!(confirmed.status, StatusCode::NO_CONTENT, "{}", confirmed.raw);
    let told = newest_email(app).await;
    assert_eq!(told.to, "ann@example.com");
    token(&told)
}

#[tokio::test]
async fn the_limits_in_force_are_listed() {
    let settings =
        vec![("limits.rules.login_ip.burst", "7"), ("limits.rules.setup_ip.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let answer = root.get("/api/v1/limits").await;
    let items = answer.body["items"].as_array().unwrap();
    let rules: usize = palisade::MODULES.iter().map(|module| module.limits.len()).sum();
    assert_eq!(items.len(), rules);
    let named = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
    assert_eq!(named("login_ip")["burst"], 7);
    assert_eq!(named("login_ip")["key"], "ip");
    assert_eq!(named("setup_ip")["enabled"], false);
    // What is left is said with every answer that a limit was applied to.
    let login = app.anyone().from("203.0.113.5").login("root@example.com").await;
    assert_eq!(login.headers["ratelimit-policy"], "\"login_ip\";q=7;w=60");
    assert!(login.headers["ratelimit"].to_str().unwrap().starts_with("\"login_ip\";r=6;"));
    app.stop().await;
}
