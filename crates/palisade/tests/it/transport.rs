//! What is true of every answer, over real sockets too: HTTPS in front, framing, headers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use palisade::access::ANYONE;
use palisade::http::Routes;
use palisade::http::describe::{Describe, Description};
use palisade::http::serve::{Limits, serve};
use palisade::module::Module;
use palisade::testing::{Call, On, Plan, TestApp};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::every_route::HEADERS;

const BEHIND_PROXY: [(&str, &str); 2] = [
    ("server.public_url", "https://app.example.com"),
    ("server.trusted_proxies", "10.0.0.0/8,127.0.0.0/8"),
];

async fn with(on: On, settings: &[(&'static str, &'static str)]) -> TestApp {
    TestApp::with(on, Plan { settings: settings.to_vec(), ..Plan::default() }).await
}

/// Status, headers and code of a call from the proxy.
async fn through_proxy(app: &TestApp, call: Call) -> (StatusCode, HeaderMap, String, String) {
    let response = app.anyone().from("10.0.0.1").open(call).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (parts.status, parts.headers, text("code"), text("detail"))
}

palisade::on_both! {
    plain_http_behind_a_trusted_proxy_is_redirected_or_refused => |on| super::https_only(on);
}

async fn https_only(on: On) {
    let app = with(on, &BEHIND_PROXY).await;
    let get = |path: &str| Call::new(Method::GET, path);
    for marked in [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "HTTP"),
        ("forwarded", "for=1.2.3.4;proto=http"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let call = Call::new(method, "/setup?a=b").header(marked.0, marked.1);
            let (status, headers, ..) = through_proxy(&app, call).await;
            assert_eq!(status, StatusCode::PERMANENT_REDIRECT, "{marked:?}");
            assert_eq!(headers["location"], "https://app.example.com/setup?a=b");
            assert!(
                headers.contains_key("x-request-id")
                    && headers.contains_key("content-security-policy")
            );
        }
        for call in [
            get("/api/v1/whoami"),
            get("/api/v1/nothing"),
            Call::new(Method::POST, "/api/v1/auth/login"),
            Call::new(Method::OPTIONS, "/api/v1/auth/login"),
            Call::new(Method::POST, "/setup"),
        ] {
            let what = format!("{} {} {marked:?}", call.method, call.path);
            let (status, _, code, _) = through_proxy(&app, call.header(marked.0, marked.1)).await;
            assert_eq!((status, &*code), (StatusCode::FORBIDDEN, "http.https_required"), "{what}");
        }
    }
    // A redirect would loop where the proxy says nothing, or one thing and its opposite.
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.9"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "for=198.51.100.9"),
    ] {
        for path in ["/setup", "/api/v1/whoami"] {
            let (status, _, code, detail) =
                through_proxy(&app, get(path).header(name, value)).await;
            assert_eq!((status, &*code), (StatusCode::FORBIDDEN, "http.https_required"), "{value}");
            assert!(detail.contains("X-Forwarded-Proto"), "{detail}");
        }
    }
    let (status, _, _, detail) = through_proxy(&app, get("/setup")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(detail.contains("proxy_set_header X-Forwarded-Proto $scheme"), "{detail}");
    app.stop().await;
}

#[tokio::test]
async fn plain_http_is_redirected_to_the_public_url() {
    let app = with(On::Sqlite, &BEHIND_PROXY).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.builder.redirect_service(&app.app);
    let stopped = std::future::pending();
    let task = tokio::spawn(serve(listener, None, service, Limits::default(), stopped));
    let answer = async |line: &str, more: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nConnection: close\r\n{more}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    const HOST: &str = "Host: evil.example.net";
    for (line, more, path) in [
        ("GET /", HOST, "/"),
        ("HEAD /sign-in?next=%2Fa", HOST, "/sign-in?next=%2Fa"),
        ("GET /livez", HOST, "/livez"),
        ("GET //evil.example.net/x", HOST, "//evil.example.net/x"),
        ("GET /@evil.example.net", HOST, "/@evil.example.net"),
        ("GET http://evil.example.net/x", HOST, "/x"),
        (
            "GET /x",
            "Host: a\r\nX-Forwarded-Host: evil.example.net\r\nX-Forwarded-Proto: https",
            "/x",
        ),
    ] {
        let text = answer(line, more).await;
        assert!(text.starts_with("HTTP/1.1 308 "), "{line}: {text}");
        let location = format!("\r\nlocation: https://app.example.com{path}\r\n");
        assert!(text.contains(&location), "{line}: {text}");
        assert!(text.contains("x-request-id") && text.contains("x-content-type-options"), "{text}");
    }
    for line in
        ["POST /", "OPTIONS /", "OPTIONS *", "GET /api/v1/whoami", "POST /api/v1/auth/login"]
    {
        let text = answer(line, "Host: app.example.com").await;
        assert!(text.starts_with("HTTP/1.1 403 ") && !text.contains("location:"), "{line}: {text}");
        assert!(text.contains("http.https_required"), "{line}: {text}");
    }
    let text = answer("GET /.well-known/acme-challenge/token", "Host: app.example.com").await;
    assert!(text.starts_with("HTTP/1.1 404 ") && !text.contains("location:"), "{text}");
    task.abort();
    app.stop().await;
}

