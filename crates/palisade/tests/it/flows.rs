//! Every flow around signing in as a graph: each step from each state, and only the drawn edges succeed.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::testing::mailbox::{emails, link, token};
use palisade::testing::passkey::{ORIGIN, register};
use palisade::testing::phone::{MFA, Phone, answer_with, challenge, enrol, sign_in, with_phone};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, unlimited};
use serde_json::{Value, json};

palisade::on_both! {
    only_the_drawn_edges_succeed => |on| super::walking(on);
    lost_factors_come_back_after_a_time => |on| super::losing(on);
    what_was_set_up_before_the_email_was_proved_is_gone => |on| super::planting(on);
    an_undone_change_of_email_removes_later_factors => |on| super::undoing(on);
}

const NEW: &str = "five green kettles whistle";
const STEP: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// What someone holds in a state.
#[derive(Default)]
struct Held {
    access: Option<String>,
    refresh: Option<String>,
    mfa: Option<String>,
    phone: Option<Phone>,
    codes: Vec<String>,
    user: Vec<u8>,
}

/// A state, and the steps that lead out of it.
const STATES: &[(&str, &[&str])] = &[
    ("nothing is proved", &[]),
    ("the password is proved", &["code", "recovery code"]),
    ("signed out after both", &[]),
    (
        "signed in, no factor",
        &["read", "refresh", "set up", "change the password", "prove the password", "sign out"],
    ),
    (
        "signed in with a factor",
        &[
            "read",
            "refresh",
            "set up",
            "remove",
            "make codes",
            "change the password",
            "prove a code",
            "prove a recovery code",
            "sign out",
        ],
    ),
    (
        "signed in long ago",
        &["read", "refresh", "prove a code", "prove a recovery code", "sign out"],
    ),
    ("disabled in between", &[]),
];

const STEPS: &[&str] = &[
    "read",
    "refresh",
    "code",
    "recovery code",
    "set up",
    "confirm what wasn't set up",
    "remove",
    "make codes",
    "change the password",
    "prove the password",
    "prove a code",
    "prove a recovery code",
    "sign out",
    "use the challenge as a token",
    "use the refresh token as a token",
    "use the token as a challenge",
    "sign in with a made-up passkey",
];

/// Brings a new user into a state.
async fn bring(app: &TestApp, email: &str, state: &str) -> Held {
    let user = app.user(email).await.0.as_bytes().to_vec();
    let first = app.anyone().login(email).await;
    let mut held = Held {
        user,
        access: Some(first.text("access_token")),
        refresh: Some(first.text("refresh_token")),
        ..Held::default()
    };
    if state == "signed in, no factor" {
        return held;
    }
    let client = app.anyone().with_token(first.text("access_token"));
    let (phone, codes) = enrol(&client).await;
    app.advance(STEP).await;
    (held.phone, held.codes) = (Some(phone), codes);
    let phone = held.phone.as_ref().unwrap();
    match state {
        "nothing is proved" => (held.access, held.refresh) = (None, None),
        "the password is proved" => {
            (held.access, held.refresh) = (None, None);
            held.mfa = Some(challenge(&app.anyone(), email).await);
        }
        "signed out after both" => {
            let token = challenge(&app.anyone(), email).await;
            let done = answer_with(&app.anyone(), &token, "totp", &phone.code(app)).await;
            let client = app.anyone().with_token(done.text("access_token"));
            client.act("/api/v1/auth/logout").await;
            held.access = Some(done.text("access_token"));
            (held.refresh, held.mfa) = (Some(done.text("refresh_token")), Some(token));
            app.advance(STEP).await;
        }
        "signed in long ago" => {
            app.advance(Duration::from_secs(600)).await;
            let body = json!({ "refresh_token": held.refresh });
            let again = app.anyone().post("/api/v1/auth/refresh", body).await;
            held.access = Some(again.text("access_token"));
            held.refresh = Some(again.text("refresh_token"));
        }
        "disabled in between" => {
            held.mfa = Some(challenge(&app.anyone(), email).await);
            let id = client.get("/api/v1/users/me").await.text("id").parse().unwrap();
            let holds = [Hold::Alone(id), Hold::Administrators];
            let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
            palisade::sessions::disable(change, id).await.unwrap();
        }
        _ => {}
    }
    held
}

