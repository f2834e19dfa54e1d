//! Every table, limit and name, and the levels of the house.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use axum::http::{Method, StatusCode};
use palisade::MODULES;
use palisade::limits::{Key, Rule};
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp};
use palisade_db::testing::{TableShape, TestDb, schema};
use palisade_db::{Backend, Migration, args};
use serde_json::json;

/// Tables of the frame, which no slice owns, each with the room that writes it.
const FRAME: [(&str, &str); 2] = [("audit_events", "record"), ("feed", "feed")];

/// The sources of what ships: without `testing`.
pub fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = sources_in(&src);
    found.retain(|(path, _)| !path.starts_with(src.join("testing")));
    found
}

fn sources_in(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The part of a source file that ships: everything above its unit tests.
pub fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The folder and the room that a source file belongs to: below `src`, the first part of its path and the second.
/// A folder's own page, and a file that is in none, are both.
fn place_of(path: &Path) -> (String, String) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let below = path.strip_prefix(src).unwrap();
    let mut parts =
        below.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs").to_owned());
    let folder = parts.next().unwrap();
    let room = parts.next().filter(|room| room != "mod").unwrap_or_else(|| folder.clone());
    (folder, room)
}

fn module_of(path: &Path) -> String {
    place_of(path).1
}

#[tokio::test]
async fn every_table_has_one_owner_and_the_databases_agree() {
    let app = TestApp::on(On::Sqlite).await;
    let postgres = TestDb::postgres().await;
    postgres.db().migrate(&app.builder.migrations(), app.clock.now()).await.unwrap();
    let here = schema(&app.app.db).await.unwrap();
    let there = schema(postgres.db()).await.unwrap();
    // SQLite counts only in a column of its own kind; that is the one difference.
    let but_feed = |tables: &[TableShape]| -> Vec<TableShape> {
        tables.iter().filter(|table| table.name != "feed").cloned().collect()
    };
    assert_eq!(but_feed(&here), but_feed(&there));

    for module in MODULES {
        let named = |migration: &Migration| migration.module == module.name;
        assert!(module.migrations.iter().all(named), "{}", module.name);
    }

    let mut owners: BTreeMap<&str, &str> = FRAME.into();
    for module in MODULES {
        for table in module.tables {
            let other = owners.insert(table, module.name);
            assert_eq!(other, None, "{table} has two owners");
        }
    }
    let tables: BTreeSet<&str> = here.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(owners.keys().copied().collect::<BTreeSet<_>>(), tables);

    let rooms = Rooms::read();
    for (path, text) in sources() {
        let room = module_of(&path);
        for (verb, table) in named_tables(shipped(&text), &tables) {
            let owner = owners[table];
            let writes = matches!(verb, "into" | "update" | "delete");
            let fine = if writes { room == owner } else { rooms.may_read(&room, owner) };
            assert!(fine, "{}: {verb} {table} of {owner}", path.display());
        }
    }
    for migration in app.builder.migrations() {
        for text in [migration.sql.on(Backend::Sqlite), migration.sql.on(Backend::Postgres)] {
            for after in text.split("references ").skip(1) {
                let table = after.split([' ', '(']).next().unwrap();
                let (room, owner) = (migration.module, owners[table]);
                assert!(rooms.may_read(room, owner), "{room} refers to {table} of {owner}");
            }
        }
    }
    app.stop().await;
}

/// What statements in a source file do with tables: `from` and `join` read, the others write.
fn named_tables<'a>(text: &'a str, tables: &BTreeSet<&'a str>) -> Vec<(&'a str, &'a str)> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words: Vec<&str> = code
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ','))
        .flat_map(|word| word.split_inclusive(','))
        .filter(|word| !word.is_empty())
        .collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let verb = match *word {
            "from" if at > 0 && words[at - 1] == "delete" => "delete",
            "from" | "join" | "into" | "update" => *word,
            _ => continue,
        };
        // After `from` there may be several, with short names.
        let mut rest = words[at + 1..].iter();
        while let Some(table) = rest.next() {
            if let Some(table) = tables.get(table.trim_end_matches(',')) {
                found.push((verb, *table));
            }
            let goes_on =
                table.ends_with(',') || rest.next().is_some_and(|name| name.ends_with(','));
            if verb != "from" || !goes_on {
                break;
            }
        }
    }
    found
}

