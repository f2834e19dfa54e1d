//! What an owner of the database who has no root key can do to the audit log: nothing unseen.

use std::time::Duration;

use axum::http::StatusCode;
use palisade::audit::{self, Fault};
use palisade::audit_log::{self, FaultKind};
use palisade::testing::{Client, On, TestApp, unlimited};
use palisade_db::testing::{ColumnShape, schema};
use palisade_db::{Args, args};
use serde_json::{Value, json};

palisade::on_both! {
    an_edit_of_any_column_is_found => |on| super::columns(on);
    an_edit_of_a_record_that_is_not_chained_is_found => |on| super::pending(on);
    every_tampering_is_found_where_it_is => |on| super::tampering(on);
    the_end_of_the_log_can_not_be_cut_off => |on| super::cutting(on);
    a_record_is_there_once_without_any_constraint => |on| super::twice(on);
    records_are_never_chained_again_below_the_head => |on| super::again(on);
    a_lost_head_is_not_made_anew => |on| super::headless(on);
    a_head_that_goes_back_is_told => |on| super::back(on);
    two_processes_make_one_chain => |on| super::two(on);
    a_record_deleted_before_it_is_chained_is_missed => |on| super::early(on);
    while_the_chain_stands_still_records_are_looked_for_now_and_then => |on| super::still(on);
    what_was_never_written_is_never_chained => |on| super::forged(on);
    forged_records_keep_no_other_from_being_chained => |on| super::many(on);
    a_copy_of_a_record_is_never_chained => |on| super::copied(on);
    what_waits_is_chained_when_the_work_stops => |on| super::stopped(on);
    a_key_of_a_person_is_missed_unless_its_erasure_is_recorded => |on| super::keys(on);
    a_bad_row_is_shown_and_marked => |on| super::shown(on);
}

const KEPT: [(&str, &str, &str); 3] = [
    ("audit_events", "kept_events", "create table kept_events as select * from audit_events"),
    ("audit_head", "kept_head", "create table kept_head as select * from audit_head"),
    ("person_keys", "kept_keys", "create table kept_keys as select * from person_keys"),
];

fn leaked(sql: String) -> &'static str {
    Box::leak(sql.into_boxed_str())
}

async fn run_with(app: &TestApp, sql: &'static str, args: Args) -> u64 {
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    let touched = tx.run(sql, args).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    tx.commit().await.unwrap();
    touched
}

async fn run(app: &TestApp, sql: &'static str) -> u64 {
    run_with(app, sql, args![]).await
}

async fn seal(app: &TestApp) {
    while audit_log::seal_pending(&app.app).await.unwrap() > 0 {}
}

async fn verify(app: &TestApp) -> Result<i64, Fault> {
    audit::verify(&app.app.db, &app.app.audit_keys).await.unwrap()
}

/// The place that verifying names.
async fn fault(app: &TestApp, after: &str) -> (FaultKind, Option<i64>) {
    let fault = verify(app).await.expect_err(after);
    (fault.kind, fault.index)
}

/// A log of a dozen chained records; the background work stands still.
async fn log(on: On) -> TestApp {
    let mut app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    for number in 0..5 {
        app.user(&format!("user{number}@example.com")).await;
        app.advance(Duration::from_secs(1)).await;
    }
    let ann = app.user("ann@example.com").await;
    app.token("ann@example.com").await;
    app.advance(Duration::from_secs(1)).await;
    let root = app.token("root@example.com").await;
    app.advance(Duration::from_secs(1)).await;
    root.act(&format!("/api/v1/users/{ann}/revoke-sessions")).await;
    app.advance(Duration::from_secs(1)).await;
    app.token("ann@example.com").await;
    app.stop_reading_the_feed().await;
    seal(&app).await;
    app
}

async fn keep(app: &TestApp) {
    for (_, _, sql) in KEPT {
        run(app, sql).await;
    }
}

