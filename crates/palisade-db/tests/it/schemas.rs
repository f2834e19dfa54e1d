//! Schemas of one PostgreSQL database, encodings, and the names that they resolve.

use std::time::Duration;

use palisade_db::testing::{Cluster, TestDb, options};
use palisade_db::{Db, DbErrorKind, Lock, Options, args};
use tokio::time::{Instant, timeout};

use crate::outage::set;
use crate::transactions::{INSERT, NUMBERS, count, insert, with_numbers};

const SHORT: Duration = Duration::from_millis(300);

async fn in_schema(url: &str, schema: &str) -> Db {
    Db::open(Options { schema: Some(schema.into()), ..options(url) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schemas_of_one_database_share_nothing() {
    let test = TestDb::postgres().await;
    let (one, two) = (in_schema(test.url(), "one").await, in_schema(test.url(), "two").await);
    for db in [&one, &two, test.db()] {
        with_numbers(db).await;
    }
    insert(&one, 1).await;
    assert_eq!((count(&one).await, count(&two).await, count(test.db()).await), (1, 0, 0));
    assert_eq!(two.migrations(NUMBERS).await.unwrap().missing(), 0);

    // A lock with the same key, held in the other schema, holds no one up.
    let lock = vec![Lock { key: 7, alone: true }];
    let held = one.begin_holding(lock.clone()).await.unwrap();
    let other = timeout(Duration::from_secs(2), two.begin_holding(lock.clone())).await.unwrap();
    drop(other.unwrap());
    let again = in_schema(test.url(), "one").await;
    assert!(timeout(SHORT, again.begin_holding(lock)).await.is_err());
    drop(held);

    // Nor does a change wake the other schema.
    let (mut same, mut other) = (again.changes(), two.changes());
    same.wait(SHORT).await;
    other.wait(SHORT).await;
    let mut tx = one.begin().await.unwrap();
    tx.run(INSERT, args![2]).await.unwrap();
    tx.notify();
    tx.commit().await.unwrap();
    let start = Instant::now();
    same.wait(Duration::from_secs(5)).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let start = Instant::now();
    other.wait(SHORT).await;
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn only_the_tables_of_the_schema_are_seen() {
    let cluster = Cluster::start();
    let public = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&public).await;
    set(&cluster, "alter database postgres set search_path = other, public").await;
    set(&cluster, "create schema app").await;
    let app = in_schema(&cluster.url(), "app").await;
    let missing = app.one::<(i64,)>("select count(*) from numbers", args![]).await.unwrap_err();
    assert!(missing.to_string().contains("a table is missing"), "{missing}");
    with_numbers(&app).await;
    // A temporary table of the same name doesn't come first either.
    let mut tx = app.begin().await.unwrap();
    tx.run("create temporary table numbers (n bigint)", args![]).await.unwrap();
    tx.run(INSERT, args![1]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&app).await, 1);
    assert_eq!(count(&public).await, 0);
    let (path,) =
        app.one::<(String,)>("select current_setting('search_path')", args![]).await.unwrap();
    assert_eq!(path, "\"app\", pg_temp");
}

#[tokio::test]
async fn a_schema_that_appears_later_is_not_used() {
    let cluster = Cluster::start();
    let db = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&db).await;
    // The default search path begins with the schema named after the role.
    set(&cluster, "create schema palisade create table numbers (n bigint)").await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(db.begin().await.unwrap());
    }
    for (tx, number) in open.iter_mut().zip(1..) {
        tx.run(INSERT, args![number]).await.unwrap();
    }
    for tx in open {
        tx.commit().await.unwrap();
    }
    let (stored,) = db.one::<(i64,)>("select count(*) from public.numbers", args![]).await.unwrap();
    assert_eq!(stored, 5);
}

#[tokio::test]
async fn a_role_without_a_schema_is_told_about_the_setting() {
    let cluster = Cluster::start();
    set(&cluster, "alter database postgres set search_path = nowhere").await;
    let refused = Db::open(options(&cluster.url())).await.err().unwrap();
    assert_eq!(refused.kind(), DbErrorKind::Wrong);
    assert!(refused.to_string().contains("database.schema"), "{refused}");
    with_numbers(&in_schema(&cluster.url(), "app").await).await;
    for name in ["$user", "a,b", "pg_app", "a\"b"] {
        let asked = Options { schema: Some(name.into()), ..options(&cluster.url()) };
        assert!(Db::open(asked).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_with_the_fix() {
    let cluster = Cluster::start();
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let name = encoding.to_lowercase();
        let create =
            format!("create database {name} encoding '{encoding}' locale 'C' template template0");
        set(&cluster, &create).await;
        let url = cluster.url().replace("/postgres", &format!("/{name}"));
        let refused = Db::open(options(&url)).await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Wrong);
        let said = refused.to_string();
        assert!(said.contains(encoding), "{said}");
        // The fix works as it stands.
        let fix = "create database NAME encoding 'UTF8' locale 'C' template template0";
        assert!(said.contains(fix), "{said}");
        set(&cluster, &fix.replace("NAME", &format!("{name}_2"))).await;
        let url = cluster.url().replace("/postgres", &format!("/{name}_2"));
        with_numbers(&Db::open(options(&url)).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_sqlite_file_in_utf16_is_refused() {
    use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = file.pragma("encoding", "'UTF-16le'").connect().await.unwrap();
    connection.execute("create table t (a text)").await.unwrap();
    connection.close().await.unwrap();
    let refused = Db::open(options(&format!("sqlite:{}", path.display()))).await.err().unwrap();
    assert_eq!(refused.kind(), DbErrorKind::Wrong);
    assert!(refused.to_string().contains("UTF-16le"), "{refused}");
}