#[test]
fn every_table_that_a_statement_names_is_found() {
    let tables: BTreeSet<&str> = ["users", "grants", "sessions"].into();
    let all = |text| named_tables(text, &tables);
    assert_eq!(
        all("select 1 from users u, grants g where x"),
        [("from", "users"), ("from", "grants")]
    );
    assert_eq!(all("from users, grants"), [("from", "users"), ("from", "grants")]);
    assert_eq!(all("(select 1 from\n    sessions s)"), [("from", "sessions")]);
    assert_eq!(all("left join users on"), [("join", "users")]);
    assert_eq!(all("delete from users"), [("delete", "users")]);
    assert_eq!(all("update users set"), [("update", "users")]);
    assert_eq!(all("insert into grants (id)"), [("into", "grants")]);
    assert_eq!(all("// from users"), []);
    assert_eq!(all("select a, users from other o where grants"), []);
}

/// An API key of the first user, the same every time.
async fn known_key(app: &TestApp) -> String {
    let key = format!("pal_ak_{}", "A".repeat(43));
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    tx.run(
        "insert into api_keys (id, user_id, digest, hint, name, permissions, created_at, expires_at)
         select $1, id, $2, '', '', '', created_at, $3 from users where email = 'ann@example.com'
         on conflict (digest) do nothing",
        args![
            app.app.new_id(),
            palisade_crypto::opaque::digest("pal_ak_", &key),
            app.clock.now().plus(std::time::Duration::from_secs(3600))
        ],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    key
}

/// A request that a rule counts, enough for one use of it.
async fn use_once(app: &TestApp, rule: &str) -> Answer {
    let by_anyone = by_anyone(app, rule).await;
    let by_ann = if by_anyone.is_none() { by_ann(app, rule).await } else { None };
    by_anyone.or(by_ann).unwrap_or_else(|| panic!("no request here uses the limit {rule}: add one"))
}

async fn by_anyone(app: &TestApp, rule: &str) -> Option<Answer> {
    let anyone = app.anyone();
    let wrong = json!({ "email": "bob@example.com", "password": "not the right one at all" });
    let answer = match rule {
        "refresh_ip" => anyone.post("/api/v1/auth/refresh", json!({})).await,
        "logout_ip" => {
            let body = json!({ "refresh_token": "unknown" });
            anyone.post("/api/v1/auth/logout", body).await
        }
        "login_ip" => anyone.post("/api/v1/auth/login", wrong).await,
        "passkey_begin_ip" => anyone.act("/api/v1/auth/login/passkey/begin").await,
        "register_ip" => anyone.post("/api/v1/auth/register", json!({})).await,
        "forgot_ip" => anyone.post("/api/v1/auth/password/forgot", json!({})).await,
        "forgot_account" => {
            let body = json!({ "email": "bob@example.com" });
            anyone.post("/api/v1/auth/password/forgot", body).await
        }
        "reset_ip" => anyone.post("/api/v1/auth/password/reset", json!({})).await,
        "verify_ip" => anyone.post("/api/v1/auth/verify-email", json!({})).await,
        "resend_ip" => anyone.post("/api/v1/auth/verify-email/resend", json!({})).await,
        "resend_account" => {
            let body = json!({ "email": "bob@example.com" });
            anyone.post("/api/v1/auth/verify-email/resend", body).await
        }
        "factors_ip" => anyone.post("/api/v1/auth/factors/keep", json!({})).await,
        "email_link_ip" => anyone.post("/api/v1/auth/email/undo", json!({})).await,
        "link_ip" => anyone.post("/api/v1/auth/link", json!({})).await,
        "setup_ip" => anyone.post("/api/v1/setup", json!({})).await,
        _ => return None,
    };
    Some(answer)
}

async fn by_ann(app: &TestApp, rule: &str) -> Option<Answer> {
    let ann = app.token("ann@example.com").await;
    let answer = match rule {
        "password_change_account" => {
            let body = json!({
                "current_password": "not the right one at all",
                "new_password": "five green kettles whistle",
            });
            ann.post("/api/v1/users/me/password", body).await
        }
        "mfa_change_account" => ann.act("/api/v1/users/me/totp").await,
        "reauthenticate_account" => {
            let body = json!({ "password": PASSWORD });
            ann.post("/api/v1/auth/reauthenticate", body).await
        }
        "account" => ann.get("/api/v1/users/me").await,
        "export_account" => ann.get("/api/v1/users/me/export").await,
        "email_change_account" => {
            let body = json!({ "email": "new@example.com" });
            ann.post("/api/v1/users/me/email", body).await
        }
        "api_key" => app.anyone().with_token(known_key(app).await).get("/api/v1/users/me").await,
        "api_key_create_account" => {
            let body = json!({ "name": "CI", "permissions": [] });
            ann.post("/api/v1/users/me/api-keys", body).await
        }
        "invite_account" => {
            let body = json!({ "email": "new@example.com" });
            ann.post("/api/v1/users", body).await
        }
        _ => return None,
    };
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_limits_and_can_be_set_and_switched_off() {
    let mut names = BTreeSet::new();
    for rule in MODULES.iter().flat_map(|module| module.limits) {
        assert!(names.insert(rule.name), "{} is there twice", rule.name);
        let burst: &'static str = format!("limits.rules.{}.burst", rule.name).leak();
        let enabled: &'static str = format!("limits.rules.{}.enabled", rule.name).leak();
        let small = Plan { settings: vec![(burst, "2")], ..Plan::default() };
        let app = TestApp::with(On::Sqlite, small).await;
        app.admin("ann@example.com").await;
        for _ in 0..2 {
            let answer = use_once(&app, rule.name).await;
            assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", rule.name);
        }
        let answer = use_once(&app, rule.name).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", rule.name);
        assert_eq!(answer.code(), "request.too_many");
        for header in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(answer.headers.contains_key(header), "{} lacks {header}", rule.name);
        }
        let policy = answer.headers["ratelimit-policy"].to_str().unwrap();
        assert!(policy.contains(rule.name) && policy.contains("q=2"), "{policy}");
        app.stop().await;

        for off in [(enabled, "false"), ("limits.enabled", "false")] {
            let plan = Plan { settings: vec![(burst, "2"), off], ..Plan::default() };
            let app = TestApp::with(On::Sqlite, plan).await;
            app.admin("ann@example.com").await;
            for _ in 0..4 {
                let answer = use_once(&app, rule.name).await;
                assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{} off", rule.name);
            }
            app.stop().await;
        }
    }
}

/// Counted by IP address, a limit of an account would be none.
#[test]
#[should_panic(expected = "doesn't count by IP address")]
fn a_limit_of_an_account_stands_on_no_route_line() {
    static OF_ACCOUNTS: Rule = Rule {
        name: "test_account",
        burst: 1,
        per: std::time::Duration::from_secs(60),
        key: Key::Account,
        summary: "A test.",
    };
    let _ = palisade::access::SIGNED_IN.limit(&OF_ACCOUNTS);
}

#[tokio::test]
async fn an_ip_in_another_network_has_a_limit_of_its_own() {
    let plan = Plan { settings: vec![("limits.rules.setup_ip.burst", "1")], ..Plan::default() };
    let app = TestApp::with(On::Sqlite, plan).await;
    let status = |ip: &'static str| {
        let client = app.anyone().from(ip);
        async move { client.post("/api/v1/setup", json!({})).await.status }
    };
    let many = StatusCode::TOO_MANY_REQUESTS;
    assert_ne!(status("[2001:db8::1]").await, many);
    assert_eq!(status("[2001:db8::2]").await, many);
    assert_ne!(status("[2001:db8:0:1::1]").await, many);
    assert_ne!(status("203.0.113.9").await, many);
    assert_eq!(status("[::ffff:203.0.113.9]").await, many);
    app.stop().await;
}

