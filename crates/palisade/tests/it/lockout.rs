//! Guessing passwords: how many are judged, whom that locks out and whom not.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::app::Actor;
use palisade::id::UserId;
use palisade::lockout::{self, Account, Admission, Device, Guess};
use palisade::login;
use palisade::sessions::Transport;
use palisade::settings::TokenFormat;
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, unlimited};
use palisade_db::args;
use serde_json::{Value, json};
use uuid::Uuid;

palisade::on_both! {
    parallel_guesses_get_no_more_than_the_budget => |on| super::parallel(on);
    a_lock_is_no_weapon_against_a_known_device => |on| super::known(on);
    devices_of_an_earlier_password_share_one_count => |on| super::former(on);
    a_device_of_another_account_is_a_stranger => |on| super::strangers(on);
    a_lock_survives_restarts_and_holds_on_every_process => |on| super::restarts(on);
    an_administrator_sees_and_lifts_a_lock => |on| super::unlocking(on);
    a_hundred_in_a_row_lock_for_good => |on| super::for_good(on);
    a_guess_that_was_never_judged_is_given_back => |on| super::given_back(on);
    the_guess_that_reaches_the_bound_locks => |on| super::at_the_bound(on);
    a_lock_for_good_outlives_the_memory_of_devices => |on| super::outlives(on);
    rows_that_expired_are_deleted_in_batches => |on| super::batches(on);
    a_lock_of_a_wrong_clock_is_not_shown => |on| super::wrong_clock(on);
    a_guess_that_reached_the_bound_and_was_lost_locks => |on| super::lost(on);
    no_sign_in_reaches_the_count_of_a_link => |on| super::links(on);
}

const LOGIN: &str = "/api/v1/auth/login";
const WRONG: &str = "five green kettles whistle";
const MINUTE: Duration = Duration::from_secs(60);

async fn guess(client: &Client<'_>, email: &str, password: &str) -> Answer {
    client.post(LOGIN, json!({ "email": email, "password": password })).await
}

async fn guess_from(client: &Client<'_>, email: &str, password: &str, device: &str) -> Answer {
    let body = json!({ "email": email, "password": password, "device_token": device });
    client.post(LOGIN, body).await
}

async fn lock(app: &TestApp, email: &str) {
    for _ in 0..5 {
        assert_eq!(guess(&app.anyone(), email, WRONG).await.code(), "login.denied");
    }
}

/// How many refusals the log gives this reason for.
async fn refusals(app: &TestApp, reason: &str) -> i64 {
    let (count,): (i64,) = app
        .app
        .db
        .one(
            "select count(*) from audit_events where event = 'login.denied' and record like $1",
            args![format!("%{reason}%")],
        )
        .await
        .unwrap();
    count
}

async fn parallel(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let other = app.second().await;
    let mut answered = 0;
    for round in 0..10 {
        // Each from another IP address or another /64 network, half of them at another process.
        let guesses = (0..50).map(|number| {
            let at = if number % 2 == 0 { &app } else { &other };
            let ip = if number % 4 < 2 {
                format!("203.0.{round}.{number}")
            } else {
                format!("[2001:db8:{round}:{number}::1]")
            };
            let client = at.anyone().from(&ip);
            async move { guess(&client, "ann@example.com", WRONG).await }
        });
        let answers = join_all(guesses).await;
        answered += answers.iter().filter(|answer| answer.code() == "login.denied").count();
    }
    assert_eq!(answered, 500);
    assert_eq!(refusals(&app, "wrong_password").await, 5);
    assert_eq!(refusals(&app, "locked").await, 495);
    // Not even the right one.
    let right = guess(&app.anyone().from("198.51.100.99"), "ann@example.com", PASSWORD).await;
    assert_eq!((right.status, right.code()), (StatusCode::UNAUTHORIZED, "login.denied"));
    assert!(app.events().await.contains(&"lockout.locked".to_owned()));
    other.stop().await;
    app.stop().await;
}

