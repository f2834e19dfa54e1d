//! Roles of PostgreSQL: one that owns the tables, another that serves.

use std::error::Error as _;

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, DbErrorKind, Migration, Options, Sql, Timestamp, args};

use crate::outage::set;
use crate::transactions::{NUMBERS, count, insert};

const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// The grants that `docs/databases.md` shows.
const GRANTS: [&str; 6] = [
    "create role owner login",
    "create role app login",
    "create schema app authorization owner",
    "grant usage on schema app to app",
    "alter default privileges for role owner in schema app grant select, insert, update, delete on tables to app",
    "alter default privileges for role owner in schema app grant usage, update on sequences to app",
];

const LATER: Migration = Migration {
    module: "tests",
    number: 2,
    name: "later",
    sql: Sql::Both("alter table numbers add column later text"),
};

const SERIAL: Migration = Migration {
    module: "tests",
    number: 3,
    name: "serial",
    sql: Sql::Each {
        sqlite: "create table serial (id integer primary key)",
        postgres: "create table serial (id bigint generated always as identity primary key)",
    },
};

async fn two_roles() -> (Cluster, Options, Options) {
    let cluster = Cluster::start();
    for grant in GRANTS {
        set(&cluster, grant).await;
    }
    let url = |role: &str| cluster.url().replace("palisade@", &format!("{role}@"));
    let app = Options { schema: Some("app".into()), ..options(&url("app")) };
    let with_owner = Options { migrate_url: Some(url("owner")), ..app.clone() };
    (cluster, app, with_owner)
}

#[tokio::test]
async fn a_role_that_may_not_change_tables_serves_and_migrates_through_another() {
    let (_cluster, app, with_owner) = two_roles().await;
    let alone = Db::open(app).await.unwrap();
    let refused = alone.migrate(NUMBERS, NOON).await.unwrap_err();
    assert_eq!(refused.kind(), DbErrorKind::Wrong);
    assert!(refused.to_string().contains("database.migrate_url"), "{refused}");
    assert_eq!(alone.pending(NUMBERS).await.unwrap()[1].sql, NUMBERS[0].sql.on(alone.backend()));

    let db = Db::open(with_owner).await.unwrap();
    assert_eq!(db.migrate(NUMBERS, NOON).await.unwrap().len(), 2);
    assert!(alone.pending(NUMBERS).await.unwrap().is_empty());
    // Nothing is missing, so nothing needs the privilege.
    assert!(alone.migrate(NUMBERS, NOON).await.unwrap().is_empty());
    let (owner,): (String,) = db
        .one("select cast(tableowner as text) from pg_tables where tablename = 'numbers'", args![])
        .await
        .unwrap();
    assert_eq!(owner, "owner");
    insert(&alone, 1).await;
    assert_eq!(count(&db).await, 1);

    // A table that exists already and belongs to another role.
    let all = [NUMBERS[0], LATER, SERIAL];
    let refused = alone.migrate(&all, NOON).await.unwrap_err();
    assert!(refused.to_string().contains("database.migrate_url"), "{refused}");
    assert_eq!(alone.migrations(&all).await.unwrap().missing(), 2);
    assert_eq!(db.migrate(&all, NOON).await.unwrap().len(), 2);
    let mut tx = alone.begin().await.unwrap();
    tx.run("insert into serial default values", args![]).await.unwrap();
    tx.run("delete from serial", args![]).await.unwrap();
    let advance = "select setval(pg_get_serial_sequence('serial', 'id'), 10)";
    assert_eq!(tx.one::<(i64,)>(advance, args![]).await.unwrap(), (10,));
    tx.commit().await.unwrap();
    assert!(alone.takes_writes().await.unwrap());
}

