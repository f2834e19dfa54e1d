//! Grants on single resources.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::testing::{Answer, Call, Client, On, TestApp, place, put, unlimited};
use serde_json::{Value, json};

palisade::on_both! {
    what_is_not_granted_is_not_allowed => |on| super::checks(on);
    sharing_gives_only_what_the_sharer_holds => |on| super::sharing(on);
    grants_end_with_their_time_their_user_and_their_role => |on| super::ends(on);
    what_one_may_see_is_listed_page_by_page => |on| super::listing(on);
    sharing_removes_only_what_the_sharer_holds => |on| super::taking(on);
    a_grant_waits_for_a_second_factor_that_is_required => |on| super::enrolling(on);
}

async fn grant(client: &Client<'_>, path: &str, actions: &[&str]) -> Answer {
    let path = format!("/api/v1/resources/{path}");
    client.send(Call::new(Method::PUT, &path).json(json!({ "actions": actions }))).await
}

async fn check(client: &Client<'_>, subject: Option<&str>, action: &str, id: &str) -> Answer {
    let mut body = json!({ "action": action, "resource_type": "document", "resource_id": id });
    if let Some(subject) = subject {
        body["subject"] = json!(subject);
    }
    client.post("/api/v1/access/check", body).await
}

async fn because(client: &Client<'_>, action: &str, id: &str) -> Value {
    let answer = check(client, None, action, id).await;
    assert_eq!(answer.body["allowed"], !answer.body["because"].is_null(), "{}", answer.raw);
    answer.body["because"].clone()
}

