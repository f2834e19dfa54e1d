//! Bad input of every kind, to every route: the contract's 4xx, never a 5xx, and nothing half done.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place};
use palisade_db::args;
use proptest::prelude::*;
use serde_json::{Value, json};

palisade::on_both! {
    bad_bodies_are_refused => |on| super::bodies(on);
    bad_fields_are_named => |on| super::fields(on);
    bad_queries_are_refused => |on| super::queries(on);
    times_that_no_database_holds_are_refused => |on| super::times(on);
    bad_headers_are_refused => |on| super::headers(on);
}

async fn start(on: On) -> TestApp {
    let settings = vec![("limits.enabled", "false"), ("server.max_body", "64KiB")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("ann@example.com").await;
    app
}

/// Routes with a body, with a good one each.
fn good_bodies() -> Vec<(Method, &'static str, Value)> {
    vec![
        (
            Method::POST,
            "/api/v1/setup",
            json!({ "token": "x", "email": "a@example.com", "password": PASSWORD, "name": "A" }),
        ),
        (
            Method::POST,
            "/api/v1/auth/register",
            json!({ "email": "b@example.com", "password": PASSWORD, "name": "B" }),
        ),
        (
            Method::POST,
            "/api/v1/auth/login",
            json!({ "email": "a@example.com", "password": PASSWORD, "device_name": "d", "token_format": "jwt", "transport": "token" }),
        ),
        (Method::POST, "/api/v1/auth/refresh", json!({ "refresh_token": "x" })),
        (Method::PATCH, "/api/v1/users/me", json!({ "name": "C" })),
        (
            Method::POST,
            "/api/v1/users/me/password",
            json!({ "current_password": PASSWORD, "new_password": "five green kettles whistle" }),
        ),
    ]
}

fn is_refusal(answer: &Answer, what: &str) {
    assert!(answer.status.is_client_error(), "{what}: {} {}", answer.status, answer.raw);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
}

async fn state(app: &TestApp) -> Vec<i64> {
    let mut counts = Vec::new();
    for sql in [
        "select count(*) from users",
        "select count(*) from passwords",
        "select count(*) from sessions where ended_at is null",
        "select count(*) from session_secrets",
        "select count(*) from users where name is not null",
    ] {
        counts.push(app.app.db.one::<(i64,)>(sql, args![]).await.unwrap().0);
    }
    counts
}

fn raw(method: &Method, path: &str, body: impl Into<Body>) -> Call {
    Call::new(method.clone(), path).header("content-type", "application/json").body(body)
}

async fn bodies(on: On) {
    let app = start(on).await;
    let ann = app.token("ann@example.com").await;
    let before = state(&app).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_field = format!("{{\"name\":{deep}}}");
    let keys: String = (0..6000).map(|n| format!("\"k{n}\":1,")).collect();
    let bad: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not JSON", b"hello".to_vec(), 400),
        ("cut off", b"{\"email\": \"a".to_vec(), 400),
        ("two values", b"{}{}".to_vec(), 400),
        ("invalid UTF-8", b"{\"email\": \"\xff\xfe\"}".to_vec(), 400),
        ("a BOM", b"\xef\xbb\xbf{}".to_vec(), 400),
        ("white space", b"   \n".to_vec(), 400),
        ("a lone surrogate", br#"{"email":"\ud800","password":"x"}"#.to_vec(), 422),
        ("deep", deep.into_bytes(), 422),
        ("an array", b"[1]".to_vec(), 422),
        ("a string", b"\"x\"".to_vec(), 422),
        ("a number", b"1".to_vec(), 422),
        ("null", b"null".to_vec(), 422),
        ("many unknown keys", format!("{{{keys}\"z\":1}}").into_bytes(), 422),
        ("too large", vec![b' '; 70_000], 413),
    ];
    for (method, path, _) in good_bodies() {
        for (what, body, status) in &bad {
            let answer = ann.send(raw(&method, path, body.clone())).await;
            is_refusal(&answer, &format!("{path}, {what}"));
            let optional = path.ends_with("refresh") && answer.status == StatusCode::UNAUTHORIZED;
            assert!(optional || answer.status == *status, "{path}, {what}: {}", answer.raw);
        }
        let answer = ann.send(raw(&method, path, deep_field.clone())).await;
        is_refusal(&answer, "a deep field");
        let repeated = r#"{"name":"a","name":"b","email":"c","email":"d","password":"e","password":"f","refresh_token":"g","refresh_token":"h","current_password":"i","current_password":"j"}"#;
        let answer = ann.send(raw(&method, path, repeated)).await;
        assert_eq!(answer.status, 422, "{path}, repeated: {}", answer.raw);
        let streamed = futures_util::stream::iter(
            (0..200).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1000]))),
        );
        let answer = ann.send(raw(&method, path, Body::from_stream(streamed))).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}, streamed");
    }
    assert_eq!(state(&app).await, before);
    app.stop().await;
}

