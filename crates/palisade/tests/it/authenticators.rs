//! What authenticators and browsers do in the field, beyond what the specification's examples show.

use axum::http::StatusCode;
use futures_util::future::join_all;
use palisade::testing::mailbox::emails;
use palisade::testing::passkey::{MINE, ORIGIN, SoftAuthenticator, begin, finish, key};
use palisade::testing::phone::MFA;
use palisade::testing::{Answer, Call, Client, On, Plan, TestApp, claims, place, unlimited};
use palisade_crypto::random::OsRandom;
use palisade_crypto::webauthn::Algorithm;
use palisade_crypto::webauthn::testing::{
    BACKED_UP, BACKUP_ELIGIBLE, USER_PRESENT, USER_VERIFIED, attestation_object, client_data,
    encode,
};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::{Value, json};

use crate::mfa_changes::with_key;
use crate::racing::a_while;

palisade::on_both! {
    an_empty_user_handle_counts_as_absent => |on| super::empty_handle(on);
    the_counter_of_a_synced_passkey_means_nothing => |on| super::uncounted(on);
    a_passkey_gains_backup_eligibility_at_every_door => |on| super::gaining(on);
    backup_eligibility_needs_a_verified_user_and_is_never_lost => |on| super::narrow(on);
    of_simultaneous_responses_one_gains_backup_eligibility => |on| super::gaining_at_once(on);
    only_a_passkey_that_no_user_has_is_unknown => |on| super::unknown(on);
    opening_the_page_is_no_sign_in => |on| super::opening(on);
}

const AGAIN: &str = "/api/v1/auth/reauthenticate";
const VERIFIED: u8 = USER_PRESENT | USER_VERIFIED;
const SYNCED: u8 = VERIFIED | BACKUP_ELIGIBLE | BACKED_UP;
const GAINED: &str = "mfa.passkey_backup_eligible";
const COPIED: &str = "mfa.passkey_copied";

/// The three places where a passkey proves who someone is.
#[derive(Clone, Copy, Debug)]
enum Door {
    Alone,
    Second,
    Again,
}

const DOORS: [Door; 3] = [Door::Alone, Door::Second, Door::Again];

/// Uses a passkey of the user at a door, after `change` was made to its response.
async fn enter(
    door: Door,
    client: &Client<'_>,
    email: &str,
    key: &mut SoftAuthenticator,
    change: impl Fn(&mut Value),
) -> Answer {
    let mut respond = |options: &Value| {
        let mut credential = key.authenticate(options, ORIGIN);
        change(&mut credential);
        credential
    };
    match door {
        Door::Alone => finish(client, respond(&begin(client).await)).await,
        Door::Second => {
            let asked = client.login(email).await;
            let credential = respond(&asked.body["passkey_options"]);
            let token = asked.text("mfa_token");
            let body = json!({ "mfa_token": token, "method": "passkey", "credential": credential });
            client.post(MFA, body).await
        }
        Door::Again => {
            let options = client.act(&format!("{AGAIN}/passkey/begin")).await.body;
            client.post(AGAIN, json!({ "credential": respond(&options) })).await
        }
    }
}

/// The client for a door: within a session where it has to be one.
async fn client<'a>(
    app: &'a TestApp,
    door: Door,
    email: &str,
    key: &mut SoftAuthenticator,
) -> Client<'a> {
    let anyone = app.anyone();
    match door {
        Door::Again => {
            let done = enter(Door::Second, &anyone, email, key, |_| ()).await;
            assert_eq!(done.status, StatusCode::OK, "{}", done.raw);
            anyone.with_token(done.text("access_token"))
        }
        _ => anyone,
    }
}

/// A user with a key of these flags and this counter.
async fn user(app: &TestApp, email: &str, flags: u8, count: u32) -> SoftAuthenticator {
    let mut key = key();
    (key.flags, key.sign_count) = (flags, count);
    with_key(app, email, key).await
}

async fn times(app: &TestApp, event: &str) -> usize {
    app.events().await.iter().filter(|name| *name == event).count()
}

