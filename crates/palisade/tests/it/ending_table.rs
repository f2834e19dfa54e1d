//! What ends with what: the table in `credentials`, walked completely, and its copy in the documentation.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use palisade::app::{Actor, Change, Hold};
use palisade::credentials::{self, Act, End, Fate, Kind, Line, TABLE};
use palisade::id::{SessionId, UserId};
use palisade::testing::{On, TestApp};
use palisade::users::{self, Factors};
use palisade_db::{Timestamp, args};

palisade::on_both! {
    every_act_ends_what_the_table_says => |on| super::walk(on);
}

/// How many rows of each kind an account of this test has, and how many of them are from before the change.
fn rows(kind: Kind) -> (i64, i64) {
    match kind {
        Kind::Sessions => (3, 3),
        Kind::UndoLinks | Kind::RecoveryCodes | Kind::PasswordlessPasskeys => (2, 1),
        Kind::VerificationLinks => (2, 2),
        Kind::Factors => (3, 2),
        _ => (1, 1),
    }
}

fn left(kind: Kind, fate: Fate) -> i64 {
    let (all, before) = rows(kind);
    match fate {
        Fate::Kept => all,
        Fate::Ended => 0,
        Fate::Others | Fate::WithoutFactor => 1,
        Fate::Since => before,
    }
}

const COUNT: &str = "select
    (select count(*) from challenges where user_id = $1),
    (select count(*) from recovery_tokens where user_id = $1 and used_at is null),
    (select count(*) from email_changes where user_id = $1 and confirmed_at is null),
    (select count(*) from email_changes where user_id = $1 and confirmed_at is not null),
    (select count(*) from factor_recoveries where user_id = $1),
    (select count(*) from registrations where user_id = $1),
    (select count(*) from passkeys where user_id = $1 and passwordless = $2),
    (select count(*) from passkeys where user_id = $1) + (select count(*) from totp_secrets where user_id = $1),
    (select count(*) from recovery_codes where user_id = $1),
    (select count(*) from sessions where user_id = $1 and ended_at is null),
    (select count(*) from api_keys where user_id = $1 and revoked_at is null)";

type Counts = (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64);

/// In the order of [`Kind::ALL`].
async fn counts(app: &TestApp, user: UserId) -> [i64; 11] {
    let (a, b, c, d, e, f, g, h, i, j, k): Counts =
        app.app.db.one(COUNT, args![user, true]).await.unwrap();
    [a, b, c, d, e, f, g, h, i, j, k]
}

async fn walk(on: On) {
    let app = TestApp::on(on).await;
    for (number, line) in TABLE.iter().enumerate() {
        assert!(TABLE.iter().filter(|other| other.act == line.act).count() == 1);
        let email = format!("ann{number}@example.com");
        let user = app.user(&email).await;
        let keeping = fill(&app, user, &email).await;
        let before: Vec<i64> = Kind::ALL.iter().map(|kind| rows(*kind).0).collect();
        assert_eq!(counts(&app, user).await.to_vec(), before, "{:?}", line.act);
        let holds = [Hold::Alone(user)];
        let mut change = app.app.change_holding(&Actor::operator(), &holds).await.unwrap();
        let since = Some(change.now().minus(Duration::from_secs(60)));
        let end = End { keeping: Some(keeping), since, ..End::of(user, line.act) };
        credentials::end(&mut change, end).await.unwrap();
        change.commit_quietly("a test").await.unwrap();
        let after: Vec<i64> = Kind::ALL.iter().map(|kind| expected(line, *kind)).collect();
        assert_eq!(counts(&app, user).await.to_vec(), after, "{:?}", line.act);
        let alive = "select cast(1 as bigint) from sessions where id = $1 and ended_at is null";
        let alive: Option<(i64,)> = app.app.db.maybe(alive, args![keeping]).await.unwrap();
        let goes_on = matches!(line.fate(Kind::Sessions), Fate::Kept | Fate::Others);
        assert_eq!(alive.is_some(), goes_on, "{:?}", line.act);
    }
    app.stop().await;
}

fn expected(line: &Line, kind: Kind) -> i64 {
    let own = left(kind, line.fate(kind));
    match (kind, line.fate(Kind::Factors)) {
        // A passkey that is gone signs no one in.
        (Kind::PasswordlessPasskeys, Fate::Ended) => 0,
        _ => own,
    }
}

