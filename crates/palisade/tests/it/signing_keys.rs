//! Rotation of the keys that sign tokens: published first, and dropped at once after a compromise.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use palisade::app::Actor;
use palisade::keys::{self, KeyState, RotatedKey};
use palisade::testing::{Client, On, PASSWORD, TestApp, unlimited};
use palisade_db::args;
use serde_json::{Value, json};

palisade::on_both! {
    a_new_key_is_published_before_it_signs => |on| super::published_first(on);
    two_rotations_at_once_are_one => |on| super::at_once(on);
    a_dropped_key_is_refused_at_once => |on| super::dropped(on);
    a_dropped_key_is_refused_at_once_beside_requests => |on| super::beside(on);
    the_first_key_of_another_algorithm_is_published_first => |on| super::another_algorithm(on);
    a_clock_that_goes_back_finds_a_key => |on| super::backwards(on);
}

const ME: &str = "/api/v1/users/me";
const MINUTE: Duration = Duration::from_secs(60);

/// The ids of the published keys.
async fn published(app: &TestApp) -> Vec<String> {
    let mut kids = Vec::new();
    for path in ["/.well-known/jwks.json", "/.well-known/paseto-keys.json"] {
        let answer = app.anyone().get(path).await;
        assert_eq!(answer.headers["cache-control"], "public, max-age=300");
        let keys = answer.body["keys"].as_array().unwrap().clone();
        kids.extend(keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()));
    }
    kids
}

async fn token(app: &TestApp, format: &str) -> String {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "token_format": format });
    let answer = app.anyone().post("/api/v1/auth/login", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    answer.text("access_token")
}