#[tokio::test]
async fn https_by_a_proxy_health_probes_and_strangers_pass() {
    let app = with(On::Sqlite, &BEHIND_PROXY).await;
    let get = |path: &str| Call::new(Method::GET, path);
    for good in ["https", "HTTPS", "https, https"] {
        let call = get("/api/v1/whoami").header("x-forwarded-proto", good);
        assert_eq!(through_proxy(&app, call).await.0, StatusCode::OK, "{good}");
    }
    for probe in ["/livez", "/readyz"] {
        assert_eq!(through_proxy(&app, get(probe)).await.0, StatusCode::OK, "{probe}");
        let marked = get(probe).header("x-forwarded-proto", "http");
        assert_eq!(through_proxy(&app, marked).await.0, StatusCode::OK, "{probe}");
    }
    // Who isn't a trusted proxy can't say anything about it.
    for forged in ["http", "https"] {
        let call = get("/api/v1/whoami").header("x-forwarded-proto", forged);
        let answer = app.anyone().send(call).await;
        assert_eq!((answer.status, answer.text("scheme")), (StatusCode::OK, "http".to_owned()));
    }
    app.stop().await;
}

#[tokio::test]
async fn load_balancers_probe_by_any_method() {
    let app = with(On::Sqlite, &BEHIND_PROXY).await;
    for marked in [None, Some("http"), Some("gopher"), Some("https")] {
        let probe = |method: Method, path: &str| {
            let call = Call::new(method, path);
            through_proxy(
                &app,
                marked.iter().fold(call, |call, m| call.header("x-forwarded-proto", m)),
            )
        };
        for path in ["/", "*", "/livez", "/readyz", "/readyz?from=haproxy"] {
            let (status, headers, ..) = probe(Method::OPTIONS, path).await;
            assert_eq!(status, StatusCode::NO_CONTENT, "{path} {marked:?}");
            assert_eq!(headers["allow"], "GET, HEAD, OPTIONS");
            assert!(headers.contains_key("x-request-id") && !headers.contains_key("content-type"));
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(probe(Method::HEAD, path).await.0, StatusCode::OK, "{path} {marked:?}");
        }
        // The front page, which belongs to the binary.
        let expected = match marked {
            None | Some("https") => StatusCode::NOT_FOUND,
            Some("http") => StatusCode::PERMANENT_REDIRECT,
            Some(_) => StatusCode::FORBIDDEN,
        };
        assert_eq!(probe(Method::HEAD, "/").await.0, expected, "{marked:?}");
        // No probe.
        for path in ["/setup", "/livez/", "//", "/api/v1/whoami"] {
            let (status, ..) = probe(Method::OPTIONS, path).await;
            assert!(status.is_client_error(), "{path}: {status}");
        }
    }
    let (status, ..) = through_proxy(&app, Call::new(Method::GET, "/")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    app.stop().await;
    let app = with(On::Sqlite, &[("cors.origins", "https://page.example.com")]).await;
    let preflight = Call::new(Method::OPTIONS, "/livez")
        .header("origin", "https://page.example.com")
        .header("access-control-request-method", "GET");
    let answer = app.anyone().send(preflight).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://page.example.com");
    app.stop().await;
}

#[tokio::test]
async fn a_probe_by_options_needs_no_host_and_shows_whether_the_server_is_ready() {
    let server = Listening::start(&[], Limits::default()).await;
    let probe = async |target: &str| {
        parse(&server.raw(format!("OPTIONS {target} HTTP/1.0\r\n\r\n").as_bytes()).await).0
    };
    for target in ["/", "*", "/livez", "/readyz"] {
        assert_eq!(probe(target).await, 204, "{target}");
    }
    server.app.app.db.close().await;
    for (target, status) in [("/", 204), ("*", 204), ("/livez", 204), ("/readyz", 503)] {
        assert_eq!(probe(target).await, status, "{target}");
    }
    server.stop().await;
}

#[tokio::test]
async fn without_an_https_public_url_plain_http_is_served() {
    let app = with(On::Sqlite, &[("server.trusted_proxies", "10.0.0.0/8")]).await;
    for call in [
        Call::new(Method::GET, "/setup"),
        Call::new(Method::GET, "/setup").header("x-forwarded-proto", "http"),
        Call::new(Method::GET, "/setup").header("x-forwarded-proto", "https"),
    ] {
        let (status, headers, ..) = through_proxy(&app, call).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!headers.contains_key("strict-transport-security"));
    }
    app.stop().await;
}

