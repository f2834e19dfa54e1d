//! What people do with their own account: proving again, taking out, leaving.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::testing::mailbox::letters;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, unlimited};
use palisade::{deletion, users};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::{Value, json};

palisade::on_both! {
    a_new_proof_of_identity_ends_the_credentials_before_it => |on| super::proving(on);
    what_needs_fresh_proof_is_refused_later => |on| super::freshness(on);
    a_deleted_person_is_gone_and_the_log_still_verifies => |on| super::leaving(on);
    a_deletion_that_was_taken_back_while_it_waited_is_none => |on| super::taking_back(on);
    the_export_holds_what_is_kept => |on| super::export(on);
    a_sign_in_from_a_new_device_is_told => |on| super::devices(on);
    earlier_passwords_are_refused => |on| super::history(on);
}

const NEW: &str = "five green kettles whistle";
const MINUTE: Duration = Duration::from_secs(60);

async fn prove(client: &Client<'_>, password: &str) -> Answer {
    let call = Call::post("/api/v1/auth/reauthenticate", json!({ "password": password }));
    client.send(call.same_origin()).await
}

async fn status(client: &Client<'_>) -> u16 {
    client.get("/api/v1/users/me").await.status.as_u16()
}

async fn proving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let second = app.second().await;
    let login = app.anyone().login("ann@example.com").await;
    let ann = app.anyone().with_token(login.text("access_token"));
    assert_eq!(place(&prove(&ann, NEW).await), (422, "/password", "passwords.wrong"));
    let elsewhere = second.anyone().with_token(login.text("access_token"));
    assert_eq!((status(&ann).await, status(&elsewhere).await), (200, 200));
    app.advance(MINUTE).await;
    second.catch_up().await;
    let proved = prove(&ann, PASSWORD).await;
    assert_eq!(proved.status, StatusCode::OK, "{}", proved.raw);
    assert_eq!(proved.text("session_id"), login.text("session_id"));
    let fresh = app.anyone().with_token(proved.text("access_token"));
    assert_eq!((status(&ann).await, status(&fresh).await), (401, 200));
    for _ in 0..200 {
        if status(&elsewhere).await == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(&elsewhere).await, 401);
    // Whoever kept the refresh token doesn't become fresh with it.
    let refresh = |token: String| {
        let app = &app;
        async move { app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await }
    };
    assert_eq!(refresh(login.text("refresh_token")).await.code(), "sessions.ended");
    assert_eq!(status(&fresh).await, 200, "a late refresh is no theft");
    let next = refresh(proved.text("refresh_token")).await;
    assert_eq!(status(&app.anyone().with_token(next.text("access_token"))).await, 200);
    app.advance(MINUTE).await;
    assert_eq!(refresh(login.text("refresh_token")).await.code(), "sessions.ended");
    assert_eq!(status(&fresh).await, 401, "a copy that is used later ends the session");

    let browser = app.browser("ann@example.com").await;
    let proved = prove(&browser, PASSWORD).await;
    assert_eq!(proved.body["access_token"], Value::Null);
    let fresh = app.anyone().with_cookie(proved.cookie());
    assert_eq!((status(&browser).await, status(&fresh).await), (401, 200));
    let events = app.events().await;
    assert_eq!(events.iter().filter(|event| *event == "login.reauthenticated").count(), 2);
    second.stop().await;
    app.stop().await;
}