async fn restore(app: &TestApp) {
    let mut tx = app.app.upkeep("a test").begin().await.unwrap();
    for (table, kept, _) in KEPT {
        tx.run(leaked(format!("delete from {table}")), args![]).await.unwrap();
        let sql = leaked(format!("insert into {table} select * from {kept}"));
        tx.run(sql, args![]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn length(app: &TestApp) -> i64 {
    let (length,): (i64,) =
        app.app.db.one("select count(*) from audit_events", args![]).await.unwrap();
    length
}

/// The position of a record that has a value in every column.
async fn full(app: &TestApp) -> i64 {
    let (position,): (i64,) = app
        .app
        .db
        .one(
            "select min(position) from audit_events
             where event = 'sessions.revoked' and actor_id is not null and about_id is not null
               and person_id is not null and personal is not null",
            args![],
        )
        .await
        .unwrap();
    position
}

async fn columns_of_the_log(app: &TestApp) -> Vec<ColumnShape> {
    let tables = schema(&app.app.db).await.unwrap();
    let columns = tables.into_iter().find(|table| table.name == "audit_events").unwrap().columns;
    assert!(columns.len() >= 13);
    columns
}

/// Other values for a column, in SQL.
fn others(column: &ColumnShape) -> Vec<String> {
    let name = &column.name;
    let mut values = match column.type_word.as_str() {
        "text" => vec![format!("{name} || ' '"), "''".to_owned()],
        "bigint" => vec![format!("{name} + 1000"), "0".to_owned(), "-1".to_owned()],
        "id" => vec!["'00000000-0000-7000-8000-000000000001'".to_owned()],
        "instant" => vec![format!("(select min(o.{name}) from audit_events o)")],
        "bytes" => {
            // The same column of another record, and something else of the same record.
            let other = format!(
                "(select o.{name} from audit_events o where o.{name} is not null
                  and o.{name} <> audit_events.{name} order by o.id limit 1)"
            );
            vec![other, "cast(record as bytes)".to_owned()]
        }
        word => panic!("say how a column of type {word} is edited"),
    };
    if !column.not_null {
        values.push("null".to_owned());
    }
    values
}

async fn columns(on: On) {
    let app = log(on).await;
    keep(&app).await;
    let place = full(&app).await;
    assert!(1 < place && place < length(&app).await);
    for column in columns_of_the_log(&app).await {
        for value in others(&column) {
            let value = bytes(on, value);
            let name = &column.name;
            let sql =
                leaked(format!("update audit_events set {name} = {value} where position = $1"));
            assert_eq!(run_with(&app, sql, args![place]).await, 1);
            let found = verify(&app).await.expect_err(sql);
            let kind = if name == "position" { FaultKind::Deleted } else { FaultKind::Edited };
            assert_eq!((found.kind, found.index), (kind, Some(place)), "{sql}: {found:?}");
            assert_eq!(found.good, place - 1, "{sql}");
            restore(&app).await;
            assert_eq!(verify(&app).await, Ok(length(&app).await));
        }
    }
    app.stop().await;
}

/// PostgreSQL doesn't cast text to bytes.
fn bytes(on: On, value: String) -> String {
    match on {
        On::Sqlite => value.replace("as bytes", "as blob"),
        On::Postgres => value.replace("cast(record as bytes)", "convert_to(record, 'UTF8')"),
    }
}

async fn pending(on: On) {
    let app = log(on).await;
    let root = app.token("root@example.com").await;
    let ann = root.get("/api/v1/users?query=ann").await.body["items"][0]["id"].clone();
    root.act(&format!("/api/v1/users/{}/revoke-sessions", ann.as_str().unwrap())).await;
    keep(&app).await;
    let all = length(&app).await;
    assert_eq!(verify(&app).await, Ok(all));
    let of_one = "where id = (select o.id from kept_events o
                              where o.position is null and o.event = 'sessions.revoked')";
    for column in columns_of_the_log(&app).await {
        let values = match column.name.as_str() {
            "position" => vec!["-1".to_owned()],
            "chain" => vec!["mac".to_owned()],
            _ => others(&column),
        };
        for value in values {
            let value = bytes(on, value);
            let sql = leaked(format!("update audit_events set {} = {value} {of_one}", column.name));
            assert_eq!(run(&app, sql).await, 1, "{sql}");
            let found = verify(&app).await.expect_err(sql);
            let kinds = [FaultKind::Edited, FaultKind::Inserted];
            assert!(kinds.contains(&found.kind), "{sql}: {found:?}");
            restore(&app).await;
            assert_eq!(verify(&app).await, Ok(all), "{sql}");
        }
    }
    app.stop().await;
}

type Case = (&'static [&'static str], FaultKind, i64);