fn is_name(text: &str, separator: char) -> bool {
    let good =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    text.split_once(separator).is_some_and(|(area, rest)| good(area) && good(rest))
}

#[test]
fn every_name_is_formed_alike_and_stands_once() {
    let mut seen = BTreeSet::new();
    for module in MODULES {
        assert!(seen.insert(module.name.to_owned()), "{}", module.name);
        for permission in module.permissions {
            assert!(is_name(permission.name, ':'), "{}", permission.name);
            assert!(seen.insert(permission.name.to_owned()), "{}", permission.name);
        }
        for event in module.events {
            assert!(is_name(event.name, '.'), "{}", event.name);
            assert!(seen.insert(format!("event {}", event.name)), "{}", event.name);
        }
        for job in module.jobs {
            assert!(is_name(job.name, '.'), "{}", job.name);
        }
    }
}

/// The names of the constants of this type in a text.
fn constants(text: &str, of: &str) -> Vec<String> {
    let begins = format!("{of} {{");
    let after = text.split(&*begins).skip(1).map(str::trim_start);
    let named = after.filter_map(|after| after.strip_prefix("name: \""));
    named.map(|after| after.split('"').next().unwrap().to_owned()).collect()
}

/// An event, a limit or a permission that no module lists isn't found by the rest of the program, and a limit that is
/// not registered refuses everything.
#[test]
fn every_event_limit_and_permission_of_a_slice_is_in_its_module() {
    for (of, list) in [("Event", "events"), ("Rule", "limits"), ("Permission", "permissions")] {
        let mut declared = BTreeSet::new();
        for module in MODULES {
            let names: Vec<&str> = match of {
                "Event" => module.events.iter().map(|event| event.name).collect(),
                "Rule" => module.limits.iter().map(|rule| rule.name).collect(),
                _ => module.permissions.iter().map(|permission| permission.name).collect(),
            };
            declared.extend(names.into_iter().map(|name| (module.name, name.to_owned())));
        }
        let mut written = 0;
        for (path, text) in sources().into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
            for name in constants(shipped(&text), of) {
                let module = module_of(&path);
                // The frame has limits, which a slice registers.
                let found = declared
                    .iter()
                    .any(|(by, declared)| *declared == name && (of != "Event" || *by == module));
                assert!(found, "{}: add {name} to MODULE.{list}", path.display());
                written += 1;
            }
        }
        assert_eq!(written, declared.len(), "{of}");
    }
}

