//! Input in the forms in which clients, browsers and proxies really send it: accepted where its meaning is certain.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use futures_util::future::join_all;
use palisade::testing::phone::{MFA, Phone, STEP, answer_with, challenge, with_phone};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, unlimited};
use serde_json::{Value, json};

palisade::on_both! {
    a_secret_that_is_requested_twice_is_the_same => |on| super::twice(on);
    a_secret_is_repeated_to_the_session_that_requested_it_alone => |on| super::other_sessions(on);
    codes_are_accepted_as_they_are_typed => |on| super::codes(on);
    a_device_name_is_never_refused => |on| super::device_names(on);
    an_email_is_the_same_with_what_surrounds_it => |on| super::margins(on);
}

const ME: &str = "/api/v1/users/me";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const KEYS: &str = "/api/v1/users/me/api-keys";

/// A request for the user's own data, with headers of any bytes.
fn me(headers: &[(&'static str, &[u8])]) -> Call {
    let mut call = Call::new(Method::GET, ME);
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value).unwrap();
        call.headers.append(HeaderName::from_static(name), value);
    }
    call
}

async fn ann(app: &TestApp) -> Client<'_> {
    app.user("ann@example.com").await;
    app.token("ann@example.com").await
}

#[tokio::test]
async fn foreign_cookies_are_passed_over() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    let own = app.browser("ann@example.com").await.cookie.unwrap();
    let value = own.split_once('=').unwrap().1;
    let (own, quoted) = (own.as_bytes(), format!("palisade-8000=\"{value}\""));
    let beside = |before: &[u8], after: &[u8]| [before, own, after].concat();
    for good in [
        beside(b"", b""),
        beside("city=München; ".as_bytes(), b""),
        beside(b"", "; city=München".as_bytes()),
        beside(b"a=\xff\xfe; ", b"; b=\x80"),
        beside("ü=1; ".as_bytes(), b"; =; ;;x; a==b; c=\"d e\""),
        beside(b"  ;", b" ; "),
        beside(b"$Version=\"1\"; ", b"; $Path=\"/\""),
        beside(b"palisade=x; palisade-9000=x; palisade-08000=x; palisade-+8000=x; ", b""),
        beside(b"palisade-8000x=x; PALISADE-8000=x; palisade-80000=x; palisade-=x; ", b""),
        beside(b"__Host-palisade=x; palisade-device-8000=x; x-palisade-8000=x; ", b""),
        quoted.into_bytes(),
    ] {
        let answer = app.anyone().send(me(&[("cookie", &good)])).await;
        let text = String::from_utf8_lossy(&good);
        assert_eq!(answer.status, StatusCode::OK, "{text}: {}", answer.raw);
    }
    // HTTP/2 sends each cookie in its own header.
    let split = me(&[("cookie", "a=ü".as_bytes()), ("cookie", own), ("cookie", b"b=\xff")]);
    assert_eq!(app.anyone().send(split).await.status, StatusCode::OK);
    // Bytes of our own cookie are never passed over.
    for bad in [
        beside(b"palisade-8000=\xff; ", b""),
        beside(b"", "; palisade-8000=ü".as_bytes()),
        beside(b"palisade-8000=; ", b""),
        b"palisade-8000=\xff".to_vec(),
        beside(b"", b"\xff"),
        beside(b"", b"\""),
    ] {
        let answer = app.anyone().send(me(&[("cookie", &bad)])).await;
        let text = String::from_utf8_lossy(&bad);
        assert_eq!(answer.code(), "access.invalid_token", "{text}");
    }
    let twice = me(&[("cookie", own), ("cookie", own)]);
    assert_eq!(app.anyone().send(twice).await.code(), "access.invalid_token");
    app.stop().await;
}

