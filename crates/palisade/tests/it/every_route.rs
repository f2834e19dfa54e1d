//! Every route, as everyone: the line that declares it is the policy that holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use palisade::access::{AuthLevel, Identity, InBody, Who};
use palisade::app::{App, CredentialForm, CredentialMethods, Ending, EndsWith, Kind, OwnKind};
use palisade::credential::{Credential, CredentialKind, SecretRef, TokenShape};
use palisade::error::Result;
use palisade::id::UserId;
use palisade::module::Module;
use palisade::testing::{Answer, Call, On, Plan, TestApp};
use palisade::{api_keys, sessions};
use palisade_db::args;
use serde_json::Value;
use uuid::Uuid;

/// A credential that proves the first user there is, with the permissions that the token names:
/// `test-a+b`; as an API key would with `test-key-a+b`.
const TEST_KIND: Kind = Kind::Own(&OwnKind { title: "Tests", ends_with: EndsWith::Either });

const TEST: Module = Module {
    name: "test_credentials",
    credentials: &[METHODS],
    endings: &[Ending {
        kind: TEST_KIND,
        owners: Some(|_, _, _| Box::pin(async { Ok(Vec::new()) })),
        end: |_, _, _| Box::pin(async { Ok(0) }),
    }],
    ..Module::EMPTY
};

/// What it proves is a session or an API key, so that the slices find one.
const METHODS: CredentialMethods = CredentialMethods {
    kind: &CredentialKind { name: "test", session: false },
    forms: &[CredentialForm {
        name: "test",
        summary: "A test.",
        shape: TokenShape::Prefix("test-"),
        prove: Some(|app, token, _| Box::pin(prove(app, token))),
        introspect: None,
        locate: None,
    }],
    ends_as: TEST_KIND,
    ended: "test.ended",
    is_alive: |_, _, _| Box::pin(async { Ok(None) }),
    revoke: |_, _, _| Box::pin(async { Ok(()) }),
};

async fn prove(app: &App, token: &str) -> Result<Identity> {
    let named = token.strip_prefix("test-").unwrap();
    let (user,): (UserId,) =
        app.db.one("select id from users order by id limit 1", args![]).await?;
    keep_alive(app, user).await;
    let (kind, secret, named) = match named.strip_prefix("key-") {
        Some(named) => (&api_keys::KIND, SecretRef::Only, named),
        None => (&sessions::KIND, SecretRef::Generation(1), named),
    };
    Ok(Identity {
        user,
        credential: Credential { kind, id: Uuid::nil(), secret },
        permissions: Arc::new(named.split('+').map(str::to_owned).collect()),
        authenticated_at: app.clock.now(),
        proved_with: AuthLevel::Password,
        required_level: AuthLevel::Password,
        must_enrol: false,
        limit: None,
    })
}