/// What is done to the records in the middle of the log, what it is called, and where it is.
const CASES: &[Case] = &[
    (&["delete from audit_events where position = 1"], FaultKind::Deleted, 1),
    (&["delete from audit_events where position = 4"], FaultKind::Deleted, 4),
    (&["delete from audit_events where position in (4, 5, 7)"], FaultKind::Deleted, 4),
    (
        &["update audit_events set position = null, chain = null where position = 4"],
        FaultKind::Deleted,
        4,
    ),
    // Closed up over the gap.
    (
        &[
            "delete from audit_events where position = 4",
            "update audit_events set position = -position where position > 4",
            "update audit_events set position = -position - 1 where position < 0",
        ],
        FaultKind::Deleted,
        4,
    ),
    (
        &[
            "update audit_events set position = -3 where position = 3",
            "update audit_events set position = 3 where position = 4",
            "update audit_events set position = 4 where position = -3",
        ],
        FaultKind::Swapped,
        3,
    ),
    // With their values of the chain.
    (
        &[
            "update audit_events set position = -3 where position = 3",
            "update audit_events set position = 3 where position = 6",
            "update audit_events set position = 6 where position = -3",
            "update audit_events set chain = (select k.chain from kept_events k
                 where k.position = audit_events.position)",
        ],
        FaultKind::Swapped,
        3,
    ),
    (&["update audit_events set chain = mac where position = 6"], FaultKind::Edited, 6),
    (
        &["update audit_events set chain = mac where position in (5, 6, 7)"],
        FaultKind::Rehashed,
        5,
    ),
    (&["update audit_events set chain = mac where position > 4"], FaultKind::Rehashed, 5),
    // What one record holds of a person put under another.
    (
        &["update audit_events set personal = (select o.personal from audit_events o
               where o.personal is not null and o.position > 9 order by o.position limit 1)
           where position = 3"],
        FaultKind::Edited,
        3,
    ),
    // The whole content of a record in the place of another.
    (
        &["update audit_events set
               record = (select o.record from audit_events o where o.position = 5),
               mac = (select o.mac from audit_events o where o.position = 5)
           where position = 3"],
        FaultKind::Edited,
        3,
    ),
    // A position that no chain gives.
    (
        &["insert into audit_events
               (id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record,
                personal, mac, position, chain)
           select '00000000-0000-7000-8000-000000000001', at, event, actor_kind, actor_id, about_kind,
                about_id, person_id, record, personal, mac, -5, chain
           from audit_events where position = 2"],
        FaultKind::Inserted,
        -5,
    ),
];

async fn tampering(on: On) {
    let app = log(on).await;
    keep(&app).await;
    let good = length(&app).await;
    assert!(good > 10);
    for (statements, kind, place) in CASES {
        for sql in *statements {
            assert!(run(&app, sql).await > 0, "{sql}");
        }
        assert_eq!(fault(&app, statements[0]).await, (*kind, Some(*place)), "{statements:?}");
        // The chain job mends nothing of it.
        seal(&app).await;
        assert!(verify(&app).await.is_err(), "{statements:?}");
        restore(&app).await;
        assert_eq!(verify(&app).await, Ok(good));
    }
    app.stop().await;
}

async fn cutting(on: On) {
    let app = log(on).await;
    keep(&app).await;
    let last = length(&app).await;
    for from in [last, last - 3, 2, 1] {
        for sql in [
            "delete from audit_events where position >= $1",
            "update audit_events set position = null, chain = null where position >= $1",
        ] {
            run_with(&app, sql, args![from]).await;
            assert_eq!(fault(&app, sql).await, (FaultKind::Cut, Some(from)), "{sql}");
            restore(&app).await;
        }
    }
    // Without the head nothing says where the end is; a head can't be made up.
    for (sql, kind) in [
        ("delete from audit_head", FaultKind::Cut),
        ("update audit_head set position = position - 1", FaultKind::Edited),
        ("update audit_head set mac = chain", FaultKind::Edited),
        (
            "update audit_head set position = 3,
                chain = (select e.chain from audit_events e where e.position = 3)",
            FaultKind::Edited,
        ),
    ] {
        assert_eq!(run(&app, sql).await, 1);
        assert_eq!(fault(&app, sql).await, (kind, None), "{sql}");
        restore(&app).await;
    }
    // Records behind the end.
    for (sql, args) in [
        ("update audit_events set position = $1 where position is null", args![last + 1]),
        ("update audit_events set position = $1 where position is null", args![last + 100]),
    ] {
        app.token("ann@example.com").await;
        run(&app, "delete from audit_events where position is null and event <> 'login.signed_in'")
            .await;
        assert_eq!(run_with(&app, sql, args).await, 1);
        let (kind, _) = fault(&app, sql).await;
        assert_eq!(kind, FaultKind::Inserted);
        restore(&app).await;
    }
    assert_eq!(verify(&app).await, Ok(last));
    app.stop().await;
}

/// Who may change the schema can drop what keeps a record from being there twice.
async fn twice(on: On) {
    let app = log(on).await;
    keep(&app).await;
    let good = verify(&app).await.unwrap();
    run(&app, "create table loose as select * from audit_events").await;
    run(&app, "drop table audit_events").await;
    run(&app, "alter table loose rename to audit_events").await;
    assert_eq!(verify(&app).await, Ok(good));
    for (place, kind) in [
        ("position, chain", FaultKind::Inserted),
        ("null, null", FaultKind::Inserted),
        ("position + 1, chain", FaultKind::Inserted),
        ("position + 1000, chain", FaultKind::Inserted),
    ] {
        let sql = leaked(format!(
            "insert into audit_events
                 (id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record,
                  personal, mac, position, chain)
             select id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record,
                  personal, mac, {place}
             from kept_events where position = 4"
        ));
        let sql = if matches!(on, On::Postgres) {
            leaked(sql.replace("null, null", "cast(null as bigint), cast(null as bytea)"))
        } else {
            sql
        };
        assert_eq!(run(&app, sql).await, 1);
        assert_eq!(fault(&app, sql).await.0, kind, "{sql}");
        restore(&app).await;
    }
    app.stop().await;
}

async fn again(on: On) {
    let app = log(on).await;
    keep(&app).await;
    run(&app, "create table older as select * from audit_head").await;
    let last = length(&app).await;
    // Taken out of the chain: what is chained again stands above the head, and the gap stays.
    let sql = "update audit_events set position = null, chain = null where position >= 5";
    assert!(run(&app, sql).await > 3);
    seal(&app).await;
    assert_eq!(fault(&app, sql).await, (FaultKind::Deleted, Some(5)));
    let (below,): (i64,) = app
        .app
        .db
        .one(
            "select count(*) from audit_events where position >= 5 and position <= $1",
            args![last],
        )
        .await
        .unwrap();
    assert_eq!(below, 0);
    let told = app.events().await;
    assert_eq!(told.iter().filter(|event| *event == "audit.fault_found").count(), 1);
    seal(&app).await;
    assert_eq!(app.events().await.len(), told.len(), "it is told once");
    restore(&app).await;

    // An older head beside the records that came after it.
    for _ in 0..3 {
        app.token("ann@example.com").await;
    }
    seal(&app).await;
    run(&app, "delete from audit_head").await;
    run(&app, "insert into audit_head select * from older").await;
    assert_eq!(fault(&app, "an older head").await, (FaultKind::RolledBack, Some(last + 1)));
    app.token("ann@example.com").await;
    assert_eq!(audit_log::seal_pending(&app.app).await.unwrap(), 0);
    assert_eq!(fault(&app, "an older head").await, (FaultKind::RolledBack, Some(last + 1)));
    assert!(app.events().await.contains(&"audit.fault_found".to_owned()));
    app.stop().await;
}

async fn headless(on: On) {
    let app = log(on).await;
    run(&app, "delete from audit_head").await;
    app.token("ann@example.com").await;
    assert_eq!(audit_log::seal_pending(&app.app).await.unwrap(), 0, "nothing is chained");
    // The service goes on, after a restart too, and no head is made.
    let mut after = app.second().await;
    after.stop_reading_the_feed().await;
    assert_eq!(audit_log::seal_pending(&after.app).await.unwrap(), 0);
    assert_eq!(fault(&after, "no head").await, (FaultKind::Cut, None));
    let me = after.token("ann@example.com").await.get("/api/v1/users/me").await;
    assert_eq!(me.status, StatusCode::OK);
    // The operator, who has the root key, lets it go on; the log says so.
    let found = audit_log::reseal(&after.app).await.unwrap();
    assert_eq!(found.map(|(kind, _)| kind), Some(FaultKind::Cut));
    seal(&after).await;
    assert_eq!(verify(&after).await, Ok(length(&after).await));
    let events = after.events().await;
    for event in ["audit.fault_found", "audit.resealed"] {
        assert!(events.contains(&event.to_owned()), "{event}");
    }
    assert_eq!(audit_log::reseal(&after.app).await.unwrap(), None, "there is nothing to mend");
    after.stop().await;
    app.stop().await;
}

async fn back(on: On) {
    let app = log(on).await;
    keep(&app).await;
    let before = length(&app).await;
    for _ in 0..3 {
        app.token("ann@example.com").await;
    }
    seal(&app).await;
    let told = |events: &[String]| events.iter().filter(|e| *e == "audit.fault_found").count();
    assert_eq!(told(&app.events().await), 0);
    // Log and head as they were: only who remembers can tell.
    restore(&app).await;
    assert_eq!(verify(&app).await, Ok(before));
    seal(&app).await;
    assert_eq!(told(&app.events().await), 1, "it is told in the log itself");
    assert_eq!(verify(&app).await, Ok(before + 1));
    // Gone back and grown again, by a process that doesn't remember.
    for _ in 0..3 {
        app.token("ann@example.com").await;
    }
    seal(&app).await;
    restore(&app).await;
    let mut other = app.second().await;
    other.stop_reading_the_feed().await;
    for _ in 0..8 {
        other.token("ann@example.com").await;
    }
    seal(&other).await;
    assert_eq!(told(&other.events().await), 0);
    seal(&app).await;
    assert_eq!(told(&app.events().await), 1);
    other.stop().await;
    app.stop().await;
}

async fn two(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let other = app.second().await;
    for _ in 0..6 {
        let writing = async {
            for _ in 0..8 {
                app.token("ann@example.com").await;
            }
        };
        let chaining = |app: &TestApp| {
            let app = app.app.clone();
            async move {
                for _ in 0..12 {
                    audit_log::seal_pending(&app).await.unwrap();
                }
            }
        };
        let (here, there) = (chaining(&app), chaining(&other));
        tokio::join!(writing, here, there);
    }
    seal(&app).await;
    seal(&other).await;
    assert_eq!(verify(&app).await, Ok(length(&app).await));
    let (last,): (i64,) = app.app.db.one("select position from audit_head", args![]).await.unwrap();
    assert_eq!(last, length(&app).await);
    assert!(!app.events().await.contains(&"audit.fault_found".to_owned()));
    other.stop().await;
    app.stop().await;
}

async fn early(on: On) {
    let app = log(on).await;
    app.token("ann@example.com").await;
    app.token("ann@example.com").await;
    let (gone,): (uuid::Uuid,) = app
        .app
        .db
        .one("select id from audit_events where position is null order by id limit 1", args![])
        .await
        .unwrap();
    run_with(&app, "delete from audit_events where id = $1", args![gone]).await;
    seal(&app).await;
    seal(&app).await;
    let records: Vec<(String,)> = app
        .app
        .db
        .all("select record from audit_events where event = 'audit.fault_found'", args![])
        .await
        .unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].0.contains(&gone.to_string()), "{records:?}");
    app.stop().await;
}