#[tokio::test]
async fn servers_on_two_ports_have_their_own_cookies() {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let (mut jar, mut names) = (Vec::new(), Vec::new());
    let urls = ["http://localhost", "http://localhost:3000", "http://127.0.0.1:65535"];
    let mut apps = Vec::new();
    for url in urls {
        let settings = vec![("server.public_url", url)];
        let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
        app.user("ann@example.com").await;
        let answer = app.anyone().send(Call::post(LOGIN, body.clone()).same_origin()).await;
        for set in answer.headers.get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            names.push(pair.split_once('=').unwrap().0.to_owned());
            jar.push(pair);
        }
        apps.push(app);
    }
    let session = ["palisade-80", "palisade-3000", "palisade-65535"];
    let device = ["palisade-device-80", "palisade-device-3000", "palisade-device-65535"];
    for name in session.into_iter().chain(device) {
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}: {names:?}");
    }
    for (app, name) in apps.iter().zip(session) {
        let browser = app.anyone().with_cookie(jar.join("; "));
        assert_eq!(browser.get(ME).await.status, StatusCode::OK, "{name}");
        let described = app.builder.openapi();
        let schemes = described["components"]["securitySchemes"].as_object().unwrap();
        assert!(schemes.values().any(|scheme| scheme["name"] == name), "{schemes:?}");
        // Signing out removes the cookie of this server, and no other.
        let left = browser.act("/api/v1/auth/logout").await;
        let set = left.cookie();
        assert_eq!(set, format!("{name}="), "{:?}", left.headers);
    }
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test]
async fn only_a_bearer_token_is_judged() {
    let app = TestApp::on(On::Sqlite).await;
    let ann = ann(&app).await;
    let cookie = app.browser("ann@example.com").await.cookie.unwrap();
    let token = ann.bearer.unwrap();
    let ask = |values: Vec<Vec<u8>>, cookie: Option<&str>| {
        let mut headers: Vec<_> =
            values.iter().map(|value| ("authorization", value.as_slice())).collect();
        headers.extend(cookie.map(|cookie| ("cookie", cookie.as_bytes())));
        let (call, anyone) = (me(&headers), app.anyone());
        async move { anyone.send(call).await }
    };
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer  ", "Bearer     "] {
        let value = format!("{scheme}{token}");
        let answer = ask(vec![value.into_bytes()], None).await;
        assert_eq!(answer.status, StatusCode::OK, "{scheme:?}: {}", answer.raw);
    }
    let foreign: [&[u8]; 9] = [
        b"Basic c3RhZ2luZzpwdw==",
        b"basic x",
        b"Negotiate YII=",
        b"Digest username=\"\xfc\", realm=\"x\"",
        b"Token x",
        b"Bearers x.y.z",
        b"Basic",
        b"",
        b"\xff\xfe",
    ];
    for value in foreign {
        let text = String::from_utf8_lossy(value);
        let values = vec![value.to_vec()];
        let answer = ask(values.clone(), Some(&cookie)).await;
        assert_eq!(answer.status, StatusCode::OK, "{text}: {}", answer.raw);
        assert_eq!(ask(values, None).await.code(), "access.not_signed_in", "{text}");
        let two = ask(vec![value.to_vec(), value.to_vec()], Some(&cookie)).await;
        assert_eq!(two.status, StatusCode::OK, "twice {text}: {}", two.raw);
    }
    // A cookie that is used needs proof of its origin.
    let other = me(&[("authorization", foreign[0]), ("cookie", cookie.as_bytes())]);
    let unsafe_call =
        Call { method: Method::DELETE, path: "/api/v1/users/me/totp".into(), ..other };
    assert_eq!(app.anyone().send(unsafe_call).await.code(), "access.cross_site");
    app.stop().await;
}

