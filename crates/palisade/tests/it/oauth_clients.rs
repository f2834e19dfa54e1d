//! What OAuth clients send and read: an id and a secret, errors of RFC 6749, the metadata of RFC 8414.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, put, unlimited};
use serde_json::{Value, json};

palisade::on_both! {
    a_client_authenticates_with_id_and_secret => |on| super::methods(on);
    only_an_api_key_is_the_secret_of_a_client => |on| super::secrets(on);
    a_key_of_a_client_is_restricted_as_ever => |on| super::restricted(on);
}

const INTROSPECT: &str = "/api/v1/auth/introspect";
const REVOKE: &str = "/api/v1/auth/revoke";

/// A service account and its keys.
struct Gateway<'a> {
    root: Client<'a>,
    id: String,
}

/// An id and a secret.
#[derive(Clone)]
struct Pair(String, String);

impl<'a> Gateway<'a> {
    async fn new(app: &'a TestApp) -> Self {
        app.admin("root@example.com").await;
        let root = app.token("root@example.com").await;
        let made = root.post("/api/v1/service-accounts", json!({ "name": "Gateway" })).await;
        let permissions = json!(["tokens:introspect", "users:read"]);
        let role = json!({ "name": "verifiers", "permissions": permissions });
        root.post("/api/v1/roles", role).await;
        let id = made.text("id");
        put(&root, &format!("/api/v1/users/{id}/roles/verifiers")).await;
        Self { root, id }
    }

