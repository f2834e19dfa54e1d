//! The same right proof, sent many times at the same moment: one is taken, the others are refused and count for
//! nothing.

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::mailbox::link;
use palisade::testing::passkey::{ORIGIN, key, register};
use palisade::testing::phone::{MFA, answer_with, challenge, sign_in, with_phone};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, unlimited};
use palisade_db::args;
use serde_json::{Value, json};

palisade::on_both! {
    duplicates_of_a_right_code_are_no_guesses => |on| super::codes(on);
    a_used_code_gives_no_guess_at_another => |on| super::no_oracle(on);
    duplicates_of_a_proof_within_a_session_are_no_guesses => |on| super::again(on);
    duplicates_of_a_passkeys_answer_are_neither_guesses_nor_copies => |on| super::passkeys(on);
    the_right_password_many_times_at_once_is_no_guess => |on| super::passwords(on);
    duplicates_of_a_change_of_password_are_no_guesses => |on| super::password_changes(on);
    duplicates_of_a_link_are_no_guesses_at_its_password => |on| super::links(on);
    duplicates_of_a_verification_link_are_no_guesses => |on| super::verification_links(on);
    duplicates_of_a_lost_factor_link_are_no_guesses => |on| super::factor_links(on);
}

const AGAIN: &str = "/api/v1/auth/reauthenticate";
const WRONG: &str = "five green kettles whistle";

/// Guesses that are counted, once those that were never judged have been given back.
async fn counted(app: &TestApp) -> i64 {
    let mut left = 0;
    for _ in 0..200 {
        let (sum,): (i64,) = app
            .app
            .db
            .one("select cast(coalesce(sum(in_window), 0) as bigint) from lockout_counts", args![])
            .await
            .unwrap();
        left = sum;
        if left == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    left
}

async fn never(app: &TestApp, event: &str) {
    let events = app.events().await;
    assert!(!events.iter().any(|name| name == event), "{event} in {events:?}");
}

fn taken(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status == StatusCode::OK).count()
}

async fn codes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    let (phone, recovery) = with_phone(&app, "ann@example.com").await;
    for (method, code) in [("totp", phone.code(&app)), ("recovery_code", recovery[0].clone())] {
        // One wrong guess less than a lock takes.
        let first = challenge(&app.anyone(), "ann@example.com").await;
        for _ in 0..4 {
            let wrong = answer_with(&app.anyone(), &first, "totp", &phone.wrong(&app)).await;
            assert_eq!(place(&wrong), (401, "", "login.denied"));
        }
        let mut challenges = vec![first];
        for _ in 0..5 {
            challenges.push(challenge(&app.anyone(), "ann@example.com").await);
        }
        // Through two processes, each challenge answered twice.
        let (here, there) = (app.anyone(), second.anyone());
        let sent = challenges.iter().flat_map(|token| {
            [answer_with(&here, token, method, &code), answer_with(&there, token, method, &code)]
        });
        let answers = join_all(sent).await;
        assert_eq!(taken(&answers), 1, "{answers:?}");
        assert_eq!(counted(&app).await, 0, "{method}");
        // Later, too: as often as a client that hangs repeats it.
        let late = challenge(&here, "ann@example.com").await;
        for _ in 0..12 {
            let refused = answer_with(&here, &late, method, &code).await;
            assert_eq!(place(&refused), (401, "", "login.denied"), "{}", refused.raw);
        }
        assert_eq!(counted(&app).await, 0, "{method}");
        app.advance(std::time::Duration::from_secs(30)).await;
        second.catch_up().await;
        let next = answer_with(&here, &late, "totp", &phone.code(&app)).await;
        assert_eq!(next.status, StatusCode::OK, "{}", next.raw);
        app.advance(std::time::Duration::from_secs(30)).await;
        second.catch_up().await;
    }
    never(&app, "lockout.locked").await;
    second.stop().await;
    app.stop().await;
}