async fn known(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let device = first.text("device_token");
    let cookie_body =
        json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let in_browser = app.anyone().send(Call::post(LOGIN, cookie_body.clone()).same_origin()).await;
    let cookies: Vec<&str> =
        in_browser.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    let of_device =
        cookies.iter().find(|cookie| cookie.starts_with("palisade-device-8000=")).unwrap();
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Max-Age=15552000"] {
        assert!(of_device.contains(part), "{of_device}");
    }

    lock(&app, "ann@example.com").await;
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    let again = guess_from(&app.anyone(), "ann@example.com", PASSWORD, &device).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.raw);
    let browser = app.anyone().with_cookie(of_device.split(';').next().unwrap());
    let answer = browser.send(Call::post(LOGIN, cookie_body).same_origin()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);

    // Neither a session nor its refresh is touched by a lock.
    let ann = app.anyone().with_token(first.text("access_token"));
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    let refresh = json!({ "refresh_token": first.text("refresh_token") });
    assert_eq!(app.anyone().post("/api/v1/auth/refresh", refresh).await.status, StatusCode::OK);

    // It has a small budget of its own, and using it up locks no one else.
    for _ in 0..5 {
        guess_from(&app.anyone(), "ann@example.com", WRONG, &device).await;
    }
    let late = guess_from(&app.anyone(), "ann@example.com", PASSWORD, &device).await;
    assert_eq!(late.code(), "login.denied");
    app.advance(15 * MINUTE).await;
    let late = guess_from(&app.anyone(), "ann@example.com", PASSWORD, &device).await;
    assert_eq!(late.status, StatusCode::OK);
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

/// Someone who knew the password made a hundred devices known before it was changed.
async fn former(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let mut devices = Vec::new();
    for _ in 0..12 {
        devices.push(app.anyone().login("ann@example.com").await.text("device_token"));
    }
    app.advance(Duration::from_secs(1)).await;
    let ann = app.token("ann@example.com").await;
    let new = "mossy lantern drifts inland";
    let body = json!({ "current_password": PASSWORD, "new_password": new });
    assert_eq!(ann.post("/api/v1/users/me/password", body).await.status, StatusCode::NO_CONTENT);
    app.advance(Duration::from_secs(1)).await;
    for device in &devices {
        let answer = guess_from(&app.anyone(), "ann@example.com", WRONG, device).await;
        assert_eq!(answer.code(), "login.denied", "{}", answer.raw);
    }
    assert_eq!(refusals(&app, "wrong_password").await, 5, "one budget for all of them");
    assert_eq!(refusals(&app, "locked").await, 7);
    // Neither the owner's new device nor strangers are refused for that.
    let fresh = guess(&app.anyone(), "ann@example.com", new).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);
    let known = fresh.text("device_token");
    let again = guess_from(&app.anyone(), "ann@example.com", new, &known).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.raw);
    app.stop().await;
}

async fn strangers(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    app.user("eve@example.com").await;
    let of_ann = app.anyone().login("ann@example.com").await.text("device_token");
    let of_eve = app.anyone().login("eve@example.com").await.text("device_token");
    lock(&app, "ann@example.com").await;
    let mut strange =
        vec![of_eve, String::new(), of_ann.to_uppercase(), format!("{of_ann}A"), "x".repeat(1000)];
    for at in [7, 20, 60, of_ann.len() - 1] {
        let other = if of_ann.as_bytes()[at] == b'A' { "B" } else { "A" };
        strange.push(format!("{}{other}{}", &of_ann[..at], &of_ann[at + 1..]));
    }
    for token in &strange {
        let answer = guess_from(&app.anyone(), "ann@example.com", PASSWORD, token).await;
        assert_eq!(answer.code(), "login.denied", "{token}");
    }
    let answer = guess_from(&app.anyone(), "ann@example.com", PASSWORD, &of_ann).await;
    assert_eq!(answer.status, StatusCode::OK);
    // A device that was away for too long is a stranger too.
    app.advance(lockout::KNOWN_FOR).await;
    assert_eq!(Device::open(&app.app, &of_ann), None);
    app.stop().await;
}

