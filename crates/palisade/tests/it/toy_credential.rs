//! A kind of credential that an application brings: what Palisade does for it without knowing it.

use axum::extract::State;
use axum::http::{Method, StatusCode};
use palisade::access::{Caller, Identity, SIGNED_IN};
use palisade::app::{
    Actor, App, Change, CredentialForm, CredentialList, CredentialMethods, Hold, LiveCredential,
};
use palisade::credential::{Credential, CredentialKind, Introspection, SecretRef, TokenShape};
use palisade::credentials::{self, Act, End, Ending, EndsWith, Fate, Kind, OwnKind, TABLE};
use palisade::error::{Error, Result, bad_token};
use palisade::http::{CookieName, NoContent, Routes};
use palisade::id::UserId;
use palisade::module::Module;
use palisade::record::Event;
use palisade::testing::phone::{enrol, sign_in};
use palisade::{sessions, users};
use palisade_crypto::opaque;
use palisade_db::testing::{options, until_one_waits};
use palisade_db::{Migration, Sql, args};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::verifying::{form, introspect, is_nothing, page, verifier};
use palisade::testing::{Call, Client, On, PASSWORD, Plan, TestApp, unlimited};

palisade::on_both! {
    an_applications_credential_signs_in_and_is_on_record => |on| super::on_record(on);
    an_applications_credential_is_introspected_and_revoked => |on| super::outside(on);
    an_applications_credential_is_worth_nothing_without_its_user => |on| super::disabled(on);
    no_credential_of_a_user_who_must_enrol_is_active => |on| super::enrolling(on);
    an_applications_credential_ends_with_every_act_that_should_end_it => |on| super::walk(on);
    an_applications_credential_ends_with_everyones => |on| super::everyones(on);
    a_change_that_waited_while_its_credential_ended_is_refused => |on| super::waited(on);
    a_credential_that_lost_a_permission_refuses_what_waited_for_it => |on| super::narrowed(on);
    cookies_of_two_kinds_are_refused => |on| super::two_cookies(on);
    a_credential_that_nothing_ends_is_refused => |on| super::endless(on);
}

const PREFIX: &str = "toy_";
const ENDED_TOPIC: &str = "toys.ended";
const COOKIE: CookieName = CookieName { secure: "__Host-toy", plain: "toy" };
const USED: Event = Event { name: "toys.used", summary: "A toy was used" };
const ENDED: Event = Event { name: "toys.ended", summary: "A toy was taken away" };

const TOY_KIND: Kind = Kind::Own(&OwnKind { title: "Toys", ends_with: EndsWith::Either });

const TOYS: Module = Module {
    name: "toys",
    routes: || Routes::at("/toys").post("/use", SIGNED_IN.keys(), use_toy).summary("Uses a toy."),
    events: &[USED, ENDED],
    credentials: &[METHODS],
    endings: &[Ending {
        kind: TOY_KIND,
        owners: Some(|app, after, limit| Box::pin(owners(app, after, limit))),
        end: |change, end, _| Box::pin(end_all(change, end.user)),
    }],
    migrations: &[Migration {
        module: "toys",
        number: 1,
        name: "toys",
        sql: Sql::Both(
            "create table toys (
                id id not null primary key,
                user_id id not null references users (id) on delete cascade,
                digest bytes not null,
                permissions text,
                ended_at instant
            )",
        ),
    }],
    tables: &["toys"],
    ..Module::EMPTY
};

static KIND: CredentialKind = CredentialKind { name: "toy", session: false };

const METHODS: CredentialMethods = CredentialMethods {
    kind: &KIND,
    forms: &[
        CredentialForm {
            name: "toy",
            summary: "A toy: `toy_…`.",
            shape: TokenShape::Prefix(PREFIX),
            prove: Some(|app, token, _| Box::pin(prove(app, token))),
            introspect: Some(|app, token| Box::pin(worth(app, token))),
            locate: Some(|app, token| Box::pin(find(app, token))),
        },
        CredentialForm {
            name: "toy_cookie",
            summary: "The cookie of a toy.",
            shape: TokenShape::Cookie(COOKIE),
            prove: Some(|app, token, _| Box::pin(prove(app, token))),
            introspect: None,
            locate: None,
        },
    ],
    ends_as: TOY_KIND,
    ended: ENDED_TOPIC,
    is_alive: |change, user, credential| Box::pin(is_alive(change, user, credential)),
    revoke: |change, user, id| Box::pin(end(change, user, id)),
};