async fn fields(on: On) {
    let app = start(on).await;
    let ann = app.token("ann@example.com").await;
    let before = state(&app).await;
    let wrong_types = [json!(1), json!(true), json!([]), json!({}), json!(["x"]), json!(1.5)];
    let wrong_texts =
        ["a\0b", "\u{1b}[31m", "a\r\nb: c", "\u{202e}abc", &"x".repeat(30_000), "", " "];
    for (method, path, good) in good_bodies() {
        for field in good.as_object().unwrap().keys() {
            for wrong in &wrong_types {
                let mut body = good.clone();
                body[field] = wrong.clone();
                let answer = ann.send(raw(&method, path, body.to_string())).await;
                assert_eq!(answer.status, 422, "{path} {field} {wrong}: {}", answer.raw);
                let pointer = answer.body["errors"][0]["pointer"].as_str().unwrap();
                assert!(pointer.starts_with(&format!("/{field}")), "{path} {field}: {pointer}");
            }
            let huge = good.to_string().replacen(&good[field].to_string(), "1e400", 1);
            is_refusal(&ann.send(raw(&method, path, huge)).await, "1e400");
            for wrong in wrong_texts {
                // What is a text all the same may be refused for its meaning, never fail.
                let mut body = good.clone();
                body[field] = wrong.into();
                let answer = ann.send(raw(&method, path, body.to_string())).await;
                is_refusal(&answer, &format!("{path} {field} {wrong:?}"));
            }
        }
        let mut body = good.clone();
        body["surprise"] = json!(1);
        let answer = ann.send(raw(&method, path, body.to_string())).await;
        assert_eq!(answer.body["errors"][0]["pointer"], "/surprise", "{path}: {}", answer.raw);
        assert_eq!(answer.body["errors"][0]["code"], "request.unknown");
        if path != "/api/v1/users/me" && !path.ends_with("refresh") {
            let answer = ann.send(raw(&method, path, "{}")).await;
            assert_eq!(answer.body["errors"][0]["code"], "request.missing", "{path}");
        }
    }
    assert_eq!(state(&app).await, before);
    app.stop().await;
}

/// Times beyond the years that can be written, before and after, with offsets that lead there.
const NO_TIMES: &[&str] = &[
    "9999-12-31T23:59:59-00:01",
    "9999-12-31T12:00:00-23:59",
    "10000-01-01T00:00:00Z",
    "+010000-01-01T00:00:00Z",
    "292277026596-12-04T15:30:07Z",
    "0000-01-01T00:00:00+00:01",
    "0000-01-01T00:00:00+23:59",
    "-0001-12-31T00:00:00Z",
    "-292277022399-01-01T00:00:00Z",
    "2031-06-30T12:59:60Z",
    "2031-02-29T00:00:00Z",
    "2031-01-31T24:00:00Z",
    "2031-01-31T23:59:61Z",
    "9223372036854775807",
    "1e999",
    "",
];
/// Times that can be written.
const TIMES: &[&str] = &[
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59%2B00:01",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "2016-12-31T23:59:60Z",
];

