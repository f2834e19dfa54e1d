//! Proving emails and recovering accounts by mail, and how not to.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::mailbox::{emails, newest_email, token};
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp};
use palisade_db::args;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

palisade::on_both! {
    asking_for_a_link_tells_nothing => |on| super::asking(on);
    a_link_works_once_and_dies_with_the_password => |on| super::links(on);
    a_stranger_who_registers_an_email_gains_nothing => |on| super::strangers(on);
    a_verifying_link_works_once => |on| super::verifying(on);
    an_email_outlives_a_mail_server_that_is_down => |on| super::server_down(on);
}

const FORGOT: &str = "/api/v1/auth/password/forgot";
const RESET: &str = "/api/v1/auth/password/reset";
const VERIFY: &str = "/api/v1/auth/verify-email";
const REGISTER: &str = "/api/v1/auth/register";
const NEW: &str = "five green kettles whistle";
const HOUR: Duration = Duration::from_secs(3600);

fn plan(more: &[(&'static str, &'static str)]) -> Plan {
    let mut settings = vec![("limits.enabled", "false")];
    settings.extend_from_slice(more);
    Plan { settings, ..Plan::default() }
}

async fn forgot(app: &TestApp, email: &str) -> Answer {
    app.anyone().post(FORGOT, json!({ "email": email })).await
}

async fn reset(app: &TestApp, token: &str, password: &str) -> Answer {
    app.anyone().post(RESET, json!({ "token": token, "password": password })).await
}

async fn sign_in(app: &TestApp, email: &str, password: &str) -> StatusCode {
    let body = json!({ "email": email, "password": password });
    app.anyone().post("/api/v1/auth/login", body).await.status
}

fn problem(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["errors"][0]["code"].as_str().unwrap_or(""))
}

async fn asking(on: On) {
    let app = TestApp::with(on, plan(&[])).await;
    app.user("ann@example.com").await;
    let gone = app.user("gone@example.com").await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    root.act(&format!("/api/v1/users/{gone}/disable")).await;
    let rows = || async {
        let (outbox, events): (i64, i64) = app
            .app
            .db
            .one(
                "select (select count(*) from outbox),
                    (select count(*) from audit_events where event = 'recovery.asked')",
                args![],
            )
            .await
            .unwrap();
        (outbox, events)
    };
    for (number, email) in (1..).zip(["nobody@example.com", "ann@example.com", "gone@example.com"])
    {
        let answer = forgot(&app, email).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.raw);
        assert_eq!(answer.body, json!({ "status": "accepted" }));
        assert_eq!(rows().await, (number, number), "{email}");
    }
    let sent = emails(&app).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].to, "ann@example.com");
    // What was typed is no email to send to.
    forgot(&app, "ANN@EXAMPLE.COM.").await;
    assert_eq!(newest_email(&app).await.to, "ann@example.com");
    let answer = forgot(&app, "no email").await;
    assert_eq!(problem(&answer), (422, "email.invalid"));
    app.stop().await;
}

