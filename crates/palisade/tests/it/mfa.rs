//! Second factors: what must not outlive a new password, an ending, or a factor; and what gives no more guesses.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::testing::mailbox::link;
use palisade::testing::passkey::{ORIGIN, key, register};
use palisade::testing::phone::{MFA, answer_with, challenge, enrol, sign_in, with_phone};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, Plan, TestApp, place, unlimited};
use palisade::{roles, users};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::{Value, json};

palisade::on_both! {
    a_planted_passkey_does_not_outlive_the_password_alone => |on| super::planting(on);
    a_new_password_by_mail_gives_no_more_guesses_at_the_factor => |on| super::guessing(on);
    devices_give_no_more_guesses_at_the_factor => |on| super::minting(on);
    every_way_in_asks_for_the_factor => |on| super::coming_in(on);
    a_recovery_code_that_was_moved_in_the_database_opens_nothing => |on| super::moved_codes(on);
    a_secret_opens_for_its_user_alone => |on| super::swapping(on);
    two_removals_at_once_leave_an_administrator_a_factor => |on| super::racing(on);
    who_is_made_an_administrator_keeps_the_last_factor => |on| super::promoting(on);
}

const NEW: &str = "five green kettles whistle";
const STEP: Duration = Duration::from_secs(30);

async fn login(app: &TestApp, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    app.anyone().post("/api/v1/auth/login", body).await
}

/// Sets a new password as a person who reads the mail.
async fn reset(app: &TestApp, email: &str, password: &str) {
    let body = json!({ "email": email });
    app.anyone().post("/api/v1/auth/password/forgot", body).await;
    let link = link(app, "reset").await;
    let body = json!({ "token": link, "password": password });
    let done = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.raw);
}

async fn passwordless(
    app: &TestApp,
    key: &mut palisade_crypto::webauthn::testing::SoftAuthenticator,
) -> Answer {
    let call = Call::new(Method::POST, "/api/v1/auth/login/passkey/begin");
    let options = app.anyone().send(call).await.body;
    let body = json!({ "credential": key.authenticate(&options, ORIGIN) });
    app.anyone().post("/api/v1/auth/login/passkey/finish", body).await
}

async fn planting(on: On) {
    for by_undoing in [false, true] {
        let app = TestApp::with(on, unlimited()).await;
        app.user("ann@example.com").await;
        // Anyone who knows the password makes a passkey, and later moves the account on.
        let thief = app.token("ann@example.com").await;
        let mut planted = key();
        register(&thief, &mut planted).await;
        assert_eq!(passwordless(&app, &mut planted).await.status, StatusCode::OK);
        app.advance(Duration::from_secs(60)).await;
        if by_undoing {
            let body = json!({ "email": "thief@evil.example" });
            thief.post("/api/v1/users/me/email", body).await;
            let confirm = link(&app, "email").await;
            let body = json!({ "token": confirm, "password": PASSWORD });
            app.anyone().post("/api/v1/auth/email/confirm", body).await;
            let undo = link(&app, "undo").await;
            let body = json!({ "token": undo, "password": NEW });
            let undone = app.anyone().post("/api/v1/auth/email/undo", body).await;
            assert_eq!(undone.status, StatusCode::NO_CONTENT, "{}", undone.raw);
        } else {
            reset(&app, "ann@example.com", NEW).await;
        }
        let refused = passwordless(&app, &mut planted).await;
        assert_eq!(place(&refused), (401, "", "login.denied"), "{}", refused.raw);
        // Beside the new password it is a factor as before, and from then on good alone again.
        let asked = login(&app, "ann@example.com", NEW).await;
        let options: &Value = &asked.body["passkey_options"];
        let body = json!({ "mfa_token": asked.text("mfa_token"), "method": "passkey",
            "credential": planted.authenticate(options, ORIGIN) });
        assert_eq!(app.anyone().post(MFA, body).await.status, StatusCode::OK);
        assert_eq!(passwordless(&app, &mut planted).await.status, StatusCode::OK);
        app.stop().await;
    }
}