/// How the row of a limit in docs/http.md begins; `…` stands for more of what it counts by.
fn limit_row(rule: &Rule) -> String {
    let by = match (rule.key, rule.name) {
        (Key::Ip, _) => "IP address",
        (Key::ApiKey, _) => "API key",
        (Key::Account, "resend_account" | "forgot_account") => {
            "email address, with or without an account"
        }
        (Key::Account, "account") => {
            "account: requests from all its sessions, except requests that end its own sessions or keys; requests \
             from its API keys are not counted"
        }
        (Key::Account, _) => "account",
    };
    let burst = match rule.burst {
        many @ 1000.. => format!("{},{:03}", many / 1000, many % 1000),
        few => few.to_string(),
    };
    let per = match rule.per.as_secs() {
        60 => "a minute".to_owned(),
        3600 => "an hour".to_owned(),
        other => format!("in {} minutes", other / 60),
    };
    format!("| `{}` | {by} | {burst} {per}", rule.name)
}

#[test]
fn every_limit_event_and_code_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let (http, audit) = (read("http.md"), read("audit.md"));
    for module in MODULES {
        for rule in module.limits {
            let row = limit_row(rule);
            assert!(http.contains(&row), "docs/http.md: {row}");
        }
        for event in module.events {
            let row = format!("| `{}` | {} |", event.name, event.summary);
            assert!(audit.contains(&row), "docs/audit.md: {row}");
        }
    }
    let mut codes = BTreeSet::new();
    for (path, text) in sources() {
        // Reasons not to start are no answers.
        if path.ends_with("keys/mod.rs") {
            continue;
        }
        for kind in ["Error::new(", "Error::bad_field(", "Broken::new(", "unavailable("] {
            for after in shipped(&text).split(kind).skip(1) {
                let head = after.split(");").next().unwrap();
                let code = head.split('"').skip(1).step_by(2).find(|word| is_name(word, '.'));
                codes.extend(code.map(str::to_owned));
            }
        }
    }
    assert!(codes.len() > 60, "{codes:?}");
    for code in codes {
        assert!(http.contains(&format!("`{code}`")), "docs/http.md: {code}");
    }
}