async fn freshness(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    app.admin("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    let ann = app.token("ann@example.com").await;
    let browser = app.browser("ann@example.com").await;
    let refresh = app.anyone().login("ann@example.com").await.text("refresh_token");
    app.advance(10 * MINUTE).await;
    let refreshed =
        app.anyone().post("/api/v1/auth/refresh", json!({ "refresh_token": refresh })).await;
    let refreshed = app.anyone().with_token(refreshed.text("access_token"));
    let routes = app.builder.routes();
    let fresh: Vec<_> = routes.iter().filter(|route| route.access.fresh).collect();
    assert!(fresh.len() >= 3);
    for client in [&ann, &browser, &refreshed] {
        for route in &fresh {
            let path = route.path.replace("{id}", &bob.to_string());
            let answer = client.send(Call::new(route.method.clone(), &path).same_origin()).await;
            assert_eq!(answer.code(), "access.not_fresh", "{} {path}", route.method);
        }
        assert_eq!(status(client).await, 200);
    }
    let proved = prove(&browser, PASSWORD).await;
    let proved = app.anyone().with_cookie(proved.cookie());
    let answer =
        proved.send(Call::new(Method::DELETE, &format!("/api/v1/users/{bob}")).same_origin()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    app.stop().await;
}

/// Everything in the database that names the person, but for the log: each table with a user's id.
async fn traces(app: &TestApp, user: &str) -> i64 {
    let mut all = 0;
    let id = uuid::Uuid::parse_str(user).unwrap();
    for (table, sql) in [
        ("users", "select count(*) from users where id = $1"),
        ("user_roles", "select count(*) from user_roles where user_id = $1"),
        ("passwords", "select count(*) from passwords where user_id = $1"),
        ("password_history", "select count(*) from password_history where user_id = $1"),
        ("sessions", "select count(*) from sessions where user_id = $1"),
        ("lockout_counts", "select count(*) from lockout_counts where user_id = $1"),
        ("recovery_tokens", "select count(*) from recovery_tokens where user_id = $1"),
        ("address_changes", "select count(*) from address_changes where user_id = $1"),
        ("factor_recoveries", "select count(*) from factor_recoveries where user_id = $1"),
        ("grants", "select count(*) from grants where user_id = $1"),
        ("person_keys", "select count(*) from person_keys where user_id = $1"),
        ("registrations", "select count(*) from registrations where user_id = $1"),
        ("challenges", "select count(*) from challenges where user_id = $1"),
        ("totp_secrets", "select count(*) from totp_secrets where user_id = $1"),
        ("totp_enrolments", "select count(*) from totp_enrolments where user_id = $1"),
        ("recovery_codes", "select count(*) from recovery_codes where user_id = $1"),
        ("passkeys", "select count(*) from passkeys where user_id = $1"),
        ("api_keys", "select count(*) from api_keys where user_id = $1"),
    ] {
        let (count,): (i64,) = app.app.db.one(sql, args![id]).await.unwrap();
        assert!(sql.contains(table));
        all += count;
    }
    all
}

async fn leaving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await.to_string();
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    ann.post("/api/v1/users/me/email", json!({ "email": "ann@new.example" })).await;
    let call = Call::new(Method::PUT, &format!("/api/v1/resources/document/7/grants/user:{id}"));
    root.send(call.json(json!({ "actions": ["read"] }))).await;
    app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": "ann@example.com" })).await;
    assert_eq!(ann.delete("/api/v1/users/me").await.status, StatusCode::NO_CONTENT);
    assert_eq!(status(&ann).await, 401);
    let told = letters(&app).await;
    assert!(told.iter().any(|letter| letter.subject.contains("will be deleted")), "{told:?}");
    let view = root.get(&format!("/api/v1/users/{id}")).await;
    assert!(view.body["delete_at"].is_string(), "{}", view.raw);

    // Signing in takes it back.
    app.advance(13 * 24 * 60 * MINUTE).await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me").await.body["delete_at"], Value::Null);
    ann.delete("/api/v1/users/me").await;
    app.advance(14 * 24 * 60 * MINUTE).await;
    // It is over from that moment on, whenever the rows go.
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::UNAUTHORIZED);
    for module in palisade::MODULES {
        for job in module.jobs.iter().filter(|job| job.name == "deletion.delete_due") {
            (job.run)(&app.app).await.unwrap();
        }
    }
    assert_eq!(traces(&app, &id).await, 0);
    let root = app.token("root@example.com").await;
    let past = root.get(&format!("/api/v1/audit?target={id}&limit=200")).await;
    assert!(!past.raw.contains("ann@"), "{}", past.raw);
    let past = past.body["items"].as_array().unwrap().clone();
    assert!(past.iter().any(|event| event["event"] == "account.deleted"));
    // What an administrator did carries the administrator's own address.
    let theirs = past.iter().filter(|event| event["event"] != "grants.given");
    assert!(theirs.clone().count() > 5);
    assert!(theirs.clone().all(|event| event["personal"] == json!({})), "{past:?}");
    let all = root.get("/api/v1/audit?limit=200").await;
    let denied = "login.denied";
    let mut rest = all.body["items"].as_array().unwrap().iter().filter(|e| e["event"] != denied);
    assert!(rest.all(|event| !event["personal"].to_string().contains("ann@")));
    palisade::audit_log::seal_pending(&app.app).await.unwrap();
    let verified = palisade::audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    // The address is free, and its next owner somebody else.
    let again = app.user("ann@example.com").await.to_string();
    assert_ne!(again, id);
    let events = app.events().await;
    for event in ["account.deletion_asked", "users.kept", "account.deleted"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    app.stop().await;
}

async fn taking_back(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.delete("/api/v1/users/me").await.status, StatusCode::NO_CONTENT);
    app.advance(15 * 24 * 60 * MINUTE).await;
    let other = app.second().await;
    let holds = [Hold::Alone(id), Hold::Administrators];
    let mut change = other.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    users::keep(&mut change, id).await.unwrap();
    let finish = async {
        until_one_waits(&app.app.db).await;
        change.commit_quietly("what was taken back is an event").await.unwrap();
    };
    let job = deletion::MODULE.jobs[0];
    let (done, ()) = tokio::join!((job.run)(&app.app), finish);
    done.unwrap();
    assert!(users::find(&app.app, id).await.unwrap().is_some());
    other.stop().await;
    app.stop().await;
}

