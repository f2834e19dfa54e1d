//! Second factors: one-time codes, recovery codes, and every way around them.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use palisade::testing::mailbox::{emails, token};
use palisade::testing::phone::{
    MFA, Phone, STEP, answer_with, challenge, enrol, sign_in, with_phone,
};
use palisade::testing::{
    Answer, Call, Client, On, PASSWORD, Plan, TestApp, claims, place, put, unlimited,
};
use palisade_db::args;
use serde_json::json;

palisade::on_both! {
    a_second_factor_stands_between_password_and_session => |on| super::signing_in(on);
    a_one_time_code_works_once => |on| super::once(on);
    a_recovery_code_works_once => |on| super::recovering(on);
    a_challenge_survives_five_attempts => |on| super::five(on);
    a_right_answer_works_once => |on| super::answering(on);
    a_challenge_dies_with_the_sessions => |on| super::dying(on);
    the_first_factor_ends_sessions_without_it => |on| super::ending(on);
    a_sign_in_beside_the_first_factor_does_not_slip_through => |on| super::racing(on);
    a_session_without_the_factor_is_no_session => |on| super::lacking(on);
    a_fresh_proof_is_made_with_the_strongest_factor => |on| super::proving(on);
    factors_are_reset_by_administrators => |on| super::resetting(on);
    ten_thousand_codes_are_five_guesses => |on| super::guessing(on);
}

const NEW: &str = "five green kettles whistle";
const AGAIN: &str = "/api/v1/auth/reauthenticate";

async fn me(client: &Client<'_>) -> Answer {
    client.get("/api/v1/users/me").await
}

async fn signing_in(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(me(&ann).await.body["mfa"]["totp"], false);
    let made = ann.act("/api/v1/users/me/totp").await;
    let uri = made.text("otpauth_uri");
    assert!(uri.starts_with("otpauth://totp/localhost:ann%40example.com?secret="), "{uri}");
    assert!(uri.contains(&made.text("secret")) && uri.ends_with("&issuer=localhost"), "{uri}");
    assert!(made.text("qr_svg").contains("<svg"), "{}", made.raw);
    // What isn't confirmed doesn't count.
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    let phone = Phone::new(&made.text("secret"));
    let confirm = |code: String| ann.post("/api/v1/users/me/totp/confirm", json!({ "code": code }));
    assert_eq!(place(&confirm(phone.wrong(&app)).await), (422, "/code", "mfa.wrong_code"));
    let done = confirm(phone.code(&app)).await;
    assert_eq!(done.body["recovery_codes"].as_array().unwrap().len(), 10, "{}", done.raw);
    assert_eq!(place(&confirm(phone.code(&app)).await), (422, "/code", "mfa.no_enrolment"));
    let seen = me(&ann).await;
    assert_eq!(
        seen.body["mfa"],
        json!({ "totp": true, "passkeys": 0, "recovery_codes_left": 10 }),
        "{}",
        seen.raw
    );
    app.advance(STEP).await;

    let answer = app.anyone().login("ann@example.com").await;
    assert_eq!(place(&answer), (401, "", "login.mfa_required"));
    assert_eq!(answer.body["methods"], json!(["totp", "recovery_code"]));
    assert_eq!(answer.body["expires_in"], 300);
    assert!(answer.headers.contains_key("www-authenticate"));
    let token = answer.text("mfa_token");
    opens_nothing_else(&app, &token).await;
    let anyone = app.anyone();
    let refused = answer_with(&anyone, &token, "totp", &phone.wrong(&app)).await;
    assert_eq!(place(&refused), (401, "", "login.denied"));
    let done = answer_with(&anyone, &token, "totp", &phone.code(&app)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    let claims = claims(&done.text("access_token"));
    assert_eq!(claims["amr"], json!(["pwd", "otp", "mfa"]));
    assert_eq!(claims["auth_time"], app.app.clock.now().as_seconds());
    let names = app.events().await;
    for event in ["mfa.added", "login.challenged", "login.denied", "login.signed_in"] {
        assert!(names.iter().any(|name| name == event), "{event} in {names:?}");
    }
    let told = emails(&app).await;
    assert!(told.iter().any(|mail| mail.text.contains("an authenticator app was added")));
    app.stop().await;
}

/// SECURITY: a challenge is no credential.
async fn opens_nothing_else(app: &TestApp, token: &str) {
    let other = app.anyone().with_token(token);
    assert_eq!(me(&other).await.status, StatusCode::UNAUTHORIZED);
    for (path, field) in [
        ("/api/v1/auth/refresh", "refresh_token"),
        ("/api/v1/auth/password/reset", "token"),
        ("/api/v1/auth/email/confirm", "token"),
    ] {
        let mut body = json!({ "password": PASSWORD });
        if field == "refresh_token" {
            body = json!({});
        }
        body[field] = json!(token);
        let refused = app.anyone().post(path, body).await;
        assert!(refused.status.is_client_error(), "{path}: {}", refused.raw);
    }
}

async fn once(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let anyone = app.anyone();
    let other = app.second_with(vec![("limits.enabled", "false")]).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(challenge(&anyone, "ann@example.com").await);
    }
    // SECURITY: the same code at the same moment, through two processes.
    let code = phone.code(&app);
    let there = other.anyone();
    let tries = tokens.iter().flat_map(|token| {
        [answer_with(&anyone, token, "totp", &code), answer_with(&there, token, "totp", &code)]
    });
    let answers = join_all(tries).await;
    let signed_in = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(signed_in, 1, "{answers:?}");
    other.stop().await;

    // After a restart, within the same step.
    let again =
        app.second_with(vec![("limits.enabled", "false"), ("lockout.enabled", "false")]).await;
    let client = again.anyone();
    let token = challenge(&client, "ann@example.com").await;
    let refused = answer_with(&client, &token, "totp", &code).await;
    assert_eq!(place(&refused), (401, "", "login.denied"));
    // The step before is over, too.
    again.advance(STEP).await;
    let early = answer_with(&client, &token, "totp", &code).await;
    assert_eq!(place(&early), (401, "", "login.denied"));
    let next = answer_with(&client, &token, "totp", &phone.code(&again)).await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.raw);
    again.stop().await;
    app.stop().await;
}