async fn no_oracle(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, recovery) = with_phone(&app, "ann@example.com").await;
    let used = phone.code(&app);
    sign_in(&app, "ann@example.com", &phone).await;
    let spent = challenge(&app.anyone(), "ann@example.com").await;
    let done = answer_with(&app.anyone(), &spent, "recovery_code", &recovery[0]).await;
    assert_eq!(done.status, StatusCode::OK);
    // SECURITY: who knows used codes guesses at others no more often for that, and hears the same.
    let token = challenge(&app.anyone(), "ann@example.com").await;
    let mut refused = Vec::new();
    for _ in 0..4 {
        for (method, code) in
            [("totp", &used), ("recovery_code", &recovery[0]), ("totp", &phone.wrong(&app))]
        {
            let answer = answer_with(&app.anyone(), &token, method, code).await;
            let mut body = answer.body.clone();
            body["request_id"] = Value::Null;
            refused.push((answer.status, body));
        }
    }
    assert!(refused.iter().all(|answer| *answer == refused[0]), "{refused:?}");
    let fifth = answer_with(&app.anyone(), &token, "totp", &phone.wrong(&app)).await;
    assert_eq!(place(&fifth), (401, "", "login.denied"), "{}", fifth.raw);
    let other = challenge(&app.anyone(), "ann@example.com").await;
    let locked = answer_with(&app.anyone(), &other, "totp", &phone.wrong(&app)).await;
    assert_eq!(place(&locked), (429, "", "lockout.locked"));
    app.stop().await;
}

async fn again(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    let (phone, recovery) = with_phone(&app, "ann@example.com").await;
    let mut ann = sign_in(&app, "ann@example.com", &phone).await;
    app.advance(std::time::Duration::from_secs(30)).await;
    second.catch_up().await;
    // What the account has is stronger than a recovery code, which no session is proved with.
    assert_eq!(recovery.len(), 10);
    for _ in 0..3 {
        for _ in 0..4 {
            let wrong = ann.post(AGAIN, json!({ "code": phone.wrong(&app) })).await;
            assert_eq!(place(&wrong), (422, "/code", "mfa.wrong_code"));
        }
        let there = Client { app: &second, ..ann.clone() };
        let body = json!({ "code": phone.code(&app) });
        let sent = (0..12).map(|number| {
            let client = if number % 2 == 0 { &ann } else { &there };
            client.post(AGAIN, body.clone())
        });
        let answers = join_all(sent).await;
        assert_eq!(taken(&answers), 1, "{answers:?}");
        assert_eq!(counted(&app).await, 0);
        let good = answers.iter().find(|answer| answer.status == StatusCode::OK).unwrap();
        ann = app.anyone().with_token(good.text("access_token"));
        app.advance(std::time::Duration::from_secs(30)).await;
        second.catch_up().await;
    }
    never(&app, "lockout.locked").await;
    second.stop().await;
    app.stop().await;
}

async fn password_changes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let there = Client { app: &second, ..ann.clone() };
    let body = json!({ "current_password": PASSWORD, "new_password": WRONG });
    let sent = (0..8).map(|number| {
        let client = if number % 2 == 0 { &ann } else { &there };
        client.post("/api/v1/users/me/password", body.clone())
    });
    let answers = join_all(sent).await;
    let changed = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(changed, 1, "{answers:?}");
    assert_eq!(counted(&app).await, 0);
    never(&app, "lockout.locked").await;
    let again = ann.post(AGAIN, json!({ "password": WRONG })).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.raw);
    second.stop().await;
    app.stop().await;
}