#[tokio::test]
async fn a_bearer_token_stands_alone_in_one_header() {
    let app = TestApp::on(On::Sqlite).await;
    let ann = ann(&app).await;
    let cookie = app.browser("ann@example.com").await.cookie.unwrap();
    let token = format!("Bearer {}", ann.bearer.unwrap());
    let basic = "Basic c3RhZ2luZzpwdw==".to_owned();
    for values in [
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![token.replace(' ', "\t") + "x"],
        vec![format!("{token}, {basic}")],
        vec![format!("{token} x")],
        vec![token.clone(), token.clone()],
        vec![token.clone(), basic.clone()],
        vec![basic, token.clone()],
        vec![String::new(), token],
    ] {
        let headers = values.iter().map(|value| ("authorization", value.as_bytes()));
        let cookie = ("cookie", cookie.as_bytes());
        let headers: Vec<_> = headers.chain(std::iter::once(cookie)).collect();
        let answer = app.anyone().send(me(&headers)).await;
        assert_eq!(answer.code(), "access.invalid_token", "{values:?}: {}", answer.raw);
    }
    app.stop().await;
}

/// A body in pieces, as a chunked request or HTTP/2 sends it.
fn pieces(pieces: &'static [&'static str]) -> Body {
    let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(piece.as_bytes()));
    Body::from_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn an_empty_body_is_no_body() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let empty: [&[&str]; 3] = [&[], &[""], &["", "", ""]];
    let media = ["", "application/json", "application/x-www-form-urlencoded", "text/plain"];
    for (body, media) in empty.iter().flat_map(|body| media.map(|media| (body, media))) {
        let browser = app.browser("ann@example.com").await;
        let mut call = Call::new(Method::POST, REFRESH).same_origin().body(pieces(body));
        if !media.is_empty() {
            call = call.header("content-type", media);
        }
        let answer = browser.send(call).await;
        assert_eq!(answer.status, StatusCode::OK, "{body:?} {media}: {}", answer.raw);
        let out = Call::new(Method::POST, "/api/v1/auth/logout").same_origin().body(pieces(body));
        let browser = app.anyone().with_cookie(answer.cookie());
        assert_eq!(browser.send(out).await.status, StatusCode::NO_CONTENT);
    }
    // A body with something in it is read as before.
    let browser = app.browser("ann@example.com").await;
    for (media, text, status) in [
        ("application/json", &["{", "}"][..], 200),
        ("application/json", &["", " "], 400),
        ("application/json", &["null"], 422),
        ("text/plain", &["", "{}"], 415),
        ("application/x-www-form-urlencoded", &["a=b"], 415),
    ] {
        let call = Call::new(Method::POST, REFRESH).same_origin().header("content-type", media);
        let answer = browser.send(call.body(pieces(text))).await;
        assert_eq!(answer.status, status, "{media} {text:?}: {}", answer.raw);
    }
    // Where a body is required, the refusal says so.
    let call = Call::new(Method::POST, LOGIN).header("content-type", "application/json");
    let answer = app.anyone().send(call.body(pieces(&[""]))).await;
    assert_eq!(place(&answer), (400, "", "request.malformed"));
    app.stop().await;
}

#[tokio::test]
async fn signing_out_removes_the_session_cookie_and_nothing_else() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.admin("ann@example.com").await;
    for act in ["logout", "everyone", "own session", "deletion"] {
        let browser = app.browser("ann@example.com").await;
        let list = browser.get("/api/v1/users/me/sessions").await;
        let id = list.body["items"][0]["id"].as_str().unwrap().to_owned();
        let path = match act {
            "logout" => "/api/v1/auth/logout".to_owned(),
            "everyone" => "/api/v1/users/revoke-sessions".to_owned(),
            "own session" => format!("/api/v1/users/me/sessions/{id}"),
            _ => ME.to_owned(),
        };
        if act == "deletion" {
            app.admin("root@example.com").await;
        }
        let method = if path.contains("me") { Method::DELETE } else { Method::POST };
        let answer = browser.send(Call::new(method, &path).same_origin()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{act}: {}", answer.raw);
        assert!(!answer.headers.contains_key("clear-site-data"), "{act}");
        let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(set.len(), 1, "{act}: {set:?}");
        let set = set[0].to_str().unwrap();
        assert!(set.starts_with("palisade-8000=; ") && set.contains("Max-Age=0"), "{act}: {set}");
        assert!(set.contains("; Path=/;") && set.contains("; HttpOnly"), "{act}: {set}");
    }
    // Ending another session leaves the cookie alone.
    let other = app.token("ann@example.com").await;
    let id = other.get("/api/v1/users/me/sessions").await.body["items"][0]["id"].clone();
    let browser = app.browser("ann@example.com").await;
    let path = format!("/api/v1/users/me/sessions/{}", id.as_str().unwrap());
    let answer = browser.delete(&path).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    assert!(!answer.headers.contains_key("set-cookie"), "{:?}", answer.headers);
    app.stop().await;
}