async fn times(on: On) {
    let app = start(on).await;
    let ann = app.token("ann@example.com").await;
    let grant = "/api/v1/resources/note/1/grants/anyone";
    let key = "/api/v1/users/me/api-keys";
    let put = |at: Value| {
        let body = json!({ "actions": ["read"], "expires_at": at });
        ann.send(Call::new(Method::PUT, grant).json(body))
    };
    for time in NO_TIMES {
        let encoded = time.replace('+', "%2B");
        for field in ["since", "until"] {
            let answer = ann.get(&format!("/api/v1/audit?{field}={encoded}")).await;
            assert_eq!(place(&answer), (422, field, "request.bad_time"), "{time}");
        }
        assert_eq!(
            place(&put(json!(time)).await),
            (422, "/expires_at", "grants.bad_expiry"),
            "{time}"
        );
        let body = json!({ "name": "CI", "permissions": [], "expires_at": time });
        let answer = ann.post(key, body).await;
        assert_eq!(place(&answer), (422, "/expires_at", "api_keys.bad_expiry"), "{time}");
    }
    for time in TIMES {
        for field in ["since", "until"] {
            let answer = ann.get(&format!("/api/v1/audit?{field}={time}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{time}: {}", answer.raw);
        }
    }
    assert_eq!(put(json!("9999-12-31T23:59:59Z")).await.status, StatusCode::NO_CONTENT);
    let held = ann.get("/api/v1/resources/note/1/grants").await;
    assert!(held.raw.contains("9999-12-31T23:59:59Z"), "{}", held.raw);
    // Seconds from now on.
    for seconds in ["18446744073709551615", "9223372036854775807", "31622401", "0"] {
        let body = format!(r#"{{"name": "CI", "permissions": [], "expires_in": {seconds}}}"#);
        let call = Call::post(key, Value::Null).body(body);
        let answer = ann.send(call).await;
        assert_eq!(place(&answer), (422, "/expires_in", "api_keys.bad_expiry"), "{seconds}");
    }
    for seconds in ["18446744073709551616", "-1", "1e400", "1.5", "\"60\""] {
        let body = format!(r#"{{"name": "CI", "permissions": [], "expires_in": {seconds}}}"#);
        let call = Call::post(key, Value::Null).body(body);
        let answer = ann.send(call).await;
        assert_eq!((answer.status.as_u16(), place(&answer).1), (422, "/expires_in"), "{seconds}");
    }
    app.stop().await;
}

async fn queries(on: On) {
    let app = start(on).await;
    let ann = app.token("ann@example.com").await;
    let first = ann.get("/api/v1/users?limit=1").await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.raw);
    let extreme = |at: i64| {
        use base64::Engine as _;
        let bytes = [at.to_be_bytes().as_slice(), &[7; 16]].concat();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let mut queries: Vec<String> =
        ["0", "-1", "201", "1e9", "NaN", "", "%201", "1.0", "99999999999999999999", "0x1"]
            .iter()
            .map(|limit| format!("limit={limit}"))
            .collect();
    queries.extend([
        "cursor=".into(),
        "cursor=garbage".into(),
        "cursor=%00".into(),
        "cursor=AAAA".into(),
        format!("cursor={}", "A".repeat(5000)),
        format!("cursor={}", extreme(i64::MIN)),
        format!("cursor={}", extreme(i64::MAX)),
        format!("cursor={}", extreme(-1)),
        "limit=1&limit=2".into(),
        "surprise=1".into(),
        "limit[]=1".into(),
        "%ff=1".into(),
    ]);
    for path in ["/api/v1/users", "/api/v1/audit", "/api/v1/users/me/activity"] {
        for query in &queries {
            let answer = ann.get(&format!("{path}?{query}")).await;
            is_refusal(&answer, &format!("{path}?{query}"));
            let name = query.split('=').next().unwrap().replace("%ff", "\u{fffd}");
            assert_eq!(place(&answer).1, name, "{path}?{query}: {}", answer.raw);
        }
    }
    audit_queries(&ann).await;
    app.stop().await;
}

async fn audit_queries(ann: &Client<'_>) {
    for query in [
        "actor=x",
        "target=1",
        "since=yesterday",
        "until=2026-13-01T00:00:00Z",
        "since=%00",
        "surprise=a%00",
        "since=2026-01-01T00:00:00Z&since=2026-01-01T00:00:00Z",
        "Since=2026-01-01T00:00:00Z",
        "action=%00",
    ] {
        let answer = ann.get(&format!("/api/v1/audit?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert_eq!((answer.status.as_u16(), place(&answer).1), (422, name), "{}", answer.raw);
    }
    for query in [
        "action=nothing",
        "since=0001-01-01T00:00:00Z",
        "until=9999-12-31T23:59:59Z",
        "action=%27%3b--",
    ] {
        let answer = ann.get(&format!("/api/v1/audit?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.raw);
    }
}

async fn headers(on: On) {
    let app = start(on).await;
    let anyone = app.anyone();
    let me = || Call::new(Method::GET, "/api/v1/users/me");
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "bearer x.y.z",
        "Basic YTpi",
        "Bearer a b",
        "Bearer  x.y.z",
        "Bearer ....",
        "Bearer v4.public.",
        "Bearer v4.local.AAAA",
        "Bearer v3.public.AAAA",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Token x",
        &format!("Bearer {}", "a.".repeat(8000)),
    ] {
        let answer = anyone.send(me().header("authorization", value)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value:.40}: {}", answer.raw);
    }
    let two = me().header("authorization", "Bearer a.b.c").header("authorization", "Bearer a.b.c");
    assert_eq!(anyone.send(two).await.status, StatusCode::UNAUTHORIZED);
    for value in ["", "palisade", "=x", ";;;", "=", "palisade-8000=", "palisade-8000=pal_sc_x"] {
        let answer = anyone.send(me().header("cookie", value)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_body_of_another_form_is_refused() {
    let app = start(On::Sqlite).await;
    let anyone = app.anyone();
    for (media, status) in [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin1", 415),
        ("application/jsonp", 415),
        ("", 415),
        ("application/json; charset=UTF-8", 401),
        ("Application/JSON", 401),
    ] {
        let body = json!({ "email": "nobody@example.com", "password": "x" }).to_string();
        let call = Call::new(Method::POST, "/api/v1/auth/login").header("content-type", media);
        let answer = anyone.send(call.body(body)).await;
        assert_eq!(answer.status, status, "{media}: {}", answer.raw);
    }
    let call = raw(&Method::POST, "/api/v1/auth/login", "{}").header("content-encoding", "gzip");
    assert_eq!(anyone.send(call).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    app.stop().await;
}

#[tokio::test]
async fn forged_headers_change_nothing() {
    let app = start(On::Sqlite).await;
    let anyone = app.anyone();
    let me = || Call::new(Method::GET, "/api/v1/users/me");
    let forged =
        anyone.send(me().header("x-request-id", "01890000-0000-7000-8000-000000000000")).await;
    assert_ne!(forged.headers["x-request-id"], "01890000-0000-7000-8000-000000000000");
    let mut whoami = Call::new(Method::GET, "/api/v1/whoami");
    for name in [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-client-ip",
    ] {
        whoami = whoami.header(name, "203.0.113.200");
    }
    assert_eq!(anyone.send(whoami).await.text("ip"), "198.51.100.7");
    app.stop().await;
}

#[test]
fn arbitrary_requests_never_fail_on_our_side() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(start(On::Sqlite));
    let ann: Client<'_> = runtime.block_on(app.token("ann@example.com"));
    let routes: Vec<(Method, String)> =
        app.builder.routes().into_iter().map(|route| (route.method, route.path)).collect();
    let config =
        ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let input = (
        0..routes.len(),
        proptest::collection::vec(any::<u8>(), 0..200),
        "[ -~]{0,40}",
        "[a-z=&%0-9]{0,30}",
        any::<bool>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&input, |(route, body, header, query, json)| {
            let (method, path) = &routes[route];
            // Signing out would end the only client.
            if path.ends_with("logout") || path.ends_with("/disable") {
                return Ok(());
            }
            let uri =
                format!("{}?{query}", path.replace("{id}", "01890000-0000-7000-8000-000000000000"));
            let mut call =
                Call::new(method.clone(), &uri).body(body).header("x-request-id", &header);
            if json {
                call = call.header("content-type", "application/json");
            }
            if let Ok(value) = axum::http::HeaderValue::from_str(&header) {
                call.headers.insert("cookie", value.clone());
                call.headers.insert("user-agent", value);
            }
            let answer = runtime.block_on(ann.send(call));
            prop_assert!(!answer.status.is_server_error(), "{} {}: {}", method, uri, answer.raw);
            Ok(())
        })
        .unwrap();
    runtime.block_on(app.stop());
}
