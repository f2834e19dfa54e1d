//! Tables of other programs are recognized before anything changes.

use palisade_db::testing::{TestDb, options};
use palisade_db::{Db, DbErrorKind, Migration, Options, Sql, Timestamp, args};

use crate::transactions::{NUMBERS, count, insert, with_numbers};

const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

const TWO: &[Migration] = &[
    NUMBERS[0],
    Migration {
        module: "notes",
        number: 1,
        name: "notes",
        sql: Sql::Both("create table notes (n bigint not null); create index by_n on notes (n)"),
    },
];

async fn run(db: &Db, sql: &'static str) {
    let mut tx = db.begin().await.unwrap();
    tx.run(sql, args![]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn names(db: &Db) -> Vec<(String,)> {
    let sql = match db.backend() {
        palisade_db::Backend::Sqlite => "select name from sqlite_schema order by name",
        palisade_db::Backend::Postgres => {
            "select cast(relname as text) from pg_class c join pg_namespace n on n.oid = relnamespace
             where n.nspname not like 'pg!_%' escape '!' and n.nspname <> 'information_schema'
             union select cast(nspname as text) from pg_namespace order by 1"
        }
    };
    db.all(sql, args![]).await.unwrap()
}

/// Every statement that another program could have run, and what the refusal names.
const FOREIGN: [(&str, &str); 6] = [
    (
        "create table schema_migrations (version bigint primary key, dirty boolean)",
        "schema_migrations",
    ),
    ("create table schema_migrations (version text primary key)", "schema_migrations"),
    ("create view schema_migrations as select 1 as module", "schema_migrations"),
    ("create table numbers (id bigint)", "numbers"),
    ("create view notes as select 1 as n", "notes"),
    ("create table others (by_n bigint)", ""),
];

#[tokio::test]
async fn tables_of_another_program_are_refused_before_anything_changes() {
    for (sql, named) in FOREIGN {
        TestDb::each(|db| async move {
            run(&db, sql).await;
            let before = names(&db).await;
            if named.is_empty() {
                // Names that don't collide are no reason to refuse.
                db.migrate(TWO, NOON).await.unwrap();
                return;
            }
            for refused in [
                db.migrations(TWO).await.unwrap_err(),
                db.pending(TWO).await.unwrap_err(),
                db.migrate(TWO, NOON).await.unwrap_err(),
            ] {
                assert_eq!(refused.kind(), DbErrorKind::Wrong);
                let said = refused.to_string();
                assert!(said.contains(&format!("{named}. ")), "{sql}: {said}");
                assert!(said.contains("database."), "{said}");
            }
            assert_eq!(names(&db).await, before);
        })
        .await;
    }
}

#[tokio::test]
async fn an_index_of_another_program_is_refused_too_and_a_table_that_comes_later() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        run(&db, "create table others (n bigint)").await;
        run(&db, "create index by_n on others (n)").await;
        let refused = db.migrate(TWO, NOON).await.unwrap_err().to_string();
        assert!(refused.contains("by_n."), "{refused}");
        run(&db, "drop index by_n").await;
        db.migrate(TWO, NOON).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_type_of_another_program_is_refused_on_postgres() {
    let test = TestDb::postgres().await;
    run(test.db(), "create domain instant as bigint").await;
    let refused = test.db().migrate(NUMBERS, NOON).await.unwrap_err().to_string();
    assert!(refused.contains("instant.") && refused.contains("database.schema"), "{refused}");
}

#[tokio::test]
async fn a_schema_of_ones_own_leaves_the_other_tables_alone() {
    let test = TestDb::postgres().await;
    run(test.db(), "create table numbers (other text)").await;
    run(test.db(), "create table schema_migrations (version bigint)").await;
    let own = Options { schema: Some("auth-2".into()), ..options(test.url()) };
    let db = Db::open(own.clone()).await.unwrap();
    assert_eq!(db.migrations(NUMBERS).await.unwrap().missing(), 2);
    with_numbers(&db).await;
    insert(&db, 1).await;
    let again = Db::open(own).await.unwrap();
    assert!(again.migrate(NUMBERS, NOON).await.unwrap().is_empty());
    assert_eq!(count(&again).await, 1);
    assert_eq!(count(test.db()).await, 0);
    assert!(again.epoch("numbers").await.unwrap() != test.db().epoch("numbers").await.unwrap());
}