async fn still(on: On) {
    let app = log(on).await;
    let told = || async {
        let sql = "select count(*) from audit_events where event = 'audit.fault_found'";
        let (told,): (i64,) = app.app.db.one(sql, args![]).await.unwrap();
        told
    };
    run(&app, "delete from audit_head").await;
    audit_log::seal_pending(&app.app).await.unwrap();
    assert_eq!(told().await, 1, "the head is missing");
    app.token("ann@example.com").await;
    run(&app, "delete from audit_events where position is null and event = 'login.signed_in'")
        .await;
    for _ in 0..59 {
        audit_log::seal_pending(&app.app).await.unwrap();
        assert_eq!(told().await, 1);
    }
    audit_log::seal_pending(&app.app).await.unwrap();
    assert_eq!(told().await, 2, "records are missing");
    app.stop().await;
}

async fn forged(on: On) {
    let app = log(on).await;
    let forge = "insert into audit_events
            (id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record, personal, mac)
         select '00000000-0000-7000-8000-000000000001', at, event, actor_kind, actor_id, about_kind,
            about_id, person_id, replace(record, 'sessions', 'nothings'), personal, mac
         from audit_events where event = 'sessions.revoked'";
    assert_eq!(run(&app, forge).await, 1);
    app.token("ann@example.com").await;
    seal(&app).await;
    let (pending,): (i64,) = app
        .app
        .db
        .one("select count(*) from audit_events where position is null", args![])
        .await
        .unwrap();
    assert_eq!(pending, 1);
    let found = verify(&app).await.expect_err(forge);
    assert_eq!((found.kind, found.index), (FaultKind::Inserted, None));
    assert_eq!(found.id.unwrap().to_string(), "00000000-0000-7000-8000-000000000001");
    app.stop().await;
}