async fn recovering(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, codes) = with_phone(&app, "ann@example.com").await;
    assert_eq!(codes.len(), 10);
    emails(&app).await;
    let anyone = app.anyone();
    let (one, two) =
        (challenge(&anyone, "ann@example.com").await, challenge(&anyone, "ann@example.com").await);
    let uses = join_all([
        answer_with(&anyone, &one, "recovery_code", &codes[0]),
        answer_with(&anyone, &two, "recovery_code", &codes[0]),
    ])
    .await;
    let good = uses.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1, "{uses:?}");
    let told = emails(&app).await;
    assert!(told.iter().any(|mail| mail.text.contains("Remaining codes: 9")), "{told:?}");

    // As someone reads it from paper.
    let typed = codes[1].to_uppercase().replace('-', " ").replace('0', "O").replace('1', "l");
    let token = challenge(&anyone, "ann@example.com").await;
    let done = answer_with(&anyone, &token, "recovery_code", &typed).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    let ann = anyone.clone().with_token(done.text("access_token"));
    assert_eq!(me(&ann).await.body["mfa"]["recovery_codes_left"], 8);
    let renewed = ann.act("/api/v1/users/me/recovery-codes").await;
    assert_eq!(renewed.body["recovery_codes"].as_array().unwrap().len(), 10);
    let token = challenge(&anyone, "ann@example.com").await;
    let old = answer_with(&anyone, &token, "recovery_code", &codes[2]).await;
    assert_eq!(place(&old), (401, "", "login.denied"));

    // SECURITY: neither a code nor the app's secret lies in the database in the clear.
    let (sealed,): (Vec<u8>,) =
        app.app.db.one("select sealed from totp_secrets", args![]).await.unwrap();
    assert!(sealed.len() > 20 && !sealed.windows(20).any(|part| part == phone.secret()));
    // Nor does one user's code open another's account.
    let (_, others) = with_phone(&app, "bob@example.com").await;
    let token = challenge(&anyone, "ann@example.com").await;
    let foreign = answer_with(&anyone, &token, "recovery_code", &others[0]).await;
    assert_eq!(place(&foreign), (401, "", "login.denied"));
    app.stop().await;
}

