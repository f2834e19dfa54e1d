//! Passkeys, through the front door.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use palisade::testing::passkey::{
    BEGIN, FINISH, MINE, ORIGIN, SoftAuthenticator, begin, finish, key, register, with_key,
};
use palisade::testing::phone::{MFA, challenge, with_phone};
use palisade::testing::{
    Answer, Call, Client, On, PASSWORD, Plan, TestApp, claims, patch, place, unlimited,
};
use palisade_crypto::webauthn::testing::USER_PRESENT;
use palisade_db::args;
use serde_json::{Value, json};

palisade::on_both! {
    a_passkey_signs_in_alone_and_as_a_second_factor => |on| super::signing_in(on);
    a_passkey_has_one_owner => |on| super::owning(on);
    a_passkey_alone_must_verify_its_user => |on| super::verifying(on);
    a_passkey_answers_its_own_challenge => |on| super::challenging(on);
    a_bent_passkey_is_refused => |on| super::bending(on);
    a_passkey_is_the_strongest_factor => |on| super::proving(on);
    a_locked_factor_does_not_lock_a_passkey => |on| super::locked(on);
    a_passkey_that_was_moved_or_changed_in_the_database_opens_nothing => |on| super::moved(on);
    a_counter_that_goes_back_is_an_event => |on| super::copying(on);
}

const AGAIN: &str = "/api/v1/auth/reauthenticate";

async fn sign_in(client: &Client<'_>, key: &mut SoftAuthenticator) -> Answer {
    let options = begin(client).await;
    finish(client, key.authenticate(&options, ORIGIN)).await
}

async fn second(client: &Client<'_>, asked: &Answer, credential: Value) -> Answer {
    let token = asked.text("mfa_token");
    let body = json!({ "mfa_token": token, "method": "passkey", "credential": credential });
    client.post(MFA, body).await
}