async fn use_toy(State(app): State<App>, caller: Caller) -> Result<NoContent> {
    let me = caller.signed_in()?.user;
    app.change(&caller.actor).await?.commit(USED.about(me)).await?;
    Ok(NoContent)
}

async fn find(app: &App, token: &str) -> Result<Option<(UserId, Uuid)>> {
    let Some(digest) = opaque::digest(PREFIX, token) else { return Ok(None) };
    let sql = "select user_id, id from toys where digest = $1 and ended_at is null";
    Ok(app.db.maybe(sql, args![digest]).await?)
}

async fn prove(app: &App, token: &str) -> Result<Identity> {
    let (user, id) = find(app, token).await?.ok_or_else(bad_token)?;
    users::identity(app, user, Credential { kind: &KIND, id, secret: SecretRef::Only }).await
}

async fn worth(app: &App, token: &str) -> Result<Option<Introspection>> {
    let found = find(app, token).await?;
    Ok(found.map(|(user, _)| Introspection { sub: Some(user), ..Introspection::default() }))
}

async fn is_alive(
    change: &mut Change,
    user: UserId,
    credential: Credential,
) -> Result<Option<LiveCredential>> {
    let sql = "select permissions from toys where id = $1 and user_id = $2 and ended_at is null";
    let row: Option<(Option<String>,)> = change.maybe(sql, args![credential.id, user]).await?;
    let own = |text: String| text.split_whitespace().map(str::to_owned).collect();
    Ok(row.map(|(text,)| LiveCredential {
        proved: None,
        permissions: text.map(own),
        required_level: None,
    }))
}

fn tell(change: &mut Change, user: UserId, id: Uuid) {
    change.publish(ENDED_TOPIC, id);
    change.note(ENDED.about(user).detail("toy", id.to_string()));
}

async fn end(change: &mut Change, user: UserId, id: Uuid) -> Result<()> {
    let now = change.now();
    let sql = "update toys set ended_at = $3 where id = $1 and user_id = $2 and ended_at is null";
    if change.run(sql, args![id, user, now]).await? == 0 {
        return Err(Error::not_found());
    }
    tell(change, user, id);
    Ok(())
}

async fn end_all(change: &mut Change, user: UserId) -> Result<usize> {
    let now = change.now();
    let sql = "update toys set ended_at = $2 where user_id = $1 and ended_at is null returning id";
    let ended: Vec<(Uuid,)> = change.all(sql, args![user, now]).await?;
    for (id,) in &ended {
        tell(change, user, *id);
    }
    Ok(ended.len())
}

async fn owners(app: &App, after: UserId, limit: i64) -> Result<Vec<UserId>> {
    let sql = "select distinct user_id from toys where user_id > $1 and ended_at is null
        order by user_id limit $2";
    let rows: Vec<(UserId,)> = app.db.all(sql, args![after, limit]).await?;
    Ok(rows.into_iter().map(|(user,)| user).collect())
}

async fn start(on: On) -> TestApp {
    TestApp::with(on, Plan { modules: vec![TOYS], ..unlimited() }).await
}

/// Gives a user a toy: its id, and a client that has it.
async fn give<'a>(app: &'a TestApp, user: UserId) -> (Uuid, Client<'a>) {
    let token = opaque::generate(PREFIX, &*app.app.random);
    let mut change = app.app.change(&Actor::operator()).await.unwrap();
    let id = app.app.new_id();
    let sql = "insert into toys (id, user_id, digest) values ($1, $2, $3)";
    let digest = opaque::digest(PREFIX, token.expose());
    change.run(sql, args![id, user, digest]).await.unwrap();
    change.commit_quietly("a test").await.unwrap();
    (id, app.anyone().with_token(token.expose()))
}

async fn use_it(client: &Client<'_>) -> (u16, String) {
    let answer = client.act("/api/v1/toys/use").await;
    (answer.status.as_u16(), answer.code().to_owned())
}

fn refused() -> (u16, String) {
    (401, "access.invalid_token".to_owned())
}