/// How many records of this kind wait for the chain.
async fn waiting(app: &TestApp, only: &str) -> i64 {
    let sql = format!("select count(*) from audit_events where position is null and {only}");
    let (waiting,): (i64,) = app.app.db.one(leaked(sql), args![]).await.unwrap();
    waiting
}

async fn told(app: &TestApp) -> Vec<String> {
    let sql = "select record from audit_events where event = 'audit.fault_found' order by at, id";
    let told: Vec<(String,)> = app.app.db.all(sql, args![]).await.unwrap();
    told.into_iter().map(|told| told.0).collect()
}

async fn many(on: On) {
    let app = log(on).await;
    // Before all others, by times that can't be read too, and behind them: more than one pass reads.
    let (id, never, late) = match on {
        On::Sqlite => ("printf('%012d', i)", "-1e300", "'soon'"),
        On::Postgres => (
            "lpad(cast(i as text), 12, '0')",
            "cast('-infinity' as timestamptz)",
            "cast('infinity' as timestamptz)",
        ),
    };
    let id = format!("'00000000-0000-7000-8000-' || {id}");
    let id = if matches!(on, On::Postgres) { format!("cast({id} as uuid)") } else { id };
    let forge = leaked(format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 6000)
         insert into audit_events (id, at, event, actor_kind, record, mac)
         select {id}, case when i <= 700 then {never} when i > 5400 then {late}
                else (select min(o.at) from audit_events o) end,
             'roles.deleted', 'operator', 'forged', (select o.mac from audit_events o where o.position = 1)
         from n"
    ));
    assert_eq!(run(&app, forge).await, 6000);
    app.token("ann@example.com").await;
    assert!(waiting(&app, "event = 'login.signed_in'").await > 0);
    for _ in 0..3 {
        audit_log::seal_pending(&app.app).await.unwrap();
    }
    assert_eq!(waiting(&app, "event = 'login.signed_in'").await, 0);
    // Each is told of once, in a record that is chained itself.
    let first = told(&app).await;
    assert!(first.len() == 1 || first.len() == 2, "{first:?}");
    assert!(first[0].contains("00000000-0000-7000-8000-000000000001"), "{first:?}");
    for _ in 0..6 {
        audit_log::seal_pending(&app.app).await.unwrap();
    }
    assert_eq!(told(&app).await, first);
    assert_eq!(waiting(&app, "1 = 1").await, 6000);
    let found = verify(&app).await.expect_err("forged");
    assert_eq!((found.kind, found.index), (FaultKind::Inserted, None));
    assert_eq!(found.id.unwrap().to_string(), "00000000-0000-7000-8000-000000000001");
    // Once they are gone, the log is what was written.
    assert_eq!(run(&app, "delete from audit_events where record = 'forged'").await, 6000);
    assert_eq!(verify(&app).await, Ok(length(&app).await));
    app.stop().await;
}

