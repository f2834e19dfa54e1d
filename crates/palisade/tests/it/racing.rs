//! What two processes do at the same moment: a change and the ending of what it rests on, and pairs that
//! would wait for each other in a circle.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use palisade::app::{Actor, Hold};
use palisade::credential::{Credential, SecretRef};
use palisade::credentials::{self, Act, End};
use palisade::id::{SessionId, UserId};
use palisade::mail::Rendered;
use palisade::mfa::{self, Given, Judged};
use palisade::sessions::{self, Why};
use palisade::testing::mailbox::{emails, newest_email, token};
use palisade::testing::phone::{enrol, sign_in, with_phone};
use palisade::testing::{Answer, Call, Client, On, PASSWORD, TestApp, place, unlimited};
use palisade::users::{self, Email, Factors};
use palisade_db::args;
use palisade_db::testing::until_one_waits;
use serde_json::{Value, json};

palisade::on_both! {
    an_api_key_made_beside_an_ending_does_not_outlive_it => |on| super::key_beside_ending(on);
    two_sessions_that_end_each_other_do_not_both_act => |on| super::ending_each_other(on);
    an_ending_beside_the_removal_of_a_factor_is_one_or_the_other => |on| super::ending_beside_removal(on);
    an_invitation_beside_a_reset_link_sets_one_password => |on| super::two_links(on);
    an_ending_that_does_not_hold_the_account_is_refused => |on| super::without_holding(on);
    a_role_taken_away_refuses_what_waited_for_it => |on| super::role_taken(on);
    a_factor_set_up_meanwhile_refuses_what_waited_with_a_weaker_proof => |on| super::stronger_meanwhile(on);
    two_recovery_codes_at_the_same_moment_leave_eight => |on| super::two_codes(on);
    a_lock_beside_a_sign_in_meets_no_deadlock => |on| super::lock_beside_sign_in(on);
    two_registrations_verified_at_once_meet_no_deadlock => |on| super::two_registrations(on);
    pairs_that_touch_one_account_meet_no_deadlock => |on| super::pairs(on);
}

const ME: &str = "/api/v1/users/me";
const NEW: &str = "five green kettles whistle";
const KEYS: &str = "/api/v1/users/me/api-keys";

fn key_body() -> Value {
    json!({ "name": "mine", "permissions": [] })
}

/// How many keys and sessions of everyone live.
async fn living(app: &TestApp) -> (i64, i64) {
    let sql = "select (select count(*) from api_keys where revoked_at is null),
        (select count(*) from sessions where ended_at is null)";
    app.app.db.one(sql, args![]).await.unwrap()
}

/// Long enough for a request to come to the lock that it waits for; were it too short, nothing would be proved,
/// and nothing fail.
pub async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