#[test]
fn no_type_has_a_name_that_says_nothing() {
    for (path, text) in sources() {
        for line in text.lines() {
            let mut words =
                line.trim_start().trim_start_matches("pub ").split([' ', '<', '(', '{']);
            let kind = words.next().unwrap_or("");
            let name = words.next().unwrap_or("");
            if !matches!(kind, "struct" | "enum" | "trait" | "type") {
                continue;
            }
            for bad in ["Manager", "Service", "Helper", "Util", "Impl", "Data", "Info"] {
                let says_nothing =
                    name.ends_with(bad) && !(name == "Data" && path.ends_with("catalogue.rs"));
                assert!(!says_nothing, "{name} in {}", path.display());
            }
        }
    }
}

/// The reasons of all calls outside comments. A reason may stand on the line after the call.
fn reasons<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    let calls = text
        .match_indices(call)
        .filter(|(at, _)| !text[..*at].rsplit('\n').next().unwrap().trim_start().starts_with("//"));
    let reason = |(at, _): (usize, &str)| {
        let given = text[at + call.len()..].trim_start().strip_prefix('"');
        given.and_then(|given| given.split('"').next()).expect("a reason, written out")
    };
    calls.map(reason).collect()
}

#[test]
fn every_quiet_commit_is_known() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for reason in reasons(shipped(&text), ".commit_quietly(") {
            found.push(format!("{}: {reason}", module_of(&path)));
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            "api_keys: revoking an API key records its own event",
            "challenges: an attempt is counted before it is checked; its result is an event",
            "email_change: a link to change the email address is created; using it is an event",
            "email_change: a link to undo a change of email address is created; using it is an event",
            "email_change: a wrong password for a link is counted; too many of them are an event",
            "factor_recovery: a link for lost factors is created; using it is an event",
            "factor_recovery: a wrong password for a link is counted; too many of them are an event",
            "grants: giving or withdrawing a grant records its own event",
            "introspection: revoking a token records its own event",
            "lockout: a guess is counted before it is checked; its result is an event",
            "lockout: a guess that was never checked is given back",
            "lockout: a lock records its own event",
            "login: a challenge is created; its answer is an event",
            "mfa: a secret is not confirmed yet; its confirmation is an event",
            "mfa: renaming a passkey does not change what it gives access to",
            "mfa: the registration of a passkey begins; its completion is an event",
            "registration: a link for a registration is created; using it is an event",
            "registration: a wrong password for a link is counted; too many of them are an event",
            "roles: giving a role records its own event",
            "roles: taking a role records its own event",
            "sessions: a refresh continues a session; its start and end are events",
            "sessions: a repeated refresh within the grace period continues the session",
            "sessions: ending a session records its own event",
            "sessions: tokens are outdated by a change that records its own event",
        ]
    );
}