async fn copied(on: On) {
    let app = log(on).await;
    let chained = length(&app).await;
    let id = match on {
        On::Sqlite => "'ffffffff' || substr(id, 9)",
        On::Postgres => "cast('ffffffff' || substr(cast(id as text), 9) as uuid)",
    };
    let copy = leaked(format!(
        "insert into audit_events
            (id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record, personal, mac)
         select {id}, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record,
            personal, mac
         from audit_events where position is not null"
    ));
    assert_eq!(run(&app, copy).await, chained.cast_unsigned());
    app.token("ann@example.com").await;
    app.token("ann@example.com").await;
    let alter = "update audit_events set event = 'login.altered' where id =
        (select o.id from audit_events o
         where o.position is null and o.event = 'login.signed_in' and cast(o.id as text) < 'f'
         order by o.id desc limit 1)";
    assert_eq!(run(&app, alter).await, 1);
    seal(&app).await;
    seal(&app).await;
    let copies = "cast(id as text) like 'ffffffff%'";
    assert_eq!(waiting(&app, copies).await, chained);
    assert_eq!(waiting(&app, "event = 'login.altered'").await, 1);
    assert_eq!(waiting(&app, "1 = 1").await, chained + 1, "all others are chained");
    assert_eq!(told(&app).await.len(), 1);
    let found = verify(&app).await.expect_err(alter);
    assert_eq!((found.kind, found.index), (FaultKind::Edited, None), "{found:?}");
    run(&app, "update audit_events set event = 'login.signed_in' where event = 'login.altered'")
        .await;
    let found = verify(&app).await.expect_err(copy);
    assert_eq!((found.kind, found.index), (FaultKind::Inserted, None), "{found:?}");
    assert!(found.id.unwrap().to_string().starts_with("ffffffff"), "{found:?}");
    run(&app, leaked(format!("delete from audit_events where {copies}"))).await;
    seal(&app).await;
    assert_eq!(waiting(&app, "1 = 1").await, 0);
    assert_eq!(verify(&app).await, Ok(length(&app).await));

    // Under the same id, where nothing keeps that out any more.
    run(&app, "create table loose as select * from audit_events").await;
    run(&app, "drop table audit_events").await;
    run(&app, "alter table loose rename to audit_events").await;
    let again = copy.replace(id, "id").replace("position is not null", "position = 4");
    assert_eq!(run(&app, leaked(again)).await, 1);
    app.token("ann@example.com").await;
    seal(&app).await;
    seal(&app).await;
    assert_eq!(waiting(&app, "1 = 1").await, 1);
    assert_eq!(told(&app).await.len(), 2);
    assert_eq!(fault(&app, "a copy").await, (FaultKind::Inserted, Some(4)));
    app.stop().await;
}