async fn five(on: On) {
    let settings = vec![("limits.enabled", "false"), ("lockout.enabled", "false")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let anyone = app.anyone();
    for parallel in [false, true] {
        let token = challenge(&anyone, "ann@example.com").await;
        let wrong = phone.wrong(&app);
        let mut denied = 0;
        if parallel {
            let tries = (0..40).map(|_| answer_with(&anyone, &token, "totp", &wrong));
            for answer in join_all(tries).await {
                denied += usize::from(answer.code() == "login.denied");
            }
        } else {
            for _ in 0..6 {
                let answer = answer_with(&anyone, &token, "totp", &wrong).await;
                denied += usize::from(answer.code() == "login.denied");
            }
        }
        assert_eq!(denied, 5);
        let late = answer_with(&anyone, &token, "totp", &phone.code(&app)).await;
        assert_eq!(place(&late), (401, "", "login.challenge_over"));
    }

    // It lives five minutes.
    let token = challenge(&anyone, "ann@example.com").await;
    app.advance(Duration::from_secs(300)).await;
    let late = answer_with(&anyone, &token, "totp", &phone.code(&app)).await;
    assert_eq!(place(&late), (401, "", "login.challenge_over"));

    // SECURITY: another client's software, and another browser, can't go on with it.
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let begun =
        anyone.send(Call::post("/api/v1/auth/login", body).header("user-agent", "app 1")).await;
    let code = phone.code(&app);
    let rest = json!({ "mfa_token": begun.text("mfa_token"), "method": "totp", "code": code });
    let foreign = Call::post(MFA, rest.clone()).header("user-agent", "app 2");
    assert_eq!(anyone.send(foreign).await.code(), "login.challenge_over");
    let own = Call::post(MFA, rest).header("user-agent", "app 1");
    assert_eq!(anyone.send(own).await.status, StatusCode::OK);

    app.advance(STEP).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let begun = anyone.send(Call::post("/api/v1/auth/login", body).same_origin()).await;
    let cookie = begun.cookie();
    assert!(cookie.starts_with("palisade-challenge-8000=pal_cc_"), "{cookie}");
    let code = phone.code(&app);
    let rest = json!({ "mfa_token": begun.text("mfa_token"), "method": "totp", "code": code });
    let without = anyone.send(Call::post(MFA, rest.clone()).same_origin()).await;
    assert_eq!(without.code(), "login.challenge_over");
    let browser = anyone.clone().with_cookie(cookie);
    let elsewhere = Call::post(MFA, rest.clone()).header("sec-fetch-site", "cross-site");
    assert_eq!(browser.send(elsewhere).await.code(), "access.cross_site");
    let done = browser.send(Call::post(MFA, rest).same_origin()).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    assert!(done.cookie().starts_with("palisade-8000=pal_sc_"), "{:?}", done.headers);
    app.stop().await;
}

async fn answering(on: On) {
    let settings = vec![("limits.enabled", "false"), ("lockout.enabled", "false")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let (phone, codes) = with_phone(&app, "ann@example.com").await;
    let anyone = app.anyone();
    let token = challenge(&anyone, "ann@example.com").await;
    // SECURITY: five proofs, each right and unused, at the same moment: one session.
    let code = phone.code(&app);
    let mut tries = vec![answer_with(&anyone, &token, "totp", &code)];
    tries.extend(codes[..4].iter().map(|code| answer_with(&anyone, &token, "recovery_code", code)));
    let answers = join_all(tries).await;
    let good = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1, "{answers:?}");
    let late = answer_with(&anyone, &token, "recovery_code", &codes[5]).await;
    assert_eq!(place(&late), (401, "", "login.challenge_over"));
    app.stop().await;
}

async fn dying(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let (phone, codes) = with_phone(&app, "ann@example.com").await;
    let ann = sign_in(&app, "ann@example.com", &phone).await;
    let id = me(&ann).await.text("id");
    let anyone = app.anyone();
    for (number, path) in ["revoke-sessions", "disable", "reset-mfa"].into_iter().enumerate() {
        let token = challenge(&anyone, "ann@example.com").await;
        let done = root.act(&format!("/api/v1/users/{id}/{path}")).await;
        assert_eq!(done.status, StatusCode::NO_CONTENT, "{path}: {}", done.raw);
        let late = answer_with(&anyone, &token, "recovery_code", &codes[number]).await;
        assert_eq!(place(&late), (401, "", "login.challenge_over"), "{path}");
        root.act(&format!("/api/v1/users/{id}/enable")).await;
    }
    // Now without a factor: set up again, and change the password beside a sign-in.
    let ann = app.token("ann@example.com").await;
    let (_, codes) = enrol(&ann).await;
    let token = challenge(&anyone, "ann@example.com").await;
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    let changed = ann.post("/api/v1/users/me/password", body).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT, "{}", changed.raw);
    let late = answer_with(&anyone, &token, "recovery_code", &codes[0]).await;
    assert_eq!(place(&late), (401, "", "login.challenge_over"));

    // A reset of the password removes no factor, and signs no one in.
    app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": "ann@example.com" })).await;
    let link = emails(&app).await.into_iter().rev().find(|mail| mail.text.contains("/reset#"));
    let body = json!({ "token": token_of(link), "password": PASSWORD });
    let reset = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!(reset.status, StatusCode::NO_CONTENT, "{}", reset.raw);
    challenge(&anyone, "ann@example.com").await;
    app.stop().await;
}