/// Gives an account something of every kind; answers the session that acts.
async fn fill(app: &TestApp, user: UserId, email: &str) -> SessionId {
    let mut change = app.app.change(&Actor::operator()).await.unwrap();
    let now = change.now();
    let old = now.minus(Duration::from_secs(3600));
    let mut acting = None;
    for amr in ["pwd", "pwd", "pwd otp mfa"] {
        let id = SessionId(app.app.new_id());
        acting.get_or_insert(id);
        let sql = "insert into sessions (id, user_id, transport, token_format, amr, created_at, authenticated_at,
                last_used_at, idle_expires_at, expires_at)
            values ($1, $2, 'token', 'jwt', $3, $4, $4, $4, $5, $5)";
        let until = now.plus(Duration::from_secs(3600));
        change.run(sql, args![id, user, amr, now, until]).await.unwrap();
    }
    links(&mut change, user, email, (old, now)).await;
    factors(&mut change, user, (old, now)).await;
    change.commit_quietly("a test").await.unwrap();
    acting.unwrap()
}

fn digest(change: &Change) -> Vec<u8> {
    change.app().new_id().as_bytes().repeat(2)
}

async fn links(change: &mut Change, user: UserId, email: &str, (old, now): (Timestamp, Timestamp)) {
    let sql =
        "insert into challenges (digest, purpose, user_id, client, details, attempts, expires_at)
        values ($1, 'step_up', $2, $1, '', 0, $3)";
    change.run(sql, args![digest(change), user, now]).await.unwrap();
    let sql = "insert into recovery_tokens (digest, user_id, created_at, expires_at) values ($1, $2, $3, $3)";
    change.run(sql, args![digest(change), user, now]).await.unwrap();
    for (at, confirmed_at) in [(now, None), (old, Some(old)), (now, Some(now))] {
        let sql = "insert into email_changes (id, user_id, email, old_email, old_key, created_at, expires_at,
                confirmed_at) values ($1, $2, 'new@example.com', 'old@example.com', 'old@example.com', $3, $3, $4)";
        let id = change.app().new_id();
        change.run(sql, args![id, user, at, confirmed_at]).await.unwrap();
    }
    let sql = "insert into factor_recoveries (user_id, created_at, ready_at, expires_at) values ($1, $2, $2, $2)";
    change.run(sql, args![user, now]).await.unwrap();
    let sql =
        "insert into registrations (id, user_id, email, email_key, sealed, created_at, expires_at)
        values ($1, $2, $3, $3, $4, $5, $5)";
    // One was sent to an email that the account no longer has.
    for email in [email.to_owned(), format!("former-{email}")] {
        let id = change.app().new_id();
        change.run(sql, args![id, user, email, digest(change), now]).await.unwrap();
    }
    let sql = "insert into api_keys (id, user_id, digest, hint, name, permissions, created_at, expires_at)
        values ($1, $2, $3, 'abcd', 'mine', '', $4, $4)";
    let id = change.app().new_id();
    change.run(sql, args![id, user, digest(change), now]).await.unwrap();
}

async fn factors(change: &mut Change, user: UserId, (old, now): (Timestamp, Timestamp)) {
    let sql =
        "insert into totp_secrets (user_id, sealed, used_step, created_at) values ($1, $2, 0, $3)";
    change.run(sql, args![user, digest(change), old]).await.unwrap();
    for at in [old, now] {
        let sql = "insert into recovery_codes (digest, user_id, created_at) values ($1, $2, $3)";
        change.run(sql, args![digest(change), user, at]).await.unwrap();
        let sql = "insert into passkeys (id, user_id, credential_id, sealed, name, sign_count, backup_eligible,
                backed_up, passwordless, aaguid, transports, created_at)
            values ($1, $2, $3, $3, 'mine', 0, $4, $4, $4, $1, '', $5)";
        let id = change.app().new_id();
        change.run(sql, args![id, user, digest(change), true, at]).await.unwrap();
    }
    let written = Factors { totp: true, passkeys: 2, recovery_codes_left: 2 };
    users::set_factors(change, user, written).await.unwrap();
}

/// The table as the documentation prints it.
fn printed() -> String {
    let mut text = "| act | ends | stays | why |\n|---|---|---|---|\n".to_owned();
    for line in &TABLE {
        let (kept, ended): (Vec<Kind>, Vec<Kind>) =
            Kind::ALL.iter().partition(|kind| line.fate(**kind) == Fate::Kept);
        let name = |kind: &Kind| format!("{}{}", kind.title(), line.fate(*kind).which());
        let list = |kinds: Vec<Kind>| kinds.iter().map(name).collect::<Vec<_>>().join("; ");
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            line.summary,
            list(ended),
            list(kept),
            line.because
        )
        .unwrap();
    }
    text
}

/// When this fails, put what it prints into the page.
#[test]
fn the_page_on_sessions_prints_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sessions.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&printed()), "docs/sessions.md lacks:\n{}", printed());
    assert!(TABLE.iter().any(|line| line.act == Act::Deleted));
}