async fn stopped(on: On) {
    let mut app = TestApp::with(on, unlimited()).await;
    // More than one transaction chains, and no time for the job.
    let mut change = app.app.change(&palisade::app::Actor::operator()).await.unwrap();
    for _ in 0..600 {
        change.note(audit_log::RESEALED.entry());
    }
    change.commit(audit_log::RESEALED.entry()).await.unwrap();
    app.stop_reading_the_feed().await;
    assert_eq!(waiting(&app, "1 = 1").await, 0);
    assert_eq!(verify(&app).await, Ok(length(&app).await));
    app.stop().await;
}

async fn keys(on: On) {
    let app = log(on).await;
    let (ann, bob) = (app.user("carol@example.com").await, app.user("dave@example.com").await);
    app.token("carol@example.com").await;
    seal(&app).await;
    keep(&app).await;
    let good = length(&app).await;
    let missing = |found: (FaultKind, Option<i64>)| found.0 == FaultKind::KeyMissing;
    run_with(&app, "delete from person_keys where user_id = $1", args![ann]).await;
    assert!(missing(fault(&app, "a key deleted").await));
    // An erasure can't be made up.
    run_with(
        &app,
        "update audit_events set event = 'audit.person_erased', about_id = $1
         where position = (select max(position) from audit_events)",
        args![ann],
    )
    .await;
    assert!(verify(&app).await.is_err());
    restore(&app).await;
    // Swapped, and changed.
    run_with(
        &app,
        "update person_keys set wrapped = (select k.wrapped from kept_keys k
             where k.user_id = case when person_keys.user_id = $1 then $2 else $1 end)
         where user_id = $1 or user_id = $2",
        args![ann, bob],
    )
    .await;
    assert!(missing(fault(&app, "keys swapped").await));
    restore(&app).await;
    run(&app, "delete from person_keys").await;
    assert!(missing(fault(&app, "all keys deleted").await));
    restore(&app).await;
    assert_eq!(verify(&app).await, Ok(good));

    // A genuine erasure is recorded.
    let user = palisade::users::find(&app.app, ann).await.unwrap().unwrap();
    let holds = palisade::deletion::held_for_deletion(ann);
    let operator = palisade::app::Actor::operator();
    let change = app.app.change_holding(&operator, &holds).await.unwrap();
    palisade::deletion::delete(change, &user).await.unwrap();
    assert!(length(&app).await > good + 1);
    assert_eq!(verify(&app).await, Ok(length(&app).await));
    seal(&app).await;
    assert_eq!(verify(&app).await, Ok(length(&app).await));
    // What was erased stays erased.
    run_with(
        &app,
        "insert into person_keys select * from kept_keys where user_id = $1",
        args![ann],
    )
    .await;
    assert_eq!(fault(&app, "a key put back").await.0, FaultKind::Inserted);
    app.stop().await;
}