async fn checks(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    assert_eq!(because(&ann, "read", "7").await, Value::Null);
    // An administrator's permissions are no grants.
    assert_eq!(because(&root, "read", "7").await, Value::Null);
    assert_eq!(
        grant(&root, "document/7/grants/anyone", &["read"]).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(because(&ann, "read", "7").await, "anyone");
    grant(&root, "document/7/grants/role:user", &["read", "comment"]).await;
    assert_eq!(because(&ann, "read", "7").await, "role:user");
    grant(&root, &format!("document/7/grants/user:{id}"), &["read", "write"]).await;
    assert_eq!(because(&ann, "read", "7").await, format!("user:{id}"));
    assert_eq!(because(&ann, "write", "7").await, format!("user:{id}"));
    assert_eq!(because(&ann, "write", "8").await, Value::Null);
    assert_eq!(because(&ann, "delete", "7").await, Value::Null);
    // A grant says everything: what it doesn't name is gone.
    grant(&root, &format!("document/7/grants/user:{id}"), &["read"]).await;
    assert_eq!(because(&ann, "write", "7").await, Value::Null);

    let about = |subject: String| {
        let (root, ann) = (root.clone(), ann.clone());
        async move {
            let asked = check(&ann, Some(&subject), "comment", "7").await;
            (
                asked.code().to_owned(),
                check(&root, Some(&subject), "comment", "7").await.body["because"].clone(),
            )
        }
    };
    assert_eq!(about("role:user".into()).await, ("access.denied".to_owned(), json!("role:user")));
    assert_eq!(about("anyone".into()).await, (String::new(), Value::Null));
    assert_eq!(about(format!("user:{id}")).await, (String::new(), json!("role:user")));
    bad_grants(&root).await;
    app.stop().await;
}

async fn bad_grants(root: &Client<'_>) {
    for (body, expected) in [
        (json!({ "actions": [] }), (422, "/actions", "grants.bad_actions")),
        (json!({ "actions": ["Read"] }), (422, "/actions/0", "grants.bad_word")),
        (
            json!({ "actions": ["read"], "expires_at": "2001-01-01T00:00:00Z" }),
            (422, "/expires_at", "grants.bad_expiry"),
        ),
    ] {
        let call = Call::new(Method::PUT, "/api/v1/resources/document/7/grants/anyone").json(body);
        assert_eq!(place(&root.send(call).await), expected);
    }
    for path in [
        "document/7/grants/nobody",
        "Document/7/grants/anyone",
        "document/a%2Fb/grants/anyone",
        "document/../grants/anyone",
    ] {
        assert_eq!(grant(root, path, &["read"]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let nobody = "document/7/grants/user:01890000-0000-7000-8000-000000000000";
    assert_eq!(grant(root, nobody, &["read"]).await.code(), "grants.no_such_subject");
    assert_eq!(
        grant(root, "document/7/grants/role:none", &["read"]).await.code(),
        "grants.no_such_subject"
    );
}

async fn sharing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    app.user("bob@example.com").await;
    let root = app.token("root@example.com").await;
    let (ann, bob) = (app.token("ann@example.com").await, app.token("bob@example.com").await);
    let path = "/api/v1/resources/document/7/grants";
    let unknown = bob.get("/api/v1/resources/document/8/grants").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    grant(&root, &format!("document/7/grants/user:{id}"), &["read", "share"]).await;
    grant(&root, "document/7/grants/role:user", &["write"]).await;

    assert_eq!(bob.get(path).await.code(), unknown.code());
    assert_eq!(
        grant(&bob, "document/7/grants/anyone", &["write"]).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(ann.get(path).await.body["items"].as_array().unwrap().len(), 3);
    assert_eq!(
        grant(&ann, "document/7/grants/anyone", &["read"]).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(because(&bob, "read", "7").await, "anyone");
    let exceeds =
        |answer: Answer| assert_eq!(answer.code(), "access.exceeds_own", "{}", answer.raw);
    exceeds(grant(&ann, "document/7/grants/anyone", &["read", "delete"]).await);
    // Neither by replacing nor by withdrawing does one take away what one doesn't hold.
    grant(&root, "document/7/grants/role:admin", &["delete"]).await;
    exceeds(grant(&ann, "document/7/grants/role:admin", &["read"]).await);
    exceeds(ann.delete(&format!("{path}/role:admin")).await);
    assert_eq!(ann.delete(&format!("{path}/anyone")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ann.delete(&format!("{path}/anyone")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(because(&bob, "read", "7").await, Value::Null);
    // For no longer than one holds it oneself.
    let until = app.clock.now().plus(Duration::from_secs(60)).to_string();
    let limited = json!({ "actions": ["read", "share"], "expires_at": until });
    let own = format!("{path}/user:{id}");
    root.send(Call::new(Method::PUT, &own).json(limited.clone())).await;
    exceeds(grant(&ann, &format!("document/7/grants/user:{id}"), &["read", "share"]).await);
    exceeds(grant(&ann, "document/7/grants/anyone", &["read"]).await);
    let lent = ann.send(Call::new(Method::PUT, &format!("{path}/anyone")).json(limited)).await;
    assert_eq!(lent.status, StatusCode::NO_CONTENT, "{}", lent.raw);
    // Only on this resource.
    assert_eq!(
        grant(&ann, "document/8/grants/anyone", &["read"]).await.status,
        StatusCode::NOT_FOUND
    );
    let events = app.events().await;
    assert_eq!(events.iter().filter(|event| *event == "grants.given").count(), 6);
    assert_eq!(events.iter().filter(|event| *event == "grants.withdrawn").count(), 1);
    app.stop().await;
}

async fn give(client: &Client<'_>, path: &str, body: Value) -> String {
    client.send(Call::new(Method::PUT, path).json(body)).await.code().to_owned()
}

async fn taking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let (ann, bob) = (app.user("ann@example.com").await, app.user("bob@example.com").await);
    let (root, client) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let began = app.clock.now();
    let at = |minutes: u64| {
        let until = began.plus(Duration::from_secs(60 * minutes));
        json!({ "actions": ["read"], "expires_at": until.to_string() })
    };
    let path = format!("/api/v1/resources/document/7/grants/user:{bob}");
    let own = format!("/api/v1/resources/document/7/grants/user:{ann}");
    let mut mine = at(10);
    mine["actions"] = json!(["read", "share"]);
    assert_eq!(give(&root, &own, mine).await, "");
    // Bob holds it for longer: neither a shorter grant nor none takes its place.
    for longer in [json!({ "actions": ["read"] }), at(11)] {
        assert_eq!(give(&root, &path, longer).await, "");
        assert_eq!(give(&client, &path, at(5)).await, "access.exceeds_own");
        assert_eq!(client.delete(&path).await.code(), "access.exceeds_own");
    }
    assert_eq!(give(&root, &path, at(10)).await, "");
    assert_eq!(give(&client, &path, at(5)).await, "");
    assert_eq!(client.delete(&path).await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

async fn enrolling(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    let root = app.token("root@example.com").await;
    grant(&root, &format!("document/7/grants/user:{ann}"), &["read"]).await;
    grant(&root, "document/8/grants/anyone", &["read"]).await;
    let role = json!({ "name": "checkers", "permissions": ["resources:read"] });
    root.post("/api/v1/roles", role).await;
    let service = root.post("/api/v1/service-accounts", json!({ "name": "App" })).await.text("id");
    put(&root, &format!("/api/v1/users/{service}/roles/checkers")).await;
    let body = json!({ "name": "App", "permissions": ["resources:read"] });
    let key = root.post(&format!("/api/v1/users/{service}/api-keys"), body).await.text("api_key");
    let mut settings = unlimited().settings;
    settings.push(("mfa.required", "true"));
    let strict = app.second_with(settings).await;
    let subject = format!("user:{ann}");
    for (app, allowed) in [(&app, true), (&strict, false)] {
        let service = app.anyone().with_token(&key);
        let own = check(&service, Some(&subject), "read", "7").await;
        assert_eq!(own.body["allowed"], allowed, "{}", own.raw);
        assert_eq!(check(&service, Some(&subject), "read", "8").await.body["allowed"], true);
    }
    strict.stop().await;
    app.stop().await;
}

async fn ends(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let until = app.clock.now().plus(Duration::from_secs(60)).to_string();
    let body = json!({ "actions": ["read"], "expires_at": until });
    let call = Call::new(Method::PUT, "/api/v1/resources/document/7/grants/anyone").json(body);
    assert_eq!(root.send(call).await.status, StatusCode::NO_CONTENT);
    assert_eq!(because(&ann, "read", "7").await, "anyone");
    app.advance(Duration::from_secs(60)).await;
    assert_eq!(because(&ann, "read", "7").await, Value::Null);
    assert!(
        ann.get("/api/v1/resources/document").await.body["items"].as_array().unwrap().is_empty()
    );

    root.post("/api/v1/roles", json!({ "name": "editors", "permissions": [] })).await;
    put(&root, &format!("/api/v1/users/{id}/roles/editors")).await;
    grant(&root, "document/7/grants/role:editors", &["read"]).await;
    assert_eq!(because(&ann, "read", "7").await, "role:editors");
    root.delete(&format!("/api/v1/users/{id}/roles/editors")).await;
    assert_eq!(because(&ann, "read", "7").await, Value::Null);
    put(&root, &format!("/api/v1/users/{id}/roles/editors")).await;
    // The next role of that name begins with nothing.
    root.delete("/api/v1/roles/editors").await;
    root.post("/api/v1/roles", json!({ "name": "editors", "permissions": [] })).await;
    put(&root, &format!("/api/v1/users/{id}/roles/editors")).await;
    assert_eq!(because(&ann, "read", "7").await, Value::Null);

    grant(&root, &format!("document/7/grants/user:{id}"), &["read"]).await;
    let subject = format!("user:{id}");
    assert_eq!(check(&root, Some(&subject), "read", "7").await.body["allowed"], true);
    root.act(&format!("/api/v1/users/{id}/disable")).await;
    assert_eq!(check(&root, Some(&subject), "read", "7").await.body["allowed"], false);
    let root = app.token("root@example.com").await;
    root.delete(&format!("/api/v1/users/{id}")).await;
    let left = root.get("/api/v1/resources/document/7/grants").await;
    assert!(left.body["items"].as_array().unwrap().is_empty(), "{}", left.raw);
    app.stop().await;
}

async fn listing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    for (resource, subject) in [
        ("a", format!("user:{id}")),
        ("b", "role:user".to_owned()),
        ("c", "anyone".to_owned()),
        ("d", "role:admin".to_owned()),
        ("a", "anyone".to_owned()),
    ] {
        grant(&root, &format!("document/{resource}/grants/{subject}"), &["read"]).await;
    }
    grant(&root, "document/e/grants/anyone", &["write"]).await;
    grant(&root, "folder/f/grants/anyone", &["read"]).await;
    let mut all = Vec::new();
    let mut path = "/api/v1/resources/document?limit=2".to_owned();
    loop {
        let answer = ann.get(&path).await;
        all.extend(
            answer.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap().to_owned()),
        );
        let Some(cursor) = answer.body["next_cursor"].as_str() else { break };
        path = format!("/api/v1/resources/document?limit=2&cursor={cursor}");
    }
    assert_eq!(all, ["a", "b", "c"]);
    let write = ann.get("/api/v1/resources/document?action=write").await;
    assert_eq!(write.body["items"], json!(["e"]));
    assert_eq!(place(&ann.get("/api/v1/resources/document?action=R").await).1, "action");
    app.stop().await;
}
