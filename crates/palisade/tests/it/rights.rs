//! Who may act on whom: every kind of actor, every kind of user, every act.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use palisade::access::Who;
use palisade::app::{Actor, Hold};
use palisade::grants::{self, Resource, Subject};
use palisade::id::UserId;
use palisade::registration::{self, Wanted};
use palisade::testing::mailbox::{newest_email, token};
use palisade::testing::{
    Answer, Call, Client, On, PASSWORD, TestApp, patch, place, put, unlimited,
};
use palisade::users::{self, Email, Holder, NewUser};
use palisade::{invitations, roles};
use palisade_crypto::opaque;
use palisade_db::{Timestamp, args};
use serde_json::{Value, json};

palisade::on_both! {
    every_act_on_another_user_asks_for_what_they_hold => |on| super::matrix(on);
    a_role_is_given_by_those_who_hold_what_it_opens => |on| super::giving(on);
    a_grant_counts_for_as_long_as_it_lasts => |on| super::lasting(on);
    an_account_made_again_has_none_of_the_former_ones_rights => |on| super::again(on);
    an_administrator_sends_a_link_to_choose_a_new_password => |on| super::link(on);
    the_operator_acts_on_every_user => |on| super::operator(on);
    an_administrator_does_not_lift_their_own_lock => |on| super::own_lock(on);
    rights_that_were_taken_away_do_nothing_for_what_is_under_way => |on| super::taken_away(on);
    a_grant_is_judged_when_its_body_has_come => |on| super::held_back(on);
    a_user_who_was_given_more_is_out_of_reach_of_what_waited => |on| super::raised(on);
}

/// The roles that actors and targets hold, and what each is made of.
const ROLES: [(&str, &[&str]); 6] = [
    ("clerks", &["users:read", "users:write"]),
    ("makers", &["users:read", "users:write", "roles:read", "roles:write"]),
    ("keepers", &["users:read", "users:write", "resources:write"]),
    ("auditors", &["audit:read"]),
    // Opens a document, and holds no permission.
    ("editors", &[]),
    // Opens nothing.
    ("labels", &[]),
];

/// Those who act, and the roles that they hold. Each does it with a session, and with an API key of all that they may.
const ACTORS: [(&str, &[&str]); 5] = [
    ("clerk", &["clerks"]),
    ("maker", &["makers"]),
    ("colleague", &["clerks", "editors"]),
    ("keeper", &["keepers"]),
    ("admin", &["admin"]),
];

/// Those who are acted on, and the roles that they hold.
const TARGETS: [(&str, &[&str]); 7] = [
    ("plain", &[]),
    ("peer", &["clerks"]),
    ("auditor", &["auditors"]),
    ("editor", &["editors"]),
    // A document was granted to this user in person.
    ("owner", &[]),
    ("service", &["editors"]),
    ("admin", &["admin"]),
];

/// How far each actor reaches: `all` acts, those that only `stop`, or `none`.
const REACH: &str = "
    actor      plain  peer  auditor  editor  owner  service  admin
    clerk      all    all   none     stop    stop   stop     none
    maker      all    all   none     stop    stop   stop     none
    colleague  all    all   none     all     stop   all      none
    keeper     all    all   none     all     all    all      none
    admin      all    all   all      all     all    all      all
";

/// Every route about another user: whether it only stops something, or does more, or only shows.
const ACTS: &str = "
    GET /api/v1/users/{id} shows
    PATCH /api/v1/users/{id} does
    DELETE /api/v1/users/{id} does
    POST /api/v1/users/{id}/disable stops
    POST /api/v1/users/{id}/enable does
    POST /api/v1/users/{id}/unlock does
    POST /api/v1/users/{id}/reset-mfa does
    POST /api/v1/users/{id}/reset-password does
    POST /api/v1/users/{id}/revoke-sessions stops
    PUT /api/v1/users/{id}/roles/{role} does
    DELETE /api/v1/users/{id}/roles/{role} does
    GET /api/v1/users/{id}/api-keys stops
    POST /api/v1/users/{id}/api-keys does
    DELETE /api/v1/users/{id}/api-keys/{key} stops
";

