//! Migrations: once, whole, in order, and never edited.

use palisade_db::testing::{TestDb, options};
use palisade_db::{Db, DbErrorKind, Migration, Sql, Timestamp, args};

const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

const fn step(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration { version, name, sql: Sql::Both(sql) }
}

const USERS: Migration = step(1, "users", "create table users (id id not null primary key)");
const TOKENS: Migration = step(2, "tokens", "create table tokens (id id not null primary key)");

#[tokio::test]
async fn each_migration_is_applied_once() {
    TestDb::each(|db| async move {
        let before = db.migrations(&[USERS]).await.unwrap();
        assert!(before.iter().all(|status| status.applied_at.is_none()));
        let versions = |done: Vec<palisade_db::Status>| -> Vec<i64> {
            done.into_iter().map(|status| status.version).collect()
        };
        assert_eq!(versions(db.migrate(&[USERS], NOON).await.unwrap()), [0, 1]);
        assert_eq!(versions(db.migrate(&[TOKENS, USERS], NOON).await.unwrap()), [2]);
        assert_eq!(versions(db.migrate(&[USERS, TOKENS], NOON).await.unwrap()), [0; 0]);
        let after = db.migrations(&[USERS, TOKENS]).await.unwrap();
        assert!(after.iter().all(|status| status.applied_at == Some(NOON)));
    })
    .await;
}

#[tokio::test]
async fn an_edited_migration_is_refused_by_name() {
    TestDb::each(|db| async move {
        db.migrate(&[USERS], NOON).await.unwrap();
        let edited = step(1, "users", "create table users (id id not null primary key, x text)");
        for refused in [
            db.migrate(&[edited], NOON).await.unwrap_err(),
            db.migrations(&[edited]).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), DbErrorKind::Wrong);
            assert!(refused.to_string().contains("users"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    TestDb::each(|db| async move {
        db.migrate(&[USERS, TOKENS], NOON).await.unwrap();
        let refused = db.migrate(&[USERS], NOON).await.unwrap_err();
        assert!(refused.to_string().contains("created by a newer version"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_fails_half_way_leaves_nothing() {
    TestDb::each(|db| async move {
        let broken = step(
            2,
            "broken",
            "create table halves (id id not null primary key);
             insert into nowhere values (1);",
        );
        let failed = db.migrate(&[USERS, broken], NOON).await.unwrap_err();
        assert!(failed.to_string().contains("broken"), "{failed}");
        assert!(db.all::<(i64,)>("select count(*) from halves", args![]).await.is_err());
        let status = db.migrations(&[USERS, broken]).await.unwrap();
        assert_eq!((status[1].applied_at, status[2].applied_at), (Some(NOON), None));
        let mended = step(2, "broken", "create table halves (id id not null primary key)");
        assert_eq!(db.migrate(&[USERS, mended], NOON).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runners_do_the_work_once() {
    for test in [TestDb::sqlite().await, TestDb::postgres().await] {
        let other = Db::open(options(test.url())).await.unwrap();
        let migrations = [USERS, TOKENS];
        let (one, two) =
            tokio::join!(test.db().migrate(&migrations, NOON), other.migrate(&migrations, NOON));
        assert_eq!(one.unwrap().len() + two.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn versions_must_be_unique_and_above_zero() {
    let test = TestDb::sqlite().await;
    for wrong in [step(1, "twice", "select 1"), step(0, "zero", "select 1"), step(-1, "less", "")] {
        assert!(test.db().migrate(&[USERS, wrong], NOON).await.is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_constraint_that_waits_for_the_commit_is_refused() {
    let test = TestDb::sqlite().await;
    let late = step(1, "late", "create table a (b id references a (b) DEFERRABLE)");
    let refused = test.db().migrate(&[late], NOON).await.unwrap_err();
    assert!(refused.to_string().contains("late"), "{refused}");
}