async fn links(on: On) {
    let app = TestApp::with(on, plan(&[])).await;
    let id = app.user("ann@example.com").await;
    app.advance(HOUR).await;
    let ann = app.token("ann@example.com").await;
    forgot(&app, "ann@example.com").await;
    let first = token(&newest_email(&app).await);
    forgot(&app, "ann@example.com").await;
    let good = token(&newest_email(&app).await);
    assert_ne!(first, good);
    for bad in ["", "pal_rs_", &good.to_uppercase(), &good.replace("pal_rs_", "pal_vf_")] {
        let answer = reset(&app, bad, NEW).await;
        assert_eq!(answer.status.as_u16(), 422, "{bad}");
        assert_eq!(answer.body["errors"][0]["pointer"], "/token", "{bad}");
    }
    assert_eq!(problem(&reset(&app, &good, "short").await), (422, "password.too_short"));
    // A lock doesn't keep the owner from a new password, and is over with it.
    for _ in 0..5 {
        sign_in(&app, "ann@example.com", NEW).await;
    }
    let uses = join_all((0..32).map(|_| reset(&app, &good, NEW))).await;
    let done = uses.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{:?}", uses.iter().map(|answer| &answer.raw).collect::<Vec<_>>());
    assert!(uses.iter().all(|answer| !answer.headers.contains_key("set-cookie")));
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@example.com", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::OK);
    palisade::testing::recount(&app).await;
    let (verified,): (i64,) = app
        .app
        .db
        .one(
            "select count(*) from users where id = $1 and email_verified_at is not null",
            args![id],
        )
        .await
        .unwrap();
    assert_eq!(verified, 1, "who reads the mail has proved the email");
    for used in [&first, &good] {
        assert_eq!(problem(&reset(&app, used, NEW).await), (422, "recovery.bad_token"));
    }
    let notices = emails(&app).await;
    assert!(notices.iter().any(|notice| notice.subject.contains("was changed")), "{notices:?}");

    old_links(&app).await;
    let events = app.events().await;
    for event in ["recovery.asked", "recovery.link_made", "recovery.reset"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    app.stop().await;
}

/// A link from before a change of the password is dead, and so is one that is an hour old.
async fn old_links(app: &TestApp) {
    app.advance(HOUR).await;
    forgot(app, "ann@example.com").await;
    let before = token(&newest_email(app).await);
    app.advance(Duration::from_secs(1)).await;
    let answer = app
        .anyone()
        .post("/api/v1/auth/login", json!({ "email": "ann@example.com", "password": NEW }))
        .await;
    let ann = app.anyone().with_token(answer.text("access_token"));
    let change = json!({ "current_password": NEW, "new_password": PASSWORD });
    assert_eq!(ann.post("/api/v1/users/me/password", change).await.status, StatusCode::NO_CONTENT);
    assert_eq!(problem(&reset(app, &before, NEW).await), (422, "recovery.bad_token"));
    forgot(app, "ann@example.com").await;
    let old = token(&newest_email(app).await);
    app.advance(HOUR).await;
    assert_eq!(problem(&reset(app, &old, NEW).await), (422, "recovery.bad_token"));
    assert_eq!(sign_in(app, "ann@example.com", PASSWORD).await, StatusCode::OK);
}

const REQUIRED: &[(&str, &str)] = &[("registration.email_verification", "required")];

async fn register(app: &TestApp, email: &str, password: &str) -> (StatusCode, Value) {
    let answer = app.anyone().post(REGISTER, json!({ "email": email, "password": password })).await;
    (answer.status, answer.body)
}

async fn verify(app: &TestApp, token: &str, password: &str) -> Answer {
    app.anyone().post(VERIFY, json!({ "token": token, "password": password })).await
}

async fn strangers(on: On) {
    let app = TestApp::with(on, plan(REQUIRED)).await;
    let evil = "evil plans need long phrases";
    let accepted = (StatusCode::ACCEPTED, json!({ "status": "accepted" }));
    assert_eq!(register(&app, "ann@example.com", evil).await, accepted);
    let of_eve = token(&newest_email(&app).await);
    assert_eq!(register(&app, "ann@example.com", PASSWORD).await, accepted);
    let of_ann = token(&newest_email(&app).await);
    for password in [evil, PASSWORD] {
        let denied = sign_in(&app, "ann@example.com", password).await;
        assert_eq!(denied, StatusCode::UNAUTHORIZED, "nothing is there yet");
    }
    // The owner reads both emails, and knows one password.
    let answer = verify(&app, &of_eve, PASSWORD).await;
    assert_eq!(problem(&answer), (422, "registration.wrong_password"));
    assert_eq!(verify(&app, &of_ann, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(sign_in(&app, "ann@example.com", PASSWORD).await, StatusCode::OK);
    assert_eq!(sign_in(&app, "ann@example.com", evil).await, StatusCode::UNAUTHORIZED);
    assert_eq!(problem(&verify(&app, &of_eve, evil).await), (422, "registration.bad_token"));
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me").await.body["email_verified"], true);

    // From now on the email has an account, and its owner hears of further attempts.
    assert_eq!(register(&app, "Ann@example.com", evil).await, accepted);
    let word = newest_email(&app).await;
    assert!(
        word.subject.contains("You have an account") && !word.text.contains("#token="),
        "{word:?}"
    );
    assert_eq!(word.to, "ann@example.com");
    app.stop().await;
}

async fn verifying(on: On) {
    let app = TestApp::with(on, plan(REQUIRED)).await;
    register(&app, "ann@example.com", PASSWORD).await;
    let first = token(&newest_email(&app).await);
    let again = json!({ "email": "ann@example.com" });
    let answer = app.anyone().post("/api/v1/auth/verify-email/resend", again).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let link = token(&newest_email(&app).await);
    assert_eq!(problem(&verify(&app, &first, PASSWORD).await), (422, "registration.bad_token"));
    // No one who has the link can try passwords for ever.
    for _ in 0..5 {
        assert_eq!(verify(&app, &link, NEW).await.status.as_u16(), 422);
    }
    assert_eq!(verify(&app, &link, PASSWORD).await.code(), "lockout.locked");
    app.advance(Duration::from_secs(15 * 60)).await;
    let uses = join_all((0..12).map(|_| verify(&app, &link, PASSWORD))).await;
    let done = uses.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1);
    let (users,): (i64,) = app.app.db.one("select count(*) from users", args![]).await.unwrap();
    assert_eq!(users, 1);
    register(&app, "bob@example.com", PASSWORD).await;
    let late = token(&newest_email(&app).await);
    app.advance(24 * HOUR).await;
    assert_eq!(problem(&verify(&app, &late, PASSWORD).await), (422, "registration.bad_token"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_proof_is_optional_the_account_is_there_at_once() {
    let app =
        TestApp::with(On::Sqlite, plan(&[("registration.email_verification", "optional")])).await;
    register(&app, "ann@example.com", PASSWORD).await;
    let ann = app.token("ann@example.com").await;
    let me = || async { ann.get("/api/v1/users/me").await.body["email_verified"].clone() };
    assert_eq!(me().await, false);
    let link = token(&newest_email(&app).await);
    assert_eq!(verify(&app, &link, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(me().await, true);
    register(&app, "ann@example.com", NEW).await;
    assert!(newest_email(&app).await.subject.contains("You have an account"));
    assert_eq!(sign_in(&app, "ann@example.com", NEW).await, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_begin_with_the_public_url_whatever_a_request_says() {
    let app = TestApp::with(On::Sqlite, plan(&[])).await;
    app.user("ann@example.com").await;
    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "host=evil.example;proto=https"),
        ("origin", "https://evil.example"),
        ("referer", "https://evil.example/"),
        ("x-original-host", "evil.example"),
    ] {
        let call = Call::post(FORGOT, json!({ "email": "ann@example.com" })).header(name, value);
        assert_eq!(app.anyone().send(call).await.status, StatusCode::ACCEPTED, "{name}");
        let mail = newest_email(&app).await;
        assert!(
            mail.text.contains("\nhttp://localhost:8000/account/reset#token=pal_rs_"),
            "{mail:?}"
        );
        assert!(
            mail.html.contains(
                "href=\"http:&#x2f;&#x2f;localhost:8000&#x2f;account&#x2f;reset#token=pal_rs_"
            ),
            "{mail:?}"
        );
        assert!(!format!("{mail:?}").contains("evil"), "{name}");
    }
    app.stop().await;
}

async fn server_down(on: On) {
    // No one listens there.
    let down = [
        ("mail.smtp_url", "smtp://127.0.0.1:1"),
        ("mail.from", "Example <no-reply@example.com>"),
        ("registration.email_verification", "off"),
    ];
    let app = TestApp::with(on, plan(&down)).await;
    app.user("ann@example.com").await;
    assert_eq!(forgot(&app, "ann@example.com").await.status, StatusCode::ACCEPTED);
    let row = || async {
        let row: (i64, Option<String>, Option<Vec<u8>>) =
            app.app.db.one("select tries, problem, sealed from outbox", args![]).await.unwrap();
        row
    };
    let mut tried = row().await;
    for _ in 0..400 {
        if tried.1.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        tried = row().await;
    }
    assert_eq!(tried.0, 1);
    assert!(tried.1.as_deref().unwrap().contains("can't be reached"), "{tried:?}");
    let sealed = String::from_utf8_lossy(&tried.2.unwrap()).into_owned();
    assert!(!sealed.contains("ann"), "what waits can't be read");
    // Another process with a way out sends it when its time has come.
    let up = app.second_with(vec![("limits.enabled", "false")]).await;
    app.stop().await;
    up.advance(Duration::from_secs(60)).await;
    let mail = newest_email(&up).await;
    assert_eq!(reset(&up, &token(&mail), NEW).await.status, StatusCode::NO_CONTENT);
    let (sealed,): (i64,) = up
        .app
        .db
        .one(
            "select count(*) from outbox where sealed is not null and sent_at is not null",
            args![],
        )
        .await
        .unwrap();
    assert_eq!(sealed, 0, "what was sent is wiped");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mailbox_is_there_in_development_alone() {
    let app = TestApp::with(On::Sqlite, plan(&[])).await;
    app.user("ann@example.com").await;
    forgot(&app, "ann@example.com").await;
    newest_email(&app).await;
    let page = app.anyone().get("/mailbox").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.raw.contains("<a href=\"http://localhost:8000/account/reset#token=pal_rs_"),
        "{}",
        page.raw
    );
    // A foreign name that leads to this machine.
    let call = Call::new(axum::http::Method::GET, "/mailbox").header("host", "evil.example:8000");
    assert_eq!(app.anyone().send(call).await.status, StatusCode::NOT_FOUND);
    app.stop().await;
    let real = [("mail.smtp_url", "smtp://127.0.0.1:1"), ("mail.from", "no-reply@example.com")];
    let app = TestApp::with(On::Sqlite, plan(&real)).await;
    assert_eq!(app.anyone().get("/mailbox").await.status, StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exposed_development_server_shows_its_mailbox_to_its_own_machine_alone() {
    let app = TestApp::with(On::Sqlite, plan(&[("server.expose_development", "true")])).await;
    for (ip, status) in [
        ("127.0.0.1", StatusCode::OK),
        ("[::1]", StatusCode::OK),
        ("172.17.0.1", StatusCode::NOT_FOUND),
        ("198.51.100.7", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(app.anyone().from(ip).get("/mailbox").await.status, status, "{ip}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_shows_the_mailbox_to_other_machines() {
    for exposed in ["true", "false"] {
        let trusted = ("server.trusted_proxies", "127.0.0.0/8,192.168.0.0/16,203.0.113.0/24");
        let settings = [("server.expose_development", exposed), trusted];
        let app = TestApp::with(On::Sqlite, plan(&settings)).await;
        let client = app.anyone().from("127.0.0.1");
        let call = || Call::new(axum::http::Method::GET, "/mailbox");
        assert_eq!(client.send(call()).await.status, StatusCode::OK);
        for (name, value) in [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "127.0.0.1"),
            // Every hop is trusted, and the first is what the client wrote.
            ("x-forwarded-for", "127.0.0.1, 192.168.0.9"),
            ("forwarded", "for=127.0.0.1"),
            ("forwarded", "for=_hidden"),
            ("x-forwarded-host", "app.example.com"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "127.0.0.1"),
            ("via", "1.1 proxy"),
        ] {
            for ip in ["127.0.0.1", "203.0.113.4"] {
                let status = app.anyone().from(ip).send(call().header(name, value)).await.status;
                assert_eq!(status, StatusCode::NOT_FOUND, "{ip}, {name}: {value}, {exposed}");
            }
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_hears_of_a_lock_once() {
    let app = TestApp::with(On::Sqlite, plan(&[])).await;
    app.user("ann@example.com").await;
    for _ in 0..20 {
        sign_in(&app, "ann@example.com", NEW).await;
        sign_in(&app, "nobody@example.com", NEW).await;
    }
    let sent = emails(&app).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(
        sent[0].subject.contains("paused") && sent[0].text.contains("until 2030-03-17 18:01 UTC."),
        "{sent:?}"
    );
    app.stop().await;
}

/// The operator's own words replace ours, and a mistake in them stops the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_templates_replace_the_built_in_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path: &'static str = directory.path().to_str().unwrap().to_owned().leak();
    let text = "Subject: Hello from {{ site }}\n\nHere: {{ link }}\n";
    std::fs::write(directory.path().join("recovery_reset.txt"), text).unwrap();
    let app = TestApp::with(On::Sqlite, plan(&[("mail.templates", path)])).await;
    app.user("ann@example.com").await;
    forgot(&app, "ann@example.com").await;
    let mail = newest_email(&app).await;
    assert_eq!(mail.subject, "Hello from localhost");
    assert!(mail.text.starts_with("Here: http://localhost:8000/account/reset#token="));
    assert!(mail.html.contains("Choose a new password"), "the other form is still ours");
    app.stop().await;
}

/// Someone between us and the mail server could take the offer of TLS away; the email then waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_email_waits_for_a_server_that_offers_no_tls() {
    // Not one of loopback's names, so that it counts as a server elsewhere.
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url: &'static str = format!("smtp://u:p@{}", listener.local_addr().unwrap()).leak();
    let server = tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        let mut connection = tokio::io::BufReader::new(connection);
        let mut said = Vec::new();
        connection.write_all(b"220 mail.example.com\r\n").await.unwrap();
        let mut line = String::new();
        while connection.read_line(&mut line).await.unwrap_or(0) > 0 {
            let hello = line.starts_with("EHLO");
            said.push(std::mem::take(&mut line));
            let answer: &[u8] = if hello {
                b"250-mail.example.com\r\n250 AUTH PLAIN LOGIN\r\n"
            } else {
                b"250 ok\r\n"
            };
            if connection.write_all(answer).await.is_err() {
                break;
            }
        }
        said
    });
    let real = [("mail.smtp_url", url), ("mail.from", "no-reply@example.com")];
    let app = TestApp::with(On::Sqlite, plan(&real)).await;
    app.user("ann@example.com").await;
    forgot(&app, "ann@example.com").await;
    let said = server.await.unwrap();
    assert!(said[0].starts_with("EHLO"), "{said:?}");
    assert!(
        !said.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")),
        "{said:?}"
    );
    let (waiting,): (i64,) =
        app.app.db.one("select count(*) from outbox where sent_at is null", args![]).await.unwrap();
    assert_eq!(waiting, 1);
    app.stop().await;
}