async fn passkeys(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    app.user("ann@example.com").await;
    let mut key = key();
    key.sign_count = 7;
    let made = register(&app.token("ann@example.com").await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    let (here, there) = (app.anyone(), second.anyone());
    let begun = here.act("/api/v1/auth/login/passkey/begin").await;
    let cookie = begun.cookie();
    let (here, there) = (here.with_cookie(&cookie), there.with_cookie(&cookie));
    let body = json!({ "credential": key.authenticate(&begun.body, ORIGIN) });
    let sent = (0..8).map(|number| {
        let call = Call::post("/api/v1/auth/login/passkey/finish", body.clone()).same_origin();
        if number % 2 == 0 { here.send(call) } else { there.send(call) }
    });
    let answers = join_all(sent).await;
    assert_eq!(taken(&answers), 1, "{answers:?}");
    let good = answers.iter().find(|answer| answer.status == StatusCode::OK).unwrap();

    let ann = app.anyone().with_token(good.text("access_token"));
    let there = Client { app: &second, ..ann.clone() };
    let options = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let body = json!({ "credential": key.authenticate(&options, ORIGIN) });
    let sent = (0..8).map(|number| {
        let client = if number % 2 == 0 { &ann } else { &there };
        client.post(AGAIN, body.clone())
    });
    let answers = join_all(sent).await;
    assert_eq!(taken(&answers), 1, "{answers:?}");
    assert_eq!(counted(&app).await, 0);
    // The counter of the second one is that of the first: that is no copy of the passkey.
    never(&app, "mfa.passkey_copied").await;
    never(&app, "lockout.locked").await;
    second.stop().await;
    app.stop().await;
}

async fn passwords(on: On) {
    // What is stored is of another cost than today's: the first right one replaces it.
    let settings = vec![
        ("limits.enabled", "false"),
        ("passwords.algorithm", "bcrypt"),
        ("passwords.bcrypt_cost", "10"),
    ];
    let old = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    old.user("ann@example.com").await;
    let app = old.second_with(vec![("limits.enabled", "false")]).await;
    for _ in 0..4 {
        let body = json!({ "email": "ann@example.com", "password": WRONG });
        assert_eq!(app.anyone().post("/api/v1/auth/login", body).await.code(), "login.denied");
    }
    let anyone = app.anyone();
    let answers = join_all((0..12).map(|_| anyone.login("ann@example.com"))).await;
    assert_eq!(taken(&answers), 12, "{answers:?}");
    assert_eq!(counted(&app).await, 0);
    // At two processes some may have to wait for a guess that isn't judged yet; none of them counts.
    let there = old.anyone();
    for _ in 0..4 {
        let body = json!({ "email": "ann@example.com", "password": WRONG });
        assert_eq!(app.anyone().post("/api/v1/auth/login", body).await.code(), "login.denied");
    }
    let sent = (0..12).map(|number| {
        if number % 2 == 0 {
            anyone.login("ann@example.com")
        } else {
            there.login("ann@example.com")
        }
    });
    let answers = join_all(sent).await;
    assert!(taken(&answers) >= 1, "{answers:?}");
    assert_eq!(counted(&app).await, 0);
    never(&app, "lockout.locked").await;

    // Within a session.
    let ann = app.token("ann@example.com").await;
    let body = json!({ "password": PASSWORD });
    let answers = join_all((0..8).map(|_| ann.post(AGAIN, body.clone()))).await;
    assert!(taken(&answers) >= 1, "{answers:?}");
    assert_eq!(counted(&app).await, 0);
    app.stop().await;
    old.stop().await;
}

/// The token of the newest email with a link to this page.
/// A link is sent eight times at once with its right password, through two processes: it is used once, and there
/// is no guess left that counts.
async fn used_once(app: &TestApp, second: &TestApp, path: &str, link: &str) {
    let (here, there) = (app.anyone(), second.anyone());
    let body = json!({ "token": link, "password": PASSWORD });
    let sent = (0..8).map(|number| {
        let client = if number % 2 == 0 { &here } else { &there };
        client.post(path, body.clone())
    });
    let answers = join_all(sent).await;
    let done = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{answers:?}");
    assert_eq!(counted(app).await, 0, "{path}");
    never(app, "lockout.locked").await;
}

async fn links(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    for email in ["one@example.com", "two@example.com"] {
        let asked = ann.post("/api/v1/users/me/email", json!({ "email": email })).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.raw);
        let link = link(&app, "email").await;
        // Only now: whichever process sends an email keeps it.
        let second = app.second().await;
        used_once(&app, &second, "/api/v1/auth/email/confirm", &link).await;
        second.stop().await;
    }
    app.stop().await;
}

async fn verification_links(on: On) {
    let settings =
        vec![("limits.enabled", "false"), ("registration.email_verification", "required")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    let link = link(&app, "verify").await;
    let second = app.second().await;
    used_once(&app, &second, "/api/v1/auth/verify-email", &link).await;
    second.stop().await;
    app.stop().await;
}

async fn factor_links(on: On) {
    let settings = vec![("limits.enabled", "false"), ("mfa.recovery_delay", "72h")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    with_phone(&app, "ann@example.com").await;
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    let lost = app.anyone().post(&format!("{MFA}/lost"), json!({ "mfa_token": asked })).await;
    assert_eq!(lost.status, StatusCode::ACCEPTED, "{}", lost.raw);
    let link = link(&app, "factors").await;
    app.advance(std::time::Duration::from_secs(73 * 3600)).await;
    let second = app.second().await;
    used_once(&app, &second, "/api/v1/auth/factors/remove", &link).await;
    second.stop().await;
    app.stop().await;
}