/// Comparisons with `==` or `!=` of something whose last word says that it is a secret or stands for one.
fn plain_comparisons(text: &str) -> Vec<String> {
    const WORDS: [&str; 13] = [
        "code",
        "cookie",
        "digest",
        "fingerprint",
        "hash",
        "mac",
        "password",
        "proof",
        "secret",
        "signature",
        "tag",
        "token",
        "tokens",
    ];
    let told = |operand: &str| {
        let path = operand.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = path.rsplit(['.', ':']).next().unwrap_or(path);
        let word = name.rsplit('_').next().unwrap_or(name);
        WORDS.contains(&word)
    };
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let line = line.replace("()", "");
        for operator in [" == ", " != "] {
            for (at, _) in line.match_indices(operator) {
                let left = line[..at].rsplit([' ', '(', '!', '&', '*']).next().unwrap_or("");
                let right = line[at + operator.len()..].trim_start_matches(['&', '*', '(']);
                let right = right.split([' ', ')', ',', '{', ';']).next().unwrap_or("");
                if told(left) || told(right) {
                    found.push(line.trim().to_owned());
                }
            }
        }
    }
    found
}

/// SECURITY: the time of a comparison tells how much of a secret was right. `SecretString` and `SecretBytes` compare in
/// constant time; bytes do through `secret::constant_time_eq`; what the database looks up is a digest of 256 bits.
#[test]
fn secrets_are_compared_in_constant_time() {
    assert_eq!(plain_comparisons("if mac != expected {").len(), 1);
    assert_eq!(plain_comparisons("kept.iter().any(|key| digest(text) == *key.digest)").len(), 1);
    assert_eq!(plain_comparisons("if Some(given) == self.access_token() {").len(), 1);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "../palisade-crypto/src", "../palisade-server/src", "../palisade-db/src"]
    {
        for (path, text) in sources_in(&here.join(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let test = ["tests", "testing"];
            let test = path.iter().any(|part| test.iter().any(|name| part == *name));
            if test || matches!(name, "tests.rs" | "testing.rs") {
                continue;
            }
            let found_here = plain_comparisons(shipped(&text));
            found.extend(found_here.into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    found.sort();
    let reviewed = REVIEWED_COMPARISONS.map(str::to_owned);
    assert_eq!(found, reviewed);
}

/// Comparisons whose operands are no secrets, whatever they are called.
const REVIEWED_COMPARISONS: [&str; 3] = [
    // The generation of a password: a number.
    "account.rs: (Some(device), Some(present)) if device.password != present => Self::Former,",
    // The names of two algorithms.
    "certificate.rs: if certificate.signature_algorithm == certificate.tbs_certificate.signature",
    // The word for a transport.
    "mod.rs: if text == \"cookie\" { Self::Cookie } else { Self::Token }",
];

/// By its type, only what has a change or an upkeep writes.
#[test]
fn every_upkeep_is_known() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for reason in reasons(shipped(&text), ".upkeep(") {
            found.push(format!("{}: {reason}", module_of(&path)));
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "api_keys: API keys that ended long ago are deleted",
            "api_keys: recording the use of an API key does not change the key",
            "audit_log: records are put into the chain, which changes no record",
            "challenges: expired challenges are deleted",
            "email_change: email changes that have expired or can no longer be undone are deleted",
            "factor_recovery: expired links for lost factors are deleted",
            "grants: expired grants are deleted",
            "lockout: counts of guesses that are no longer needed are deleted",
            "mail: an email was sent",
            "mail: delivery of an email will be retried later",
            "mail: old sent or failed emails are deleted",
            "mail: this process takes an email to send it",
            "mfa: authenticator apps that were not confirmed in time are deleted",
            "recovery: expired links to reset a password are deleted",
            "registration: expired registrations are deleted",
            "running: notices that every reader has seen are deleted",
            "sessions: recording the use of a session does not change the session",
            "sessions: sessions that ended long ago are deleted",
        ]
    );
}

/// The folders, lowest first: what is in one imports from itself and from lower ones. Those beside each other import
/// nothing from each other.
const LEVELS: [&[&str]; 8] = [
    &["ground"],
    &["frame"],
    &["people"],
    &["credentials"],
    &["flows", "operation"],
    &["running"],
    &["builder"],
    &["lib"],
];

fn level(folder: &str) -> usize {
    let found = LEVELS.iter().position(|level| level.contains(&folder));
    found.unwrap_or_else(|| panic!("{folder} has no level"))
}

/// The modules that the shipped code of a file names by `crate::`, or from its folder's page by `super::`.
fn imports(path: &Path, text: &str) -> BTreeSet<String> {
    let code: Vec<&str> =
        shipped(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    // What lies beside a room is reached by `super::` from its page, and from a file of it by one more.
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let depth = below.iter().count() - usize::from(path.ends_with("mod.rs"));
    let beside = format!("{}{}", "super::", "super::".repeat(depth.saturating_sub(2)));
    for rest in ["crate::", &beside].iter().flat_map(|from| code.split(*from).skip(1)) {
        let group = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap());
        for name in group.unwrap_or(rest.split(',').next().unwrap()).split(',').map(str::trim) {
            let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            found.insert(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    found.remove("");
    found
}

/// Which room is in which folder, and what each names by `crate::`.
struct Rooms {
    folders: BTreeMap<String, String>,
    known: BTreeMap<String, BTreeSet<String>>,
}

impl Rooms {
    fn read() -> Self {
        let mut rooms = Self { folders: BTreeMap::new(), known: BTreeMap::new() };
        for (path, text) in sources() {
            let (folder, room) = place_of(&path);
            rooms.known.entry(room.clone()).or_default().extend(imports(&path, &text));
            rooms.folders.insert(room, folder);
        }
        rooms
    }

    fn folder(&self, room: &str) -> &str {
        self.folders.get(room).unwrap_or_else(|| panic!("no folder has the room {room}"))
    }

    /// Whether a room may read the tables of another one: its own, those of a lower level, and those of a room of the
    /// same folder that it imports, directly or through others of the folder.
    fn may_read(&self, room: &str, owner: &str) -> bool {
        let (folder, other) = (self.folder(room), self.folder(owner));
        if folder != other {
            return level(other) < level(folder);
        }
        let mut reached = BTreeSet::new();
        let mut waiting = vec![room.to_owned()];
        while let Some(next) = waiting.pop() {
            if reached.insert(next.clone()) {
                let below = self.known[&next].iter().cloned();
                waiting.extend(below.filter(|room| self.folder(room) == folder));
            }
        }
        // The frame is one where its tables are concerned: the audit log and the feed are written with every change.
        folder == "frame" || reached.contains(owner)
    }
}

#[test]
fn imports_go_down() {
    let rooms = Rooms::read();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &sources() {
        let (folder, room) = place_of(path);
        for name in imports(path, text) {
            let other = rooms.folders.get(&name);
            let other = other.unwrap_or_else(|| panic!("{} imports {name}", path.display()));
            let goes_down = *other == folder || level(other) < level(&folder);
            assert!(goes_down, "{} imports {name} of {other}", path.display());
            if *other == folder && name != room {
                known.entry(room.clone()).or_default().insert(name);
            }
        }
    }
    // No circle: what imports nothing that is left can go, until nothing is left.
    assert!(known.len() > 10, "{known:?}");
    while !known.is_empty() {
        let left: BTreeSet<String> = known.keys().cloned().collect();
        known.retain(|_, names| names.iter().any(|name| left.contains(name)));
        assert!(known.len() < left.len(), "these import each other: {known:?}");
    }
}

#[test]
fn no_file_of_logic_is_too_long_to_read() {
    for (path, text) in sources() {
        let catalogue = path.ends_with("catalogue.rs") || path.ends_with("tests.rs");
        let lines = shipped(&text).lines().count();
        assert!(catalogue || lines <= 500, "{} has {lines} lines", path.display());
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_named_in_allow() {
    let app = TestApp::on(On::Sqlite).await;
    let answer = app.anyone().send(Call::new(Method::PUT, "/api/v1/users/me")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let allow = answer.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("PATCH"), "{allow}");
    app.stop().await;
}

/// Whether this place is in a comment.
fn in_comment(text: &str, at: usize) -> bool {
    let line = text[..at].rsplit('\n').next().unwrap();
    line.contains("//") || line.contains('#')
}

/// The tests that a comment names in brackets from here on, one or several, over lines too.
fn tests_of(comment: &str) -> Option<Vec<String>> {
    let names = comment.strip_prefix("(test:").or_else(|| comment.strip_prefix("(tests:"))?;
    let names = names.split(')').next().unwrap();
    let lines = names.lines().map(|line| line.trim().trim_start_matches(['/', '!', '#']).trim());
    let joined = lines.collect::<Vec<_>>().join(" ");
    Some(joined.split(',').map(|name| name.trim().to_owned()).collect())
}

/// The comments that say `SECURITY:` and name no test, by their first lines.
fn without_test(text: &str) -> Vec<String> {
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if is_comment(line) && line.contains("SECURITY:") {
            let comment: Vec<&str> = lines[at..].iter().copied().take_while(is_comment).collect();
            let comment = comment.join(" ");
            if !["(test:", "(tests:", "(rig:"].iter().any(|form| comment.contains(form)) {
                found.push(line.trim().to_owned());
            }
        }
    }
    found
}

/// A comment that says which test shows it is only as good as the test.
#[test]
fn every_test_that_a_comment_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let mut folders =
        ["crates", "tests/clients", "tests/rigs"].map(|name| root.join(name)).to_vec();
    let mut texts = Vec::new();
    let mut without = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let rust = path.extension().is_some_and(|extension| extension == "rs");
            if rust || path.extension().is_some_and(|extension| extension == "py") {
                let text = std::fs::read_to_string(&path).unwrap();
                // What a test says of itself, it shows.
                let mut below = path.strip_prefix(root).unwrap().iter();
                if rust && !below.any(|part| part == "tests" || part == "tests.rs") {
                    let found = without_test(shipped(&text)).into_iter();
                    without.extend(found.map(|line| format!("{}: {line}", path.display())));
                }
                texts.push(text);
            }
        }
    }
    let all = texts.join("\n");
    let exists = |name: &str| {
        let forms = [
            format!("fn {name}("),
            format!("{name} =>"),
            format!("def {name}("),
            format!("mod {name};"),
        ];
        forms.iter().any(|form| all.contains(form))
    };
    let mut named = 0;
    for (at, _) in all.match_indices("(test").filter(|(at, _)| in_comment(&all, *at)) {
        let Some(names) = tests_of(&all[at..]) else { continue };
        for name in names {
            let name = name.trim_matches('`').rsplit("::").next().unwrap();
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(!name.is_empty() && name.chars().all(word), "no test's name: {name:?}");
            assert!(exists(name), "there is no test {name}");
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
    assert_eq!(without, [""; 0], "name the test: (test: its_name)");

    let promises = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows: Vec<&str> = promises.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let shown_by = row.split(" | ").nth(1).unwrap();
        for test in shown_by.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
            let name = test.rsplit("::").next().unwrap();
            assert!(exists(name), "SECURITY.md: no test {test}");
        }
    }
}