async fn on_record(on: On) {
    let app = start(on).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    let (id, toy) = give(&app, ann).await;
    assert_eq!(toy.get("/api/v1/users/me").await.text("id"), ann.to_string());
    assert_eq!(use_it(&toy).await, (204, String::new()));
    let log = root.get("/api/v1/audit?action=toys.used").await;
    let actor = &log.body["items"][0]["actor"];
    assert_eq!(actor["credential"], json!({ "kind": "toy", "id": id }), "{}", log.raw);
    assert_eq!((&actor["kind"], &actor["id"]), (&json!("user"), &json!(ann)));
    // It is no session, and no proof of who its user is.
    let sessions = toy.get("/api/v1/users/me/sessions").await;
    assert_eq!(sessions.code(), "access.session_needed");
    let stranger = opaque::generate(PREFIX, &*app.app.random);
    let stranger = app.anyone().with_token(stranger.expose());
    let answer = stranger.get("/api/v1/users/me").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "access.invalid_token"));
    let described = app.builder.openapi();
    assert_eq!(described["components"]["securitySchemes"]["toy"]["scheme"], "bearer");
    assert_eq!(described["components"]["securitySchemes"]["toy_cookie"]["name"], "toy-8000");
    let security = &described["paths"]["/api/v1/toys/use"]["post"]["security"];
    assert!(security.as_array().unwrap().contains(&json!({ "toy": [] })), "{security}");
    let verified = palisade::audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    app.stop().await;
}

async fn outside(on: On) {
    let app = start(on).await;
    app.admin("root@example.com").await;
    let gateway = verifier(&app, &app.token("root@example.com").await).await;
    let ann = app.user("ann@example.com").await;
    let (id, toy) = give(&app, ann).await;
    let token = toy.bearer.clone().unwrap();
    assert_eq!(introspect(&gateway, &token).await, json!({ "active": true, "sub": ann }));
    for _ in 0..2 {
        let answer = form(&gateway, "/api/v1/auth/revoke", &token).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.raw);
        is_nothing(&gateway, &token).await;
        assert_eq!(use_it(&toy).await, refused());
    }
    let items: Vec<Value> = page(&gateway, None).await["items"].as_array().unwrap().clone();
    assert!(items.iter().any(|item| item["toy_id"] == json!(id)), "{items:?}");
    let ended = app.events().await.into_iter().filter(|event| event == "toys.ended").count();
    assert_eq!(ended, 1);
    app.stop().await;
}

async fn disabled(on: On) {
    let app = start(on).await;
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    let gateway = verifier(&app, &root).await;
    let ann = app.user("ann@example.com").await;
    // Its own slice doesn't ask whether its user is disabled.
    assert_eq!(root.act(&format!("/api/v1/users/{ann}/disable")).await.status, 204);
    let (id, toy) = give(&app, ann).await;
    is_nothing(&gateway, &toy.bearer.clone().unwrap()).await;
    assert_eq!(use_it(&toy).await, refused());
    let credential = Some(Credential { kind: &KIND, id, secret: SecretRef::Only });
    let actor = Actor { user: Some(ann), credential, ..Actor::default() };
    let error = app.app.change(&actor).await.map(drop).unwrap_err();
    assert_eq!(error.code(), "access.invalid_token");
    // Nor may another user act with it.
    let bob = app.user("bob@example.com").await;
    let actor = Actor { user: Some(bob), ..actor };
    assert!(app.app.change(&actor).await.is_err());
    app.stop().await;
}

/// Whatever its kind, but for what lets no one in: a refresh token is worth what it was.
async fn enrolling(on: On) {
    let settings = vec![("limits.enabled", "false"), ("access.admin_mfa", "required")];
    let app = TestApp::with(on, Plan { modules: vec![TOYS], settings, ..Plan::default() }).await;
    app.admin("root@example.com").await;
    let (phone, _) = enrol(&app.token("root@example.com").await).await;
    app.advance(std::time::Duration::from_secs(30)).await;
    let root = sign_in(&app, "root@example.com", &phone).await;
    let gateway = verifier(&app, &root).await;
    let ann = app.user("ann@example.com").await;
    let (_, toy) = give(&app, ann).await;
    let session = app.anyone().login("ann@example.com").await;
    let client = app.anyone().with_token(session.text("access_token"));
    let made = client.post("/api/v1/users/me/api-keys", json!({ "name": "CI", "permissions": [] }));
    let key = made.await.text("api_key");
    let tokens = [toy.bearer.clone().unwrap(), key, session.text("access_token")];
    let active = |token: String| {
        let gateway = &gateway;
        async move { introspect(gateway, &token).await["active"].clone() }
    };
    let role = format!("/api/v1/users/{ann}/roles/admin");
    for (must_enrol, method) in [(false, None), (true, Some(Method::PUT))] {
        if let Some(method) = method {
            let given = root.send(Call::new(method, &role)).await;
            assert_eq!(given.status, StatusCode::NO_CONTENT, "{}", given.raw);
        }
        for token in &tokens {
            assert_eq!(active(token.clone()).await, !must_enrol, "{token}");
        }
        assert_eq!(active(session.text("refresh_token")).await, true);
    }
    app.stop().await;
}