async fn take(app: &TestApp, held: &Held, step: &str) -> Answer {
    let mut client: Client<'_> = app.anyone();
    client.bearer = held.access.clone();
    let none = || "pal_none".to_owned();
    let mfa = held.mfa.clone().unwrap_or_else(none);
    let code = held.phone.as_ref().map_or("000000".to_owned(), |phone| phone.code(app));
    let spare = held.codes.first().cloned().unwrap_or_else(none);
    let me = "/api/v1/users/me";
    let again = "/api/v1/auth/reauthenticate";
    match step {
        "read" => client.get(me).await,
        "refresh" => {
            let body = json!({ "refresh_token": held.refresh.clone().unwrap_or_else(none) });
            app.anyone().post("/api/v1/auth/refresh", body).await
        }
        "code" => answer_with(&app.anyone(), &mfa, "totp", &code).await,
        "recovery code" => answer_with(&app.anyone(), &mfa, "recovery_code", &spare).await,
        "set up" => client.act(&format!("{me}/totp")).await,
        "confirm what wasn't set up" => {
            client.post(&format!("{me}/totp/confirm"), json!({ "code": code })).await
        }
        "remove" => client.delete(&format!("{me}/totp")).await,
        "make codes" => client.act(&format!("{me}/recovery-codes")).await,
        "change the password" => {
            let body = json!({ "current_password": PASSWORD, "new_password": NEW });
            client.post(&format!("{me}/password"), body).await
        }
        "prove the password" => client.post(again, json!({ "password": PASSWORD })).await,
        "prove a code" => client.post(again, json!({ "code": code })).await,
        "prove a recovery code" => client.post(again, json!({ "code": spare })).await,
        "sign out" => client.act("/api/v1/auth/logout").await,
        "use the challenge as a token" => app.anyone().with_token(mfa).get(me).await,
        "use the refresh token as a token" => {
            let token = held.refresh.clone().unwrap_or_else(none);
            app.anyone().with_token(token).get(me).await
        }
        "use the token as a challenge" => {
            let token = held.access.clone().unwrap_or_else(none);
            answer_with(&app.anyone(), &token, "totp", &code).await
        }
        _ => {
            let call = Call::new(Method::POST, "/api/v1/auth/login/passkey/begin");
            let options = app.anyone().send(call).await.body;
            let mut key = palisade::testing::passkey::key();
            key.user_handle = held.user.clone();
            let body = json!({ "credential": key.authenticate(&options, ORIGIN) });
            app.anyone().post("/api/v1/auth/login/passkey/finish", body).await
        }
    }
}

async fn walking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut number = 0;
    for (state, edges) in STATES {
        let mut found = BTreeSet::new();
        for step in STEPS {
            number += 1;
            let held = bring(&app, &format!("user{number}@example.com"), state).await;
            let answer = take(&app, &held, step).await;
            assert!(!answer.status.is_server_error(), "{state}, {step}: {}", answer.raw);
            if answer.status.is_success() {
                found.insert(*step);
            }
        }
        assert_eq!(found, edges.iter().copied().collect(), "out of: {state}");
    }
    app.stop().await;
}

async fn lost(app: &TestApp, token: &str) -> Answer {
    app.anyone().post(&format!("{MFA}/lost"), json!({ "mfa_token": token })).await
}

async fn waiting_for(app: &TestApp) -> String {
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    assert_eq!(lost(app, &asked).await.status, StatusCode::ACCEPTED);
    link(app, "factors").await
}

async fn remove(app: &TestApp, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "password": password });
    app.anyone().post("/api/v1/auth/factors/remove", body).await
}