fn ids(log: &Value) -> Vec<String> {
    let items = log["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// How a bad row is seen by who reads the log, by the user, and in the user's export.
async fn read_everywhere(root: &Client<'_>, user: &Client<'_>, after: &str) -> Value {
    for path in ["/api/v1/users/me/activity", "/api/v1/users/me/export"] {
        let answer = user.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} after {after}: {}", answer.raw);
    }
    let log = root.get("/api/v1/audit?limit=200").await;
    assert_eq!(log.status, StatusCode::OK, "{after}: {}", log.raw);
    log.body
}

async fn shown(on: On) {
    let mut app = TestApp::with(on, unlimited()).await;
    app.admin("root@example.com").await;
    let ann = app.user("ann@example.com").await;
    app.token("ann@example.com").await;
    app.advance(Duration::from_secs(1)).await;
    let root = app.token("root@example.com").await;
    root.act(&format!("/api/v1/users/{ann}/revoke-sessions")).await;
    app.advance(Duration::from_secs(1)).await;
    app.stop_reading_the_feed().await;
    let (root, ann) = (app.token("root@example.com").await, app.token("ann@example.com").await);
    seal(&app).await;
    keep(&app).await;
    let of_one = "where id = (select o.id from kept_events o where o.event = 'sessions.revoked')";
    let (id,): (uuid::Uuid,) = app
        .app
        .db
        .one(leaked(format!("select id from audit_events {of_one}")), args![])
        .await
        .unwrap();
    let kept: Vec<(uuid::Uuid,)> =
        app.app.db.all("select id from kept_events", args![]).await.unwrap();
    let good = read_everywhere(&root, &ann, "nothing").await;
    assert!(good["items"].as_array().unwrap().iter().all(|item| item["verified"] == true));
    for column in columns_of_the_log(&app).await {
        // The place in the chain is no part of what is shown.
        if ["position", "chain"].contains(&column.name.as_str()) {
            continue;
        }
        let mut values = others(&column);
        if matches!(on, On::Sqlite) {
            values.extend(["x'ff00'", "'soon'", "-7"].map(str::to_owned));
        }
        for value in values {
            let value = bytes(on, value);
            let sql = leaked(format!("update audit_events set {} = {value} {of_one}", column.name));
            assert_eq!(run(&app, sql).await, 1, "{sql}");
            let log = read_everywhere(&root, &ann, sql).await;
            let items = log["items"].as_array().unwrap();
            let bad: Vec<_> = items.iter().filter(|item| item["verified"] == false).collect();
            for item in &bad {
                assert_eq!(item["personal"], json!({}), "{sql}");
            }
            // Without a time that can be read it has no place among the others.
            assert!(bad.len() == 1 || (bad.is_empty() && column.name == "at"), "{sql}: {bad:?}");
            let read = ids(&log);
            let mut others = kept.iter().map(|(other,)| other).filter(|other| **other != id);
            assert!(others.all(|other| read.contains(&other.to_string())), "{sql}");
            restore(&app).await;
        }
    }
    bad_keys(&app, on, &root, &ann).await;
    app.stop().await;
}

/// A key that opens nothing leaves the personal part out, of the rows of that person.
async fn bad_keys(app: &TestApp, on: On, root: &Client<'_>, ann: &Client<'_>) {
    let sql = "update person_keys set wrapped =
                   (select k.wrapped from kept_keys k order by k.user_id limit 1)";
    run(app, sql).await;
    let log = read_everywhere(root, ann, "keys swapped").await;
    assert!(log["items"].as_array().unwrap().iter().any(|item| item["verified"] == false));
    // Nor does it keep that person from working; SQLite takes any kind of value.
    let sql = match on {
        On::Sqlite => "update person_keys set wrapped = 'nothing'",
        On::Postgres => "update person_keys set wrapped = ''",
    };
    run(app, sql).await;
    read_everywhere(root, ann, sql).await;
    app.token("ann@example.com").await;
}