fn amr(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    serde_json::from_value(claims(&answer.text("access_token"))["amr"].clone()).unwrap()
}

/// Safari writes an empty handle for a security key that keeps none.
async fn empty_handle(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let email = "ann@example.com";
    let mut key = user(&app, email, VERIFIED, 0).await;
    for door in DOORS {
        for absent in [json!(""), Value::Null] {
            let client = client(&app, door, email, &mut key).await;
            let change = |credential: &mut Value| {
                credential["response"]["userHandle"] = absent.clone();
            };
            let answer = enter(door, &client, email, &mut key, change).await;
            match door {
                // Nothing else says there who it is.
                Door::Alone => assert_eq!(place(&answer), (401, "", "login.denied")),
                _ => assert_eq!(answer.status, StatusCode::OK, "{door:?} {}", answer.raw),
            }
        }
    }
    app.stop().await;
}

async fn uncounted(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let email = "ann@example.com";
    let mut key = user(&app, email, SYNCED, 50).await;
    for door in DOORS {
        for count in [70, 60, 1, 0] {
            let client = client(&app, door, email, &mut key).await;
            key.sign_count = count;
            let answer = enter(door, &client, email, &mut key, |_| ()).await;
            assert_eq!(answer.status, StatusCode::OK, "{door:?} {count} {}", answer.raw);
        }
    }
    // Two devices of its owner at the same moment.
    let anyone = app.anyone();
    let mut credentials = Vec::new();
    for _ in 0..6 {
        key.sign_count = 9;
        credentials.push(key.authenticate(&begin(&anyone).await, ORIGIN));
    }
    let answers = join_all(credentials.into_iter().map(|one| finish(&anyone, one))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
    assert_eq!(times(&app, COPIED).await, 0);

    // That of a passkey that is bound to one device does.
    let mut bound = user(&app, "bob@example.com", VERIFIED, 50).await;
    bound.sign_count = 0;
    let answer = enter(Door::Alone, &anyone, "bob@example.com", &mut bound, |_| ()).await;
    assert_eq!(place(&answer), (401, "", "login.denied"));
    assert_eq!(times(&app, COPIED).await, 1);
    app.stop().await;
}

async fn gaining(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    for (number, door) in DOORS.into_iter().enumerate() {
        let email = format!("ann{number}@example.com");
        let mut key = user(&app, &email, VERIFIED, 7).await;
        let client = client(&app, door, &email, &mut key).await;
        let before = enter(door, &client, &email, &mut key, |_| ()).await;
        assert!(amr(&before).contains(&"hwk".to_owned()), "{door:?}");
        let client = match door {
            Door::Again => app.anyone().with_token(before.text("access_token")),
            _ => client,
        };
        assert_eq!(times(&app, GAINED).await, number);

        key.flags = SYNCED;
        let after = enter(door, &client, &email, &mut key, |_| ()).await;
        let proved = amr(&after);
        assert!(proved.contains(&"swk".to_owned()), "{door:?} {proved:?}");
        assert!(!proved.contains(&"hwk".to_owned()), "{door:?} {proved:?}");
        assert_eq!(times(&app, GAINED).await, number + 1);
        let told = emails(&app).await;
        let told = told.iter().filter(|email| email.text.contains("can now be copied"));
        assert_eq!(told.count(), number + 1);
        let ann = app.anyone().with_token(after.text("access_token"));
        let listed = ann.get(MINE).await.body["items"][0].clone();
        assert_eq!(
            (&listed["backup_eligible"], &listed["backed_up"]),
            (&json!(true), &json!(true))
        );

        // From then on its counter means nothing, and it isn't told again.
        key.sign_count = 0;
        let again = enter(Door::Alone, &app.anyone(), &email, &mut key, |_| ()).await;
        assert_eq!(amr(&again), ["swk", "user", "mfa"]);
        assert_eq!(times(&app, GAINED).await, number + 1);
    }
    assert_eq!(times(&app, COPIED).await, 0);
    app.stop().await;
}

async fn narrow(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let email = "ann@example.com";
    let mut key = user(&app, email, VERIFIED, 7).await;
    let count = key.sign_count;
    for door in DOORS {
        for (flags, back) in [
            // No one was verified; backed up without being eligible; the counter goes back as it does so.
            (USER_PRESENT | BACKUP_ELIGIBLE, false),
            (USER_PRESENT | BACKUP_ELIGIBLE | BACKED_UP, false),
            (VERIFIED | BACKED_UP, false),
            (SYNCED, true),
        ] {
            key.flags = VERIFIED;
            let client = client(&app, door, email, &mut key).await;
            let kept = key.sign_count;
            key.flags = flags;
            if back {
                key.sign_count = count - 3;
            }
            let answer = enter(door, &client, email, &mut key, |_| ()).await;
            let refused = match door {
                Door::Again => (422, "/credential", "mfa.wrong_passkey"),
                _ => (401, "", "login.denied"),
            };
            assert_eq!(place(&answer), refused, "{door:?} {flags:#x}");
            key.sign_count = kept + 1;
        }
    }
    assert_eq!((times(&app, GAINED).await, times(&app, COPIED).await), (0, 3));

    // What is eligible stays so.
    key.flags = SYNCED;
    for flags in [SYNCED, VERIFIED | BACKUP_ELIGIBLE, SYNCED] {
        key.flags = flags;
        let answer = enter(Door::Alone, &app.anyone(), email, &mut key, |_| ()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    }
    for door in DOORS {
        key.flags = SYNCED;
        let client = client(&app, door, email, &mut key).await;
        key.flags = VERIFIED;
        let answer = enter(door, &client, email, &mut key, |_| ()).await;
        assert_ne!(answer.status, StatusCode::OK, "{door:?}");
    }
    // One of the two has a copied key: the one that made it eligible, or the one that never heard of it.
    assert_eq!((times(&app, GAINED).await, times(&app, COPIED).await), (1, 3 + DOORS.len()));
    app.stop().await;
}

async fn gaining_at_once(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let email = "ann@example.com";
    let mut key = user(&app, email, VERIFIED, 0).await;
    let (here, there) = (app.anyone(), other.anyone());
    let mut sent = Vec::new();
    for number in 0..8 {
        key.flags = if number == 3 || number == 6 { VERIFIED } else { SYNCED };
        let (client, email) = (if number % 2 == 0 { &here } else { &there }, email);
        if number < 4 {
            let credential = key.authenticate(&begin(client).await, ORIGIN);
            sent.push((
                client,
                Call::post(
                    "/api/v1/auth/login/passkey/finish",
                    json!({ "credential": credential }),
                ),
            ));
        } else {
            let asked = client.login(email).await;
            let credential = key.authenticate(&asked.body["passkey_options"], ORIGIN);
            let token = asked.text("mfa_token");
            let body = json!({ "mfa_token": token, "method": "passkey", "credential": credential });
            sent.push((client, Call::post(MFA, body)));
        }
    }
    // All of them are on their way before the first one is accepted.
    let mut held = app.app.upkeep("a test").begin().await.unwrap();
    assert_eq!(held.run("update passkeys set name = name", args![]).await.unwrap(), 1);
    let release = async {
        until_one_waits(&app.app.db).await;
        a_while().await;
        held.commit().await.unwrap();
    };
    let sent = join_all(sent.into_iter().map(|(client, call)| client.send(call)));
    let (answers, ()) = tokio::join!(sent, release);
    for (number, answer) in answers.iter().enumerate() {
        // Those that still are what they were may come first.
        if number != 3 && number != 6 {
            assert!(amr(answer).contains(&"swk".to_owned()), "{number}");
        }
    }
    assert_eq!(times(&app, GAINED).await, 1);
    // Those that come late say that the passkey is not what it has become.
    assert!(times(&app, COPIED).await <= 2);
    // Either process may have sent it.
    let told = [emails(&app).await, emails(&other).await].concat();
    let told = told.iter().filter(|email| email.text.contains("can now be copied"));
    assert_eq!(told.count(), 1);
    // Whichever came last, it is eligible.
    key.flags = VERIFIED;
    let late = enter(Door::Alone, &here, email, &mut key, |_| ()).await;
    assert_eq!(place(&late), (401, "", "login.denied"));
    key.flags = SYNCED;
    let good = enter(Door::Alone, &here, email, &mut key, |_| ()).await;
    assert_eq!(amr(&good), ["swk", "user", "mfa"]);
    other.stop().await;
    app.stop().await;
}

async fn unknown(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let (email, anyone) = ("ann@example.com", app.anyone());
    let mut anns = user(&app, email, VERIFIED, 0).await;
    let mut bobs = user(&app, "bob@example.com", VERIFIED, 0).await;
    let mut nobodys = key();
    let own = (bobs.id.clone(), bobs.user_handle.clone());
    for door in DOORS {
        for handle in [anns.user_handle.clone(), own.1.clone(), Vec::new()] {
            let client = client(&app, door, email, &mut anns).await;
            nobodys.user_handle.clone_from(&handle);
            let answer = enter(door, &client, email, &mut nobodys, |_| ()).await;
            assert_eq!(place(&answer), (401, "", "login.passkey_unknown"), "{door:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            // SECURITY: someone else's is not unknown: its owner's browser must not delete it.
            bobs.user_handle.clone_from(&anns.user_handle);
            let answer = enter(door, &client, email, &mut bobs, |_| ()).await;
            assert!(["login.denied", "request.invalid"].contains(&answer.code()), "{}", answer.raw);
            assert_ne!(place(&answer).2, "login.passkey_unknown", "{door:?}");
            bobs.user_handle.clone_from(&own.1);
            // The same client goes on with the right one.
            let answer = enter(door, &client, email, &mut anns, |_| ()).await;
            assert_eq!(answer.status, StatusCode::OK, "{door:?} {}", answer.raw);
        }
    }
    // Its attempts at a challenge are counted like those of any other.
    let options = begin(&anyone).await;
    let credential = nobodys.authenticate(&options, ORIGIN);
    for _ in 0..5 {
        let answer = finish(&anyone, credential.clone()).await;
        assert_eq!(place(&answer), (401, "", "login.passkey_unknown"));
    }
    let answer = finish(&anyone, anns.authenticate(&options, ORIGIN)).await;
    assert_eq!(place(&answer), (401, "", "login.challenge_over"));
    // Within a session that isn't over for it.
    let ann = client(&app, Door::Again, email, &mut anns).await;
    enter(Door::Again, &ann, email, &mut nobodys, |_| ()).await;
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::OK);
    // Without a challenge it is told nothing.
    let mut foreign = begin(&anyone).await;
    foreign["challenge"] = json!(encode(&[7; 48]));
    let answer = finish(&anyone, nobodys.authenticate(&foreign, ORIGIN)).await;
    assert_eq!(place(&answer), (401, "", "login.challenge_over"));
    app.stop().await;
}

/// The page begins a sign-in each time it is opened; that is bounded, and not by the sign-ins.
async fn opening(on: On) {
    let settings = vec![
        ("limits.rules.login_ip.burst", "4"),
        ("limits.rules.passkey_begin_ip.burst", "6"),
        ("lockout.enabled", "false"),
    ];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let anyone = app.anyone();
    let mut options = Value::Null;
    for _ in 0..6 {
        options = begin(&anyone).await;
    }
    let over = anyone.act("/api/v1/auth/login/passkey/begin").await;
    assert_eq!((over.status, over.code()), (StatusCode::TOO_MANY_REQUESTS, "request.too_many"));
    assert_eq!(anyone.login("ann@example.com").await.status, StatusCode::OK);
    // Finishing one is a sign-in.
    let credential = key().authenticate(&options, ORIGIN);
    for _ in 0..3 {
        assert_eq!(finish(&anyone, credential.clone()).await.status, StatusCode::UNAUTHORIZED);
    }
    let over = finish(&anyone, credential).await;
    assert_eq!(over.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(anyone.login("ann@example.com").await.status, StatusCode::TOO_MANY_REQUESTS);
    app.stop().await;
}

/// Registers with an attestation object of this format.
async fn register_with(client: &Client<'_>, key: &SoftAuthenticator, format: &str) -> Answer {
    let options = client.act(&format!("{MINE}/begin")).await.body;
    let object = attestation_object(format, vec![], &key.registration_data("localhost"));
    finish_registration(client, key, &options, &object).await
}

async fn finish_registration(
    client: &Client<'_>,
    key: &SoftAuthenticator,
    options: &Value,
    object: &[u8],
) -> Answer {
    let challenge = serde_json::from_value::<String>(options["challenge"].clone()).unwrap();
    let mut data: Value =
        serde_json::from_slice(&client_data("webauthn.create", b"", ORIGIN)).unwrap();
    data["challenge"] = json!(challenge);
    let credential = key.registration(data.to_string().as_bytes(), object);
    client.post(&format!("{MINE}/finish"), json!({ "credential": credential })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_attestation_is_none_where_none_is_required() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    for format in ["compound", "tpm", "made-up"] {
        let made = register_with(&ann, &key(), format).await;
        assert_eq!(made.status, StatusCode::CREATED, "{format} {}", made.raw);
    }
    let place = (422, "/credential/response/attestationObject", "mfa.bad_passkey");
    assert_eq!(self::place(&register_with(&ann, &key(), &"x".repeat(33)).await), place);
    app.stop().await;
}

/// The settings of a server that requires attestation, and the folder of its roots.
fn attested() -> (Vec<(&'static str, &'static str)>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    let root = rcgen::generate_simple_self_signed(vec!["root".to_owned()]).unwrap();
    std::fs::write(&path, root.cert.pem()).unwrap();
    let path: &'static str = path.to_str().unwrap().to_owned().leak();
    let roots = ("mfa.attestation_roots", path);
    (vec![("limits.enabled", "false"), ("mfa.attestation", "direct"), roots], folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_attestation_is_refused_where_one_is_required() {
    let (settings, _folder) = attested();
    let app = TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    for (format, why) in [("compound", "format is unknown"), ("tpm", "packed or fido-u2f")] {
        let refused = register_with(&ann, &key(), format).await;
        let place = (422, "/credential/response/attestationObject", "mfa.bad_passkey");
        assert_eq!(self::place(&refused), place);
        assert!(refused.raw.contains(why), "{}", refused.raw);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_attestation_is_required_no_passkey_gains_backup_eligibility() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    let email = "ann@example.com";
    let mut key = user(&app, email, VERIFIED, 0).await;
    let (settings, _folder) = attested();
    let strict = app.second_with(settings).await;
    for door in DOORS {
        key.flags = VERIFIED;
        let client = client(&strict, door, email, &mut key).await;
        key.flags = SYNCED;
        let answer = enter(door, &client, email, &mut key, |_| ()).await;
        assert_ne!(answer.status, StatusCode::OK, "{door:?}");
    }
    assert_eq!(times(&app, GAINED).await, 0);
    let done = enter(Door::Alone, &app.anyone(), email, &mut key, |_| ()).await;
    assert_eq!(amr(&done), ["swk", "user", "mfa"]);
    strict.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_malformed_key_of_firefox_registers_and_signs_in() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let mut key = SoftAuthenticator::new(Algorithm::EdDsa, &OsRandom);
    let options = ann.act(&format!("{MINE}/begin")).await.body;
    key.register(&options, ORIGIN);
    let before = b"\xa3\x01\x63OKP\x03\x27\x20\x67Ed25519\x21\x58\x20";
    let malformed = [before.as_slice(), &key.cose_key()[10..]].concat();
    let data = key.registration_data_of("localhost", &malformed);
    let object = attestation_object("none", vec![], &data);
    let made = finish_registration(&ann, &key, &options, &object).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    let done = enter(Door::Alone, &app.anyone(), "ann@example.com", &mut key, |_| ()).await;
    assert_eq!(amr(&done), ["hwk", "user", "mfa"]);
    app.stop().await;
}