fn token_of(mail: Option<palisade::mail::Rendered>) -> String {
    token(&mail.expect("an email"))
}

async fn ending(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let old = app.anyone().with_token(first.text("access_token"));
    let browser = app.browser("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let (phone, _) = enrol(&ann).await;
    for other in [&old, &browser] {
        assert_eq!(me(other).await.status, StatusCode::UNAUTHORIZED);
    }
    let body = json!({ "refresh_token": first.text("refresh_token") });
    assert_eq!(app.anyone().post("/api/v1/auth/refresh", body).await.code(), "sessions.ended");
    assert_eq!(me(&ann).await.status, StatusCode::OK);
    app.advance(STEP).await;

    // One more factor ends nothing; a factor less ends every other session.
    let other = sign_in(&app, "ann@example.com", &phone).await;
    assert_eq!(me(&ann).await.status, StatusCode::OK);
    let gone = ann.delete("/api/v1/users/me/totp").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.raw);
    assert_eq!(me(&other).await.status, StatusCode::UNAUTHORIZED);
    let left = me(&ann).await;
    assert_eq!(left.body["mfa"], json!({ "totp": false, "passkeys": 0, "recovery_codes_left": 0 }));
    assert_eq!(ann.delete("/api/v1/users/me/totp").await.status, StatusCode::NOT_FOUND);
    let codes = ann.act("/api/v1/users/me/recovery-codes").await;
    assert_eq!(place(&codes), (409, "", "mfa.no_factor"));
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

async fn racing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    for round in 0..5 {
        let email = format!("ann{round}@example.com");
        app.user(&email).await;
        let ann = app.token(&email).await;
        let made = ann.act("/api/v1/users/me/totp").await;
        let code = Phone::new(&made.text("secret")).code(&app);
        let confirm = ann.post("/api/v1/users/me/totp/confirm", json!({ "code": code }));
        let anyone = app.anyone();
        let sign_ins = join_all((0..8).map(|_| anyone.login(&email)));
        let (confirmed, answers) = tokio::join!(confirm, sign_ins);
        assert_eq!(confirmed.status, StatusCode::OK, "{}", confirmed.raw);
        for answer in answers {
            if answer.status == StatusCode::OK {
                let slipped = anyone.clone().with_token(answer.text("access_token"));
                assert_eq!(me(&slipped).await.status, StatusCode::UNAUTHORIZED);
            } else {
                assert_eq!(answer.code(), "login.mfa_required", "{}", answer.raw);
            }
        }
        let (passwordless,): (i64,) = app
            .app
            .db
            .one(
                "select count(*) from sessions s join users u on u.id = s.user_id
                 where u.email = $1 and s.ended_at is null and s.amr = 'pwd'",
                args![email],
            )
            .await
            .unwrap();
        assert_eq!(passwordless, 0);
    }
    app.stop().await;
}

