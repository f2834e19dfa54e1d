//! Signing in, registering and setting up, as someone would who shouldn't.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use palisade::app::{Actor, Hold};
use palisade::sessions::Transport;
use palisade::settings::TokenFormat;
use palisade::testing::{Call, On, PASSWORD, Plan, TestApp};
use palisade::users::{ADMIN, Email, NewUser};
use palisade::{login, passwords, registration, users};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::json;

palisade::on_both! {
    one_refusal_for_every_reason => |on| super::one_refusal(on);
    a_sign_in_that_races_with_a_change_is_refused => |on| super::racing(on);
    a_setup_link_makes_one_administrator => |on| super::setup(on);
    set_up_waits_for_another_set_up => |on| super::setup_waits(on);
    an_old_hash_is_replaced_at_sign_in => |on| super::upgrade(on);
    hashes_swapped_between_users_open_nothing => |on| super::swapped(on);
    a_known_email_registers_like_an_unknown_one => |on| super::register(on);
}

const ME: &str = "/api/v1/users/me";
const OTHER: &str = "five green kettles whistle";

async fn one_refusal(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    app.admin("root@example.com").await;
    let gone = app.user("gone@example.com").await;
    let root = app.token("root@example.com").await;
    root.act(&format!("/api/v1/users/{gone}/disable")).await;
    let attempt = |email: &'static str, password: &'static str| {
        let body = json!({ "email": email, "password": password });
        let anyone = app.anyone();
        async move { anyone.post("/api/v1/auth/login", body).await.shown() }
    };
    let expected = attempt("nobody@example.com", PASSWORD).await;
    assert_eq!(expected.0, StatusCode::UNAUTHORIZED);
    assert!(expected.1.contains(r#""code":"login.denied""#), "{}", expected.1);
    app.user("locked@example.com").await;
    for _ in 0..5 {
        attempt("locked@example.com", OTHER).await;
    }
    for (email, password) in [
        ("locked@example.com", PASSWORD),
        ("ann@example.com", OTHER),
        ("ann@example.com", ""),
        ("gone@example.com", PASSWORD),
        ("gone@example.com", OTHER),
        ("not an email", PASSWORD),
        ("", ""),
    ] {
        assert_eq!(attempt(email, password).await, expected, "{email}");
    }
    let denied = app.events().await.iter().filter(|event| *event == "login.denied").count();
    assert_eq!(denied, 13);
    app.stop().await;
}

/// A hash takes so long that time tells from afar whether one was computed. They are counted here: on a busy machine
/// a sign-in without one takes as long. That each takes as long as any other, `palisade_crypto::password` sees to.
#[tokio::test]
async fn an_unknown_email_costs_a_hash() {
    let settings = vec![("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let costs = |email: &'static str, password: &'static str| {
        let app = &app;
        async move {
            let before = passwords::hashes_asked_for(&app.app);
            let body = json!({ "email": email, "password": password });
            let answer = app.anyone().post("/api/v1/auth/login", body).await;
            assert_eq!(answer.code(), "login.denied", "{}", answer.raw);
            passwords::hashes_asked_for(&app.app) - before
        }
    };
    for number in 0..8 {
        for email in ["ann@example.com", "nobody@example.com", "no email at all"] {
            assert_eq!(costs(email, OTHER).await, 1, "{email}, {number}");
        }
    }
    // It is locked by the guesses.
    assert_eq!(costs("ann@example.com", PASSWORD).await, 1);
    app.stop().await;
}

/// Fills one IP address's places with hashes that take long, then takes the database away: only who gets a turn
/// notices.
#[tokio::test]
async fn a_sign_in_without_a_turn_reads_nothing() {
    let settings = vec![
        ("limits.enabled", "false"),
        ("passwords.cost", "custom"),
        ("passwords.argon2_memory", "64MiB"),
        ("passwords.argon2_passes", "16"),
        ("passwords.argon2_lanes", "1"),
    ];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let sign_in = |last: u8| {
        let app = app.app.clone();
        let actor = Actor { ip: Some([192, 0, 2, last].into()), ..Actor::default() };
        async move {
            let attempt = login::Attempt {
                email: "nobody@example.com".to_owned(),
                password: OTHER.into(),
                device_token: None,
                wanted: login::Wanted {
                    device_name: None,
                    format: TokenFormat::Jwt,
                    transport: Transport::Token,
                },
                challenge_cookie: None,
                browser: false,
            };
            login::sign_in(&app, &actor, attempt).await.map(drop).map_err(|error| error.code())
        }
    };
    let slot = passwords::QueueSlot::of(Some([192, 0, 2, 1].into()));
    let mut flood = tokio::task::JoinSet::new();
    // More than may wait, so that a place that falls free is taken again.
    for _ in 0..100 * std::thread::available_parallelism().unwrap().get() {
        let app = app.app.clone();
        flood.spawn(async move {
            loop {
                let _ = passwords::verify(&app, slot, None, &OTHER.into()).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    while passwords::check_capacity(&app.app, slot).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    app.app.db.close().await;
    let mut busy = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        busy += usize::from(sign_in(1).await == Err("passwords.busy"));
        assert_ne!(sign_in(2).await, Err("passwords.busy"));
    }
    // A place may fall free and be taken in between.
    assert!(busy >= 10, "{busy} of 20 were refused before a look-up");
    flood.abort_all();
}

async fn racing(on: On) {
    let settings = vec![("limits.enabled", "false")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    for round in 0..8 {
        let email = format!("user{round}@example.com");
        let id = app.user(&email).await;
        let path = format!("/api/v1/users/{id}/disable");
        let slow = async {
            tokio::time::sleep(Duration::from_millis(round * 6)).await;
            root.act(&path).await
        };
        let anyone = app.anyone();
        let (answer, disabled) = tokio::join!(anyone.login(&email), slow);
        assert_eq!(disabled.status, StatusCode::NO_CONTENT);
        if answer.status == StatusCode::OK {
            let late = app.anyone().with_token(answer.text("access_token"));
            assert_eq!(late.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
        }
        let (alive,): (i64,) = app
            .app
            .db
            .one("select count(*) from sessions where user_id = $1 and ended_at is null", args![id])
            .await
            .unwrap();
        assert_eq!(alive, 0, "round {round}");
    }
    for round in 0..8 {
        let email = format!("changer{round}@example.com");
        app.user(&email).await;
        let ann = app.token(&email).await;
        let body = json!({ "current_password": PASSWORD, "new_password": OTHER });
        let path = "/api/v1/users/me/password";
        let login = async {
            tokio::time::sleep(Duration::from_millis(round * 12)).await;
            app.anyone().login(&email).await
        };
        let (answer, changed) = tokio::join!(login, ann.post(path, body));
        assert_eq!(changed.status, StatusCode::NO_CONTENT, "{}", changed.raw);
        if answer.status == StatusCode::OK {
            let late = app.anyone().with_token(answer.text("access_token"));
            assert_eq!(late.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    }
    app.stop().await;
}

fn token_of(link: &str) -> String {
    link.split_once("#token=").unwrap().1.to_owned()
}

async fn setup(on: On) {
    let app = TestApp::on(on).await;
    let link = || async {
        let link = registration::setup_link(&app.app, &Actor::operator()).await.unwrap();
        assert!(link.expose().starts_with("http://localhost:8000/setup#token="));
        token_of(link.expose())
    };
    let body =
        |token: &str, email: &str| json!({ "token": token, "email": email, "password": PASSWORD });
    let anyone = app.anyone();
    let replaced = link().await;
    let expired = link().await;
    let answer = anyone.post("/api/v1/setup", body(&replaced, "a@example.com")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["errors"][0]["code"]),
        (422, &json!("setup.bad_token"))
    );
    app.advance(Duration::from_secs(30 * 60 + 1)).await;
    let answer = anyone.post("/api/v1/setup", body(&expired, "a@example.com")).await;
    assert_eq!(answer.status.as_u16(), 422);
    let weak =
        json!({ "token": link().await, "email": "nonsense", "password": "short", "name": "" });
    let answer = anyone.post("/api/v1/setup", weak).await;
    let wrong: Vec<&str> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(wrong, ["/email", "/password", "/name"], "{}", answer.raw);
    assert_eq!(anyone.get("/setup").await.status, StatusCode::OK);

    let good = link().await;
    let attempts = (0..15).map(|number| {
        let body = body(&good, &format!("admin{number}@example.com"));
        let client = app.anyone().from(&format!("203.0.113.{number}"));
        async move { client.post("/api/v1/setup", body).await }
    });
    let answers = join_all(attempts).await;
    let made = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(made, 1, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    let (admins,): (i64,) = app.app.db.one("select count(*) from users", args![]).await.unwrap();
    assert_eq!(admins, 1);
    let answer = anyone.post("/api/v1/setup", body(&good, "late@example.com")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::GONE, "setup.done"));
    let page = anyone.get("/setup").await;
    assert_eq!(page.status, StatusCode::GONE);
    assert!(page.raw.contains("already set up") && !page.raw.contains("<form"), "{}", page.raw);
    let none = registration::setup_link(&app.app, &Actor::operator()).await;
    assert_eq!(none.unwrap_err().code(), "setup.done");
    app.stop().await;
}

/// What another process is about to do is waited for: a link that it makes, and the first administrator.
async fn setup_waits(on: On) {
    let app = TestApp::on(on).await;
    let other = app.second().await;
    let operator = Actor::operator();
    let holds = [Hold::Administrators];
    let mut change = other.app.change_holding(&operator, &holds).await.unwrap();
    let now = change.now();
    let sql = "insert into setup_links (digest, expires_at) values ($1, $2)";
    let until = now.plus(Duration::from_secs(60));
    change.run(sql, args![vec![1_u8; 32], until]).await.unwrap();
    let finish = async {
        until_one_waits(&app.app.db).await;
        change.commit_quietly("a test").await.unwrap();
    };
    let (link, ()) = tokio::join!(registration::setup_link(&app.app, &operator), finish);
    let token = token_of(link.unwrap().expose());
    let sql = "select count(*) from setup_links";
    let (links,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
    assert_eq!(links, 1, "the newest one alone");

    // A link that is good, while another one makes the administrator.
    let mut change = other.app.change_holding(&operator, &holds).await.unwrap();
    let new = NewUser {
        id: None,
        verified: false,
        email: Email::parse("first@example.com").unwrap(),
        name: None,
        roles: vec![ADMIN.to_owned()],
        service: false,
    };
    users::create(&mut change, &new).await.unwrap().unwrap();
    let finish = async {
        until_one_waits(&app.app.db).await;
        change.commit_quietly("a test").await.unwrap();
    };
    let body = json!({ "token": token, "email": "second@example.com", "password": PASSWORD });
    let anyone = app.anyone();
    let (answer, ()) = tokio::join!(anyone.post("/api/v1/setup", body), finish);
    assert_eq!((answer.status, answer.code()), (StatusCode::GONE, "setup.done"));
    let (users,): (i64,) = app.app.db.one("select count(*) from users", args![]).await.unwrap();
    assert_eq!(users, 1);
    other.stop().await;
    app.stop().await;
}

async fn upgrade(on: On) {
    let settings = vec![("passwords.algorithm", "bcrypt"), ("passwords.bcrypt_cost", "10")];
    let old = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    old.user("ann@example.com").await;
    let sealed = || async {
        let row: (Vec<u8>,) =
            old.app.db.one("select sealed from passwords", args![]).await.unwrap();
        row.0
    };
    let before = sealed().await;
    assert_eq!(old.anyone().login("ann@example.com").await.status, StatusCode::OK);
    assert_eq!(sealed().await, before, "at its own cost it stays");
    let new = old.second_with(vec![]).await;
    let wrong = json!({ "email": "ann@example.com", "password": OTHER });
    assert_eq!(new.anyone().post("/api/v1/auth/login", wrong).await.code(), "login.denied");
    assert_eq!(sealed().await, before, "a wrong password upgrades nothing");
    assert_eq!(new.anyone().login("ann@example.com").await.status, StatusCode::OK);
    let after = sealed().await;
    assert_ne!(after, before);
    assert_eq!(new.anyone().login("ann@example.com").await.status, StatusCode::OK);
    assert_eq!(sealed().await, after);
    new.stop().await;
    old.stop().await;
}

async fn swapped(on: On) {
    let app = TestApp::on(on).await;
    let ann = app.user("ann@example.com").await;
    let eve = app.user("eve@example.com").await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let (of_eve,): (Vec<u8>,) =
        tx.one("select sealed from passwords where user_id = $1", args![eve]).await.unwrap();
    tx.run("update passwords set sealed = $2 where user_id = $1", args![ann, of_eve])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.code(), "server.internal");
    assert_eq!(app.anyone().login("eve@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

async fn register(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let attempt = |email: &'static str| {
        let body = json!({ "email": email, "password": OTHER });
        let anyone = app.anyone();
        async move { anyone.post("/api/v1/auth/register", body).await.shown() }
    };
    let unknown = attempt("new@example.com").await;
    assert_eq!(unknown.0, StatusCode::ACCEPTED);
    for same in ["ann@example.com", "ANN@Example.com", "ann@example.com."] {
        assert_eq!(attempt(same).await, unknown, "{same}");
    }
    // The account of the email's owner is as it was.
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    let (users,): (i64,) = app.app.db.one("select count(*) from users", args![]).await.unwrap();
    assert_eq!(users, 2);
    for field in ["role", "roles", "email_verified", "id", "disabled", "created_at", "permissions"]
    {
        let mut body = json!({ "email": "eve@example.com", "password": OTHER });
        body[field] = json!("admin");
        let answer = app.anyone().post("/api/v1/auth/register", body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["errors"][0]["pointer"], format!("/{field}"));
        let ann = app.token("ann@example.com").await;
        let call = Call::new(Method::PATCH, "/api/v1/users/me").json(json!({ field: "admin" }));
        assert_eq!(ann.send(call).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    app.stop().await;
}

#[tokio::test]
async fn closed_registration_lets_nobody_in() {
    let settings = vec![("registration.mode", "closed")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = app.anyone().post("/api/v1/auth/register", body).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "registration.closed"));
    app.stop().await;
}

#[tokio::test]
async fn a_password_is_refused_with_the_rule_that_it_breaks() {
    let settings = vec![("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let attempt = |password: String, name: Option<&'static str>| {
        let mut body = json!({ "email": "lindworm@example.com", "password": password });
        if let Some(name) = name {
            body["name"] = name.into();
        }
        let anyone = app.anyone();
        async move {
            let answer = anyone.post("/api/v1/auth/register", body).await;
            let code = answer.body["errors"][0]["code"].as_str().map(str::to_owned);
            if code.is_some() {
                assert_eq!(answer.body["errors"][0]["pointer"], "/password", "{}", answer.raw);
            }
            code.unwrap_or_else(|| answer.status.as_str().to_owned())
        }
    };
    assert_eq!(attempt("fourteen chars".into(), None).await, "password.too_short");
    assert_eq!(
        attempt("\u{1f427}\u{1f40b} wobble 12345".repeat(9), None).await,
        "password.too_long"
    );
    assert_eq!(attempt("x".repeat(600), None).await, "password.too_long");
    assert_eq!(attempt("aaaaaaaaaaaaaaaaaaaa".into(), None).await, "password.too_weak");
    assert_eq!(attempt("123456789012345678".into(), None).await, "password.too_weak");
    assert_eq!(attempt("passwordpassword".into(), None).await, "password.blocklisted");
    assert_eq!(attempt("palisadepalisade1".into(), None).await, "password.blocklisted");
    assert_eq!(attempt("lindworm-lindworm-99".into(), None).await, "password.blocklisted");
    assert_eq!(
        attempt("Wolpertinger 2026!".into(), Some("Wolpertinger")).await,
        "password.blocklisted"
    );
    assert_eq!(attempt("seven purple\0teapots orbit".into(), None).await, "password.invalid");
    // No composition rules: plain words, spaces, other scripts.
    assert_eq!(attempt("mossy lantern drifts inland".into(), None).await, "202");
    assert_eq!(attempt("\u{43f}\u{443}\u{441}\u{442}\u{43e}\u{439} \u{43a}\u{43e}\u{441}\u{442}\u{451}\u{440} \u{43d}\u{430}\u{434} \u{43c}\u{43e}\u{440}\u{435}\u{43c}".into(), None).await, "202");
    app.stop().await;
}

#[tokio::test]
async fn a_password_is_compared_whole_and_only_normalised() {
    let app = TestApp::on(On::Sqlite).await;
    let long = "quiet otters juggle brass compasses while rain hammers tin roofs in Valpara\u{ed}so tonight";
    let body = json!({ "email": "ann@example.com", "password": long });
    assert_eq!(app.anyone().post("/api/v1/auth/register", body).await.status.as_u16(), 202);
    let sign_in = |password: String| {
        let body = json!({ "email": "ann@example.com", "password": password });
        let anyone = app.anyone();
        async move { anyone.post("/api/v1/auth/login", body).await.status.as_u16() }
    };
    assert_eq!(sign_in(long.into()).await, 200);
    assert_eq!(sign_in(long.replace('\u{ed}', "i\u{301}")).await, 200, "composed otherwise");
    assert_eq!(sign_in(long.replace("tonight", "tonighT")).await, 401);
    assert_eq!(sign_in(format!("{long} ")).await, 401);
    assert_eq!(sign_in(long.to_lowercase()).await, 401);
    assert_eq!(sign_in(long.chars().take(72).collect()).await, 401);
    app.stop().await;
}

#[tokio::test]
async fn a_wrong_current_password_is_named_and_counted() {
    let settings = vec![("lockout.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "current_password": OTHER, "new_password": "mossy lantern drifts inland" });
    for _ in 0..10 {
        let answer = ann.post("/api/v1/users/me/password", body.clone()).await;
        assert_eq!(answer.status.as_u16(), 422);
        assert_eq!(answer.body["errors"][0]["pointer"], "/current_password");
    }
    // Counted before it is judged: even the right one comes too late now.
    let right = json!({ "current_password": PASSWORD, "new_password": OTHER });
    for body in [body, right] {
        let answer = ann.post("/api/v1/users/me/password", body).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(app.events().await.iter().filter(|e| *e == "passwords.wrong").count(), 10);
    app.stop().await;
}

#[tokio::test]
async fn a_session_cookie_is_closed_to_scripts_and_other_sites() {
    let cookie = |settings: Vec<(&'static str, &'static str)>| async {
        let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
        app.user("ann@example.com").await;
        let body =
            json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
        let planted = app.anyone().with_cookie("palisade-8000=planted; __Host-palisade=planted");
        let call = Call::post("/api/v1/auth/login", body.clone());
        assert_eq!(planted.send(call).await.code(), "access.cross_site", "login from elsewhere");
        let answer = planted.send(Call::post("/api/v1/auth/login", body).same_origin()).await;
        assert!(!answer.raw.contains("pal_"), "{}", answer.raw);
        let keys: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["expires_in", "session_id"]);
        let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        assert!(!set.contains("planted"));
        app.stop().await;
        set
    };
    let plain = cookie(vec![]).await;
    assert!(plain.starts_with("palisade-8000=pal_sc_"), "{plain}");
    let secure = cookie(vec![("server.public_url", "https://app.example.com")]).await;
    assert!(secure.starts_with("__Host-palisade=pal_sc_"), "{secure}");
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax"] {
        assert!(plain.contains(part) && secure.contains(part), "{part}");
    }
    assert!(secure.contains("; Secure") && !plain.contains("; Secure"));
    assert!(!secure.contains("Domain"));
}

/// A client that shows two credentials means both: the bad one is never overlooked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_bad_token_a_good_cookie_opens_nothing() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    let ann = app.browser("ann@example.com").await;
    assert_eq!(ann.get(ME).await.status, StatusCode::OK);
    let good = app.token("ann@example.com").await.bearer.unwrap();
    for bad in [format!("{good}x"), "pal_ak_0".to_owned(), "a.b.c".to_owned(), String::new()] {
        let answer = ann.clone().with_token(bad.clone()).get(ME).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
        assert_eq!(answer.code(), "access.invalid_token", "{bad}");
    }
    let other = ann.get(ME).await;
    assert_eq!(other.status, StatusCode::OK, "the cookie was ended by it");
    app.stop().await;
}

#[tokio::test]
async fn a_bad_token_beside_a_good_cookie_is_refused() {
    let app = TestApp::on(On::Sqlite).await;
    app.user("ann@example.com").await;
    let browser = app.browser("ann@example.com").await;
    assert_eq!(browser.get(ME).await.status, StatusCode::OK);
    let refused = browser.with_token("no.access.token").get(ME).await;
    assert_eq!(refused.code(), "access.invalid_token");
    app.stop().await;
}