/// Other routes that a permission or a grant opens and that change something; none of them names one user to act on.
const OTHERS: &str = "
    POST /api/v1/auth/introspect
    POST /api/v1/auth/revoke
    PUT /api/v1/resources/{type}/{id}/grants/{subject}
    DELETE /api/v1/resources/{type}/{id}/grants/{subject}
    POST /api/v1/roles
    PATCH /api/v1/roles/{role}
    DELETE /api/v1/roles/{role}
    POST /api/v1/service-accounts
    POST /api/v1/users
    POST /api/v1/users/revoke-sessions
";

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.trim().lines().map(str::trim)
}

/// What each route about another user is: `stops`, `does` or `shows`.
fn acts() -> BTreeMap<&'static str, &'static str> {
    lines(ACTS).map(|line| line.rsplit_once(' ').unwrap()).collect()
}

/// What the table says of an actor and a target.
fn reach(actor: &str, target: &str) -> &'static str {
    let rows: Vec<Vec<&str>> = lines(REACH).map(|row| row.split_whitespace().collect()).collect();
    let column = rows[0].iter().position(|name| *name == target).unwrap();
    rows.iter().find(|row| row[0] == actor).unwrap()[column]
}

#[test]
fn no_route_about_another_user_is_left_out() {
    let random = std::sync::Arc::new(palisade_crypto::random::SeededRandom::new(1));
    let clock = palisade::clock::Clock::system();
    let builder = palisade::Builder::new(palisade::testing::settings(&[]), clock, random);
    let acts = acts();
    let mut seen = BTreeSet::new();
    for route in builder.routes() {
        let line = format!("{} {}", route.method, route.path);
        let about_a_user = route.path.starts_with("/api/v1/users/{id}");
        let by_right = matches!(route.access.who, Who::Holds(_)) || line.contains("/grants/");
        let changes = route.method != Method::GET;
        if !(about_a_user || (by_right && changes)) {
            continue;
        }
        let known = acts.get(line.as_str()).copied();
        assert_eq!(
            known.is_some(),
            about_a_user,
            "{line}: add it to `ACTS` (`OTHERS` if it is about no user)"
        );
        // An API key holds the grants of its owner, and doesn't act with them.
        let fresh = known != Some("does") || route.access.fresh;
        assert!(
            fresh,
            "{line}: a route that changes a user needs `.fresh()`, which keeps API keys out"
        );
        seen.insert(line);
    }
    let listed: BTreeSet<String> =
        acts.keys().copied().chain(lines(OTHERS)).map(str::to_owned).collect();
    let left_out: Vec<&String> = seen.symmetric_difference(&listed).collect();
    assert!(
        left_out.is_empty(),
        "in `ACTS` and `OTHERS`, or among the routes, but not in both: {left_out:#?}"
    );
}

fn resource(id: &str) -> Resource {
    Resource { kind: "document".parse().unwrap(), id: id.parse().unwrap() }
}

async fn open(app: &TestApp, id: &str, subject: Subject, until: Option<Timestamp>) {
    let mut change = app.app.change(&Actor::operator()).await.unwrap();
    let actions = BTreeSet::from(["read".parse().unwrap()]);
    grants::put(&mut change, &resource(id), &subject, &actions, until).await.unwrap();
    change.commit_quietly("a test").await.unwrap();
}

async fn prepare(app: &TestApp) -> Client<'_> {
    app.admin("root@example.com").await;
    let root = app.token("root@example.com").await;
    for (name, permissions) in ROLES {
        let body = json!({ "name": name, "permissions": permissions });
        assert_eq!(root.post("/api/v1/roles", body).await.status, StatusCode::CREATED);
    }
    open(app, "7", Subject::Role("editors".parse().unwrap()), None).await;
    root
}

/// A user who can sign in.
async fn person(app: &TestApp, name: &str, roles: &[&str]) -> UserId {
    let email = Email::parse(&format!("{name}@example.com")).unwrap();
    let wanted = Wanted { email, password: PASSWORD.into(), name: None };
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    registration::create_user(&app.app, &Actor::operator(), wanted, roles).await.unwrap()
}