async fn walk(on: On) {
    let app = start(on).await;
    let (mut ending, mut staying) = (0, 0);
    for (number, line) in TABLE.iter().enumerate() {
        let user = app.user(&format!("ann{number}@example.com")).await;
        let (_, toy) = give(&app, user).await;
        let holds = [Hold::Alone(user)];
        let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
        let since = Some(change.now());
        credentials::end(&mut change, End { since, ..End::of(user, line.act) }).await.unwrap();
        change.commit_quietly("a test").await.unwrap();
        let ends = [Kind::Sessions, Kind::ApiKeys].map(|kind| line.fate(kind) != Fate::Kept);
        if ends.contains(&true) {
            ending += 1;
            assert_eq!(use_it(&toy).await, refused(), "{:?}", line.act);
        } else {
            staying += 1;
            assert_eq!(use_it(&toy).await.0, 204, "{:?}", line.act);
        }
    }
    assert_eq!((ending, staying), (12, 2));
    app.stop().await;
}

/// Accounts that have nothing but what an application gave them are found too.
async fn everyones(on: On) {
    let app = start(on).await;
    let mut toys = Vec::new();
    for name in ["ann", "bob"] {
        let user = app.user(&format!("{name}@example.com")).await;
        toys.push(give(&app, user).await.1);
    }
    let ended = sessions::revoke_everyone(&app.app, &Actor::operator()).await.unwrap();
    assert_eq!((ended.accounts, ended.sessions), (2, 0));
    for toy in &toys {
        assert_eq!(use_it(toy).await, refused());
    }
    app.stop().await;
}

async fn waited(on: On) {
    let app = start(on).await;
    let other = app.second().await;
    let ann = app.user("ann@example.com").await;
    let (_, toy) = give(&app, ann).await;
    let elsewhere = other.anyone().with_token(toy.bearer.clone().unwrap());
    let holds = [Hold::Alone(ann)];
    let mut ending = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
    credentials::end(&mut ending, End::of(ann, Act::Revoked)).await.unwrap();
    let finish = async {
        until_one_waits(&other.app.db).await;
        ending.commit_quietly("a test").await.unwrap();
    };
    let (answer, ()) = tokio::join!(use_it(&elsewhere), finish);
    assert_eq!(answer, refused());
    assert!(!app.events().await.contains(&"toys.used".to_owned()));
    other.stop().await;
    app.stop().await;
}

async fn narrowed(on: On) {
    let app = start(on).await;
    let root = app.admin("root@example.com").await;
    let (id, _) = give(&app, root).await;
    let credential = Some(Credential { kind: &KIND, id, secret: SecretRef::Only });
    let permission = Some("users:write");
    let actor = Actor { user: Some(root), credential, permission, ..Actor::default() };
    for (own, allowed) in [(None, true), (Some("users:write"), true), (Some("users:read"), false)] {
        let mut change = app.app.change(&Actor::operator()).await.unwrap();
        let sql = "update toys set permissions = $2 where id = $1";
        change.run(sql, args![id, own.map(str::to_owned)]).await.unwrap();
        change.commit_quietly("a test").await.unwrap();
        let waited = app.app.change(&actor).await.map(drop);
        assert_eq!(waited.is_ok(), allowed, "{own:?}");
        assert!(waited.err().is_none_or(|error| error.code() == "access.denied"));
    }
    app.stop().await;
}