async fn signing_in(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let old = app.token("ann@example.com").await;
    let options = ann.act(&format!("{MINE}/begin")).await.body;
    assert_eq!(options["rp"], json!({ "id": "localhost", "name": "localhost" }));
    assert_eq!(options["user"]["name"], "ann@example.com");
    assert_eq!(options["attestation"], "none");
    let mut key = key();
    let made = register(&ann, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    assert_eq!(made.body["recovery_codes"].as_array().unwrap().len(), 10);
    assert_eq!(old.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    let me = ann.get("/api/v1/users/me").await;
    assert_eq!(me.body["mfa"]["passkeys"], 1);
    // The same one again is none.
    let options = ann.act(&format!("{MINE}/begin")).await;
    assert_eq!(options.body["excludeCredentials"].as_array().unwrap().len(), 1);
    assert_eq!(place(&register(&ann, &mut key).await), (409, "", "mfa.passkey_taken"));

    // As a second factor.
    let asked = app.anyone().login("ann@example.com").await;
    assert_eq!(place(&asked), (401, "", "login.mfa_required"));
    assert_eq!(asked.body["methods"], json!(["passkey", "recovery_code"]));
    let options = asked.body["passkey_options"].clone();
    let done = second(&app.anyone(), &asked, key.authenticate(&options, ORIGIN)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    let amr = claims(&done.text("access_token"))["amr"].clone();
    assert_eq!(amr, json!(["pwd", "hwk", "user", "mfa"]));

    // Alone.
    let done = sign_in(&app.anyone(), &mut key).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    assert_eq!(claims(&done.text("access_token"))["amr"], json!(["hwk", "user", "mfa"]));
    let ann = app.anyone().with_token(done.text("access_token"));
    assert_eq!(ann.get("/api/v1/users/me").await.body["email"], "ann@example.com");

    // In a browser: the challenge is bound to its cookie.
    let begun = app.anyone().send(Call::new(Method::POST, BEGIN).same_origin()).await;
    let credential = key.authenticate(&begun.body, ORIGIN);
    let body = json!({ "credential": credential, "transport": "cookie" });
    let bare = app.anyone().send(Call::post(FINISH, body.clone()).same_origin()).await;
    assert_eq!(place(&bare), (401, "", "login.challenge_over"));
    let browser = app.anyone().with_cookie(begun.cookie());
    let elsewhere = browser.send(Call::post(FINISH, body.clone())).await;
    assert_eq!(place(&elsewhere), (403, "", "access.cross_site"));
    let done = browser.send(Call::post(FINISH, body).same_origin()).await;
    assert!(done.cookie().starts_with("palisade-8000=pal_sc_"), "{}", done.raw);

    // Its owner names it, sees its use and removes it.
    let list = ann.get(MINE).await;
    let item = &list.body["items"][0];
    assert_eq!(item["name"], "Key");
    assert!(item["last_used_at"].is_string(), "{}", list.raw);
    let path = format!("{MINE}/{}", item["id"].as_str().unwrap());
    assert_eq!(patch(&ann, &path, json!({ "name": "Blue key" })).await.body["name"], "Blue key");
    app.user("bob@example.com").await;
    let bob = app.token("bob@example.com").await;
    for answer in [bob.delete(&path).await, patch(&bob, &path, json!({ "name": "Mine" })).await] {
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(ann.delete(&path).await.status, StatusCode::NO_CONTENT);
    let removed = sign_in(&app.anyone(), &mut key).await;
    assert_eq!(place(&removed), (401, "", "login.passkey_unknown"));
    assert_eq!(app.anyone().login("ann@example.com").await.status, StatusCode::OK);
    app.stop().await;
}

async fn owning(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = with_key(&app, "ann@example.com").await;
    app.user("bob@example.com").await;
    let bob = app.token("bob@example.com").await;
    assert_eq!(place(&register(&bob, &mut key).await), (409, "", "mfa.passkey_taken"));
    assert_eq!(bob.get("/api/v1/users/me").await.body["mfa"]["passkeys"], 0);
    app.stop().await;
}

async fn verifying(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = with_key(&app, "ann@example.com").await;
    key.flags = USER_PRESENT;
    assert_eq!(place(&sign_in(&app.anyone(), &mut key).await), (401, "", "login.denied"));
    // Beside a password it is a second factor all the same.
    let asked = app.anyone().login("ann@example.com").await;
    let credential = key.authenticate(&asked.body["passkey_options"], ORIGIN);
    let done = second(&app.anyone(), &asked, credential).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);

    // Anyone who is disabled stays outside; a lock of the password is of guesses, and here is nothing to guess.
    key.flags |= 0x04;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    for _ in 0..6 {
        let body = json!({ "email": "ann@example.com", "password": "not the right one at all" });
        app.anyone().post("/api/v1/auth/login", body).await;
    }
    let done = sign_in(&app.anyone(), &mut key).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
    let ann = app.anyone().with_token(done.text("access_token"));
    let id = ann.get("/api/v1/users/me").await.text("id");
    root.act(&format!("/api/v1/users/{id}/disable")).await;
    assert_eq!(place(&sign_in(&app.anyone(), &mut key).await), (401, "", "login.denied"));
    app.stop().await;
}

async fn challenging(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = with_key(&app, "ann@example.com").await;
    let anyone = app.anyone();
    // Once, also at the same moment.
    let options = begin(&anyone).await;
    let credential = key.authenticate(&options, ORIGIN);
    let uses = join_all((0..5).map(|_| finish(&anyone, credential.clone()))).await;
    let good = uses.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1, "{uses:?}");
    assert_eq!(place(&finish(&anyone, credential).await), (401, "", "login.challenge_over"));
    // For five minutes.
    let credential = key.authenticate(&begin(&anyone).await, ORIGIN);
    app.advance(Duration::from_secs(300)).await;
    assert_eq!(place(&finish(&anyone, credential).await), (401, "", "login.challenge_over"));
    // Made by us.
    let mut foreign = begin(&anyone).await;
    foreign["challenge"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let credential = key.authenticate(&foreign, ORIGIN);
    assert_eq!(place(&finish(&anyone, credential).await), (401, "", "login.challenge_over"));

    // SECURITY: each kind of challenge for its own step, each step for its own challenge.
    let asked = anyone.login("ann@example.com").await;
    let for_second = key.authenticate(&asked.body["passkey_options"], ORIGIN);
    let for_sign_in = key.authenticate(&begin(&anyone).await, ORIGIN);
    assert_eq!(
        place(&finish(&anyone, for_second.clone()).await),
        (401, "", "login.challenge_over")
    );
    let refused = second(&anyone, &asked, for_sign_in.clone()).await;
    assert_eq!(place(&refused), (401, "", "login.denied"));
    let other = anyone.login("ann@example.com").await;
    let refused = second(&anyone, &other, for_second.clone()).await;
    assert_eq!(place(&refused), (401, "", "login.denied"));
    let ann =
        anyone.clone().with_token(second(&anyone, &asked, for_second).await.text("access_token"));
    let done = finish(&anyone, for_sign_in.clone()).await;
    let other = anyone.clone().with_token(done.text("access_token"));
    let step = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let for_step = key.authenticate(&step, ORIGIN);
    for (client, credential) in [(&other, &for_step), (&ann, &for_sign_in)] {
        let refused = client.post(AGAIN, json!({ "credential": credential })).await;
        assert_eq!(place(&refused), (422, "/credential", "mfa.wrong_passkey"));
    }
    assert_eq!(place(&finish(&anyone, for_step.clone()).await), (401, "", "login.challenge_over"));
    let fresh = ann.post(AGAIN, json!({ "credential": for_step })).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);

    // A registration belongs to the session that asked for it.
    let ann = anyone.clone().with_token(fresh.text("access_token"));
    let options = ann.act(&format!("{MINE}/begin")).await.body;
    let body = json!({ "credential": self::key().register(&options, ORIGIN) });
    let refused = other.post(&format!("{MINE}/finish"), body.clone()).await;
    assert_eq!(place(&refused), (422, "/credential/response/clientDataJSON", "mfa.bad_passkey"));
    let made = ann.post(&format!("{MINE}/finish"), body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    assert_eq!(made.body["recovery_codes"], json!([]));
    let again = ann.post(&format!("{MINE}/finish"), body).await;
    assert_eq!(place(&again), (422, "/credential/response/clientDataJSON", "mfa.bad_passkey"));
    app.stop().await;
}

/// One change to an answer that was good.
type Bend = (&'static str, fn(&mut Value, &Value));

const BENDS: &[Bend] = &[
    ("/response/userHandle", |place, theirs| *place = theirs["response"]["userHandle"].clone()),
    ("/response/userHandle", |place, _| *place = Value::Null),
    ("/response/signature", |place, theirs| *place = theirs["response"]["signature"].clone()),
    ("/response/authenticatorData", |place, _| *place = json!("AAAA")),
    ("/id", |place, theirs| *place = theirs["id"].clone()),
    ("/type", |place, _| *place = json!("password")),
    ("/response/signature", |place, _| *place = json!(format!("{}=", place.as_str().unwrap()))),
    ("", |place, theirs| {
        let mine = place["response"]["userHandle"].clone();
        *place = theirs.clone();
        place["response"]["userHandle"] = mine;
    }),
];

async fn bending(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = with_key(&app, "ann@example.com").await;
    let mut others = with_key(&app, "bob@example.com").await;
    let anyone = app.anyone();
    for origin in
        ["https://localhost:8000", "http://localhost", "http://localhost:8000.evil.example"]
    {
        let bent = key.authenticate(&begin(&anyone).await, origin);
        assert_eq!(place(&finish(&anyone, bent).await), (401, "", "login.denied"), "{origin}");
    }
    let mut elsewhere = begin(&anyone).await;
    elsewhere["rpId"] = json!("example.com");
    let bent = key.authenticate(&elsewhere, ORIGIN);
    assert_eq!(place(&finish(&anyone, bent).await), (401, "", "login.denied"));
    for (number, (path, bend)) in BENDS.iter().enumerate() {
        let options = begin(&anyone).await;
        let mut bent = key.authenticate(&options, ORIGIN);
        bend(bent.pointer_mut(path).unwrap(), &others.authenticate(&options, ORIGIN));
        let refused = finish(&anyone, bent).await;
        let malformed = refused.code() == "request.invalid";
        let denied = malformed || place(&refused) == (401, "", "login.denied");
        assert!(denied, "{number}: {}", refused.raw);
    }
    assert_eq!(sign_in(&anyone, &mut key).await.status, StatusCode::OK);
    app.stop().await;
}

async fn proving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (phone, codes) = with_phone(&app, "ann@example.com").await;
    let anyone = app.anyone();
    let token = challenge(&anyone, "ann@example.com").await;
    let by_phone = |token: String, code: String| {
        anyone.post(MFA, json!({ "mfa_token": token, "method": "totp", "code": code }))
    };
    let done = by_phone(token, phone.code(&app)).await;
    let ann = anyone.clone().with_token(done.text("access_token"));
    let mut key = key();
    assert_eq!(register(&ann, &mut key).await.status, StatusCode::CREATED);
    // The session that made it has proved it.
    assert_eq!(ann.act("/api/v1/users/me/recovery-codes").await.status, StatusCode::OK);
    app.advance(Duration::from_secs(30)).await;

    // Anyone who signs in with the app may read, and must use the passkey for what asks for a fresh proof.
    let token = challenge(&anyone, "ann@example.com").await;
    let done = by_phone(token, phone.code(&app)).await;
    let ann = anyone.clone().with_token(done.text("access_token"));
    let refused = ann.delete("/api/v1/users/me/totp").await;
    assert_eq!(place(&refused), (403, "", "access.not_fresh"));
    assert_eq!(refused.body["methods"], json!(["passkey", "recovery_code"]));
    app.advance(Duration::from_secs(30)).await;
    for weak in [json!({ "code": phone.code(&app) }), json!({ "password": PASSWORD })] {
        assert_eq!(place(&ann.post(AGAIN, weak).await), (403, "", "login.stronger_needed"));
    }
    assert_eq!(
        place(&ann.post(AGAIN, json!({ "code": codes[0] })).await),
        (422, "/code", "mfa.wrong_code"),
        "those of before are good no more"
    );
    let options = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let body = json!({ "credential": key.authenticate(&options, ORIGIN) });
    let fresh = ann.post(AGAIN, body).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);
    let amr = claims(&fresh.text("access_token"))["amr"].clone();
    assert_eq!(amr, json!(["pwd", "otp", "mfa", "hwk", "user"]));
    let ann = anyone.clone().with_token(fresh.text("access_token"));
    assert_eq!(ann.delete("/api/v1/users/me/totp").await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

/// A stolen session guesses at codes and sends passkey responses that are wrong. The owner's passkey works on.
async fn locked(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = with_key(&app, "ann@example.com").await;
    let mut other = self::key();
    let signed_in = sign_in(&app.anyone(), &mut key).await;
    let ann = app.anyone().with_token(signed_in.text("access_token"));
    for _ in 0..7 {
        let options = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
        let mut wrong = key.authenticate(&options, ORIGIN);
        wrong["response"]["signature"] =
            other.authenticate(&options, ORIGIN)["response"]["signature"].clone();
        let refused = ann.post(AGAIN, json!({ "credential": wrong })).await;
        assert_eq!(place(&refused), (422, "/credential", "mfa.wrong_passkey"));
    }
    let guess = async || ann.post(AGAIN, json!({ "code": "aaaaaaaaaaaaaaaaaaaaaaaa" })).await;
    for _ in 0..5 {
        assert_eq!(place(&guess().await), (422, "/code", "mfa.wrong_code"));
    }
    assert_eq!(place(&guess().await), (429, "", "lockout.locked"));
    let options = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let right = key.authenticate(&options, ORIGIN);
    let fresh = ann.post(AGAIN, json!({ "credential": right })).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);
    app.stop().await;
}

/// Eve can write to the database, and has a passkey of her own.
async fn moved(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (hers, mut eve) =
        (with_key(&app, "ann@example.com").await, with_key(&app, "eve@example.com").await);
    let write = |sql: &'static str| {
        let app = &app;
        async move {
            let mut tx = app.app.upkeep("a test").begin().await.unwrap();
            assert_eq!(tx.run(sql, args!["ann@example.com", "eve@example.com"]).await.unwrap(), 1);
            tx.commit().await.unwrap();
        }
    };
    let altered = || async {
        app.events().await.iter().filter(|event| *event == "mfa.passkey_altered").count()
    };
    let own = (eve.id.clone(), eve.user_handle.clone());
    // SECURITY: her public key in the row of Ann's passkey.
    write(
        "update passkeys set sealed = (select p.sealed from passkeys p join users u on u.id = p.user_id
            where u.email = $2)
         where user_id = (select id from users where email = $1)",
    )
    .await;
    (eve.id, eve.user_handle) = (hers.id.clone(), hers.user_handle.clone());
    assert_eq!(place(&sign_in(&app.anyone(), &mut eve).await), (401, "", "login.denied"));
    assert_eq!(altered().await, 1);
    let asked = app.anyone().login("ann@example.com").await;
    let credential = eve.authenticate(&asked.body["passkey_options"], ORIGIN);
    assert_eq!(place(&second(&app.anyone(), &asked, credential).await), (401, "", "login.denied"));
    assert_eq!(altered().await, 2);
    // SECURITY: her whole row as one of Ann's.
    write(
        "update passkeys set user_id = (select id from users where email = $1)
         where user_id = (select id from users where email = $2)",
    )
    .await;
    eve.id = own.0;
    assert_eq!(place(&sign_in(&app.anyone(), &mut eve).await), (401, "", "login.denied"));
    assert_eq!(altered().await, 3);
    // In its own place it is good again.
    write(
        "update passkeys set user_id = (select id from users where email = $2)
         where credential_id <> (select credential_id from passkeys order by created_at, id limit 1)
            and $1 <> ''",
    )
    .await;
    eve.user_handle = own.1;
    assert_eq!(sign_in(&app.anyone(), &mut eve).await.status, StatusCode::OK);
    app.stop().await;
}

async fn copying(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let mut key = key();
    key.sign_count = 7;
    app.user("ann@example.com").await;
    let made = register(&app.token("ann@example.com").await, &mut key).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    assert_eq!(sign_in(&app.anyone(), &mut key).await.status, StatusCode::OK);
    key.sign_count = 6;
    assert_eq!(place(&sign_in(&app.anyone(), &mut key).await), (401, "", "login.denied"));
    assert!(app.events().await.contains(&"mfa.passkey_copied".to_owned()));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maker_that_nobody_named_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    let root = rcgen::generate_simple_self_signed(vec!["root".to_owned()]).unwrap();
    std::fs::write(&path, root.cert.pem()).unwrap();
    let path: &'static str = path.to_str().unwrap().to_owned().leak();
    let settings = vec![("mfa.attestation", "direct"), ("mfa.attestation_roots", path)];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let options = ann.act(&format!("{MINE}/begin")).await;
    assert_eq!(options.body["attestation"], "direct");
    let made = register(&ann, &mut key()).await;
    assert_eq!(place(&made), (422, "/credential/response/attestationObject", "mfa.bad_passkey"));
    assert_eq!(ann.get("/api/v1/users/me").await.body["mfa"]["passkeys"], 0);
    app.stop().await;
}

const APP: &str = "android:apk-key-hash:A0JAQL4-2zuMwLcTvF7mWhAqMGbMRkRZw1dP6fHyCjI";
const OTHER_APP: &str = "android:apk-key-hash:B0JAQL4-2zuMwLcTvF7mWhAqMGbMRkRZw1dP6fHyCjI";
const RELATED: &str =
    "https://example.org, android:apk-key-hash:A0JAQL4-2zuMwLcTvF7mWhAqMGbMRkRZw1dP6fHyCjI";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_alone_is_not_listed_for_browsers() {
    let settings = vec![("mfa.related_origins", APP)];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..unlimited() }).await;
    let none = app.anyone().get("/.well-known/webauthn").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    // An app signs in and confirms an identity as a page does.
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let mut key = key();
    let options = ann.act(&format!("{MINE}/begin")).await.body;
    let body = json!({ "credential": key.register(&options, APP) });
    let made = ann.post(&format!("{MINE}/finish"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    let anyone = app.anyone();
    for (origin, status) in [(APP, StatusCode::OK), (OTHER_APP, StatusCode::UNAUTHORIZED)] {
        let credential = key.authenticate(&begin(&anyone).await, origin);
        assert_eq!(finish(&anyone, credential).await.status, status, "{origin}");
    }
    let options = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let credential = key.authenticate(&options, APP);
    let fresh = ann.post(AGAIN, json!({ "credential": credential })).await;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.raw);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passkeys_belong_to_a_domain_and_its_related_origins() {
    let plan = |settings| Plan { settings, ..Plan::default() };
    let by_ip = vec![("server.public_url", "http://127.0.0.1:8000")];
    let app = TestApp::with(On::Sqlite, plan(by_ip)).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let refused = ann.act(&format!("{MINE}/begin")).await;
    assert_eq!(place(&refused), (409, "", "mfa.no_domain"));
    assert_eq!(place(&app.anyone().act(BEGIN).await), (409, "", "mfa.no_domain"));
    let none = app.anyone().get("/.well-known/webauthn").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    app.stop().await;

    let related = vec![
        ("server.public_url", "https://app.example.com"),
        ("mfa.rp_id", "example.com"),
        ("mfa.related_origins", RELATED),
    ];
    let app = TestApp::with(On::Sqlite, plan(related)).await;
    let named = app.anyone().get("/.well-known/webauthn").await;
    assert_eq!(named.body, json!({ "origins": ["https://example.org"] }));
    let where_to = app.anyone().get("/.well-known/passkey-endpoints").await;
    assert_eq!(where_to.body["enroll"], "https://app.example.com/account/security");
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    for (origin, good) in [
        ("https://example.org", true),
        (APP, true),
        ("https://www.example.com", false),
        (ORIGIN, false),
        (OTHER_APP, false),
        (&APP[..APP.len() - 1], false),
        (&APP.to_uppercase(), false),
        (&format!("{APP}="), false),
    ] {
        let options = ann.act(&format!("{MINE}/begin")).await.body;
        assert_eq!(options["rp"]["id"], "example.com");
        let body = json!({ "credential": key().register(&options, origin) });
        let made = ann.post(&format!("{MINE}/finish"), body).await;
        assert_eq!(made.status == StatusCode::CREATED, good, "{origin}: {}", made.raw);
    }
    app.stop().await;
}