#[tokio::test]
async fn a_schema_that_the_role_may_not_create_is_an_error_with_the_fix() {
    let (cluster, app, with_owner) = two_roles().await;
    let db = Db::open(Options { schema: Some("other".into()), ..app }).await.unwrap();
    let refused = db.migrate(NUMBERS, NOON).await.unwrap_err();
    assert!(refused.to_string().contains("database.migrate_url"), "{refused}");
    set(&cluster, "grant create on database postgres to owner").await;
    let other = Options { schema: Some("other".into()), ..with_owner };
    let db = Db::open(other.clone()).await.unwrap();
    assert_eq!(db.migrate(NUMBERS, NOON).await.unwrap().len(), 2);
    let refused = Db::open(other.clone()).await.err().unwrap().to_string();
    assert!(refused.contains("grant usage on schema \"other\""), "{refused}");
    set(&cluster, "grant usage on schema \"other\" to app").await;
    set(&cluster, "grant select on other.schema_migrations to app").await;
    assert!(Db::open(other).await.unwrap().pending(NUMBERS).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_migrate_url_of_another_database_is_refused() {
    let (cluster, _, with_owner) = two_roles().await;
    let elsewhere = cluster.create_database("elsewhere", "template0");
    let db =
        Db::open(Options { migrate_url: Some(elsewhere), ..with_owner.clone() }).await.unwrap();
    let refused = db.migrate(NUMBERS, NOON).await.unwrap_err();
    assert!(refused.to_string().contains("another database"), "{refused}");
    let other = Cluster::start();
    let db = Db::open(Options { migrate_url: Some(other.url()), ..with_owner }).await.unwrap();
    assert!(db.migrate(NUMBERS, NOON).await.is_err());
    let there = Db::open(options(&other.url())).await.unwrap();
    assert_eq!(there.migrations(NUMBERS).await.unwrap().missing(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_limits_of_a_role_do_not_end_a_migration() {
    const SLOW: Migration = Migration {
        module: "tests",
        number: 2,
        name: "slow",
        sql: Sql::Each {
            sqlite: "select 1",
            postgres: "do 'begin perform pg_sleep(1.5); end'; alter table numbers add column slow text",
        },
    };
    let (cluster, _, with_owner) = two_roles().await;
    for limit in [
        "alter role owner set statement_timeout = '1s'",
        "alter role owner set lock_timeout = '100ms'",
        "alter role owner set idle_in_transaction_session_timeout = '1ms'",
    ] {
        set(&cluster, limit).await;
    }
    let one = Db::open(with_owner.clone()).await.unwrap();
    let two = Db::open(with_owner).await.unwrap();
    one.migrate(NUMBERS, NOON).await.unwrap();
    // One waits until the other is done.
    let all = [NUMBERS[0], SLOW];
    let (first, second) = tokio::join!(one.migrate(&all, NOON), two.migrate(&all, NOON));
    assert_eq!(first.unwrap().len() + second.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_ends_a_migration() {
    let (_cluster, _, with_owner) = two_roles().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap().to_string();
    let url = format!("postgres://owner@{place}/postgres");
    let db = Db::open(Options { migrate_url: Some(url), ..with_owner }).await.unwrap();
    let limit = std::time::Duration::from_secs(20);
    let ended = tokio::time::timeout(limit, db.migrate(NUMBERS, NOON)).await;
    let refused = ended.unwrap().unwrap_err();
    assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
    assert!(refused.to_string().contains(&place), "{refused}");
}

#[tokio::test]
async fn what_postgresql_reports_is_passed_on_without_lines_of_its_source() {
    let (cluster, app, _) = two_roles().await;
    let everything = |error: &palisade_db::DbError| {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            said.push_str(&format!("; {next}"));
            cause = next.source();
        }
        said
    };
    let db = Db::open(app).await.unwrap();
    let missing = db.one::<(i64,)>("select coun(*) from pg_class", args![]).await.unwrap_err();
    let privilege = db.migrate(NUMBERS, NOON).await.unwrap_err();
    let url = |change: &str| cluster.url().replace("palisade@", change);
    let role = Db::open(options(&url("nobody@"))).await.err().unwrap();
    let database =
        Db::open(options(&cluster.url().replace("/postgres", "/none"))).await.err().unwrap();
    for (error, part) in [
        (&missing, "PostgreSQL reports: function coun() does not exist (code 42883)"),
        (&missing, "hint"),
        (&privilege, "permission denied"),
        (&role, "refuses the user or the password"),
        (&database, "does not exist on the server"),
    ] {
        let said = everything(error);
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("at line") && !said.contains("returned from database"), "{said}");
    }
}