    async fn key(&self, more: Value) -> Pair {
        let mut body = json!({ "name": "gateway", "permissions": ["tokens:introspect"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = self.root.post(&format!("/api/v1/users/{}/api-keys", self.id), body).await;
        assert_eq!(key.status, StatusCode::CREATED, "{}", key.raw);
        Pair(key.text("id"), key.text("api_key"))
    }

    fn token(&self) -> String {
        self.root.bearer.clone().unwrap()
    }
}

fn form(path: &str, fields: &[(&str, &str)]) -> Call {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    Call::new(Method::POST, path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish())
}

fn basic_of(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn basic(Pair(id, secret): &Pair) -> String {
    basic_of(&format!("{id}:{secret}"))
}

async fn by_basic(app: &TestApp, path: &str, token: &str, value: &str) -> Answer {
    app.anyone().send(form(path, &[("token", token)]).header("authorization", value)).await
}

async fn by_post(app: &TestApp, path: &str, token: &str, Pair(id, secret): &Pair) -> Answer {
    let fields = [("token", token), ("client_id", id), ("client_secret", secret)];
    app.anyone().send(form(path, &fields)).await
}

fn is_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {}", answer.raw);
    assert_eq!(answer.code(), "access.invalid_client", "{what}");
    assert_eq!(answer.body["error"], "invalid_client", "{what}");
    assert_eq!(answer.body["error_description"], answer.body["detail"], "{what}");
    let challenge = answer.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Basic realm="), "{what}: {challenge}");
    assert_eq!(answer.headers["content-type"], "application/json", "{what}");
}

async fn methods(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let gateway = Gateway::new(&app).await;
    let key = gateway.key(json!({})).await;
    let by_owner = Pair(gateway.id.to_uppercase(), key.1.clone());
    for pair in [&key, &by_owner] {
        let answer = by_basic(&app, INTROSPECT, &gateway.token(), &basic(pair)).await;
        assert_eq!(answer.body["active"], true, "{}", answer.raw);
        let answer = by_post(&app, INTROSPECT, &gateway.token(), pair).await;
        assert_eq!(answer.body["active"], true, "{}", answer.raw);
    }
    // Each part is encoded as in a form.
    let encoded = key.0.replace('-', "%2D");
    let value = basic_of(&format!("{encoded}:{}", key.1.replace('_', "%5f")))
        .replacen("Basic", "bASIC ", 1);
    let answer = by_basic(&app, INTROSPECT, "unknown", &value).await;
    assert_eq!(answer.body, json!({ "active": false }), "{}", answer.raw);
    // A scheme that isn't one of a client's stands for nothing.
    let (id, secret) = (key.0.as_str(), key.1.as_str());
    let fields = [("token", "unknown"), ("client_id", id), ("client_secret", secret)];
    let call = form(INTROSPECT, &fields).header("authorization", "Negotiate x");
    assert_eq!(app.anyone().send(call).await.status, StatusCode::OK);
    // A field without a value is none.
    let fields = [("token", "unknown"), ("client_id", ""), ("client_secret", "")];
    let call = form(INTROSPECT, &fields).header("authorization", &basic(&key));
    assert_eq!(app.anyone().send(call).await.status, StatusCode::OK);
    // It revokes too, and the log names its key.
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let answer = by_post(&app, REVOKE, &ann.bearer.clone().unwrap(), &key).await;
    assert_eq!((answer.status, answer.raw.as_str()), (StatusCode::OK, ""));
    assert_eq!(ann.get("/api/v1/users/me").await.code(), "access.invalid_token");
    let events = gateway.root.get("/api/v1/audit?action=sessions.ended&limit=1").await;
    assert!(events.raw.contains(&key.0), "{}", events.raw);
    let keys = gateway.root.get(&format!("/api/v1/users/{}/api-keys", gateway.id)).await;
    assert!(keys.body["items"][0]["last_used_at"].is_string(), "{}", keys.raw);
    app.stop().await;
}

async fn secrets(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let gateway = Gateway::new(&app).await;
    let key = gateway.key(json!({})).await;
    let other = gateway.key(json!({})).await;
    let root = app.anyone().login("root@example.com").await;
    let me = gateway.root.get("/api/v1/users/me").await.text("id");
    let session = root.text("session_id");
    let pair = |id: &str, secret: &str| Pair(id.to_owned(), secret.to_owned());
    let mut wrong = vec![
        pair(&other.0, &key.1),
        pair(&me, &key.1),
        pair("", &key.1),
        pair(&key.0, &format!("{}x", key.1)),
        pair(&key.0, &key.0),
        pair(&key.0, &"x".repeat(4000)),
        pair(&format!("{{{}}}", key.0), &key.1),
        pair("root@example.com", PASSWORD),
    ];
    // The tokens of a session, with any id that is theirs.
    for id in [&me, &session] {
        for secret in ["access_token", "refresh_token"] {
            wrong.push(pair(id, &root.text(secret)));
        }
    }
    for (number, wrong) in wrong.iter().enumerate() {
        is_refused(&by_basic(&app, INTROSPECT, "x", &basic(wrong)).await, &format!("{number}"));
        is_refused(&by_post(&app, INTROSPECT, "x", wrong).await, &format!("{number}"));
        is_refused(&by_post(&app, REVOKE, &key.1, wrong).await, &format!("{number}"));
    }
    let bytes = STANDARD.encode([b'\xff', b':', b'\xfe']);
    for value in ["Basic", "Basic ", "Basic !", "Basic YQ", &format!("Basic {bytes}")] {
        is_refused(&by_basic(&app, INTROSPECT, "x", value).await, value);
    }
    let raw = basic_of(&format!("{}:{}&a=b", key.0, key.1));
    is_refused(&by_basic(&app, INTROSPECT, "x", &raw).await, "two fields");
    // Nothing at all, and a cookie, which never authenticates a client.
    let browser = app.browser("root@example.com").await;
    for client in [&app.anyone(), &browser] {
        for fields in [&[("token", "x")][..], &[("token", "x"), ("client_id", &me)]] {
            let answer = client.send(form(INTROSPECT, fields).same_origin()).await;
            assert_eq!(answer.code(), "access.not_signed_in", "{}", answer.raw);
            assert_eq!(answer.body["error"], "invalid_client");
            assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("Basic"));
        }
    }
    // A bearer token is judged as everywhere.
    let answer = app.anyone().with_token("a.b.c").send(form(INTROSPECT, &[("token", "x")])).await;
    assert_eq!(
        (answer.code(), &answer.body["error"]),
        ("access.invalid_token", &json!("invalid_token"))
    );
    // On other routes, a pair opens nothing.
    let call = Call::new(Method::GET, "/api/v1/users/me").header("authorization", &basic(&key));
    assert_eq!(app.anyone().send(call).await.status, StatusCode::UNAUTHORIZED);
    let used = gateway.root.get(&format!("/api/v1/users/{}/api-keys", gateway.id)).await;
    assert_eq!(used.body["items"].as_array().unwrap().len(), 2, "nothing is revoked");
    app.stop().await;
}

async fn restricted(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let gateway = Gateway::new(&app).await;
    let all = json!({ "allowed_networks": ["203.0.113.0/24"], "requests_per_minute": 2 });
    let key = gateway.key(all).await;
    let try_from = async |ip: &str| {
        let call = form(INTROSPECT, &[("token", "x")]).header("authorization", &basic(&key));
        app.anyone().from(ip).send(call).await
    };
    is_refused(&try_from("198.51.100.1").await, "network");
    let none = gateway.key(json!({ "permissions": ["users:read"] })).await;
    let answer = by_basic(&app, INTROSPECT, "x", &basic(&none)).await;
    assert_eq!(
        (answer.code(), &answer.body["error"]),
        ("access.denied", &json!("unauthorized_client"))
    );
    let short = gateway.key(json!({ "expires_in": 3600 })).await;
    let revoked = gateway.key(json!({})).await;
    assert_eq!(by_post(&app, INTROSPECT, "x", &short).await.status, StatusCode::OK);
    app.advance(Duration::from_secs(3600)).await;
    is_refused(&by_post(&app, INTROSPECT, "x", &short).await, "expired");
    assert_eq!(by_post(&app, REVOKE, &revoked.1, &revoked).await.status, StatusCode::OK);
    is_refused(&by_post(&app, INTROSPECT, "x", &revoked).await, "revoked");
    // Its own limit counts, whatever the way.
    app.stop().await;
    let app = TestApp::on(on).await;
    let gateway = Gateway::new(&app).await;
    let key = gateway.key(json!({ "requests_per_minute": 2 })).await;
    for _ in 0..2 {
        assert_eq!(by_post(&app, INTROSPECT, "x", &key).await.status, StatusCode::OK);
    }
    let answer = by_basic(&app, INTROSPECT, "x", &basic(&key)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.raw);
    assert_eq!(answer.body["error"], "temporarily_unavailable");
    app.stop().await;
}

#[tokio::test]
async fn a_client_uses_one_method() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    let gateway = Gateway::new(&app).await;
    let key = gateway.key(json!({})).await;
    let secret = [("token", "x"), ("client_id", &key.0), ("client_secret", &key.1)];
    let assertion = [("token", "x"), ("client_assertion", "a.b.c")];
    let both = [
        ("token", "x"),
        ("client_id", &key.0),
        ("client_secret", &key.1),
        ("client_assertion", "a"),
    ];
    let bearer = format!("Bearer {}", key.1);
    for path in [INTROSPECT, REVOKE] {
        let header = |call: Call, value: &str| call.header("authorization", value);
        for call in [
            header(form(path, &secret), &basic(&key)),
            header(form(path, &secret), &bearer),
            header(form(path, &secret), &bearer.replace(' ', "\t")),
            header(form(path, &assertion), &bearer),
            header(header(form(path, &[("token", "x")]), &basic(&key)), &bearer),
            header(header(form(path, &[("token", "x")]), &basic(&key)), &basic(&key)),
            form(path, &both),
        ] {
            let answer = app.anyone().send(call).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.raw);
            assert_eq!(answer.code(), "access.several_credentials");
            assert_eq!(answer.body["error"], "invalid_request");
        }
        // The id alone is no method.
        let call = form(path, &[("token", "x"), ("client_id", &key.0)]);
        assert_eq!(app.anyone().send(header(call, &basic(&key))).await.status, StatusCode::OK);
        let twice = format!("token=x&client_id={}&client_secret={}&client_secret=b", key.0, key.1);
        let answer = app.anyone().send(form(path, &[]).body(twice)).await;
        assert_eq!(place(&answer), (400, "/client_secret", "request.repeated"));
        let answer = app.anyone().send(header(form(path, &[]), &bearer)).await;
        assert_eq!(place(&answer), (400, "/token", "request.missing"));
        assert_eq!(answer.body["error"], "invalid_request");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_metadata_names_what_there_is() {
    const METADATA: &str = "/.well-known/oauth-authorization-server";
    let app = TestApp::on(On::Sqlite).await;
    let answer = app.anyone().get(METADATA).await;
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    let here = "http://localhost:8000";
    let all = json!({
        "issuer": here,
        "jwks_uri": format!("{here}/.well-known/jwks.json"),
        "introspection_endpoint": format!("{here}{INTROSPECT}"),
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": format!("{here}{REVOKE}"),
        "revocation_endpoint_auth_methods_supported": methods,
        "response_types_supported": [],
        "grant_types_supported": [],
    });
    assert_eq!(answer.body, all);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    app.stop().await;
    let settings =
        vec![("compat.login_form", "true"), ("tokens.issuer", "https://id.example.com/a")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let answer = app.anyone().get(METADATA).await;
    let mut all = all;
    all["issuer"] = json!("https://id.example.com/a");
    all["grant_types_supported"] = json!(["refresh_token"]);
    all["token_endpoint"] = json!(format!("{here}/api/v1/login/access-token"));
    all["token_endpoint_auth_methods_supported"] = json!(["none"]);
    assert_eq!(answer.body, all);
    app.stop().await;
}