async fn device_names(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let long = format!("Mozilla/5.0 {}", "x".repeat(269));
    for (sent, shown) in [
        ("Firefox on Linux", json!("Firefox on Linux")),
        (long.as_str(), json!(long.get(..200).unwrap())),
        ("Ann's\r\n\tphone \0\u{1b}[31m", json!("Ann's phone [31m")),
        ("\u{202e}abc\u{feff}", json!("abc")),
        (&"é".repeat(30_000), json!("é".repeat(200))),
        ("", Value::Null),
        (" \n\u{200b}", Value::Null),
    ] {
        let body = json!({ "email": "ann@example.com", "password": PASSWORD, "device_name": sent });
        assert_eq!(device_name(&app, body.to_string()).await, shown, "{sent:.40?}");
    }
    // Half of an emoji, which a program cut off.
    let body = format!(
        r#"{{"device_name":"Ann \ud83d","email":"ann@example.com","password":"{PASSWORD}"}}"#
    );
    assert_eq!(device_name(&app, body).await, json!("Ann"));
    for wrong in
        [json!(1), json!(1.0), json!(true), json!([]), json!(["x"]), json!([120]), json!({})]
    {
        let body =
            json!({ "email": "ann@example.com", "password": PASSWORD, "device_name": wrong });
        let answer = app.anyone().post(LOGIN, body).await;
        assert_eq!(place(&answer), (422, "/device_name", "request.wrong_type"), "{wrong}");
    }
    // What follows an unusual device name is checked like any other text.
    let body = format!(
        r#"{{"device_name":"\ud83d","email":"ann@example.com","password":"{}"}}"#,
        "x".repeat(2000)
    );
    let answer = app.anyone().send(Call::post(LOGIN, Value::Null).body(body)).await;
    assert_eq!(place(&answer), (422, "/password", "request.too_long"));
    app.stop().await;
}