async fn two_cookies(on: On) {
    let app = start(on).await;
    let ann = app.user("ann@example.com").await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "transport": "cookie" });
    let session =
        app.anyone().send(Call::post("/api/v1/auth/login", body).same_origin()).await.cookie();
    let (_, toy) = give(&app, ann).await;
    let toy = format!("toy-8000={}", toy.bearer.unwrap());
    for alone in [&session, &toy] {
        let answer = app.anyone().with_cookie(alone).get("/api/v1/users/me").await;
        assert_eq!(answer.status, StatusCode::OK, "{alone}: {}", answer.raw);
    }
    let nonsense = "toy-8000=nonsense".to_owned();
    for both in [
        format!("{session}; {toy}"),
        format!("{toy}; {session}"),
        format!("{session}; {nonsense}"),
        format!("{toy}; {nonsense}"),
    ] {
        let answer = app.anyone().with_cookie(&both).get("/api/v1/users/me").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "access.invalid_token"),
            "{both}"
        );
    }
    app.stop().await;
}

async fn endless(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let credentials: &'static [_] =
        Vec::leak(vec![kind("other", "others.ended", TokenShape::Prefix("other_"))]);
    let another = OwnKind { title: "Others", ends_with: EndsWith::Either };
    let another = Kind::Own(Box::leak(Box::new(another)));
    let another: &'static [_] = Vec::leak(vec![Ending { kind: another, ..TOYS.endings[0] }]);
    for (endings, good) in [(TOYS.endings, true), (&[], false), (another, false)] {
        let other = Module { name: "others", credentials, endings, ..Module::EMPTY };
        let builder = app.builder.clone().module(other);
        let root = palisade_crypto::root::RootKey::parse(&app.root).unwrap();
        let db = palisade_db::Db::open(options(app.database.url())).await.unwrap();
        assert_eq!(builder.app(db, root).await.is_ok(), good);
    }
    app.stop().await;
}

/// A kind with one form.
fn kind(name: &'static str, ended: &'static str, shape: TokenShape) -> CredentialMethods {
    let (summary, prove, introspect, locate) = ("A test.", None, None, None);
    let form = CredentialForm { name, summary, shape, prove, introspect, locate };
    let kind = Box::leak(Box::new(CredentialKind { name, session: false }));
    CredentialMethods { kind, forms: Vec::leak(vec![form]), ended, ..METHODS }
}

#[test]
fn credentials_that_can_not_be_told_apart_are_refused() {
    let own = palisade::MODULES.iter().flat_map(|module| module.credentials).copied();
    let own: Vec<CredentialMethods> = own.chain([METHODS]).collect();
    let with = |other| CredentialList::new(own.iter().copied().chain([other]).collect());
    let good = || kind("other", "others.ended", TokenShape::Prefix("other_"));
    assert!(with(good()).is_ok());
    let session = &CredentialKind { name: "other", session: true };
    assert!(with(CredentialMethods { kind: session, ..good() }).is_err(), "a second session");
    let form = CredentialForm { name: "toy_cookie", ..good().forms[0] };
    assert!(with(CredentialMethods { forms: Vec::leak(vec![form]), ..good() }).is_err(), "a name");
    for (name, ended, shape) in [
        ("toy", "others.ended", TokenShape::Prefix("other_")),
        ("other", "toys.ended", TokenShape::Prefix("other_")),
        ("other", "others.gone", TokenShape::Prefix("other_")),
        ("other", "others.ended", TokenShape::Prefix("pal_")),
        ("other", "others.ended", TokenShape::Prefix("pal_ak_other_")),
        ("other", "others.ended", TokenShape::Prefix("")),
        ("other", "others.ended", TokenShape::Signed),
        ("other", "others.ended", TokenShape::Cookie(sessions::COOKIE)),
        ("other", "others.ended", TokenShape::Cookie(CookieName { secure: "other", plain: "o" })),
    ] {
        assert!(with(kind(name, ended, shape)).is_err(), "{name} {ended} {shape:?}");
    }
    // Who has what the ending of everyone's ends must be known.
    let toys = TOYS.endings.iter().copied();
    let own = palisade::MODULES.iter().flat_map(|module| module.endings).copied();
    assert!(credentials::in_order(own.clone().chain(toys.clone()).collect()).is_ok());
    let toys = toys.map(|ending| Ending { owners: None, ..ending });
    assert!(credentials::in_order(own.chain(toys).collect()).is_err());
}