async fn restarts(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    for _ in 0..3 {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
    }
    let second = app.second().await;
    for _ in 0..2 {
        guess(&second.anyone(), "ann@example.com", WRONG).await;
    }
    second.stop().await;
    let third = app.second().await;
    for at in [&app, &third] {
        assert_eq!(at.anyone().login("ann@example.com").await.code(), "login.denied");
    }
    app.advance(15 * MINUTE).await;
    assert_eq!(third.anyone().login("ann@example.com").await.status, StatusCode::OK);
    third.stop().await;
    app.stop().await;
}

async fn unlocking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    app.admin("root@example.com").await;
    let ann = app.token("ann@example.com").await;
    let root = app.token("root@example.com").await;
    let seen = |answer: Answer| answer.body["locked_until"].clone();
    let path = format!("/api/v1/users/{id}");
    assert_eq!(seen(root.get(&path).await), Value::Null);
    lock(&app, "ann@example.com").await;
    let until = seen(root.get(&path).await);
    assert!(until.is_string(), "{until}");
    assert_eq!(seen(ann.get("/api/v1/users/me").await), until);
    assert_eq!(root.act(&format!("{path}/unlock")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(seen(root.get(&path).await), Value::Null);
    assert_eq!(seen(ann.get("/api/v1/users/me").await), Value::Null);
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    assert!(app.events().await.contains(&"lockout.unlocked".to_owned()));
    // What was seen ends by itself too.
    lock(&app, "ann@example.com").await;
    app.advance(5 * MINUTE).await;
    assert!(seen(ann.get("/api/v1/users/me").await).is_string());
    app.advance(5 * MINUTE).await;
    assert!(seen(ann.get("/api/v1/users/me").await).is_string());
    let nobody = UserId(app.app.new_id());
    let root = app.token("root@example.com").await;
    let answer = root.act(&format!("/api/v1/users/{nobody}/unlock")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    app.stop().await;
}

async fn for_good(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let device = app.anyone().login("ann@example.com").await.text("device_token");
    for _ in 0..20 {
        lock(&app, "ann@example.com").await;
        app.clock.advance(Duration::from_secs(24 * 3600));
        app.catch_up().await;
    }
    assert_eq!(refusals(&app, "wrong_password").await, 100);
    app.advance(Duration::from_secs(60 * 24 * 3600)).await;
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    let answer = guess_from(&app.anyone(), "ann@example.com", PASSWORD, &device).await;
    assert_eq!(answer.status, StatusCode::OK, "a known device still gets in");
    let ann = app.anyone().with_token(answer.text("access_token"));
    let me = ann.get("/api/v1/users/me").await;
    assert_eq!(me.body["locked_until"], "9999-12-31T23:59:59Z", "{}", me.raw);
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    // A new password is a new secret to guess.
    let operator = Actor::operator();
    palisade::passwords::reset(&app.app, &operator, id, &WRONG.into()).await.unwrap();
    assert_eq!(guess(&app.anyone(), "ann@example.com", WRONG).await.status, StatusCode::OK);
    app.stop().await;
}

async fn given_back(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    for wait in 0..40 {
        let attempt = login::Attempt {
            email: "ann@example.com".to_owned(),
            password: WRONG.into(),
            device_token: None,
            wanted: login::Wanted {
                device_name: None,
                format: TokenFormat::Jwt,
                transport: Transport::Token,
            },
            challenge_cookie: None,
            browser: false,
        };
        let actor = Actor::default();
        let sign_in = login::sign_in(&app.app, &actor, attempt);
        // Some give up before the count, some while the password waits to be hashed.
        let gone = tokio::time::timeout(Duration::from_micros(250 * wait), sign_in).await;
        if gone.is_ok() {
            break;
        }
    }
    let judged = refusals(&app, "wrong_password").await;
    assert!(judged < 5, "{judged}");
    let right = app.anyone().login("ann@example.com").await;
    assert_eq!(right.status, StatusCode::OK, "{}", right.raw);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_right_passwords_at_once_are_no_guesses() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let sign_ins = (0..20).map(|number| {
        let client = app.anyone().from(&format!("203.0.113.{number}"));
        async move { client.login("ann@example.com").await.status }
    });
    assert!(join_all(sign_ins).await.iter().all(|status| *status == StatusCode::OK));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lockout_can_be_set_and_switched_off() {
    let settings =
        vec![("lockout.threshold", "2"), ("lockout.duration", "1h"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    for _ in 0..2 {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
    }
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    app.advance(59 * MINUTE).await;
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    app.advance(MINUTE).await;
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;

    let settings = vec![("lockout.enabled", "false"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    for _ in 0..10 {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
    }
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

/// Anyone who has someone's session can't use it to guess the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_the_current_password_are_counted_too() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let change = |current: &'static str| {
        let body =
            json!({ "current_password": current, "new_password": "mossy lantern drifts inland" });
        let ann = ann.clone();
        async move { ann.post("/api/v1/users/me/password", body).await }
    };
    let guesses = join_all((0..30).map(|_| change(WRONG))).await;
    let judged = guesses.iter().filter(|answer| answer.status.as_u16() == 422).count();
    assert_eq!(judged, 5);
    let late = change(PASSWORD).await;
    assert_eq!((late.status, late.code()), (StatusCode::TOO_MANY_REQUESTS, "lockout.locked"));
    assert!(late.headers.contains_key("retry-after"));
    // No one else is locked out by it.
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.advance(15 * MINUTE).await;
    let ann = app.token("ann@example.com").await;
    let body = json!({ "current_password": PASSWORD, "new_password": WRONG });
    let answer = ann.post("/api/v1/users/me/password", body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    app.stop().await;
}

/// Guesses in two processes: the fourth is judged after the fifth was counted, and locks nothing; the fifth does.
async fn at_the_bound(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let third = app.second().await;
    let id = app.user("ann@example.com").await;
    for _ in 0..3 {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
    }
    let fourth = admitted(&app, id).await.unwrap();
    let fifth = admitted(&other, id).await.unwrap();
    for (guess, at, locks) in [(fourth, &app, 0), (fifth, &other, 1)] {
        // In a process in which no guess waits to be judged.
        assert!(admitted(&third, id).await.is_none(), "no sixth is judged");
        let mut change = at.app.change(&Actor::default()).await.unwrap();
        assert_eq!(guess.wrong(&mut change).await.unwrap(), Some(id));
        change.commit_quietly("a test").await.unwrap();
        let sql = "select count(*) from users where locked_until is not null";
        let (shown,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
        let told = app.events().await.into_iter().filter(|event| event == "lockout.locked").count();
        assert_eq!((shown, told), (locks, usize::try_from(locks).unwrap()));
    }
    third.stop().await;
    other.stop().await;
    app.stop().await;
}

async fn admitted(app: &TestApp, user: UserId) -> Option<Guess> {
    let account = Account::of(&app.app, Some(user), "ann@example.com");
    let client = lockout::Client::Unknown;
    match lockout::admit(&app.app, &Actor::default(), account, client).await.unwrap() {
        Admission::Counted(guess) => Some(guess),
        Admission::Refused(_) => None,
    }
}

/// What forgets the counts of devices that aren't known any more forgets nothing else of an account.
async fn outlives(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    let device = Device { id: Uuid::from_u128(7), user: id, password: 1 };
    let of = |second: bool| match second {
        true => Account::second_factor(&app.app, id),
        false => Account::of(&app.app, Some(id), "ann@example.com"),
    };
    for second in [true, false] {
        for client in [
            lockout::Client::Unknown,
            lockout::Client::Known(device),
            lockout::Client::Former,
            lockout::Client::SignedIn,
        ] {
            let admitted = lockout::admit(&app.app, &Actor::default(), of(second), client).await;
            let guess = admitted.unwrap().counted(&app.app).unwrap();
            let mut change = app.app.change(&Actor::default()).await.unwrap();
            guess.wrong(&mut change).await.unwrap();
            change.commit_quietly("a test").await.unwrap();
        }
    }
    app.advance(lockout::KNOWN_FOR * 2).await;
    let prune = lockout::MODULE.jobs.iter().find(|job| job.name == "lockout.prune").unwrap();
    (prune.run)(&app.app).await.unwrap();
    let left: Vec<(String,)> =
        app.app.db.all("select client from lockout_counts order by client", args![]).await.unwrap();
    let mut left: Vec<String> = left.into_iter().map(|(client,)| client).collect();
    left.sort();
    let kept = [
        "",
        "former",
        "second factor ",
        "second factor former",
        "second factor signed in",
        "signed in",
    ];
    assert_eq!(left, kept);
    app.stop().await;
}

/// A row that can't be deleted makes its batch fail. The batches before it stay.
async fn batches(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let upkeep = app.app.upkeep("a test");
    let fill = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 2500)
         insert into lockout_counts
             (account, client, window_began_at, in_window, in_a_row, locks, refused, last_at)
         select $1, 'client ' || i, $2, 1, 1, 0, 0, $2 from n";
    assert_eq!(upkeep.run(fill, args![vec![7_u8; 32], app.clock.now()]).await.unwrap(), 2500);
    let needs = match on {
        On::Sqlite => {
            "create table needs (account blob, client text,
                 foreign key (account, client) references lockout_counts)"
        }
        On::Postgres => {
            "create table needs (account bytea, client text,
                 foreign key (account, client) references lockout_counts)"
        }
    };
    upkeep.run(needs, args![]).await.unwrap();
    let last = "insert into needs (account, client) values ($1, 'client 2500')";
    upkeep.run(last, args![vec![7_u8; 32]]).await.unwrap();
    app.advance(lockout::KNOWN_FOR * 2).await;
    let prune = lockout::MODULE.jobs.iter().find(|job| job.name == "lockout.prune").unwrap();
    assert!((prune.run)(&app.app).await.is_err());
    let left = "select count(*) from lockout_counts";
    assert_eq!(app.app.db.one::<(i64,)>(left, args![]).await.unwrap(), (500,));
    upkeep.run("drop table needs", args![]).await.unwrap();
    (prune.run)(&app.app).await.unwrap();
    assert_eq!(app.app.db.one::<(i64,)>(left, args![]).await.unwrap(), (0,));
    app.stop().await;
}

async fn locked_until(app: &TestApp, user: UserId) -> Option<palisade_db::Timestamp> {
    let sql = "select locked_until from users where id = $1";
    app.app.db.one::<(Option<_>,)>(sql, args![user]).await.unwrap().0
}

/// The lock of a clock that was years ahead.
async fn wrong_clock(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    for password in [WRONG, PASSWORD] {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
        let far = app.clock.now().plus(lockout::KNOWN_FOR);
        let mut tx = app.app.upkeep("a test").begin().await.unwrap();
        for sql in [
            "update users set locked_until = $2 where id = $1",
            "update lockout_counts set locked_until = $2 where user_id = $1",
        ] {
            assert_eq!(tx.run(sql, args![id, far]).await.unwrap(), 1);
        }
        tx.commit().await.unwrap();
        let answer = guess(&app.anyone(), "ann@example.com", password).await;
        assert_eq!(answer.status.is_success(), password == PASSWORD, "{}", answer.raw);
        assert_eq!(locked_until(&app, id).await, None);
    }
    app.stop().await;
}

/// The process of the fifth guess ended before it was known to be wrong.
async fn lost(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;
    for _ in 0..4 {
        guess(&app.anyone(), "ann@example.com", WRONG).await;
    }
    std::mem::forget(admitted(&other, id).await.unwrap());
    let told = || async {
        let events = app.events().await;
        events.into_iter().filter(|event| event == "lockout.locked").count()
    };
    assert!(admitted(&app, id).await.is_none());
    assert_eq!((locked_until(&app, id).await, told().await), (None, 0));
    app.advance(MINUTE * 5).await;
    for _ in 0..2 {
        assert!(admitted(&app, id).await.is_none());
        assert!(locked_until(&app, id).await.is_some_and(|until| until > app.clock.now()));
        assert_eq!(told().await, 1);
    }
    other.stop().await;
    app.stop().await;
}

async fn links(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    for link in ["lost factors of", "email change of", "registration"] {
        let link = format!("{link} {id}");
        for _ in 0..6 {
            guess(&app.anyone(), &link, WRONG).await;
        }
        let account = Account::of_link(&app.app, &link);
        let client = lockout::Client::Unknown;
        let admission = lockout::admit(&app.app, &Actor::default(), account, client).await.unwrap();
        assert!(admission.counted(&app.app).is_ok(), "{link}");
    }
    app.stop().await;
}