/// Signs in with this body, and returns the name of the session's device.
async fn device_name(app: &TestApp, body: String) -> Value {
    let answer = app.anyone().send(Call::post(LOGIN, Value::Null).body(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    let client = app.anyone().with_token(answer.text("access_token"));
    let list = client.get("/api/v1/users/me/sessions").await;
    let items = list.body["items"].as_array().unwrap();
    items.iter().find(|item| item["current"] == true).unwrap()["device_name"].clone()
}

#[tokio::test]
async fn a_user_agent_of_any_bytes_is_shown_in_one_line() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let long = "x".repeat(900);
    for (sent, shown) in [
        (&b"app 1"[..], json!("app 1")),
        ("Büro-App\t1".as_bytes(), json!("Büro-App 1")),
        (b"app \xfc", json!("app \u{fffd}")),
        ("a\u{202e}b\u{9b}c".as_bytes(), json!("ab c")),
        (long.as_bytes(), json!("x".repeat(200))),
        (b"", Value::Null),
    ] {
        let mut call = Call::post(LOGIN, body.clone());
        call.headers.insert("user-agent", HeaderValue::from_bytes(sent).unwrap());
        let client = app.anyone().with_token(app.anyone().send(call).await.text("access_token"));
        let list = client.get("/api/v1/users/me/sessions").await;
        let items = list.body["items"].as_array().unwrap();
        let own = items.iter().find(|item| item["current"] == true).unwrap();
        assert_eq!(own["user_agent"], shown, "{}", String::from_utf8_lossy(sent));
    }
    app.stop().await;
}

#[tokio::test]
async fn whole_numbers_are_integers_however_they_are_written() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    let ann = ann(&app).await;
    let make = |seconds: &str| {
        let body = format!(r#"{{"name": "1.0", "permissions": [], "expires_in": {seconds}}}"#);
        ann.send(Call::post(KEYS, Value::Null).body(body))
    };
    let now = app.app.clock.now();
    for (sent, seconds) in
        [("2592000.0", 2_592_000), ("1e3", 1000), ("1.5E+3", 1500), ("360000e-2", 3600)]
    {
        let made = make(sent).await;
        assert_eq!(made.status, StatusCode::CREATED, "{sent}: {}", made.raw);
        let until = now.plus(Duration::from_secs(seconds)).to_string();
        // To the second.
        assert_eq!(made.text("expires_at")[..19], until[..19], "{sent}: {}", made.raw);
        assert_eq!(made.text("name"), "1.0");
    }
    for (sent, code) in [
        ("1.5", "request.wrong_type"),
        ("1e400", "request.wrong_type"),
        ("1e20", "request.wrong_type"),
        ("-1.0", "request.wrong_type"),
        ("1e-1", "request.wrong_type"),
        ("\"60.0\"", "request.wrong_type"),
        ("-0.0", "api_keys.bad_expiry"),
        ("0e5", "api_keys.bad_expiry"),
        ("1e19", "api_keys.bad_expiry"),
    ] {
        assert_eq!(place(&make(sent).await), (422, "/expires_in", code), "{sent}");
    }
    assert_eq!(place(&make("NaN").await), (400, "", "request.malformed"));
    app.stop().await;
}

async fn margins(on: On) {
    let settings = vec![
        ("limits.enabled", "false"),
        ("registration.mode", "open"),
        ("compat.login_form", "true"),
        ("mail.smtp_url", "smtp://127.0.0.1:9"),
        ("mail.from", "palisade@example.com"),
    ];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    app.user("ann@example.com").await;
    let margins = [" ", "\n", "\t", "\u{feff}", "\u{200b}", "\u{ad}", "\u{202c}", "\r\n\u{a0}"];
    for (number, margin) in margins.into_iter().enumerate() {
        let email = format!("{margin}Ann@example.com{margin}");
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", &email)
            .append_pair("password", PASSWORD)
            .finish();
        let form = Call::new(Method::POST, "/api/v1/login/access-token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let invited = format!("{margin}bob-{number}@example.com{margin}");
        let found = form_urlencoded::byte_serialize(email.as_bytes()).collect::<String>();
        for (what, answer, status) in [
            ("sign-in", app.anyone().login(&email).await, 200),
            ("form", app.anyone().send(form).await, 200),
            (
                "forgot",
                app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": email })).await,
                202,
            ),
            ("invitation", root.post("/api/v1/users", json!({ "email": invited })).await, 201),
            ("search", root.get(&format!("/api/v1/users?query={found}")).await, 200),
        ] {
            assert_eq!(answer.status, status, "{what} {margin:?}: {}", answer.raw);
            if what == "search" {
                assert_eq!(answer.body["items"][0]["email"], "ann@example.com", "{margin:?}");
            }
            if what == "invitation" {
                assert_eq!(answer.text("email"), format!("bob-{number}@example.com"));
            }
        }
        let inside = app.anyone().login(&format!("ann{margin}@example.com")).await;
        assert_eq!(inside.code(), "login.denied", "{margin:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_form_ignores_what_it_does_not_know() {
    let settings = vec![("limits.enabled", "false"), ("compat.login_form", "true")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let form = |path: &str, text: &str| {
        let call = Call::new(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        root.send(call.body(text.to_owned()))
    };
    let token = format!("token={}", root.bearer.as_ref().unwrap());
    let login = format!("username=root%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let paths = ["/api/v1/auth/introspect", "/api/v1/login/access-token", "/api/v1/auth/revoke"];
    for (path, known) in paths.into_iter().zip([&token, &login, &token]) {
        let name = known.split('=').next().unwrap();
        let (value, pointer) = (known.split('&').next().unwrap(), format!("/{name}"));
        for (wrong, code) in [
            (format!("{known}&{value}"), "request.repeated"),
            (format!("{known}&{name}=x"), "request.repeated"),
            (known.replacen(name, "surprise", 1), "request.missing"),
            (known.replacen(value, &format!("{name}="), 1), "request.missing"),
        ] {
            let answer = form(path, &wrong).await;
            assert_eq!(place(&answer), (400, pointer.as_str(), code), "{path} {wrong}");
        }
        let more = "scope=&scope=a&client_id=&resource=a&resource=b&grant_type=password&a%2Fb=%00";
        let answer = form(path, &format!("{known}&{more}&{name}=")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.raw);
        assert_ne!(answer.body["active"], false, "{path}");
    }
    app.stop().await;
}

/// The forms of a one-time code.
fn typed(code: &str) -> Vec<String> {
    let (first, last) = code.split_at(3);
    let of = |zero: char| -> String {
        let digit = |digit: u32| char::from_u32(u32::from(zero) + digit).unwrap();
        code.chars().map(|c| digit(c.to_digit(10).unwrap())).collect()
    };
    let mut forms = vec![of('\u{ff10}'), of('\u{660}'), of('\u{6f0}'), of('\u{966}')];
    for between in [" ", "-", "\u{a0}", "\u{2009}", "\u{2013}", "\u{2212}", "\u{200b}", "\r\n"] {
        forms.push(format!("{first}{between}{last}"));
        forms.push(format!("{between}{code}{between}"));
    }
    forms
}

async fn codes(on: On) {
    let settings = vec![("limits.enabled", "false"), ("lockout.enabled", "false")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let (phone, recovery) = with_phone(&app, "ann@example.com").await;
    let anyone = app.anyone();
    for number in 0..typed("000000").len() {
        let code = typed(&phone.code(&app)).remove(number);
        let token = challenge(&anyone, "ann@example.com").await;
        let done = answer_with(&anyone, &token, "totp", &code).await;
        assert_eq!(done.status, StatusCode::OK, "{code:?}: {}", done.raw);
        // The same code in another form is the same code.
        let again = challenge(&anyone, "ann@example.com").await;
        let again = answer_with(&anyone, &again, "totp", &phone.code(&app)).await;
        assert_eq!(again.code(), "login.denied", "{code:?}: {}", again.raw);
        app.advance(STEP).await;
    }
    let forms: [fn(&str) -> String; 7] = [
        |code| code.replace('-', "\u{2013}"),
        |code| format!("{code}\n"),
        |code| format!("\u{feff}{}\r\n", code.to_uppercase()),
        |code| code.replace('-', " "),
        |code| code.replace('-', "\u{ad}\u{2011}"),
        |code| code.replace('-', "\n").replace('0', "O").replace('1', "l"),
        |code| {
            code.chars()
                .map(|c| {
                    if c.is_ascii_digit() {
                        char::from_u32(u32::from(c) + 0xfee0).unwrap()
                    } else {
                        c
                    }
                })
                .collect()
        },
    ];
    for (form, code) in forms.iter().zip(&recovery) {
        let token = challenge(&anyone, "ann@example.com").await;
        let done = answer_with(&anyone, &token, "recovery_code", &form(code)).await;
        assert_eq!(done.status, StatusCode::OK, "{:?}: {}", form(code), done.raw);
        let again = challenge(&anyone, "ann@example.com").await;
        let again = answer_with(&anyone, &again, "recovery_code", code).await;
        assert_eq!(again.code(), "login.denied", "{}", again.raw);
    }
    // Where either kind of code is accepted, six digits in any form are a one-time code.
    let token = challenge(&anyone, "ann@example.com").await;
    let code = phone.code(&app);
    let done = answer_with(&anyone, &token, "totp", &code).await;
    let mut ann = anyone.clone().with_token(done.text("access_token"));
    for number in [0, 4, 6] {
        app.advance(STEP).await;
        let code = typed(&phone.code(&app)).remove(number);
        let proved = ann.post("/api/v1/auth/reauthenticate", json!({ "code": code })).await;
        assert_eq!(proved.status, StatusCode::OK, "{code:?}: {}", proved.raw);
        ann = anyone.clone().with_token(proved.text("access_token"));
    }
    app.stop().await;
}

async fn secret(client: &Client<'_>) -> String {
    let made = client.act("/api/v1/users/me/totp").await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.raw);
    made.text("secret")
}

async fn confirm(client: &Client<'_>, secret: &str) -> Answer {
    let code = Phone::new(secret).code(client.app);
    client.post("/api/v1/users/me/totp/confirm", json!({ "code": code })).await
}

async fn twice(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let ann = ann(&app).await;
    let first = secret(&ann).await;
    assert_eq!(secret(&ann).await, first);
    // As a double click sends them.
    let (app_two, other) = (app.user("bob@example.com").await, app.token("bob@example.com").await);
    let all = join_all((0..6).map(|_| secret(&other))).await;
    assert!(all.iter().all(|one| *one == all[0] && *one != first), "{app_two}: {all:?}");
    let spaced = Phone::new(&first).code(&app);
    let spaced = format!("{} {}", &spaced[..3], &spaced[3..]);
    let confirm_path = "/api/v1/users/me/totp/confirm";
    let bad = ann.post(confirm_path, json!({ "code": "12345" })).await;
    assert_eq!(place(&bad), (422, "/code", "mfa.bad_code"));
    let done = ann.post(confirm_path, json!({ "code": spaced })).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    // What is confirmed is never shown again.
    let next = secret(&ann).await;
    assert_ne!(next, first);
    assert_eq!(secret(&ann).await, next);
    assert_eq!(confirm(&ann, &first).await.code(), "request.invalid");
    app.advance(STEP).await;
    let token = challenge(&app.anyone(), "ann@example.com").await;
    let code = Phone::new(&first).code(&app);
    let body = json!({ "mfa_token": token, "method": "totp", "code": code });
    assert_eq!(app.anyone().post(MFA, body).await.status, StatusCode::OK, "the first stays");
    app.stop().await;
}

async fn other_sessions(on: On) {
    let settings = vec![
        ("limits.enabled", "false"),
        ("sessions.fresh_for", "1h"),
        ("tokens.access_ttl", "1h"),
    ];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let ann = ann(&app).await;
    let first = secret(&ann).await;
    // Another session may be someone else's.
    let other = app.token("ann@example.com").await;
    let second = secret(&other).await;
    assert_ne!(second, first);
    assert_eq!(place(&confirm(&ann, &first).await).2, "mfa.wrong_code");
    let third = secret(&ann).await;
    assert!(third != first && third != second);
    // Two sessions at the same moment.
    let (one, two) = tokio::join!(secret(&ann), secret(&other));
    assert_ne!(one, two);
    // After a new proof of identity: the earlier credentials may have been stolen.
    let before = secret(&ann).await;
    app.advance(STEP).await;
    let proved = ann.post("/api/v1/auth/reauthenticate", json!({ "password": PASSWORD })).await;
    let ann = app.anyone().with_token(proved.text("access_token"));
    let after = secret(&ann).await;
    assert_ne!(before, after);
    // The first request leaves 15 minutes to confirm the secret, and after them there is another.
    app.advance(STEP * 29).await;
    let proved = app.anyone().login("ann@example.com").await;
    assert_eq!(proved.status, StatusCode::OK);
    let ann = app.anyone().with_token(proved.text("access_token"));
    let after = secret(&ann).await;
    for _ in 0..2 {
        app.advance(STEP * 14).await;
        assert_eq!(secret(&ann).await, after);
    }
    app.advance(STEP * 3).await;
    assert_eq!(confirm(&ann, &after).await.code(), "request.invalid");
    let late = secret(&ann).await;
    assert_ne!(late, after);
    app.advance(STEP * 28).await;
    assert_eq!(confirm(&ann, &late).await.status, StatusCode::OK);
    app.stop().await;
}