async fn lacking(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let first = app.anyone().login("ann@example.com").await;
    let ann = app.anyone().with_token(first.text("access_token"));
    let browser = app.browser("ann@example.com").await;
    // As if something had gone wrong: a factor, and a session from before it that lives on.
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run(
        "insert into totp_secrets (user_id, sealed, used_step, created_at)
         select id, $1, 0, created_at from users",
        args![vec![0u8; 60]],
    )
    .await
    .unwrap();
    tx.run("update users set has_totp = $1", args![true]).await.unwrap();
    tx.commit().await.unwrap();
    app.app.forget_all();
    for client in [&ann, &browser] {
        assert_eq!(me(client).await.status, StatusCode::UNAUTHORIZED);
    }
    let body = json!({ "refresh_token": first.text("refresh_token") });
    assert_eq!(app.anyone().post("/api/v1/auth/refresh", body).await.code(), "sessions.ended");
    app.stop().await;
}

async fn proving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, codes) = with_phone(&app, "ann@example.com").await;
    let ann = sign_in(&app, "ann@example.com", &phone).await;
    app.advance(Duration::from_secs(600)).await;
    let wanted = [
        (Method::POST, "/api/v1/users/me/totp"),
        (Method::DELETE, "/api/v1/users/me/totp"),
        (Method::POST, "/api/v1/users/me/recovery-codes"),
        (Method::POST, "/api/v1/users/me/password"),
        (Method::POST, "/api/v1/users/me/email"),
        (Method::DELETE, "/api/v1/users/me"),
    ];
    for (method, path) in wanted {
        let refused = ann.send(Call::new(method.clone(), path).json(json!({}))).await;
        assert_eq!(place(&refused), (403, "", "access.not_fresh"), "{method} {path}");
        assert_eq!(refused.body["methods"], json!(["totp", "recovery_code"]));
    }
    let weak = ann.post(AGAIN, json!({ "password": PASSWORD })).await;
    assert_eq!(place(&weak), (403, "", "login.stronger_needed"));
    assert_eq!(weak.body["methods"], json!(["totp", "recovery_code"]));
    let wrong = ann.post(AGAIN, json!({ "code": phone.wrong(&app) })).await;
    assert_eq!(place(&wrong), (422, "/code", "mfa.wrong_code"));
    let both = json!({ "code": phone.code(&app), "password": PASSWORD });
    assert_eq!(place(&ann.post(AGAIN, both).await), (422, "", "request.one_of"));
    assert_eq!(place(&ann.post(AGAIN, json!({})).await), (422, "", "request.one_of"));
    let again = ann.post(AGAIN, json!({ "code": phone.code(&app) })).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.raw);
    let now = claims(&again.text("access_token"));
    assert_eq!(now["amr"], json!(["pwd", "otp", "mfa"]));
    assert_eq!(now["auth_time"], app.app.clock.now().as_seconds());
    // SECURITY: what the session had before is no longer valid.
    assert_eq!(me(&ann).await.status, StatusCode::UNAUTHORIZED);
    let ann = app.anyone().with_token(again.text("access_token"));
    let used = ann.post(AGAIN, json!({ "code": phone.code(&app) })).await;
    assert_eq!(place(&used), (422, "/code", "mfa.wrong_code"));
    let stand_in = ann.post(AGAIN, json!({ "code": codes[0] })).await;
    assert_eq!(stand_in.status, StatusCode::OK, "{}", stand_in.raw);
    let ann = app.anyone().with_token(stand_in.text("access_token"));
    assert_eq!(ann.delete("/api/v1/users/me/totp").await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

async fn resetting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let ann = sign_in(&app, "ann@example.com", &phone).await;
    let root = app.token("root@example.com").await;
    emails(&app).await;
    let path = format!("/api/v1/users/{}/reset-mfa", me(&ann).await.text("id"));
    assert_eq!(root.act(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(me(&ann).await.status, StatusCode::UNAUTHORIZED);
    assert!(app.events().await.contains(&"mfa.reset".to_owned()));
    let told = emails(&app).await;
    assert!(told.iter().any(|mail| mail.text.contains("all second factors were removed")));
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    let nobody = format!("/api/v1/users/{}/reset-mfa", app.app.new_id());
    assert_eq!(root.act(&nobody).await.status, StatusCode::NOT_FOUND);

    // No one resets the factors of someone who may do more.
    let helpers = json!({ "name": "helpers", "permissions": ["users:write"] });
    assert_eq!(root.post("/api/v1/roles", helpers).await.status, StatusCode::CREATED);
    let bob = app.user("bob@example.com").await;
    put(&root, &format!("/api/v1/users/{bob}/roles/helpers")).await;
    let helper = app.token("bob@example.com").await;
    let above = format!("/api/v1/users/{}/reset-mfa", me(&root).await.text("id"));
    assert_eq!(helper.act(&above).await.code(), "access.exceeds_own");
    app.stop().await;
}

async fn guessing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let inside = sign_in(&app, "ann@example.com", &phone).await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        tokens.push(challenge(&app.anyone(), "ann@example.com").await);
    }
    app.advance(STEP).await;
    let code = phone.code(&app);
    let mut right = 0;
    for round in 0..20u32 {
        let tries = (0..500u32).map(|number| {
            let guess = format!("{:06}", (round * 500 + number) * 97 % 1_000_000);
            let client = app.anyone().from(&format!("203.0.113.{}", number % 250));
            let token = tokens[(number % 10) as usize].clone();
            // From the second round on the right one is among them, and it is too late for it.
            let guess = if round > 0 && number == 250 { code.clone() } else { guess };
            let guess = if round == 0 && guess == code { phone.wrong(&app) } else { guess };
            async move { answer_with(&client, &token, "totp", &guess).await.status }
        });
        right += join_all(tries).await.iter().filter(|status| **status == StatusCode::OK).count();
    }
    assert_eq!(right, 0);
    let judged = app.events().await.iter().filter(|name| *name == "login.denied").count();
    assert_eq!(judged, 5);
    let fresh = challenge(&app.anyone(), "ann@example.com").await;
    let late = answer_with(&app.anyone(), &fresh, "totp", &code).await;
    assert_eq!(place(&late), (429, "", "lockout.locked"));
    let told = emails(&app).await;
    assert!(told.iter().any(|mail| mail.text.contains("too many wrong codes")), "{told:?}");

    // A signed-in user has a count of their own, and it is as short.
    for number in 0..2000u32 {
        let guess = format!("{:06}", number * 31 % 1_000_000);
        let guess = if guess == code { phone.wrong(&app) } else { guess };
        inside.post(AGAIN, json!({ "code": guess })).await;
    }
    let judged = app.events().await.iter().filter(|name| *name == "mfa.wrong").count();
    assert_eq!(judged, 5);
    // An administrator lifts both.
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let id = me(&inside).await.text("id");
    root.act(&format!("/api/v1/users/{id}/unlock")).await;
    let done = answer_with(&app.anyone(), &fresh, "totp", &phone.code(&app)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_without_a_second_factor_can_only_enrol() {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    can_only_enrol(&app, "root@example.com").await;
    // No one else is asked for one.
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    assert_eq!(ann.get("/api/v1/users/me/activity").await.status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_required_a_user_without_a_second_factor_can_only_enrol() {
    let settings = vec![("limits.enabled", "false"), ("mfa.required", "true")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = can_only_enrol(&app, "ann@example.com").await;
    let removed = ann.delete("/api/v1/users/me/totp").await;
    assert_eq!(place(&removed), (409, "", "mfa.required"));
    app.stop().await;
}

/// Nothing is open for a user without a factor but what leads to one; with it, everything. Answers a client that
/// signed in with the factor.
async fn can_only_enrol<'a>(app: &'a TestApp, email: &str) -> Client<'a> {
    let open: Vec<(Method, &str)> = vec![
        (Method::POST, "/api/v1/auth/logout"),
        (Method::POST, AGAIN),
        (Method::GET, "/api/v1/users/me"),
        (Method::POST, "/api/v1/users/me/totp"),
        (Method::POST, "/api/v1/users/me/totp/confirm"),
        (Method::POST, "/api/v1/users/me/passkeys/begin"),
        (Method::POST, "/api/v1/users/me/passkeys/finish"),
    ];
    let (browser, token) = (app.browser(email).await, app.token(email).await);
    for route in app.builder.routes() {
        if route.access.who == palisade::access::Who::Anyone {
            continue;
        }
        let named = (route.method.clone(), route.path.as_str());
        if open.contains(&named) {
            continue;
        }
        // OAuth clients never authenticate with a cookie.
        let no_cookies = route.access.in_body == Some(palisade::access::InBody::Client);
        for client in [&token, if no_cookies { &token } else { &browser }] {
            let path = crate::every_route::concrete(&route.path);
            let call = Call::new(route.method.clone(), &path).json(json!({})).same_origin();
            let answer = client.send(call).await;
            let line = format!("{} {}", route.method, route.path);
            assert_eq!(place(&answer), (403, "", "access.mfa_required"), "{line}");
        }
    }
    assert_eq!(me(&token).await.status, StatusCode::OK);
    let (phone, _) = enrol(&token).await;
    let activity = "/api/v1/users/me/activity";
    assert_eq!(token.get(activity).await.status, StatusCode::OK);
    assert_eq!(me(&browser).await.status, StatusCode::UNAUTHORIZED);
    app.advance(STEP).await;
    let client = sign_in(app, email, &phone).await;
    assert_eq!(client.get(activity).await.status, StatusCode::OK);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_keeps_the_last_factor() {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    enrol(&root).await;
    assert_eq!(place(&root.delete("/api/v1/users/me/totp").await), (409, "", "mfa.required"));
    assert_eq!(me(&root).await.body["mfa"]["totp"], true);
    // Another app may take its place.
    app.advance(STEP).await;
    enrol(&root).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_of_other_servers_asks_for_the_factor_too() {
    let settings = vec![("compat.login_form", "true"), ("limits.enabled", "false")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let form = format!("username=ann%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let call = Call::new(Method::POST, "/api/v1/login/access-token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let answer = app.anyone().send(call).await;
    assert_eq!(place(&answer), (401, "", "login.mfa_required"));
    let token = answer.text("mfa_token");
    let done = answer_with(&app.anyone(), &token, "totp", &phone.code(&app)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_before_is_accepted_for_the_grace_alone() {
    // How long after the end of its step a code is used, and whether it is still accepted.
    for (grace, late, good) in [
        ("10s", 0, true),
        ("10s", 9, true),
        ("10s", 10, false),
        ("10s", 30, false),
        ("0s", 0, false),
    ] {
        let settings = vec![("limits.enabled", "false"), ("mfa.totp_grace", grace)];
        let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
        let (phone, _) = with_phone(&app, "ann@example.com").await;
        let token = challenge(&app.anyone(), "ann@example.com").await;
        let code = phone.code(&app);
        let passed = u64::try_from(app.app.clock.now().as_seconds()).unwrap() % 30;
        app.advance(Duration::from_secs(30 - passed + late)).await;
        let answer = answer_with(&app.anyone(), &token, "totp", &code).await;
        assert_eq!(answer.status == StatusCode::OK, good, "{grace} {late} {}", answer.raw);
        app.stop().await;
    }
}