#[tokio::test]
async fn browsers_are_told_to_insist_on_https_as_the_settings_say() {
    let plain = ("server.public_url", "https://app.example.com");
    for (settings, expected) in [
        (vec![plain], "max-age=63072000; includeSubDomains"),
        (vec![plain, ("server.hsts.include_subdomains", "false")], "max-age=63072000"),
        (vec![plain, ("server.hsts.max_age", "0s")], "max-age=0; includeSubDomains"),
        (
            vec![plain, ("server.hsts.max_age", "365d"), ("server.hsts.preload", "true")],
            "max-age=31536000; includeSubDomains; preload",
        ),
    ] {
        let app = with(On::Sqlite, &settings).await;
        for path in ["/setup", "/api/v1/whoami", "/api/v1/nothing", "/assets/setup.js", "/livez"] {
            let answer = app.anyone().get(path).await;
            assert_eq!(answer.headers["strict-transport-security"], expected, "{path}");
        }
        app.stop().await;
    }
    let app = with(On::Sqlite, &BEHIND_PROXY).await;
    let refused = through_proxy(&app, Call::new(Method::POST, "/setup")).await;
    assert!(refused.1.contains_key("strict-transport-security"));
    app.stop().await;
}

#[tokio::test]
async fn the_api_is_sandboxed_and_pages_are_not() {
    let app = with(On::Sqlite, &[]).await;
    for path in ["/api/v1/whoami", "/api/v1/nothing", "/openapi.json", "/livez"] {
        let answer = app.anyone().get(path).await;
        let policy = &answer.headers["content-security-policy"];
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'; sandbox", "{path}");
    }
    for path in ["/setup", "/docs", "/account/security"] {
        let answer = app.anyone().get(path).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(!policy.contains("sandbox") && policy.contains("script-src 'nonce-"), "{policy}");
        assert!(!policy.contains("report") && !answer.headers.contains_key("reporting-endpoints"));
    }
    app.stop().await;
}

#[tokio::test]
async fn pages_say_where_blocked_content_is_reported() {
    let to = "https://reports.example.com/csp?site=1";
    let app = with(On::Sqlite, &[("server.csp_report_to", to)]).await;
    let page = app.anyone().get("/setup").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.ends_with(&format!("; report-uri {to}; report-to csp")), "{policy}");
    assert_eq!(page.headers["reporting-endpoints"], format!("csp=\"{to}\""));
    let answer = app.anyone().get("/api/v1/whoami").await;
    assert!(!answer.headers.contains_key("reporting-endpoints"));
    app.stop().await;
}

#[tokio::test]
async fn the_reference_can_be_switched_off() {
    let paths = ["/docs", "/openapi.json", "/assets/docs.js", "/assets/docs.css"];
    let off = with(On::Sqlite, &[("reference.enabled", "false")]).await;
    for path in paths {
        let answer = off.anyone().get(path).await;
        assert_eq!(answer.code(), "request.not_found", "{path}");
    }
    assert!(off.builder.openapi()["paths"].as_object().unwrap().len() > 40);
    off.stop().await;
    let on = with(On::Sqlite, &[]).await;
    for path in paths {
        assert_eq!(on.anyone().get(path).await.status, StatusCode::OK, "{path}");
    }
    on.stop().await;
}

const PANICKING: Module = Module {
    name: "panicking",
    routes: || {
        Routes::root().get("/panic", ANYONE, panics).get("/panic-in-body", ANYONE, panics_in_body)
    },
    ..Module::EMPTY
};