async fn guessing(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, _) = with_phone(&app, "ann@example.com").await;
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    for _ in 0..5 {
        answer_with(&app.anyone(), &asked, "totp", &phone.wrong(&app)).await;
    }
    reset(&app, "ann@example.com", NEW).await;
    let asked = login(&app, "ann@example.com", NEW).await.text("mfa_token");
    let late = answer_with(&app.anyone(), &asked, "totp", &phone.code(&app)).await;
    assert_eq!(place(&late), (429, "", "lockout.locked"));
    app.stop().await;
}

async fn minting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(login(&app, "ann@example.com", PASSWORD).await.text("device_token"));
    }
    let (phone, _) = enrol(&app.token("ann@example.com").await).await;
    for device in devices {
        let body =
            json!({ "email": "ann@example.com", "password": PASSWORD, "device_token": device });
        let asked = app.anyone().post("/api/v1/auth/login", body).await.text("mfa_token");
        for _ in 0..4 {
            answer_with(&app.anyone(), &asked, "totp", &phone.wrong(&app)).await;
        }
    }
    let judged = app.events().await.iter().filter(|name| *name == "login.denied").count();
    assert_eq!(judged, 5);
    app.stop().await;
}

async fn moved_codes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (_, hers) = with_phone(&app, "ann@example.com").await;
    let (_, his) = with_phone(&app, "bob@example.com").await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    // SECURITY: Bob can write to the database, and gives his codes to Ann.
    let given = tx
        .run(
            "update recovery_codes set user_id = (select id from users where email = $1)
             where user_id = (select id from users where email = $2)",
            args!["ann@example.com", "bob@example.com"],
        )
        .await
        .unwrap();
    assert_eq!(given, 10);
    let written = "update users set recovery_codes_left = case when email = $1 then 20 else 0 end";
    tx.run(written, args!["ann@example.com"]).await.unwrap();
    tx.commit().await.unwrap();
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    let refused = answer_with(&app.anyone(), &asked, "recovery_code", &his[0]).await;
    assert_eq!(refused.code(), "login.denied", "{}", refused.raw);
    let done = answer_with(&app.anyone(), &asked, "recovery_code", &hers[0]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    app.stop().await;
}