/// The id of the key that signed a token.
fn kid(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let part = if parts[0] == "v4" { parts[3] } else { parts[0] };
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// The ids of the keys with which an app signs now.
async fn signing(app: &TestApp) -> Vec<String> {
    vec![kid(&token(app, "jwt").await), kid(&token(app, "paseto").await)]
}

fn kids(keys: &[RotatedKey]) -> Vec<String> {
    keys.iter().map(|key| key.kid.clone()).collect()
}

async fn rotate(app: &TestApp) -> Vec<RotatedKey> {
    keys::rotate(&app.app, &Actor::operator()).await.unwrap()
}

async fn replace(app: &TestApp) -> Vec<RotatedKey> {
    keys::replace(&app.app, &Actor::operator()).await.unwrap()
}

/// Waits until an app publishes these keys and no other.
async fn publishes(app: &TestApp, wanted: &[String]) {
    let mut found = Vec::new();
    for _ in 0..200 {
        found = published(app).await;
        found.sort();
        let mut wanted = wanted.to_vec();
        wanted.sort();
        if found == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(found, wanted);
}

async fn state(app: &TestApp, kid: &str) -> KeyState {
    let all = keys::list(&app.app.db).await.unwrap();
    all.iter().find(|key| key.kid == kid).unwrap().state(app.clock.now())
}

async fn works(app: &TestApp, token: &str) -> StatusCode {
    app.anyone().with_token(token).get(ME).await.status
}

async fn published_first(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    app.user("ann@example.com").await;
    let old = signing(&app).await;
    assert_eq!(published(&app).await, old, "a new database signs with its first keys");
    let made = rotate(&app).await;
    let new = kids(&made);
    let both: Vec<String> = old.iter().chain(&new).cloned().collect();
    assert_eq!(made.len(), 2);
    for key in &made {
        let wait = key.signs_from.since(app.clock.now());
        assert!((MINUTE * 14..MINUTE * 15).contains(&wait), "{wait:?}");
    }
    assert_eq!(
        (state(&app, &old[0]).await, state(&app, &new[0]).await),
        (KeyState::InUse, KeyState::Published)
    );
    // A process that starts in between waits like the others.
    let third = app.second().await;
    for process in [&app, &second, &third] {
        publishes(process, &both).await;
        assert_eq!(signing(process).await, old);
    }
    // The first keys are listed first: a client that takes the first one gets what signs.
    assert_eq!(published(&app).await[0], old[0]);
    // Again while they wait, here or elsewhere: the same keys, and no event.
    assert_eq!((rotate(&app).await, rotate(&third).await), (made.clone(), made.clone()));
    let rotations = app.events().await.into_iter().filter(|event| event == "keys.rotated").count();
    assert_eq!(rotations, 1);
    app.advance(MINUTE * 15 - Duration::from_secs(2)).await;
    let last = token(&app, "jwt").await;
    assert_eq!(kid(&last), old[0]);
    app.advance(Duration::from_secs(2)).await;
    for process in [&app, &second, &third] {
        process.catch_up().await;
        assert_eq!(signing(process).await, new);
        assert_eq!(works(process, &last).await, StatusCode::OK);
    }
    assert_eq!(
        (state(&app, &old[0]).await, state(&app, &new[0]).await),
        (KeyState::Retired, KeyState::InUse)
    );
    publishes(&app, &both).await;
    // Once everything that they signed has expired, the old keys are gone. Another rotation starts anew.
    app.advance(MINUTE * 71).await;
    let fourth = app.second().await;
    publishes(&fourth, &new).await;
    let next = rotate(&fourth).await;
    assert_ne!(kids(&next), new);
    assert_eq!(signing(&fourth).await, new);
    for process in [second, third, fourth, app] {
        process.stop().await;
    }
}

async fn at_once(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    let made =
        join_all((0..6).map(|number| rotate(if number % 2 == 0 { &app } else { &second }))).await;
    for keys in &made {
        assert_eq!(keys, &made[0]);
    }
    let (rows,): (i64,) = app
        .app
        .db
        .one("select count(*) from keys where purpose = $1", args!["signing"])
        .await
        .unwrap();
    assert_eq!(rows, 4);
    second.stop().await;
    app.stop().await;
}

async fn dropped(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let second = app.second().await;
    app.user("ann@example.com").await;
    let waiting = kids(&rotate(&app).await);
    publishes(&second, &published(&app).await).await;
    let tokens = [token(&app, "jwt").await, token(&app, "paseto").await];
    for token in &tokens {
        assert_eq!(
            (works(&app, token).await, works(&second, token).await),
            (StatusCode::OK, StatusCode::OK)
        );
    }
    let new = kids(&replace(&app).await);
    for token in &tokens {
        assert_eq!(works(&app, token).await, StatusCode::UNAUTHORIZED, "refused once it returns");
    }
    // A key that waited may be known to the attacker too.
    for kid in [&waiting[0], &kid(&tokens[0])] {
        assert_eq!(state(&app, kid).await, KeyState::Dropped);
    }
    for process in [&app, &second] {
        publishes(process, &new).await;
        assert_eq!(signing(process).await, new);
        for token in &tokens {
            assert_eq!(works(process, token).await, StatusCode::UNAUTHORIZED);
        }
    }
    let third = app.second().await;
    assert_eq!(works(&third, &tokens[0]).await, StatusCode::UNAUTHORIZED);
    let events = app.events().await;
    assert!(
        events.ends_with(&[
            "keys.dropped".to_owned(),
            "keys.rotated".to_owned(),
            "login.signed_in".to_owned(),
            "login.signed_in".to_owned(),
            "login.signed_in".to_owned(),
            "login.signed_in".to_owned()
        ]),
        "{events:?}"
    );
    for process in [third, second, app] {
        process.stop().await;
    }
}

/// Requests that read the keys before they are dropped, and continue after.
async fn beside(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    for _ in 0..5 {
        let (used, fresh) = (token(&app, "jwt").await, token(&app, "jwt").await);
        assert_eq!(works(&app, &used).await, StatusCode::OK);
        // Another task may have read them again at the same moment.
        let mut early = loop {
            keys::expire(&app.app);
            let mut reading = Box::pin(keys::ring(&app.app));
            let begun = poll_fn(|task| Poll::Ready(reading.as_mut().poll(task).is_pending())).await;
            if begun {
                break reading;
            }
        };
        // The database has answered by now.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (_, many) = tokio::join!(replace(&app), join_all((0..4).map(|_| works(&app, &fresh))));
        early.as_mut().await.unwrap();
        assert!(many.iter().all(|status| matches!(status.as_u16(), 200 | 401)), "{many:?}");
        for token in [&used, &fresh] {
            assert_eq!(works(&app, token).await, StatusCode::UNAUTHORIZED);
        }
    }
    app.stop().await;
}

async fn another_algorithm(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let old = signing(&app).await;
    let settings = vec![
        ("limits.enabled", "false"),
        ("tokens.algorithm", "ES256"),
        ("tokens.paseto", "v4.local"),
    ];
    let second = app.second_with(settings.clone()).await;
    let now = signing(&second).await;
    assert_eq!(now[0], old[0], "no verifier knows the key of the other algorithm yet");
    assert_ne!(now[1], old[1], "what should be encrypted is never signed in the open");
    let keys = published(&second).await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    app.advance(MINUTE * 15).await;
    second.catch_up().await;
    let es256 = &signing(&second).await[0];
    assert!(es256 != &old[0] && keys.contains(es256));
    // The process with the old settings goes on with its own, and a rotation replaces all.
    assert_eq!(signing(&app).await, old);
    assert_eq!(rotate(&app).await.len(), 4);
    replace(&app).await;
    for process in [&app, &second] {
        process.catch_up().await;
        for kid in signing(process).await {
            assert!(!old.contains(&kid) && !now.contains(&kid) && kid != *es256);
        }
    }
    second.stop().await;
    app.stop().await;
}

async fn backwards(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let later = app.clock.now().plus(MINUTE * 600);
    tx.run("update keys set signs_from = $1", args![later]).await.unwrap();
    tx.commit().await.unwrap();
    keys::expire(&app.app);
    let held: Client<'_> = app.token("ann@example.com").await;
    assert_eq!(held.get(ME).await.status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_token_of_a_dropped_key_is_refused_beside_many_requests() {
    let app = TestApp::with(On::Sqlite, unlimited()).await;
    app.user("ann@example.com").await;
    for _ in 0..10 {
        let tokens = join_all((0..4).map(|_| token(&app, "jwt"))).await;
        let (_, _) =
            tokio::join!(replace(&app), join_all(tokens.iter().map(|token| works(&app, token))));
        for token in &tokens {
            assert_eq!(works(&app, token).await, StatusCode::UNAUTHORIZED);
        }
    }
    app.stop().await;
}
