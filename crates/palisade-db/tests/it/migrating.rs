//! Migrations: once, whole, in order, and never edited.

use palisade_db::testing::{TestDb, options};
use palisade_db::{Db, DbErrorKind, Migration, Sql, Status, Timestamp, args};

const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

const fn step(number: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration { module: "people", number, name, sql: Sql::Both(sql) }
}

const USERS: Migration = step(1, "users", "create table users (id id not null primary key)");
const TOKENS: Migration = step(2, "tokens", "create table tokens (id id not null primary key)");
/// An application's: its number is one that another module has too, and its table refers to that module's.
const NOTES: Migration = Migration {
    module: "notes",
    number: 1,
    name: "notes",
    sql: Sql::Both("create table notes (user_id id not null references users (id))"),
};

fn applied(done: &[Status]) -> Vec<(&str, i64)> {
    done.iter().map(|status| (status.module.as_str(), status.number)).collect()
}

#[tokio::test]
async fn each_migration_is_applied_once() {
    TestDb::each(|db| async move {
        let before = db.migrations(&[USERS]).await.unwrap();
        assert_eq!((before.migrations.len(), before.missing()), (2, 2));
        let done = db.migrate(&[USERS], NOON).await.unwrap();
        assert_eq!(applied(&done), [("palisade_db", 1), ("people", 1)]);
        let done = db.migrate(&[TOKENS, USERS], NOON).await.unwrap();
        assert_eq!(applied(&done), [("people", 2)]);
        assert_eq!(db.migrate(&[USERS, TOKENS], NOON).await.unwrap(), []);
        let after = db.migrations(&[USERS, TOKENS]).await.unwrap();
        assert!(after.migrations.iter().all(|status| status.applied_at == Some(NOON)));
        assert_eq!(after.missing(), 0);
    })
    .await;
}

#[tokio::test]
async fn every_module_has_numbers_of_its_own() {
    TestDb::each(|db| async move {
        // In the order of the list: what a table refers to is there first.
        let done = db.migrate(&[TOKENS, USERS, NOTES], NOON).await.unwrap();
        let all = [("palisade_db", 1), ("people", 1), ("people", 2), ("notes", 1)];
        assert_eq!(applied(&done), all);
        let status = db.migrations(&[USERS, TOKENS, NOTES]).await.unwrap();
        assert_eq!((applied(&status.migrations), status.missing()), (all.to_vec(), 0));
    })
    .await;
}

#[tokio::test]
async fn a_module_that_is_not_in_the_list_is_named_and_left_alone() {
    TestDb::each(|db| async move {
        db.migrate(&[USERS, NOTES], NOON).await.unwrap();
        let status = db.migrations(&[USERS, TOKENS]).await.unwrap();
        assert_eq!(status.unknown_modules, ["notes"]);
        assert_eq!(status.missing(), 1);
        let done = db.migrate(&[USERS, TOKENS], NOON).await.unwrap();
        assert_eq!(applied(&done), [("people", 2)]);
        db.one::<(i64,)>("select count(*) from notes", args![]).await.unwrap();
        // It comes back with the state that it had.
        let status = db.migrations(&[USERS, TOKENS, NOTES]).await.unwrap();
        assert_eq!((status.missing(), status.unknown_modules), (0, vec![]));
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
        for refused in [
            db.migrate(&[USERS], NOON).await.unwrap_err(),
            db.migrations(&[USERS, NOTES]).await.unwrap_err(),
        ] {
            let detail = refused.to_string();
            assert!(detail.contains("migrated by a newer version"), "{detail}");
            assert!(detail.contains("migration 2 of people (tokens)"), "{detail}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_database_from_before_the_first_release_is_refused() {
    TestDb::each(|db| async move {
        let former = "create table schema_migrations (version bigint not null primary key,
            name text not null, sql text not null, applied_at bigint not null)";
        let mut tx = db.begin().await.unwrap();
        tx.run(former, args![]).await.unwrap();
        tx.commit().await.unwrap();
        for refused in [
            db.migrate(&[USERS], NOON).await.unwrap_err(),
            db.migrations(&[USERS]).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), DbErrorKind::Wrong);
            assert!(refused.to_string().contains("before the first release"), "{refused}");
            assert!(refused.to_string().contains("empty database"), "{refused}");
        }
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
        let status = db.migrations(&[USERS, broken]).await.unwrap().migrations;
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
async fn numbers_and_names_of_modules_are_unique() {
    let test = TestDb::sqlite().await;
    let taken = Migration { module: "palisade_db", ..TOKENS };
    let unnamed = Migration { module: "", ..TOKENS };
    for wrong in [step(1, "twice", "select 1"), step(0, "zero", ""), taken, unnamed] {
        assert!(test.db().migrate(&[USERS, wrong], NOON).await.is_err(), "{wrong:?}");
    }
    let refused = test.db().migrate(&[USERS, NOTES, TOKENS], NOON).await.unwrap_err();
    assert!(refused.to_string().contains("two modules are named people"), "{refused}");
}

#[tokio::test]
async fn a_constraint_that_waits_for_the_commit_is_refused() {
    let test = TestDb::sqlite().await;
    let late = step(1, "late", "create table a (b id references a (b) DEFERRABLE)");
    let refused = test.db().migrate(&[late], NOON).await.unwrap_err();
    assert!(refused.to_string().contains("late"), "{refused}");
}