/// The API key of the latest target.
const KEY: uuid::Uuid = uuid::Uuid::from_u128(7);

/// One to be acted on, who holds the role `labels` and has an API key.
async fn target(app: &TestApp, kind: &str) -> UserId {
    let held = TARGETS.iter().find(|(name, _)| *name == kind).unwrap().1;
    let id = app.app.new_id();
    let new = NewUser {
        id: Some(UserId(id)),
        verified: true,
        email: Email::parse(&format!("{id}@example.com")).unwrap(),
        name: None,
        roles: held.iter().chain(&["labels"]).map(|role| (*role).to_owned()).collect(),
        service: kind == "service",
    };
    let mut change = app.app.change(&Actor::operator()).await.unwrap();
    let made = users::create(&mut change, &new).await.unwrap().unwrap();
    change.commit(users::CREATED.about(made)).await.unwrap();
    if kind == "owner" {
        open(app, "8", Subject::User(made), None).await;
    }
    give_key(app, made).await;
    made
}

async fn give_key(app: &TestApp, owner: UserId) {
    let secret = opaque::generate("pal_ak_", &*app.app.random);
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run("delete from api_keys where id = $1", args![KEY]).await.unwrap();
    tx.run(
        "insert into api_keys (id, user_id, digest, hint, name, permissions, created_at, expires_at)
         values ($1, $2, $3, '', '', '', $4, $5)",
        args![
            KEY,
            owner,
            opaque::digest("pal_ak_", secret.expose()),
            app.clock.now(),
            app.clock.now().plus(Duration::from_secs(3600))
        ],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

async fn act(app: &TestApp, client: &Client<'_>, line: &str, id: UserId) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let path = path.replace("{id}", &id.to_string());
    let path = path.replace("{role}", "labels").replace("{key}", &KEY.to_string());
    let call = Call::new(method.parse().unwrap(), &path).same_origin();
    client
        .send(match line {
            "PATCH /api/v1/users/{id}" => {
                let email = format!("{}@example.com", app.app.new_id());
                call.json(json!({ "email": email, "name": "Changed" }))
            }
            "POST /api/v1/users/{id}/api-keys" => {
                call.json(json!({ "name": "CI", "permissions": [] }))
            }
            _ => call,
        })
        .await
}

/// How an act ends that is within reach: what else stands in its way, if anything does.
fn done(line: &str, kind: &str) -> &'static str {
    match (line.rsplit('/').next().unwrap(), kind) {
        ("reset-password", "service") => "users.service_account",
        ("{id}", "service") if line.starts_with("PATCH") => "users.service_account",
        ("{id}", "oneself") if line.starts_with("PATCH") => "users.own_email",
        ("unlock", "oneself") => "lockout.own_lock",
        ("reset-mfa", "oneself") => "mfa.own_factors",
        ("api-keys", "service") => "",
        ("api-keys", _) if line.starts_with("POST") => "api_keys.not_a_service_account",
        _ => "",
    }
}

/// What users did; the server's own work goes on beside it.
async fn count_events(app: &TestApp) -> i64 {
    let sql = "select count(*) from audit_events where actor_kind = 'user'";
    app.app.db.one::<(i64,)>(sql, args![]).await.unwrap().0
}

/// A refusal, but for the request's id.
fn anonymous(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    body
}

async fn matrix(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let all = root.get("/api/v1/roles/admin").await.body["permissions"].clone();
    // One sentence for every refusal: it doesn't tell a role's permissions from grants.
    let mut refusal = None;
    for (actor, held) in ACTORS {
        person(&app, actor, held).await;
        let session = app.token(&format!("{actor}@example.com")).await;
        let own: BTreeSet<&str> = ROLES
            .iter()
            .filter(|(role, _)| held.contains(role))
            .flat_map(|(_, permissions)| permissions.iter().copied())
            .collect();
        let own = if actor == "admin" { all.clone() } else { json!(own) };
        let made = json!({ "name": "all", "permissions": own });
        let made = session.post("/api/v1/users/me/api-keys", made).await;
        let key = app.anyone().with_token(made.text("api_key"));
        for (kind, _) in TARGETS {
            let mut id = target(&app, kind).await;
            let acts = acts().into_iter().filter(|(_, what)| *what != "shows");
            let cells = acts.flat_map(|act| [(act, false), (act, true)]);
            for ((line, what), by_key) in cells {
                let within = match reach(actor, kind) {
                    "all" => true,
                    "stop" => what == "stops",
                    _ => false,
                };
                let fresh_only = by_key && takes_no_key(&app, line);
                let client = if by_key { &key } else { &session };
                let before = count_events(&app).await;
                let answer = act(&app, client, line, id).await;
                let cell = format!("{actor} (key: {by_key}) {line} on {kind}: {}", answer.raw);
                if fresh_only {
                    assert_eq!(answer.code(), "access.session_needed", "{cell}");
                } else if within {
                    assert_eq!(answer.code(), done(line, kind), "{cell}");
                    id = target(&app, kind).await;
                    continue;
                } else {
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{cell}");
                    assert_eq!(answer.code(), "access.exceeds_own", "{cell}");
                    let body = anonymous(&answer);
                    assert_eq!(*refusal.get_or_insert_with(|| body.clone()), body, "{cell}");
                }
                assert_eq!(count_events(&app).await, before, "{cell}");
            }
        }
    }
    oneself(&app).await;
    app.stop().await;
}

fn takes_no_key(app: &TestApp, line: &str) -> bool {
    let mut routes = app.builder.routes().into_iter();
    let named = |route: &palisade::http::Route| format!("{} {}", route.method, route.path) == line;
    !routes.find(named).unwrap().access.takes_keys()
}

/// What their own rights are is no hindrance; other rules are.
async fn oneself(app: &TestApp) {
    let cells = acts().into_iter().filter(|(_, what)| *what != "shows");
    for (number, (line, _)) in cells.enumerate() {
        let name = format!("self{number}");
        let id = person(app, &name, &["clerks", "editors", "labels"]).await;
        give_key(app, id).await;
        let client = app.token(&format!("{name}@example.com")).await;
        let answer = act(app, &client, line, id).await;
        assert_eq!(answer.code(), done(line, "oneself"), "{line}: {}", answer.raw);
    }
}

fn exceeds(answer: &Answer) {
    assert_eq!(answer.code(), "access.exceeds_own", "{}", answer.raw);
}

fn good(answer: &Answer) {
    assert!(answer.status.is_success(), "{}", answer.raw);
}

/// Who gives which role: in person and by an invitation.
const GIVES: &str = "
    actor      clerks  makers  keepers  auditors  editors  labels  admin
    clerk      yes     no      no       no        no       yes     no
    maker      yes     yes     no       no        no       yes     no
    colleague  yes     no      no       no        yes      yes     no
    keeper     yes     no      yes      no        yes      yes     no
    admin      yes     yes     yes      yes       yes      yes     yes
";

async fn giving(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let rows: Vec<Vec<&str>> = lines(GIVES).map(|row| row.split_whitespace().collect()).collect();
    for (row, (actor, held)) in rows[1..].iter().zip(ACTORS) {
        assert_eq!(row[0], actor);
        person(&app, actor, held).await;
        let client = app.token(&format!("{actor}@example.com")).await;
        for (role, gives) in rows[0][1..].iter().zip(&row[1..]) {
            let plain = target(&app, "plain").await;
            let given = put(&client, &format!("/api/v1/users/{plain}/roles/{role}")).await;
            let email = format!("{}@example.com", app.app.new_id());
            let body = json!({ "email": email, "roles": [role] });
            let invited = client.post("/api/v1/users", body).await;
            for answer in [given, invited] {
                if *gives == "yes" { good(&answer) } else { exceeds(&answer) }
            }
        }
    }
    // A role is deleted by those who may give it: its grants end with it.
    let maker = app.token("maker@example.com").await;
    exceeds(&maker.delete("/api/v1/roles/editors").await);
    good(&maker.delete("/api/v1/roles/labels").await);
    let id = maker.get("/api/v1/users/me").await.text("id");
    good(&put(&root, &format!("/api/v1/users/{id}/roles/editors")).await);
    good(&maker.delete("/api/v1/roles/editors").await);
    // The next role of that name opens nothing, and may be given.
    let body = json!({ "name": "editors", "permissions": [] });
    good(&root.post("/api/v1/roles", body).await);
    let clerk = app.token("clerk@example.com").await;
    let plain = target(&app, "plain").await;
    good(&put(&clerk, &format!("/api/v1/users/{plain}/roles/editors")).await);
    app.stop().await;
}

async fn lasting(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let minute = Duration::from_secs(60);
    let at = |minutes: u32| Some(app.clock.now().plus(minute * minutes));
    let clerk = person(&app, "clerk", &["clerks"]).await;
    let target = target(&app, "plain").await;
    let client = app.token("clerk@example.com").await;
    let path = format!("/api/v1/users/{target}");
    let name = || patch(&client, &path, json!({ "name": "Changed" }));
    good(&name().await);
    open(&app, "9", Subject::User(target), at(3)).await;
    exceeds(&name().await);
    // Less long, for another action, on another document, or by a role that only others hold: not the same.
    open(&app, "9", Subject::User(clerk), at(2)).await;
    exceeds(&name().await);
    let call = Call::new(Method::PUT, &format!("/api/v1/resources/document/9/grants/user:{clerk}"));
    good(&root.send(call.json(json!({ "actions": ["write"] }))).await);
    exceeds(&name().await);
    open(&app, "10", Subject::User(clerk), None).await;
    open(&app, "9", Subject::Role("editors".parse().unwrap()), None).await;
    exceeds(&name().await);
    // As long, or for ever, in person, by a role or by everyone's.
    for subject in [Subject::User(clerk), Subject::Role("clerks".parse().unwrap()), Subject::Anyone]
    {
        for until in [at(3), None] {
            open(&app, "9", subject.clone(), until).await;
            good(&name().await);
        }
        open(&app, "9", subject, at(1)).await;
        exceeds(&name().await);
    }
    // What has expired counts no more.
    app.advance(minute * 3).await;
    good(&name().await);
    // What a role opens is held with the role alone: its next grant reaches all who hold it.
    good(&put(&root, &format!("{path}/roles/editors")).await);
    open(&app, "7", Subject::User(clerk), None).await;
    open(&app, "9", Subject::User(clerk), None).await;
    exceeds(&name().await);
    app.stop().await;
}

async fn again(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let invite = || async {
        let body = json!({ "email": "ann@example.com", "roles": ["labels"] });
        let answer = root.post("/api/v1/users", body).await;
        answer.text("id").parse::<UserId>().unwrap()
    };
    let first = invite().await;
    open(&app, "8", Subject::User(first), None).await;
    good(&put(&root, &format!("/api/v1/users/{first}/roles/editors")).await);
    person(&app, "clerk", &["clerks"]).await;
    let clerk = app.token("clerk@example.com").await;
    exceeds(&clerk.delete(&format!("/api/v1/users/{first}")).await);
    good(&root.delete(&format!("/api/v1/users/{first}")).await);
    let second = invite().await;
    for id in ["7", "8"] {
        let (resource, read) = (resource(id), "read".parse().unwrap());
        let because = grants::because(&app.app, Some(second), &resource, &read).await;
        assert_eq!(because.unwrap(), None);
    }
    good(&patch(&clerk, &format!("/api/v1/users/{second}"), json!({ "name": "Ann" })).await);
    app.stop().await;
}

async fn link(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let id = person(&app, "ann", &[]).await;
    let ann = app.token("ann@example.com").await;
    let path = format!("/api/v1/users/{id}/reset-password");
    let answer = root.act(&path).await;
    assert_eq!((answer.status, answer.raw.as_str()), (StatusCode::NO_CONTENT, ""));
    let mail = newest_email(&app).await;
    assert_eq!(mail.to, "ann@example.com");
    // Nothing has changed before the link is used.
    good(&ann.get("/api/v1/users/me").await);
    let password = "five green kettles whistle";
    let body = json!({ "token": token(&mail), "password": password });
    good(&app.anyone().post("/api/v1/auth/password/reset", body.clone()).await);
    assert_eq!(ann.get("/api/v1/users/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(app.anyone().login("ann@example.com").await.code(), "login.denied");
    let twice = app.anyone().post("/api/v1/auth/password/reset", body).await;
    assert_eq!(twice.status, StatusCode::UNPROCESSABLE_ENTITY);
    good(&root.act(&format!("/api/v1/users/{id}/disable")).await);
    assert_eq!(root.act(&path).await.code(), "users.disabled");
    let nobody = "/api/v1/users/01890000-0000-7000-8000-000000000000/reset-password";
    assert_eq!(root.act(nobody).await.status, StatusCode::NOT_FOUND);
    assert_eq!(root.act(&path.replace("/api/v1", "")).await.status, StatusCode::NOT_FOUND);
    let events = app.events().await;
    assert_eq!(events.iter().filter(|event| *event == "recovery.invited").count(), 1);
    app.stop().await;
}

async fn operator(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    prepare(&app).await;
    let operator = Actor::operator();
    for (kind, _) in TARGETS {
        let id = target(&app, kind).await;
        for role in ["editors", "admin"] {
            let change = app.app.change(&operator).await.unwrap();
            let role = role.parse().unwrap();
            roles::grant(change, id, &role).await.unwrap();
        }
        let change = app.app.change_holding(&operator, &[Hold::Shared(id)]).await.unwrap();
        let sent = invitations::send_link(change, id).await;
        assert_eq!(sent.is_ok(), kind != "service", "{kind}");
    }
    app.stop().await;
}

async fn own_lock(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    prepare(&app).await;
    let id = person(&app, "clerk", &["clerks"]).await;
    let (clerk, other) = (app.token("clerk@example.com").await, person(&app, "other", &["clerks"]));
    other.await;
    let guess = || {
        let new = "five green kettles whistle";
        let body = json!({ "current_password": "not the right one at all", "new_password": new });
        clerk.post("/api/v1/users/me/password", body)
    };
    for _ in 0..5 {
        assert_eq!(place(&guess().await).2, "passwords.wrong");
    }
    assert_eq!(guess().await.code(), "lockout.locked");
    let path = format!("/api/v1/users/{id}/unlock");
    assert_eq!(clerk.act(&path).await.code(), "lockout.own_lock");
    assert_eq!(guess().await.code(), "lockout.locked");
    good(&app.token("other@example.com").await.act(&path).await);
    assert_eq!(place(&guess().await).2, "passwords.wrong");
    app.stop().await;
}

async fn roles_of(app: &TestApp, user: UserId) -> Vec<String> {
    users::find(&app.app, user).await.unwrap().unwrap().roles
}

/// Two processes: where the role is taken, and where its former holder asks for what it allowed.
async fn taken_away(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let mut other = app.second().await;
    let mallory = person(&app, "mallory", &["admin", "makers"]).await;
    let service = target(&app, "service").await;
    let bearer = other.token("mallory@example.com").await.bearer.unwrap();
    let admin_role = format!("/api/v1/users/{mallory}/roles/admin");
    for round in 0..10 {
        let there = other.anyone().with_token(bearer.clone());
        good(&there.get("/api/v1/users/me").await);
        let (taken, asked) = tokio::join!(root.delete(&admin_role), put(&there, &admin_role));
        good(&taken);
        assert!([204, 403].contains(&asked.status.as_u16()), "{}", asked.raw);
        assert_eq!(roles_of(&app, mallory).await, ["makers", "user"], "round {round}");
        good(&put(&root, &admin_role).await);
    }
    // From here on the other process hears nothing any more: to its memory the role is still there.
    other.stop_reading_the_feed().await;
    let there = other.anyone().with_token(bearer);
    // What it remembered before is read again.
    other.app.apply("roles.changed", uuid::Uuid::nil());
    let me = there.get("/api/v1/users/me").await;
    assert!(me.raw.contains("admin"), "{}", me.raw);
    good(&root.delete(&admin_role).await);
    let me = there.get("/api/v1/users/me").await;
    assert!(me.raw.contains("admin"), "{}", me.raw);
    refused(&there, mallory, service).await;
    assert_eq!(roles_of(&app, mallory).await, ["makers", "user"]);
    other.stop().await;
    app.stop().await;
}

/// What a former administrator, whose role `makers` opens each route, asks for.
async fn refused(there: &Client<'_>, mallory: UserId, service: UserId) {
    let key = json!({ "name": "CI", "permissions": ["audit:read"] });
    let labels = json!({ "permissions": ["audit:read"] });
    let role = json!({ "name": "new", "permissions": ["audit:read"] });
    let user = json!({ "email": "friend@example.com", "roles": ["auditors"] });
    for (method, path, body) in [
        (Method::PUT, format!("users/{mallory}/roles/admin"), None),
        (Method::PUT, format!("users/{mallory}/roles/auditors"), None),
        (Method::PUT, format!("users/{mallory}/roles/editors"), None),
        (Method::POST, "roles".to_owned(), Some(role)),
        (Method::PATCH, "roles/labels".to_owned(), Some(labels)),
        (Method::DELETE, "roles/auditors".to_owned(), None),
        (Method::POST, "users".to_owned(), Some(user)),
        (Method::POST, format!("users/{service}/api-keys"), Some(key.clone())),
        (Method::POST, "users/me/api-keys".to_owned(), Some(key)),
        (Method::DELETE, format!("users/{service}"), None),
    ] {
        let call = Call::new(method, &format!("/api/v1/{path}")).same_origin();
        let call = match body {
            Some(body) => call.json(body),
            None => call,
        };
        let answer = there.send(call).await;
        assert_eq!(answer.code(), "access.exceeds_own", "{path}: {}", answer.raw);
    }
    let path = format!("/api/v1/resources/document/secret/grants/user:{mallory}");
    let call = Call::new(Method::PUT, &path).json(json!({ "actions": ["read"] }));
    assert_eq!(there.send(call).await.status, StatusCode::NOT_FOUND);
}

/// The body of a request is held back until the role that allows it is gone.
async fn held_back(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let root = prepare(&app).await;
    let mallory = person(&app, "mallory", &["keepers"]).await;
    let session = app.token("mallory@example.com").await;
    let body = json!({ "name": "CI", "permissions": ["resources:write"] });
    let key = session.post("/api/v1/users/me/api-keys", body).await.text("api_key");
    let role = format!("/api/v1/users/{mallory}/roles/keepers");
    for client in [session, app.anyone().with_token(key)] {
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|part| (part, receiver))
        });
        let path = format!("/api/v1/resources/document/secret/grants/user:{mallory}");
        let call = Call::new(Method::PUT, &path)
            .header("content-type", "application/json")
            .body(Body::from_stream(stream));
        let take = async {
            for part in ["{", "\"actions\":"] {
                // There is room for one: the second is taken once the request is let in and its body is read.
                sender.send(Ok(Bytes::from_static(part.as_bytes()))).await.unwrap();
            }
            good(&root.delete(&role).await);
            sender.send(Ok(Bytes::from_static(b"[\"read\"]}"))).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(client.send(call), take);
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.raw);
        assert!(grants::of_user(&app.app, mallory).await.unwrap().is_empty());
        good(&put(&root, &role).await);
    }
    app.stop().await;
}

/// A user becomes an administrator while a request waits that stops them.
async fn raised(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    let other = app.second().await;
    prepare(&app).await;
    person(&app, "clerk", &["clerks"]).await;
    let clerk = other.token("clerk@example.com").await;
    for act in ["disable", "enable", "revoke-sessions"] {
        let id = target(&app, "plain").await;
        let holds = [Hold::Alone(id)];
        let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
        users::grant_role(&mut change, Holder { user: id, role: "admin" }).await.unwrap();
        let finish = async {
            // Long enough for the request to come to the lock; were it too short, nothing would fail.
            tokio::time::sleep(Duration::from_millis(300)).await;
            change.commit_quietly("a test").await.unwrap();
        };
        let path = format!("/api/v1/users/{id}/{act}");
        let (answer, ()) = tokio::join!(clerk.act(&path), finish);
        assert_eq!(answer.code(), "access.exceeds_own", "{act}: {}", answer.raw);
    }
    other.stop().await;
    app.stop().await;
}