async fn key_beside_ending(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;

    // The ending is open in one process, and the thief's request waits for it in another.
    let thief = app.token("ann@example.com").await;
    let elsewhere = other.anyone().with_token(thief.bearer.clone().unwrap());
    let holds = [Hold::Alone(id)];
    let mut ending = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    credentials::end(&mut ending, End::of(id, Act::Revoked)).await.unwrap();
    let finish = async {
        until_one_waits(&other.app.db).await;
        ending.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(elsewhere.post(KEYS, key_body()), finish);
    assert_eq!(place(&answer), (401, "", "access.invalid_token"), "{}", answer.raw);
    assert_eq!(living(&app).await, (0, 0));

    // A change is open that rests on the session, and the ending waits for it.
    let thief = app.token("ann@example.com").await;
    let session = session_of(&app, id).await;
    let actor = actor_of(id, session);
    let admin = other.admin("root@example.com").await;
    let root = other.token("root@example.com").await;
    let mut change = app.app.change(&actor).await.unwrap();
    insert_key(&mut change, id).await;
    let path = format!("/api/v1/users/{id}/revoke-sessions");
    let finish = async {
        until_one_waits(&other.app.db).await;
        change.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(root.act(&path), finish);
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.raw);
    assert_eq!(living(&app).await, (0, 1), "the administrator's session alone ({admin})");
    assert_eq!(thief.get(ME).await.status, StatusCode::UNAUTHORIZED);
    other.stop().await;
    app.stop().await;
}

pub async fn session_of(app: &TestApp, user: UserId) -> SessionId {
    let sql = "select id from sessions where user_id = $1 and ended_at is null";
    let (id,): (SessionId,) = app.app.db.one(sql, args![user]).await.unwrap();
    id
}

/// A user who acts with the first access token of a session.
pub fn actor_of(user: UserId, session: SessionId) -> Actor {
    let secret = SecretRef::Generation(1);
    let credential = Credential { kind: &sessions::KIND, id: session.0, secret };
    Actor { user: Some(user), credential: Some(credential), ..Actor::default() }
}

/// What a request to make a key writes.
pub async fn insert_key(change: &mut palisade::app::Change, user: UserId) {
    let (id, now) = (change.app().new_id(), change.now());
    change
        .run(
            "insert into api_keys (id, user_id, digest, hint, name, permissions, created_at, expires_at)
             values ($1, $2, $3, 'abcd', 'mine', '', $4, $5)",
            args![id, user, id.as_bytes().to_vec(), now, now.plus(Duration::from_secs(3600))],
        )
        .await
        .unwrap();
}

async fn ending_each_other(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    for round in 0..20 {
        let email = format!("ann{round}@example.com");
        app.user(&email).await;
        let one = app.token(&email).await;
        let two = app.token(&email).await;
        let two = other.anyone().with_token(two.bearer.unwrap());
        let others = format!("{ME}/sessions");
        let (first, second) = match round % 2 {
            0 => {
                tokio::join!(one.delete(&others), two.delete(ME))
            }
            _ => tokio::join!(one.delete(&others), two.delete(&others)),
        };
        let done = [&first, &second].iter().filter(|a| a.status == StatusCode::NO_CONTENT).count();
        assert_eq!(done, 1, "{round}: {} {}", first.raw, second.raw);
        let refused = if first.status == StatusCode::NO_CONTENT { &second } else { &first };
        assert_eq!(refused.code(), "access.invalid_token", "{}", refused.raw);
    }
    other.stop().await;
    app.stop().await;
}

/// One session ends all others, of which one removes the factor meanwhile, which ends all others too.
async fn ending_beside_removal(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    for round in 0..6 {
        let email = format!("ann{round}@example.com");
        let (phone, _) = with_phone(&app, &email).await;
        let one = sign_in(&app, &email, &phone).await;
        app.advance(Duration::from_secs(30)).await;
        let two = sign_in(&app, &email, &phone).await;
        other.catch_up().await;
        let two = other.anyone().with_token(two.bearer.unwrap());
        let (others, totp) = (format!("{ME}/sessions"), format!("{ME}/totp"));
        let (ending, removal) = if round % 2 == 0 {
            tokio::join!(one.delete(&others), two.delete(&totp))
        } else {
            let (removal, ending) = tokio::join!(two.delete(&totp), one.delete(&others));
            (ending, removal)
        };
        let (done, refused) = match ending.status {
            StatusCode::NO_CONTENT => (&ending, &removal),
            _ => (&removal, &ending),
        };
        assert_eq!(done.status, StatusCode::NO_CONTENT, "{round}: {} {}", done.raw, refused.raw);
        assert_eq!(place(refused), (401, "", "access.invalid_token"), "{}", refused.raw);
        let me = users::find_by_email(&app.app, &Email::parse(&email).unwrap()).await;
        let kept = me.unwrap().unwrap().factors.totp;
        assert_eq!(kept, ending.status == StatusCode::NO_CONTENT, "{round}");
    }
    assert_eq!(living(&app).await, (0, 6));
    other.stop().await;
    app.stop().await;
}

/// An invited person asks for a reset, too, and uses both emails at once.
async fn two_links(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let mut rounds = Vec::new();
    for round in 0..4 {
        let email = format!("ann{round}@example.com");
        let made = root.post("/api/v1/users", json!({ "email": email })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
        app.anyone().post("/api/v1/auth/password/forgot", json!({ "email": email })).await;
        let all = emails(&app).await;
        let link = |page: &str| {
            let mine = |mail: &&Rendered| mail.to == email && mail.text.contains(page);
            token(all.iter().find(mine).expect("an email"))
        };
        let (invitation, reset) = (link("/account/invite#"), link("/account/reset#"));
        rounds.push((email, invitation, reset));
    }
    // Only now: whichever process sends an email keeps it.
    let other = app.second().await;
    let (here, there) = (app.anyone(), other.anyone());
    for (email, invitation, reset) in rounds {
        let path = "/api/v1/auth/password/reset";
        let first = json!({ "token": invitation, "password": PASSWORD });
        let second = json!({ "token": reset, "password": NEW });
        let (first, second) = tokio::join!(here.post(path, first), there.post(path, second));
        let (chosen, not, refused) = match first.status {
            StatusCode::NO_CONTENT => (PASSWORD, NEW, &second),
            _ => (NEW, PASSWORD, &first),
        };
        let done = [&first, &second].iter().filter(|a| a.status == StatusCode::NO_CONTENT).count();
        assert_eq!(done, 1, "{} {}", first.raw, second.raw);
        assert_eq!(place(refused), (422, "/token", "recovery.bad_token"), "{}", refused.raw);
        for (password, status) in [(not, StatusCode::UNAUTHORIZED), (chosen, StatusCode::OK)] {
            let body = json!({ "email": email, "password": password });
            assert_eq!(here.post("/api/v1/auth/login", body).await.status, status);
        }
    }
    other.stop().await;
    app.stop().await;
}

async fn without_holding(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let id = app.user("ann@example.com").await;
    app.token("ann@example.com").await;
    let session = session_of(&app, id).await;
    for holds in [&[][..], &[Hold::Shared(id)][..], &[Hold::Alone(UserId(app.app.new_id()))][..]] {
        let operator = Actor::operator();
        let begin = || app.app.change_holding(&operator, holds);
        let mut change = begin().await.unwrap();
        let why = Why::Revoked;
        assert_eq!(
            sessions::end(&mut change, id, session, why).await.unwrap_err().code(),
            INTERNAL
        );
        let end = End::of(id, Act::Revoked);
        assert_eq!(credentials::end(&mut change, end).await.unwrap_err().code(), INTERNAL);
        drop(change);
        let refused = sessions::disable(begin().await.unwrap(), id).await.unwrap_err();
        assert_eq!(refused.code(), INTERNAL);
    }
    assert_eq!(living(&app).await, (0, 1));
    app.stop().await;
}

const INTERNAL: &str = "server.internal";

async fn role_taken(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.admin("root@example.com").await;
    app.admin("second@example.com").await;
    let ann = app.user("ann@example.com").await;
    let root = other.token("root@example.com").await;
    // The role is being taken while a request waits that was let in by it.
    let holds = palisade::roles::held_for_revoking(id);
    let change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    let role = "admin".parse().unwrap();
    let finish = async {
        a_while().await;
        palisade::roles::revoke(change, id, &role).await.unwrap();
    };
    let path = format!("/api/v1/users/{ann}/disable");
    let (answer, ()) = tokio::join!(root.act(&path), finish);
    assert_eq!(place(&answer), (403, "", "access.denied"), "{}", answer.raw);
    // And while the role is changed that carries the permission.
    app.user("helper@example.com").await;
    let root = app.token("second@example.com").await;
    let permissions = ["users:read", "users:write"];
    let made =
        root.post("/api/v1/roles", json!({ "name": "helpers", "permissions": permissions })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.raw);
    let helper = other.token("helper@example.com").await;
    let id = helper.get(ME).await.text("id");
    let path = format!("/api/v1/users/{id}/roles/helpers");
    assert_eq!(root.send(Call::new(Method::PUT, &path)).await.status, StatusCode::NO_CONTENT);
    let change = app.app.change_holding(&Actor::operator(), &[Hold::Roles]).await.unwrap();
    let name = "helpers".parse().unwrap();
    let finish = async {
        a_while().await;
        let none = Some(std::collections::BTreeSet::new());
        palisade::roles::change(change, &name, None, none).await.unwrap();
    };
    let path = format!("/api/v1/users/{ann}/disable");
    let (answer, ()) = tokio::join!(helper.act(&path), finish);
    assert_eq!(place(&answer), (403, "", "access.denied"), "{}", answer.raw);
    other.stop().await;
    app.stop().await;
}

async fn stronger_meanwhile(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;
    let ann = other.token("ann@example.com").await;
    // A factor is being set up while requests wait that were let in with the password alone.
    let mut change = app.app.change_holding(&Actor::operator(), &[Hold::Alone(id)]).await.unwrap();
    let now = change.now();
    change
        .run(
            "insert into totp_secrets (user_id, sealed, used_step, created_at) values ($1, $2, 0, $3)",
            args![id, vec![0_u8; 40], now],
        )
        .await
        .unwrap();
    let factors = Factors { totp: true, ..Factors::default() };
    users::set_factors(&mut change, id, factors).await.unwrap();
    let finish = async {
        a_while().await;
        change.commit_quietly("a test").await.unwrap();
    };
    let (answer, listed, ()) = tokio::join!(ann.post(KEYS, key_body()), ann.get(KEYS), finish);
    assert_eq!(place(&answer), (403, "", "access.not_fresh"), "{}", answer.raw);
    assert_eq!(answer.body["methods"], json!(["totp", "recovery_code"]), "{}", answer.raw);
    assert_eq!(listed.status, StatusCode::OK, "what asks for no fresh proof goes on");
    assert_eq!(living(&app).await, (0, 1));
    other.stop().await;
    app.stop().await;
}

async fn two_codes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;
    let (_, codes) = enrol(&app.token("ann@example.com").await).await;
    let given = |number: usize| Given::RecoveryCode(codes[number].as_str().into());
    let (operator, holds) = (Actor::operator(), [Hold::Shared(id)]);
    let mut first = app.app.change_holding(&operator, &holds).await.unwrap();
    let judged = mfa::judge(&mut first, id, &given(0), None).await.unwrap();
    assert!(matches!(judged, Judged::Right(_)));
    let beside = async {
        let mut second = other.app.change_holding(&operator, &holds).await.unwrap();
        let judged = mfa::judge(&mut second, id, &given(1), None).await.unwrap();
        assert!(matches!(judged, Judged::Right(_)));
        second.commit_quietly("a test").await.unwrap();
    };
    let finish = async {
        a_while().await;
        first.commit_quietly("a test").await.unwrap();
    };
    tokio::join!(beside, finish);
    let sql = "select recovery_codes_left from users";
    assert_eq!(app.app.db.one::<(i64,)>(sql, args![]).await.unwrap(), (8,));
    other.stop().await;
    app.stop().await;
}

/// A guess that locks takes the row of the user before that of the count, as a sign-in does.
async fn lock_beside_sign_in(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    let id = app.user("ann@example.com").await;
    let wrong = json!({ "email": "ann@example.com", "password": "not the right one at all" });
    for _ in 0..4 {
        let answer = app.anyone().post("/api/v1/auth/login", wrong.clone()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let mut change = app.app.change_holding(&Actor::operator(), &[Hold::Shared(id)]).await.unwrap();
    users::may_sign_in(&mut change, id).await.unwrap().unwrap();
    let sign_in = async {
        a_while().await;
        let forget = "delete from lockout_counts where user_id = $1";
        assert_eq!(change.run(forget, args![id]).await.unwrap(), 1);
        users::set_locked_until(&mut change, id, None).await.unwrap();
        change.commit_quietly("a test").await.unwrap();
    };
    let client = other.anyone();
    let (answer, ()) = tokio::join!(client.post("/api/v1/auth/login", wrong), sign_in);
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.raw);
    other.stop().await;
    app.stop().await;
}

/// Who meets whom: two requests of one round, as functions of what there is in it.
struct Round<'a> {
    user: UserId,
    email: String,
    ann: Client<'a>,
    refresh: String,
    root: Client<'a>,
}

async fn act(round: &Round<'_>, what: &str) -> Answer {
    let Round { user, email, ann, refresh, root } = round;
    match what {
        "reauthenticate" => {
            let body = json!({ "password": PASSWORD });
            ann.post("/api/v1/auth/reauthenticate", body).await
        }
        "refresh" => {
            let body = json!({ "refresh_token": refresh });
            ann.post("/api/v1/auth/refresh", body).await
        }
        "delete" => root.delete(&format!("/api/v1/users/{user}")).await,
        "leave" => ann.delete(ME).await,
        "grant" => {
            let path = format!("/api/v1/resources/note/{user}/grants/user:{user}");
            root.send(Call::new(Method::PUT, &path).json(json!({ "actions": ["read"] }))).await
        }
        "role" => {
            root.send(Call::new(Method::PUT, &format!("/api/v1/users/{user}/roles/admin"))).await
        }
        "sign in" => {
            let body = json!({ "email": email, "password": PASSWORD });
            ann.post("/api/v1/auth/login", body).await
        }
        _ => unreachable!(),
    }
}

async fn pairs(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    app.admin("root@example.com").await;
    app.admin("second@example.com").await;
    for (number, (one, two)) in [
        ("reauthenticate", "refresh"),
        ("delete", "leave"),
        ("delete", "refresh"),
        ("delete", "grant"),
        ("delete", "role"),
        ("delete", "sign in"),
        ("leave", "role"),
        ("refresh", "refresh"),
    ]
    .into_iter()
    .enumerate()
    {
        for turn in 0..6 {
            let email = format!("ann{number}-{turn}@example.com");
            let user = app.user(&email).await;
            let signed_in = app.anyone().login(&email).await;
            let (bearer, refresh) =
                (signed_in.text("access_token"), signed_in.text("refresh_token"));
            let root = app.token("root@example.com").await;
            let here = Round {
                user,
                email: email.clone(),
                ann: app.anyone().with_token(bearer.clone()),
                refresh: refresh.clone(),
                root: root.clone(),
            };
            let there = Round {
                user,
                email,
                ann: other.anyone().with_token(bearer),
                refresh,
                root: other.anyone().with_token(root.bearer.unwrap()),
            };
            let (first, second) = tokio::join!(act(&here, one), act(&there, two));
            for answer in [&first, &second] {
                assert!(answer.status.as_u16() < 500, "{one} {two}: {}", answer.raw);
            }
        }
    }
    no_deadlock(&app, on).await;
    other.stop().await;
    app.stop().await;
}

async fn no_deadlock(app: &TestApp, on: On) {
    if matches!(on, On::Postgres) {
        let sql = "select deadlocks from pg_stat_database where datname = current_database()";
        // Counted by each connection when it is idle.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (deadlocks,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
        assert_eq!(deadlocks, 0);
    }
}

/// Three registrations of one email address. While the first is locked, the two others are verified.
async fn two_registrations(on: On) {
    let mut plan = unlimited();
    plan.settings.push(("registration.email_verification", "required"));
    let app = TestApp::with(on, plan).await;
    let other = app.second().await;
    let mut links = Vec::new();
    for _ in 0..3 {
        app.advance(Duration::from_secs(1)).await;
        let body = json!({ "email": "ann@example.com", "password": PASSWORD });
        let answer = app.anyone().post("/api/v1/auth/register", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.raw);
        links.push(token(&newest_email(&app).await));
    }
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let first = "update registrations set digest = digest
         where created_at = (select min(created_at) from registrations)";
    assert_eq!(tx.run(first, args![]).await.unwrap(), 1);
    let (here, there) = (app.anyone(), other.anyone());
    let verify = async |client: &Client<'_>, link: &str| {
        let body = json!({ "token": link, "password": PASSWORD });
        client.post("/api/v1/auth/verify-email", body).await
    };
    let release = async {
        a_while().await;
        until_one_waits(&app.app.db).await;
        drop(tx);
    };
    let (one, two, ()) = tokio::join!(verify(&here, &links[1]), verify(&there, &links[2]), release);
    let (good, late) = if one.status == StatusCode::NO_CONTENT { (one, two) } else { (two, one) };
    assert_eq!(good.status, StatusCode::NO_CONTENT, "{}", good.raw);
    assert_eq!(place(&late), (422, "/token", "registration.bad_token"), "{}", late.raw);
    no_deadlock(&app, on).await;
    other.stop().await;
    app.stop().await;
}

/// A refresh that stands in a circle is broken off by the database after a second, and run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_broke_off_is_run_again() {
    let app = TestApp::with(On::Postgres, unlimited()).await;
    let user = app.user("ann@example.com").await;
    let signed_in = app.anyone().login("ann@example.com").await;
    let session = session_of(&app, user).await;
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let secrets = "update session_secrets set used_at = used_at where session_id = $1";
    tx.run(secrets, args![session]).await.unwrap();
    let circle = async {
        until_one_waits(&app.app.db).await;
        // The refresh holds this row and waits for the other.
        let row = "update sessions set amr = amr where id = $1";
        tx.run(row, args![session]).await.unwrap();
        drop(tx);
    };
    let body = json!({ "refresh_token": signed_in.text("refresh_token") });
    let anyone = app.anyone();
    let (answer, ()) = tokio::join!(anyone.post("/api/v1/auth/refresh", body), circle);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
    app.stop().await;
}