/// A session and an API key for the credentials to have, whatever a route did to them.
async fn keep_alive(app: &App, user: UserId) {
    let (nil, now) = (Uuid::nil(), app.clock.now());
    let mut tx = app.upkeep("a test").begin().await.unwrap();
    tx.run(
        "insert into sessions (id, user_id, transport, token_format, amr, created_at, authenticated_at,
            last_used_at, idle_expires_at, expires_at)
         values ($1, $2, 'token', 'jwt', 'pwd', $3, $3, $3, $4, $4)
         on conflict (id) do update set ended_at = null, generation = 1",
        args![nil, user, now, now.plus(Duration::from_secs(3600))],
    )
    .await
    .unwrap();
    tx.run(
        "insert into api_keys (id, user_id, digest, hint, name, permissions, created_at, expires_at)
         values ($1, $2, $3, '', '', '', $4, $5)
         on conflict (id) do update set revoked_at = null",
        args![nil, user, vec![0u8; 32], now, now.plus(Duration::from_secs(3600))],
    )
    .await
    .unwrap();
    tx.run("update users set disabled_at = null where id = $1", args![user]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn start() -> TestApp {
    let settings = vec![("limits.enabled", "false")];
    TestApp::with(On::Sqlite, Plan { settings, modules: vec![TEST], ..Plan::default() }).await
}

/// The path with an id where one is expected.
pub fn concrete(path: &str) -> String {
    path.replace("{id}", "01890000-0000-7000-8000-000000000000")
        .replace("{key}", "01890000-0000-7000-8000-000000000000")
        .replace("{role}", "nothing")
        .replace("{type}", "document")
        .replace("{subject}", "anyone")
}

/// Reaches everyone, so that the permission alone isn't enough.
const EVERYONE: &str = "POST /api/v1/users/revoke-sessions";

fn refused(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_lets_in_whom_its_line_names_and_nobody_else() {
    let app = start().await;
    let all: BTreeSet<String> = app
        .builder
        .modules()
        .iter()
        .flat_map(|module| module.permissions)
        .map(|permission| permission.name.to_owned())
        .collect();
    app.user("ann@example.com").await;
    let routes = app.builder.routes();
    assert!(routes.len() > 25, "{}", routes.len());
    for route in routes {
        let call = || Call::new(route.method.clone(), &concrete(&route.path));
        let line = format!("{} {}", route.method, route.path);
        let nobody = app.anyone().send(call()).await;
        let stranger = app.anyone().with_token("test-").send(call()).await;
        match route.access.who {
            Who::Anyone => {
                assert_ne!(nobody.code(), "access.not_signed_in", "{line}");
            }
            Who::SignedIn => {
                assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{line}");
                assert!(nobody.headers.contains_key("www-authenticate"), "{line}");
                assert!(!refused(&stranger), "{line}: {}", stranger.raw);
            }
            Who::Holds(permission) => {
                assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{line}");
                assert_eq!(stranger.status, StatusCode::FORBIDDEN, "{line}");
                let but = all.iter().filter(|name| *name != permission.name);
                let but = format!("test-{}", but.cloned().collect::<Vec<_>>().join("+"));
                let others = app.anyone().with_token(but).send(call()).await;
                assert_eq!(others.status, StatusCode::FORBIDDEN, "{line}");
                let exactly = format!("test-{}", permission.name);
                let holder = app.anyone().with_token(exactly).send(call()).await;
                if line == EVERYONE {
                    // Within its change the permission is looked for in the database, which has none.
                    assert_eq!(holder.code(), "access.denied", "{line}");
                } else {
                    assert!(!refused(&holder), "{line}: {}", holder.raw);
                }
            }
        }
    }
    app.stop().await;
}

/// Routes that no permission guards and an API key may call.
const KEYS: &str = "
    POST /api/v1/access/check
    GET /api/v1/resources/{type}
    GET /api/v1/resources/{type}/{id}/grants
    DELETE /api/v1/resources/{type}/{id}/grants/{subject}
    PUT /api/v1/resources/{type}/{id}/grants/{subject}
    GET /api/v1/users/me
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_opens_what_its_line_lets_it() {
    let app = start().await;
    app.user("ann@example.com").await;
    let listed: BTreeSet<&str> = KEYS.trim().lines().map(str::trim).collect();
    let mut open = BTreeSet::new();
    for route in app.builder.routes() {
        let line = format!("{} {}", route.method, route.path);
        let call = || Call::new(route.method.clone(), &concrete(&route.path));
        let (needed, wanted) = match route.access.who {
            Who::Anyone => continue,
            Who::SignedIn => (String::new(), listed.contains(line.as_str())),
            Who::Holds(permission) => (permission.name.to_owned(), !route.access.fresh),
        };
        let answer = app.anyone().with_token(format!("test-key-{needed}")).send(call()).await;
        if wanted {
            assert!(!refused(&answer), "{line}: {}", answer.raw);
            open.insert(line);
        } else {
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{line}");
            assert_eq!(answer.code(), "access.session_needed", "{line}");
            continue;
        }
        if !needed.is_empty() {
            let answer = app.anyone().with_token("test-key-").send(call()).await;
            assert_eq!(answer.code(), "access.denied", "{}", route.path);
        }
    }
    assert!(listed.iter().all(|line| open.contains(*line)));
    app.stop().await;
}

/// Who may call what, said a second time: a line that lost its permission agrees with itself.
const WHO: &str = "
    GET /.well-known/change-password anyone
    GET /.well-known/jwks.json anyone
    GET /.well-known/paseto-keys.json anyone
    GET /.well-known/oauth-authorization-server anyone
    GET /.well-known/passkey-endpoints anyone
    GET /.well-known/webauthn anyone
    GET /account/email anyone
    GET /account/factors anyone
    GET /account/invite anyone
    GET /account/password anyone
    GET /account/reset anyone
    GET /account/security anyone
    GET /account/undo anyone
    GET /account/verify anyone
    POST /api/v1/access/check signed in, keys
    GET /api/v1/audit audit:read, keys
    POST /api/v1/auth/email/confirm anyone
    POST /api/v1/auth/email/undo anyone
    POST /api/v1/auth/factors/keep anyone
    POST /api/v1/auth/factors/remove anyone
    POST /api/v1/auth/introspect tokens:introspect, keys, clients
    POST /api/v1/auth/link anyone
    POST /api/v1/auth/login anyone
    POST /api/v1/auth/login/mfa anyone
    POST /api/v1/auth/login/mfa/lost anyone
    POST /api/v1/auth/login/passkey/begin anyone
    POST /api/v1/auth/login/passkey/finish anyone
    POST /api/v1/auth/logout signed in, enrolling, uncounted, or a refresh token
    POST /api/v1/auth/password/forgot anyone
    POST /api/v1/auth/password/reset anyone
    POST /api/v1/auth/reauthenticate signed in, enrolling
    POST /api/v1/auth/reauthenticate/passkey/begin signed in
    POST /api/v1/auth/refresh anyone
    POST /api/v1/auth/register anyone
    GET /api/v1/auth/revocations tokens:introspect, keys
    POST /api/v1/auth/revoke tokens:introspect, keys, clients
    POST /api/v1/auth/verify-email anyone
    POST /api/v1/auth/verify-email/resend anyone
    GET /api/v1/limits system:read, keys
    GET /api/v1/permissions roles:read, keys
    GET /api/v1/resources/{type} signed in, keys
    GET /api/v1/resources/{type}/{id}/grants signed in, keys
    DELETE /api/v1/resources/{type}/{id}/grants/{subject} signed in, keys
    PUT /api/v1/resources/{type}/{id}/grants/{subject} signed in, keys
    GET /api/v1/roles roles:read, keys
    POST /api/v1/roles roles:write, fresh
    DELETE /api/v1/roles/{role} roles:write, fresh
    GET /api/v1/roles/{role} roles:read, keys
    PATCH /api/v1/roles/{role} roles:write, fresh
    GET /api/v1/service-accounts users:read, keys
    POST /api/v1/service-accounts users:write, fresh
    POST /api/v1/setup anyone
    GET /api/v1/users users:read, keys
    POST /api/v1/users users:write, fresh
    DELETE /api/v1/users/me signed in, fresh
    GET /api/v1/users/me signed in, enrolling, keys
    PATCH /api/v1/users/me signed in
    GET /api/v1/users/me/activity signed in
    GET /api/v1/users/me/api-keys signed in
    POST /api/v1/users/me/api-keys signed in, fresh
    DELETE /api/v1/users/me/api-keys/{id} signed in, uncounted
    POST /api/v1/users/me/email signed in, fresh
    GET /api/v1/users/me/export signed in
    GET /api/v1/users/me/passkeys signed in
    POST /api/v1/users/me/passkeys/begin signed in, fresh, enrolling
    POST /api/v1/users/me/passkeys/finish signed in, fresh, enrolling
    DELETE /api/v1/users/me/passkeys/{id} signed in, fresh
    PATCH /api/v1/users/me/passkeys/{id} signed in, fresh
    POST /api/v1/users/me/password signed in, fresh
    POST /api/v1/users/me/recovery-codes signed in, fresh
    DELETE /api/v1/users/me/sessions signed in, uncounted
    GET /api/v1/users/me/sessions signed in
    DELETE /api/v1/users/me/sessions/{id} signed in, uncounted
    DELETE /api/v1/users/me/totp signed in, fresh
    POST /api/v1/users/me/totp signed in, fresh, enrolling
    POST /api/v1/users/me/totp/confirm signed in, fresh, enrolling
    POST /api/v1/users/revoke-sessions users:write, fresh
    DELETE /api/v1/users/{id} users:write, fresh
    GET /api/v1/users/{id} users:read, keys
    PATCH /api/v1/users/{id} users:write, fresh
    GET /api/v1/users/{id}/api-keys users:write, keys
    POST /api/v1/users/{id}/api-keys users:write, fresh
    DELETE /api/v1/users/{id}/api-keys/{key} users:write, keys
    POST /api/v1/users/{id}/disable users:write, fresh
    POST /api/v1/users/{id}/enable users:write, fresh
    POST /api/v1/users/{id}/reset-mfa users:write, fresh
    POST /api/v1/users/{id}/reset-password users:write, fresh
    POST /api/v1/users/{id}/revoke-sessions users:write, keys
    DELETE /api/v1/users/{id}/roles/{role} users:write, fresh
    PUT /api/v1/users/{id}/roles/{role} users:write, fresh
    POST /api/v1/users/{id}/unlock users:write, fresh
    GET /api/v1/whoami anyone
    GET /assets/account.js anyone
    GET /assets/docs.css anyone
    GET /assets/docs.js anyone
    GET /assets/factors.js anyone
    GET /assets/form.js anyone
    GET /assets/palisade.css anyone
    GET /assets/password.js anyone
    GET /assets/security.js anyone
    GET /assets/setup.js anyone
    GET /docs anyone
    GET /favicon.ico anyone
    GET /favicon.svg anyone
    GET /livez anyone
    GET /mailbox anyone
    GET /openapi.json anyone
    GET /readyz anyone
    GET /setup anyone
";

#[tokio::test]
async fn every_route_is_open_to_whom_it_was_meant_for() {
    let app = start().await;
    let lines = app.builder.routes().into_iter().map(|route| {
        let who = match route.access.who {
            Who::Anyone => "anyone",
            Who::SignedIn => "signed in",
            Who::Holds(permission) => permission.name,
        };
        let fresh = if route.access.fresh { ", fresh" } else { "" };
        let enrolling = if route.access.enrolling { ", enrolling" } else { "" };
        let keys = if route.access.takes_keys() && route.access.who != Who::Anyone {
            ", keys"
        } else {
            ""
        };
        let uncounted = if route.access.counted { "" } else { ", uncounted" };
        let in_body = match route.access.in_body {
            Some(InBody::Client) => ", clients",
            Some(InBody::RefreshToken) => ", or a refresh token",
            None => "",
        };
        let flags = format!("{fresh}{enrolling}{keys}{uncounted}{in_body}");
        format!("{} {} {who}{flags}", route.method, route.path)
    });
    let lines: BTreeSet<String> = lines.collect();
    let meant: BTreeSet<String> = WHO.trim().lines().map(|line| line.trim().to_owned()).collect();
    let unmeant: Vec<&String> = lines.difference(&meant).collect();
    let missing: Vec<&String> = meant.difference(&lines).collect();
    assert!(
        unmeant.is_empty() && missing.is_empty(),
        "routes that `WHO` doesn't list: {unmeant:#?}; lines of `WHO` without a route: {missing:#?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_unsafe_route_wants_proof_of_origin_from_a_cookie() {
    let app = start().await;
    app.admin("ann@example.com").await;
    let ann = app.browser("ann@example.com").await;
    for route in app.builder.routes() {
        // OAuth clients never authenticate with a cookie.
        let client = route.access.in_body == Some(InBody::Client);
        if route.access.who == Who::Anyone || route.method == Method::GET || client {
            continue;
        }
        let call = || Call::new(route.method.clone(), &concrete(&route.path));
        let line = format!("{} {}", route.method, route.path);
        let bad = [
            call(),
            call().header("sec-fetch-site", "cross-site"),
            call().header("sec-fetch-site", "same-site"),
            call().header("sec-fetch-site", "none"),
            call().header("sec-fetch-site", "cross-site").header("origin", "http://localhost:8000"),
            call().header("sec-fetch-site", "same-origin").header("sec-fetch-site", "cross-site"),
            call().header("origin", "null"),
            call().header("origin", "https://evil.example"),
            call().header("origin", "http://localhost:8000.evil.example"),
            call()
                .header("origin", "http://localhost:8000")
                .header("origin", "https://evil.example"),
            call().header("origin", "http://localhost:8001"),
            call().header("origin", "https://localhost:8000"),
            call().header("referer", "http://localhost:8000/"),
        ];
        for (number, bad) in bad.into_iter().enumerate() {
            let answer = ann.send(bad).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{line}, case {number}");
            assert_eq!(answer.code(), "access.cross_site", "{line}, case {number}");
        }
    }
    let call = Call::new(Method::DELETE, "/api/v1/users/me/sessions");
    let ours = ann.send(call.header("origin", "http://localhost:8000")).await;
    assert_eq!(ours.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gate_decides_before_the_body_is_read() {
    let app = start().await;
    for route in app.builder.routes() {
        // A refresh token in the body may be the credential.
        let in_body = route.access.in_body == Some(InBody::RefreshToken);
        if route.access.who == Who::Anyone || in_body {
            continue;
        }
        let never = futures_util::stream::pending::<std::io::Result<bytes::Bytes>>();
        let call = Call::new(route.method.clone(), &concrete(&route.path))
            .header("content-type", "application/json")
            .body(Body::from_stream(never));
        let answer = tokio::time::timeout(Duration::from_secs(5), app.anyone().send(call)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} waits for the body", route.path));
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", route.path);
    }
    app.stop().await;
}

/// What is read before the caller is known is no longer than a credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_with_a_credential_is_short() {
    let app = start().await;
    let form = "application/x-www-form-urlencoded";
    for (path, media, begin, end) in [
        ("/api/v1/auth/introspect", form, "token=", ""),
        ("/api/v1/auth/revoke", form, "token=", ""),
        ("/api/v1/auth/logout", "application/json", "{\"refresh_token\":\"", "\"}"),
    ] {
        for (length, status) in [(17 << 10, 413), (100, 0)] {
            let body = format!("{begin}{}{end}", "a".repeat(length));
            let call = Call::new(Method::POST, path).header("content-type", media).body(body);
            let answer = app.anyone().send(call).await;
            let refused = answer.status == StatusCode::PAYLOAD_TOO_LARGE;
            assert_eq!(refused, status == 413, "{path}: {}", answer.raw);
        }
    }
    app.stop().await;
}

/// The headers of every answer.
pub const HEADERS: [&str; 9] = [
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "cache-control",
    "x-request-id",
];

/// What every answer carries, no matter who asked for whatever.
fn has_all_headers(answer: &Answer, line: &str) {
    for name in HEADERS {
        assert!(answer.headers.contains_key(name), "{line} lacks {name}");
    }
    assert!(!answer.headers.contains_key("server"), "{line}");
    assert!(!answer.headers.contains_key("strict-transport-security"), "{line}: not over http");
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{line}");
    if answer.status.is_client_error() || answer.status.is_server_error() {
        let oauth = answer.body["error"].is_string();
        let media = if oauth { "application/json" } else { "application/problem+json" };
        assert_eq!(answer.headers["content-type"], media, "{line}");
        assert_eq!(answer.body["status"], answer.status.as_u16(), "{line}");
        assert_eq!(answer.text("request_id"), answer.headers["x-request-id"], "{line}");
        for member in ["type", "title", "detail", "code"] {
            assert!(answer.body[member].is_string(), "{line} lacks {member}");
        }
        for word in ["select ", "sqlx", "serde", "/src/", "panicked", "palisade_db", "axum"] {
            assert!(!answer.raw.contains(word), "{line} tells {word}: {}", answer.raw);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_the_security_headers() {
    let app = start().await;
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::from_bytes(b"PROPFIND").unwrap(),
    ];
    let mut paths: BTreeSet<String> =
        app.builder.routes().iter().map(|route| concrete(&route.path)).collect();
    paths.extend(
        ["/", "/nothing", "/api/v1", "/api/v1/users/", "/.git/config", "/api/v1//users"]
            .map(str::to_owned),
    );
    for path in &paths {
        for method in &methods {
            let line = format!("{method} {path}");
            let mut answer = app.anyone().send(Call::new(method.clone(), path)).await;
            if *method == Method::HEAD && answer.status.is_client_error() {
                assert!(answer.raw.is_empty() || answer.body.is_object());
                answer.status = StatusCode::OK;
            }
            has_all_headers(&answer, &line);
            if answer.status == StatusCode::METHOD_NOT_ALLOWED {
                assert!(answer.headers.contains_key("allow"), "{line}");
            }
            if *method == Method::TRACE {
                assert!(answer.status.is_client_error(), "{line}");
            }
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_changes_nothing() {
    let app = start().await;
    app.admin("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let count = || async {
        let mut counts = Vec::new();
        for sql in [
            "select count(*) from audit_events",
            "select count(*) from sessions",
            "select count(*) from session_secrets",
            "select count(*) from users",
            "select count(*) from feed",
        ] {
            counts.push(app.app.db.one::<(i64,)>(sql, args![]).await.unwrap().0);
        }
        counts
    };
    let before = count().await;
    for route in app.builder.routes() {
        // Taking everything out is an event.
        if route.method == Method::GET && route.path != "/api/v1/users/me/export" {
            ann.get(&concrete(&route.path)).await;
            ann.send(Call::new(Method::HEAD, &concrete(&route.path))).await;
        }
    }
    assert_eq!(count().await, before);
    app.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_looks_like_what_one_may_not_see() {
    let app = start().await;
    app.admin("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = |answer: Answer| {
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.raw);
        let mut body = answer.body;
        body["request_id"] = Value::Null;
        body
    };
    let unknown = body(ann.get("/api/v1/users/01890000-0000-7000-8000-000000000000").await);
    for path in [
        "/api/v1/users/garbage",
        "/api/v1/users/018900000000700080000000000000000",
        "/api/v1/users/%7B01890000-0000-7000-8000-000000000000%7D",
        "/api/v1/users/01890000-0000-7000-8000-000000000000%00",
        "/api/v1/users/..%2F..%2Fetc%2Fpasswd",
        "/api/v1/nothing",
    ] {
        assert_eq!(body(ann.get(path).await), unknown, "{path}");
    }
    app.stop().await;
}

/// `./test rigs pairs`, which takes long, can't run without them.
#[tokio::test]
async fn every_route_that_changes_something_has_a_recipe_for_the_rigs() {
    let app = start().await;
    let scenes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rigs/scenes.py");
    let scenes = std::fs::read_to_string(scenes).unwrap();
    for route in app.builder.routes() {
        let path = route.path.strip_prefix("/api/v1").unwrap_or(&route.path);
        let name = format!("\"{} {path}\"", route.method);
        let changes = route.method != Method::GET && route.method != Method::HEAD;
        assert!(
            !changes || scenes.contains(&name),
            "add a recipe for {name} to tests/rigs/scenes.py"
        );
    }
    app.stop().await;
}