#[expect(clippy::panic, reason = "what is tested")]
async fn panics() -> &'static str {
    panic!("on purpose")
}

/// An answer of which the rest never comes.
struct HalfAnswer(Response);

impl IntoResponse for HalfAnswer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Describe for HalfAnswer {
    fn describe(_: &mut Description) {}
}

async fn panics_in_body() -> HalfAnswer {
    let pieces = futures_util::stream::iter(0..2).map(|number| match number {
        0 => Ok::<_, Infallible>("the first half"),
        _ => panic!("on purpose"),
    });
    HalfAnswer(Body::from_stream(pieces).into_response())
}

/// An app behind its own listener.
struct Listening {
    app: TestApp,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    async fn start(settings: &[(&'static str, &'static str)], limits: Limits) -> Self {
        let plan =
            Plan { settings: settings.to_vec(), modules: vec![PANICKING], ..Plan::default() };
        let app = TestApp::with(On::Sqlite, plan).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = app.builder.service(&app.app);
        let task = tokio::spawn(async move {
            let _ = serve(listener, None, service, limits, std::future::pending()).await;
        });
        Self { app, address, task }
    }

    /// Everything that is answered to these bytes until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        read.await.expect("the connection is closed").expect("the answer isn't lost to a reset");
        String::from_utf8(answer).unwrap()
    }

    async fn stop(self) {
        self.task.abort();
        self.app.stop().await;
    }
}

/// The first answer in a text: status, headers, body.
fn parse(text: &str) -> (u16, HeaderMap, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    // A 204 has no body and no length.
    let length = headers.get("content-length").map_or("0", |length| length.to_str().unwrap());
    let length: usize = length.parse().unwrap();
    (status, headers, serde_json::from_str(body.get(..length).unwrap_or(body)).unwrap_or_default())
}

/// A refusal as every other, with this status and code.
fn is_refusal(text: &str, status: u16, code: &str, what: &str) {
    let (found, headers, body) = parse(text);
    assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{what}: {text}");
    for name in HEADERS.into_iter().chain(["strict-transport-security"]) {
        assert!(headers.contains_key(name), "{what} lacks {name}: {text}");
    }
    assert_eq!(headers["cache-control"], "no-store", "{what}");
    assert_eq!(headers["content-type"], "application/problem+json", "{what}");
    assert_eq!(body["request_id"].as_str().unwrap(), headers["x-request-id"], "{what}");
    assert!(!headers.contains_key("server"), "{what}");
}

const HTTPS: [(&str, &str); 1] = [("server.public_url", "https://app.example.com")];