async fn swapping(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (hers, _) = with_phone(&app, "ann@example.com").await;
    with_phone(&app, "bob@example.com").await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run(
        "update totp_secrets set sealed = (select t.sealed from totp_secrets t join users u on u.id = t.user_id
            where u.email = $1)",
        args!["ann@example.com"],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    // Anyone who can write to the database can't make Bob's app out of Ann's.
    let asked = challenge(&app.anyone(), "bob@example.com").await;
    let refused = answer_with(&app.anyone(), &asked, "totp", &hers.code(&app)).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", refused.raw);
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    let done = answer_with(&app.anyone(), &asked, "totp", &hers.code(&app)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    app.stop().await;
}

/// Whatever someone has who has everything but the factor, it opens nothing.
async fn coming_in(on: On) {
    let settings = vec![("limits.enabled", "false"), ("compat.login_form", "true")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let id = app.user("ann@example.com").await;
    // From before the factor: tokens of both forms, a cookie, a refresh token, a device.
    let jwt = login(&app, "ann@example.com", PASSWORD).await;
    let body =
        json!({ "email": "ann@example.com", "password": PASSWORD, "token_format": "paseto" });
    let paseto = app.anyone().post("/api/v1/auth/login", body).await;
    let browser = app.browser("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    enrol(&ann).await;
    for old in [&jwt, &paseto] {
        let old = app.anyone().with_token(old.text("access_token"));
        assert_eq!(old.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(browser.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    for old in [&jwt, &paseto] {
        let body = json!({ "refresh_token": old.text("refresh_token") });
        let refused = app.anyone().post("/api/v1/auth/refresh", body).await;
        assert_eq!(refused.code(), "sessions.ended");
    }
    let cookie = browser.send(Call::new(Method::POST, "/api/v1/auth/refresh").same_origin()).await;
    assert_eq!(cookie.code(), "sessions.ended");
    // The password: as tokens of both forms, as a cookie, from a known device, by the form.
    for more in [
        json!({}),
        json!({ "token_format": "paseto" }),
        json!({ "transport": "cookie" }),
        json!({ "device_token": jwt.text("device_token") }),
    ] {
        let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = Call::post("/api/v1/auth/login", body).same_origin();
        let asked = app.anyone().send(call).await;
        assert_eq!(place(&asked), (401, "", "login.mfa_required"), "{more}");
    }
    let form = format!("username=ann%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let call = Call::new(Method::POST, "/api/v1/login/access-token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(app.anyone().send(call).await.code(), "login.mfa_required");
    // Someone else's passkey, and one that says it is hers.
    app.user("bob@example.com").await;
    let mut theirs = key();
    register(&app.token("bob@example.com").await, &mut theirs).await;
    theirs.user_handle = id.0.as_bytes().to_vec();
    assert_eq!(place(&passwordless(&app, &mut theirs).await), (401, "", "login.denied"));
    // Links: a new password by mail, and by the operator's email; each signs no one in and leaves the factor.
    reset(&app, "ann@example.com", NEW).await;
    assert_eq!(login(&app, "ann@example.com", NEW).await.code(), "login.mfa_required");
    let holds = [Hold::Shared(id)];
    let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    palisade::invitations::send_link(change, id).await.unwrap();
    let link = link(&app, "invite").await;
    let body = json!({ "token": link, "password": PASSWORD });
    let used = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!((used.status, used.raw.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(login(&app, "ann@example.com", PASSWORD).await.code(), "login.mfa_required");
    app.stop().await;
}

async fn racing(on: On) {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    for round in 0..4 {
        let email = format!("root{round}@example.com");
        app.admin(&email).await;
        let root: Client<'_> = app.token(&email).await;
        enrol(&root).await;
        let made = register(&root, &mut key()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
        let passkey = format!("/api/v1/users/me/passkeys/{}", made.text("id"));
        let (one, other) =
            tokio::join!(root.delete(&passkey), root.delete("/api/v1/users/me/totp"));
        let codes = [one.code(), other.code()];
        assert!(codes.contains(&"mfa.required"), "{codes:?}");
        let mfa = root.get("/api/v1/users/me").await.body["mfa"].clone();
        assert!(mfa["totp"] == true || mfa["passkeys"] == 1, "{mfa}");
    }
    app.stop().await;
}

/// The role is being given in another process, and the removal waits for it.
async fn promoting(on: On) {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let other = app.second().await;
    for factor in ["totp", "passkey"] {
        let email = format!("{factor}@example.com");
        let id = app.user(&email).await;
        let ann = app.token(&email).await;
        let path = if factor == "totp" {
            enrol(&ann).await;
            "/api/v1/users/me/totp".to_owned()
        } else {
            let made = register(&ann, &mut key()).await;
            assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
            format!("/api/v1/users/me/passkeys/{}", made.text("id"))
        };
        let shared = [Hold::Shared(id)];
        let change = other.app.change_holding(&Actor::operator(), &shared).await.unwrap();
        let give = async {
            until_one_waits(&app.app.db).await;
            roles::grant(change, id, &"admin".parse().unwrap()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ann.delete(&path), give);
        assert_eq!(place(&answer), (409, "", "mfa.required"), "{factor}: {}", answer.raw);
        let me = users::find(&app.app, id).await.unwrap().unwrap();
        assert!(me.factors.any(), "{factor}");
    }
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_must_enrol_is_not_active() {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let (phone, _) = enrol(&root).await;
    app.advance(STEP).await;
    let root = sign_in(&app, "root@example.com", &phone).await;
    app.admin("bare@example.com").await;
    let bare = app.token("bare@example.com").await.bearer.unwrap();
    let worth = |token: &str| {
        let call = Call::new(Method::POST, "/api/v1/auth/introspect")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        let root = root.clone();
        async move { root.send(call).await.body["active"].clone() }
    };
    assert_eq!(worth(&bare).await, false);
    assert_eq!(worth(root.bearer.as_ref().unwrap()).await, true);
    app.stop().await;
}

/// Every field of a passkey and of a code, each wrong in its own way, and where the answer says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_field_of_a_factor_is_named() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    let (_, _) = with_phone(&app, "ann@example.com").await;
    let asked = challenge(&app.anyone(), "ann@example.com").await;
    for (method, bad) in [
        ("totp", vec!["", "12345", "1234567", "12a456", "123.456", "-12345", " 12345", "½23456"]),
        (
            "recovery_code",
            vec!["", "abcd", "0000-0000-0000-0000-0000-000u", "0000-0000-0000-0000-0000-0000-0"],
        ),
    ] {
        for code in bad {
            let refused = answer_with(&app.anyone(), &asked, method, code).await;
            assert_eq!(place(&refused), (422, "/code", "mfa.bad_code"), "{method} {code:?}");
        }
    }
    for (body, pointer) in [
        (json!({ "mfa_token": asked, "method": "totp" }), "/code"),
        (json!({ "mfa_token": asked, "method": "passkey" }), "/credential"),
        (json!({ "mfa_token": asked, "method": "sms", "code": "123456" }), "/method"),
        (json!({ "method": "totp", "code": "123456" }), "/mfa_token"),
        (json!({ "mfa_token": asked, "method": "totp", "code": 123_456 }), "/code"),
    ] {
        assert_eq!(place(&app.anyone().post(MFA, body.clone()).await).1, pointer, "{body}");
    }
    every_bad_member_is_named(&app).await;
    app.stop().await;
}

async fn every_bad_member_is_named(app: &TestApp) {
    let good = json!({ "id": "AAAAAAAAAAAAAAAAAAAAAA", "rawId": "AAAAAAAAAAAAAAAAAAAAAA", "type": "public-key",
        "response": { "clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": "AAAA",
            "attestationObject": "AAAA", "userHandle": "AAAA" } });
    let bad = [
        json!("***"),
        json!("AA=="),
        json!(7),
        json!(["x"]),
        json!({}),
        json!("A".repeat(200_000)),
    ];
    let ann = app.anyone().with_token(inside(app).await);
    for member in ["id", "rawId", "type"] {
        for value in &bad {
            let mut credential = good.clone();
            credential[member] = value.clone();
            named(
                app,
                &ann,
                &credential,
                &["/credential/id", "/credential/rawId", "/credential/type"],
            )
            .await;
        }
    }
    for member in
        ["clientDataJSON", "authenticatorData", "signature", "attestationObject", "userHandle"]
    {
        for value in &bad {
            let mut credential = good.clone();
            credential["response"][member] = value.clone();
            // Client data that says nothing is what is wrong before anything else.
            let pointer = format!("/credential/response/{member}");
            named(app, &ann, &credential, &[&pointer, "/credential/response/clientDataJSON"]).await;
        }
    }
}

/// An access token of someone without a factor.
async fn inside(app: &TestApp) -> String {
    app.user("bob@example.com").await;
    app.token("bob@example.com").await.bearer.unwrap()
}

async fn named(app: &TestApp, client: &Client<'_>, credential: &Value, pointers: &[&str]) {
    let body = json!({ "credential": credential });
    let alone = app.anyone().post("/api/v1/auth/login/passkey/finish", body.clone()).await;
    let made = client.post("/api/v1/users/me/passkeys/finish", body).await;
    for answer in [alone, made] {
        let (status, pointer, _) = place(&answer);
        assert_eq!(status, 422, "{}", answer.raw);
        assert!(pointers.contains(&pointer), "{pointer} isn't in {pointers:?}: {}", answer.raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_resets_their_own_factors() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    let id = app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    enrol(&root).await;
    let refused = root.act(&format!("/api/v1/users/{id}/reset-mfa")).await;
    assert_eq!(place(&refused), (403, "", "mfa.own_factors"));
    app.stop().await;
}