async fn export(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let id = app.user("ann@example.com").await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    let call = Call::new(Method::PUT, &format!("/api/v1/resources/document/7/grants/user:{id}"));
    root.send(call.json(json!({ "actions": ["read"] }))).await;
    let all = ann.get("/api/v1/users/me/export").await;
    assert_eq!(all.status, StatusCode::OK, "{}", all.raw);
    assert_eq!(all.body["user"]["email"], "ann@example.com");
    assert_eq!(all.body["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(all.body["grants"][0]["resource_id"], "7");
    assert_eq!(all.body["address_changes"], json!([]));
    let activity: Vec<&str> = all.body["activity"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(activity, ["grants.given", "login.signed_in", "users.created"]);
    assert!(app.events().await.contains(&"account.exported".to_owned()));
    app.stop().await;
}

async fn devices(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let login = |address: &'static str, agent: &'static str, device: Option<String>| {
        let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
        if let Some(device) = device {
            body["device_token"] = json!(device);
        }
        let call = Call::post("/api/v1/auth/login", body).header("user-agent", agent);
        let client = app.anyone().from(address);
        async move { client.send(call).await }
    };
    let count = || async {
        let all = letters(&app).await;
        all.iter().filter(|letter| letter.subject.contains("New sign-in")).count()
    };
    let first = login("203.0.113.1", "one", None).await;
    assert_eq!(count().await, 0, "the first sign-in is nobody else's");
    login("203.0.113.1", "one", None).await;
    assert_eq!(count().await, 0, "the same software at the same address");
    login("203.0.113.2", "two", Some(first.text("device_token"))).await;
    assert_eq!(count().await, 0, "a known device");
    login("203.0.113.2", "one", None).await;
    login("203.0.113.1", "three <b>", None).await;
    assert_eq!(count().await, 2);
    let told = letters(&app).await;
    let told = told.iter().find(|letter| letter.text.contains("three")).unwrap();
    assert!(told.text.contains("203.0.113.1") && told.html.contains("three &lt;b&gt;"), "{told:?}");
    app.stop().await;
}

async fn history(on: On) {
    let settings = vec![("limits.enabled", "false"), ("passwords.history", "3")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let change = |from: &str, to: &str| {
        let body = json!({ "current_password": from, "new_password": to });
        let ann = ann.clone();
        async move { ann.post("/api/v1/users/me/password", body).await }
    };
    let list = [PASSWORD, NEW, "mossy lantern drifts inland", "crooked violin tastes of rain"];
    for pair in list.windows(2) {
        app.advance(MINUTE).await;
        assert_eq!(change(pair[0], pair[1]).await.status, StatusCode::NO_CONTENT);
    }
    let reused = (422, "/new_password", "password.reused");
    for earlier in &list[1..] {
        assert_eq!(place(&change(list[3], earlier).await), reused, "{earlier}");
    }
    assert_eq!(change(list[3], PASSWORD).await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test]
async fn the_common_passwords_and_those_of_the_site_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Purple Haze Over Grantchester Meadows\n").unwrap();
    let path: &'static str = file.path().to_str().unwrap().to_owned().leak();
    let settings = vec![
        ("passwords.blocklist_path", path),
        ("passwords.min_strength", "0"),
        ("passwords.min_length", "8"),
        ("server.public_url", "http://gadgets.localhost:8000"),
        ("limits.enabled", "false"),
    ];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let code = |password: &'static str| {
        let body = json!({ "email": "ann@example.com", "password": password });
        let anyone = app.anyone();
        async move { place(&anyone.post("/api/v1/auth/register", body).await).2.to_owned() }
    };
    for refused in
        ["purple haze OVER grantchester meadows", "1234567890123456", "gadgets-gadgets-2031"]
    {
        assert_eq!(code(refused).await, "password.blocklisted", "{refused}");
    }
    assert_eq!(code("crooked violin tastes of rain").await, "");
    app.stop().await;
}

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