fn request(head: &str) -> Vec<u8> {
    format!("{head}\r\nHost: app.example.com\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_listener_refuses_looks_like_any_other_refusal() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "x".repeat(900_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}\r\n", "X: x\r\n".repeat(101));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", "x".repeat(900_000));
    for (bytes, status, code) in [
        (&b"GET\0/\0HTTP\r\n\r\n"[..], 400, "request.malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "request.malformed"),
        (b"GET /\r\n\r\n", 400, "request.malformed"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nA B: c\r\n\r\n", 400, "request.malformed"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\r\n c\r\n\r\n", 400, "request.malformed"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nA : b\r\n\r\n", 400, "request.malformed"),
        (
            b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +5\r\n\r\n",
            400,
            "request.malformed",
        ),
        (b"GET / HTTP/3.0\r\nHost: a.example\r\n\r\n", 505, "request.wrong_version"),
        (b"GET / HTTP/1.2\r\nHost: a.example\r\n\r\n", 505, "request.wrong_version"),
        (large.as_bytes(), 431, "request.headers_too_large"),
        (many.as_bytes(), 431, "request.headers_too_large"),
        (long.as_bytes(), 414, "request.uri_too_long"),
    ] {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        is_refusal(&server.raw(bytes).await, status, code, &what);
    }
    // After an answer on the same connection too.
    let kept = b"GET /livez HTTP/1.1\r\nHost: a.example\r\n\r\nGET\0/\r\n\r\n";
    let answers = server.raw(kept).await;
    let second = answers.rfind("HTTP/1.1 ").unwrap();
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    is_refusal(&answers[second..], 400, "request.malformed", "behind another");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_every_layer_have_every_header() {
    let settings = [HTTPS[0], ("server.max_body", "1KiB"), ("server.request_timeout", "1s")];
    let server = Listening::start(&settings, Limits::default()).await;
    let body = |path: &str, media: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: {media}\r\nContent-Length: {}",
            body.len()
        );
        [request(&head), body.as_bytes().to_vec()].concat()
    };
    let login = "/api/v1/auth/login";
    let big = format!("{{\"email\": \"{}\"}}", "x".repeat(7 << 20));
    let slow = request(&format!(
        "POST {login} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9"
    ));
    for (what, bytes, status, code) in [
        ("unknown route", request("GET /nothing HTTP/1.1"), 404, "request.not_found"),
        ("method", request("PUT /api/v1/users/me HTTP/1.1"), 405, "request.wrong_method"),
        ("gate", request("GET /api/v1/users/me HTTP/1.1"), 401, "access.not_signed_in"),
        ("not JSON", body(login, "application/json", "{"), 400, "request.malformed"),
        ("media type", body(login, "text/plain", "{}"), 415, "request.wrong_media_type"),
        ("input", body(login, "application/json", "{}"), 422, "request.invalid"),
        ("large body", body(login, "application/json", &big), 413, "request.too_large"),
        ("slow body", slow, 408, "request.too_slow"),
        ("panic", request("GET /panic HTTP/1.1"), 500, "server.internal"),
    ] {
        is_refusal(&server.raw(&bytes).await, status, code, what);
    }
    server.stop().await;
}

/// The connection ends without the end of the answer, its slot is free again, and the server serves on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_body_ends_its_connection_alone() {
    let one_at_a_time = Limits { connections: 1, ..Limits::default() };
    let server = Listening::start(&HTTPS, one_at_a_time).await;
    for _ in 0..3 {
        let half = server.raw(&request("GET /panic-in-body HTTP/1.1")).await;
        assert!(!half.ends_with("0\r\n\r\n"), "{half}");
        let whole = server.raw(&request("GET /livez HTTP/1.1")).await;
        assert_eq!(parse(&whole).0, 200, "{whole}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transfer_encoding_but_one_lone_chunked_is_taken() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let post = |version: &str, lines: &str| {
        let body = "2\r\n{}\r\n0\r\n\r\n";
        format!(
            "POST /api/v1/auth/login {version}\r\nHost: a.example\r\nContent-Type: application/json\r\nConnection: close\r\n{lines}\r\n{body}"
        )
    };
    for good in ["Transfer-Encoding: chunked\r\n", "transfer-encoding:CHUNKED \r\n"] {
        let answer = server.raw(post("HTTP/1.1", good).as_bytes()).await;
        is_refusal(&answer, 422, "request.invalid", good);
    }
    for other in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 12\r\n",
    ] {
        let answer = server.raw(post("HTTP/1.1", other).as_bytes()).await;
        is_refusal(&answer, 501, "request.transfer_encoding", other);
    }
    for malformed in [
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
    ] {
        let answer = server.raw(post("HTTP/1.1", malformed).as_bytes()).await;
        let (status, ..) = parse(&answer);
        assert!(matches!(status, 400 | 501), "{malformed:?}: {answer}");
        is_refusal(
            &answer,
            status,
            if status == 400 { "request.malformed" } else { "request.transfer_encoding" },
            malformed,
        );
    }
    let answer = server.raw(post("HTTP/1.0", "Transfer-Encoding: chunked\r\n").as_bytes()).await;
    is_refusal(&answer, 400, "request.malformed", "HTTP/1.0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lengths_are_refused() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let smuggled = "GET /livez HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for lengths in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "content-length:5\r\nA: b\r\ntransfer-encoding:chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
    ] {
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: a.example\r\n";
        let answers =
            server.raw(format!("{head}{lengths}\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        is_refusal(&answers, 400, "request.malformed", lengths);
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{lengths}: {answers}");
    }
    // A part of a form may have a length; what stands in the body is no header.
    let part = "\r\nContent-Length: 5\r\n\r\n";
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    let answer =
        server.raw(format!("{head}\r\n{:x}\r\n{part}\r\n0\r\n\r\n", part.len()).as_bytes()).await;
    is_refusal(&answer, 415, "request.wrong_media_type", "a length in the body");
    // Behind another request, what is left of a head can't be judged.
    let pipelined = format!("{smuggled}{head}\r\n0\r\n\r\n");
    let answers = server.raw(pipelined.as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    is_refusal(
        &answers[answers.rfind("HTTP/1.1 ").unwrap()..],
        400,
        "request.malformed",
        "pipelined",
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_began_with_the_request_before_hides_no_length() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let before = "GET /livez HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let line = "POST /api/v1/auth/login HTTP/1.1\r\n";
    let begun = format!("{line}Host: a.example\r\nContent-Length: 5\r\nX-A: ");
    for looks_like in ["POST x\r\n", line] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(format!("{before}{begun}").as_bytes()).await.unwrap();
        // Answered, so the beginning of the next head was read with it.
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        let rest = format!("{looks_like}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{before}");
        client.write_all(rest.as_bytes()).await.unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{looks_like}: {answers}");
        let at = answers.find("HTTP/1.1 ").unwrap();
        is_refusal(&answers[at..], 400, "request.malformed", looks_like);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_names_one_host() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    for (line, hosts) in [
        ("GET /livez HTTP/1.1", ""),
        ("GET /livez HTTP/1.1", "Host: a.example\r\nHost: b.example\r\n"),
        ("GET /livez HTTP/1.1", "Host: a.example\r\nHost: a.example\r\n"),
        ("GET /livez HTTP/1.1", "Host: a.example, b.example\r\n"),
        ("GET /livez HTTP/1.1", "Host: ann@a.example\r\n"),
        ("GET /livez HTTP/1.1", "Host: a.example/b\r\n"),
        ("GET /livez HTTP/1.1", "Host:\r\n"),
        ("GET http://b.example/livez HTTP/1.1", "Host: a.example\r\n"),
        ("GET http://a.example:81/livez HTTP/1.1", "Host: a.example\r\n"),
        ("GET http://ann@a.example/livez HTTP/1.1", "Host: a.example\r\n"),
        ("GET /livez HTTP/1.0", "Host: a.example\r\nHost: b.example\r\n"),
    ] {
        let answer = server.raw(format!("{line}\r\n{hosts}\r\n").as_bytes()).await;
        is_refusal(&answer, 400, "request.malformed", &format!("{line} {hosts}"));
    }
    for (line, hosts) in [
        ("GET /livez HTTP/1.1", "Host: a.example\r\n"),
        ("GET /livez HTTP/1.1", "Host: [::1]:8000\r\n"),
        ("GET http://A.example:80/livez HTTP/1.1", "Host: a.EXAMPLE\r\n"),
        ("GET /livez HTTP/1.0", ""),
        ("OPTIONS * HTTP/1.1", "Host: a.example\r\n"),
    ] {
        let head = format!("{line}\r\n{hosts}Connection: close\r\n\r\n");
        let (status, ..) = parse(&server.raw(head.as_bytes()).await);
        assert!(matches!(status, 200 | 204), "{line} {hosts}: {status}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_request_names_one_host_too() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driven = tokio::spawn(connection);
    let many = "x".repeat(40_000);
    for (hosts, more, status) in [
        (&[][..], "", 200),
        (&["a.example"], "", 200),
        (&["A.Example"], "", 200),
        (&["b.example"], "", 400),
        (&["a.example", "a.example"], "", 400),
        (&["a.example:81"], "", 400),
        (&["a.example:80"], "", 200),
        // The port that goes without saying for the other scheme.
        (&["a.example:443"], "", 400),
        (&[], &*many, 431),
    ] {
        let mut request = Request::get("http://a.example/livez").header("x-more", more);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{hosts:?}");
        for name in ["x-request-id", "strict-transport-security", "content-security-policy"] {
            assert!(answer.headers().contains_key(name), "{hosts:?} lacks {name}");
        }
    }
    driven.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_header_list_is_never_kept_beyond_four_times_the_limit() {
    let server = Listening::start(&HTTPS, Limits::default()).await;
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driven = tokio::spawn(connection);
    for (size, status, ours) in
        [(30_000, 200, true), (125_000, 431, true), (200_000, 431, false), (0, 200, true)]
    {
        let request = Request::get("http://a.example/livez").header("x-more", "x".repeat(size));
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{size}");
        assert_eq!(answer.headers().contains_key("x-request-id"), ours, "{size}");
    }
    let request = Request::get("http://a.example/livez").header("x-more", "x".repeat(600_000));
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    assert!(client.send_request(request).await.is_err());
    driven.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_never_ends_is_told_so() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Listening::start(&HTTPS, limits).await;
    let answer = server.raw(b"GET /livez HTTP/1.1\r\nHost: a.exa").await;
    is_refusal(&answer, 408, "request.too_slow", "half a head");
    server.stop().await;
}