async fn losing(on: On) {
    let off = TestApp::with(on, unlimited()).await;
    with_phone(&off, "ann@example.com").await;
    let asked = challenge(&off.anyone(), "ann@example.com").await;
    assert_eq!(place(&lost(&off, &asked).await), (403, "", "recovery.factors_off"));
    off.stop().await;

    let settings = vec![("limits.enabled", "false"), ("mfa.recovery_delay", "72h")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    // Without the password no one gets so far.
    assert_eq!(place(&lost(&app, "pal_mf_x").await), (401, "", "login.challenge_over"));
    not_lost(&app, &phone).await;

    // Called off by link.
    let second = waiting_for(&app).await;
    let keep = app.anyone().post("/api/v1/auth/factors/keep", json!({ "token": second })).await;
    assert_eq!(keep.status, StatusCode::NO_CONTENT, "{}", keep.raw);
    app.advance(73 * HOUR).await;
    assert_eq!(
        place(&remove(&app, &second, PASSWORD).await),
        (422, "/token", "recovery.bad_token")
    );

    // Waited for. Asking again doesn't make it later, nor sooner.
    let third = waiting_for(&app).await;
    app.advance(71 * HOUR).await;
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    assert_eq!(lost(&app, &asked).await.status, StatusCode::ACCEPTED);
    assert_eq!(place(&remove(&app, &third, PASSWORD).await), (422, "/token", "recovery.too_early"));
    app.advance(2 * HOUR).await;
    assert_eq!(place(&remove(&app, &third, NEW).await), (422, "/password", "passwords.wrong"));
    assert_eq!(remove(&app, &third, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(place(&remove(&app, &third, PASSWORD).await), (422, "/token", "recovery.bad_token"));
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    let names = app.events().await;
    for event in ["recovery.factors_asked", "recovery.factors_kept", "recovery.factors_removed"] {
        assert!(names.iter().any(|name| name == event), "{event}");
    }
    app.stop().await;
}

/// Anyone who proves a factor hasn't lost it: by signing in, or within a session, or by setting up another one.
async fn not_lost(app: &TestApp, phone: &Phone) {
    let mut links = vec![waiting_for(app).await];
    assert_eq!(
        place(&remove(app, &links[0], PASSWORD).await),
        (422, "/token", "recovery.too_early")
    );
    let inside = sign_in(app, "ann@example.com", phone).await;
    app.advance(STEP).await;
    links.push(waiting_for(app).await);
    let body = json!({ "code": phone.code(app) });
    let fresh = inside.post("/api/v1/auth/reauthenticate", body).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);
    let inside = app.anyone().with_token(fresh.text("access_token"));
    app.advance(STEP).await;
    links.push(waiting_for(app).await);
    app.advance(STEP).await;
    let mut key = palisade::testing::passkey::key();
    let made = register(&inside, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    app.advance(73 * HOUR).await;
    for link in links {
        assert_eq!(
            place(&remove(app, &link, PASSWORD).await),
            (422, "/token", "recovery.bad_token")
        );
    }
}

async fn planting(on: On) {
    // Emails may be proved later here: anyone who registers first holds the account.
    let settings =
        vec![("limits.enabled", "false"), ("registration.email_verification", "optional")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let body = json!({ "email": "victim@example.com", "password": PASSWORD });
    app.anyone().post("/api/v1/auth/register", body).await;
    let thief = app.token("victim@example.com").await;
    enrol(&thief).await;
    let mut key = palisade::testing::passkey::key();
    register(&thief, &mut key).await;
    // The owner of the email asks for a new password: nothing of the thief's survives.
    let body = json!({ "email": "victim@example.com" });
    app.anyone().post("/api/v1/auth/password/forgot", body).await;
    let all = emails(&app).await;
    let mail = all.iter().rev().find(|mail| mail.text.contains("/account/reset#")).unwrap();
    let body = json!({ "token": token(mail), "password": NEW });
    let reset = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!(reset.status, StatusCode::NO_CONTENT, "{}", reset.raw);
    let body = json!({ "email": "victim@example.com", "password": NEW });
    let owner = app.anyone().post("/api/v1/auth/login", body).await;
    assert_eq!(owner.status, StatusCode::OK, "{}", owner.raw);
    let owner = app.anyone().with_token(owner.text("access_token"));
    let me = owner.get("/api/v1/users/me").await;
    assert_eq!(me.body["mfa"], json!({ "totp": false, "passkeys": 0, "recovery_codes_left": 0 }));
    assert_eq!(thief.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

async fn undoing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let mut hers = palisade::testing::passkey::key();
    register(&app.token("ann@example.com").await, &mut hers).await;
    app.advance(HOUR).await;
    // A thief who holds password and passkey moves the account on, and makes a passkey of their own.
    let call = Call::new(Method::POST, "/api/v1/auth/login/passkey/begin");
    let options = app.anyone().send(call).await.body;
    let body = json!({ "credential": hers.authenticate(&options, ORIGIN) });
    let done = app.anyone().post("/api/v1/auth/login/passkey/finish", body).await;
    let thief = app.anyone().with_token(done.text("access_token"));
    let moved =
        thief.post("/api/v1/users/me/email", json!({ "email": "thief@evil.example" })).await;
    assert_eq!(moved.status, StatusCode::ACCEPTED, "{}", moved.raw);
    let confirm = link(&app, "email").await;
    let body = json!({ "token": confirm, "password": PASSWORD });
    app.anyone().post("/api/v1/auth/email/confirm", body).await;
    app.advance(HOUR).await;
    let mut theirs = palisade::testing::passkey::key();
    let late = thief.act("/api/v1/users/me/passkeys/begin").await;
    assert_eq!(late.code(), "access.invalid_token", "the session's token has expired");
    let body = json!({ "refresh_token": done.text("refresh_token") });
    let again = app.anyone().post("/api/v1/auth/refresh", body).await;
    let thief = app.anyone().with_token(again.text("access_token"));
    let step = thief.act("/api/v1/auth/reauthenticate/passkey/begin").await.body;
    let body = json!({ "credential": hers.authenticate(&step, ORIGIN) });
    let fresh = thief.post("/api/v1/auth/reauthenticate", body).await;
    let thief = app.anyone().with_token(fresh.text("access_token"));
    let made = register(&thief, &mut theirs).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);

    let undo = link(&app, "undo").await;
    let body = json!({ "token": undo, "password": NEW });
    let undone = app.anyone().post("/api/v1/auth/email/undo", body).await;
    assert_eq!(undone.status, StatusCode::NO_CONTENT, "{}", undone.raw);
    let body = json!({ "email": "ann@example.com", "password": NEW });
    let asked = app.anyone().post("/api/v1/auth/login", body).await;
    assert_eq!(place(&asked), (401, "", "login.mfa_required"), "hers stays");
    let allowed: &Value = &asked.body["passkey_options"]["allowCredentials"];
    assert_eq!(allowed.as_array().unwrap().len(), 1, "{allowed}");
    app.stop().await;
}
