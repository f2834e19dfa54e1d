//! PostgreSQL goes away and comes back.

use std::time::Duration;

use palisade_db::testing::{Cluster, TestDb, options};
use palisade_db::{Db, DbError, DbErrorKind, Options, args};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::transactions::{INSERT, count, insert, with_numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_within_a_second_and_ends_by_itself() {
    let cluster = Cluster::start();
    let db = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&db).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(db.begin().await.unwrap());
    }
    drop(open);
    let mut half = db.begin().await.unwrap();
    half.run(INSERT, args![1]).await.unwrap();

    cluster.stop();
    let start = Instant::now();
    let refused = db.one::<(i64,)>("select count(*) from numbers", args![]).await.unwrap_err();
    assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let start = Instant::now();
    let refused = db.begin().await.err().unwrap();
    assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let unknown = half.commit().await.unwrap_err();
    assert_eq!(unknown.kind(), DbErrorKind::OutcomeUnknown, "{unknown:?}");

    cluster.start_again();
    let start = Instant::now();
    while db.begin().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(5), "the pool did not mend itself");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count(&db).await, 0);
    insert(&db, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_statements_is_not_noticed() {
    let cluster = Cluster::start();
    let db = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&db).await;
    for round in 0..2 {
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(db.begin().await.unwrap());
        }
        drop(open);
        sleep(Duration::from_millis(100)).await;
        cluster.stop();
        cluster.start_again();
        if round == 0 {
            insert(&db, round).await;
        } else {
            assert_eq!(count(&db).await, 1);
        }
    }
}

/// Several connections whose plans are made.
async fn warm(db: &Db) {
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut tx = db.begin().await.unwrap();
        tx.all::<(i64,)>(NUMBERS, args![]).await.unwrap();
        open.push(tx);
    }
    drop(open);
    sleep(Duration::from_millis(100)).await;
}

const NUMBERS: &str = "select n from numbers order by n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_made_again_are_read_and_written() {
    let test = TestDb::postgres().await;
    let db = test.db();
    let elsewhere = Db::open(options(test.url())).await.unwrap();
    with_numbers(db).await;
    insert(db, 1).await;
    // As `pg_restore --clean` does, with other numbers for types and tables.
    for change in
        ["alter table numbers alter n type integer", "alter table numbers alter n type bigint"]
    {
        warm(db).await;
        let mut tx = elsewhere.begin().await.unwrap();
        tx.run(change, args![]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        assert_eq!(tx.all::<(i64,)>(NUMBERS, args![]).await.unwrap(), [(1,)], "{change}");
        tx.commit().await.unwrap();
        for _ in 0..20 {
            assert_eq!(db.all::<(i64,)>(NUMBERS, args![]).await.unwrap(), [(1,)], "{change}");
        }
    }
    // What a transaction has done is not done twice: it fails, and the next one is in order.
    warm(db).await;
    let mut tx = db.begin().await.unwrap();
    tx.one::<(i64,)>("select count(*) from schema_migrations", args![]).await.unwrap();
    let mut other = elsewhere.begin().await.unwrap();
    other.run("alter table numbers alter n type integer", args![]).await.unwrap();
    other.commit().await.unwrap();
    let refused = tx.all::<(i64,)>(NUMBERS, args![]).await.unwrap_err();
    assert_eq!(refused.kind(), DbErrorKind::BrokenOff, "{refused:?}");
    drop(tx);
    // That is all: the other connections, as old as this one, are not used any more either.
    for _ in 0..20 {
        let mut tx = db.begin().await.unwrap();
        tx.one::<(i64,)>("select count(*) from schema_migrations", args![]).await.unwrap();
        assert_eq!(tx.all::<(i64,)>(NUMBERS, args![]).await.unwrap(), [(1,)]);
        tx.commit().await.unwrap();
    }
    insert(db, 2).await;
    assert_eq!(count(db).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_the_server_does_not_know_any_more_are_prepared_again() {
    let test = TestDb::postgres().await;
    with_numbers(test.db()).await;
    let one = Options { max_connections: 1, ..options(test.url()) };
    let db = Db::open(one).await.unwrap();
    for _ in 0..3 {
        assert!(db.all::<(i64,)>(NUMBERS, args![]).await.unwrap().is_empty());
        // What a pooler does between two transactions.
        let mut tx = db.begin().await.unwrap();
        tx.run("deallocate all", args![]).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_known_without_writing() {
    let cluster = Cluster::start();
    let db = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&db).await;
    assert!(db.takes_writes().await.unwrap());
    let run = async |sql: &'static str| {
        let mut tx = db.begin().await.unwrap();
        tx.run("set transaction read write", args![]).await.unwrap();
        tx.run(sql, args![]).await.unwrap();
        tx.commit().await.unwrap();
    };
    let eventually = async |wanted: bool| {
        for _ in 0..50 {
            if db.takes_writes().await.unwrap() == wanted {
                return;
            }
        }
        panic!("never {wanted}");
    };
    run("alter role current_user set default_transaction_read_only = on").await;
    cluster.stop();
    cluster.start_again();
    eventually(false).await;
    for _ in 0..5 {
        assert!(!db.takes_writes().await.unwrap());
    }
    run("alter role current_user reset default_transaction_read_only").await;
    eventually(true).await;
    // By itself: a connection of the time before is closed once it refuses.
    let write = async || {
        let mut tx = db.begin().await?;
        tx.run(INSERT, args![1]).await?;
        tx.commit().await
    };
    let mut refused = 0;
    while let Err(error) = write().await {
        assert_eq!(error.kind(), DbErrorKind::Unavailable, "{error:?}");
        refused += 1;
        assert!(refused <= 10, "more than there are connections");
    }
}

/// What an operator does beside the server.
pub(crate) async fn set(cluster: &Cluster, sql: &str) {
    let mut operator = PgConnection::connect(&cluster.url()).await.unwrap();
    for sql in [sql, "select pg_reload_conf()"] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut operator).await.unwrap();
    }
}

async fn write(db: &Db, number: i64) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    tx.run(INSERT, args![number]).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_not_stored_is_followed_by_a_try() {
    let cluster = Cluster::start();
    let limit = Duration::from_secs(2);
    let db =
        Db::open(Options { statement_timeout: limit, ..options(&cluster.url()) }).await.unwrap();
    with_numbers(&db).await;
    assert!(db.takes_writes().await.unwrap());
    // Commits wait for a standby that isn't there. The server takes a moment to begin with it.
    set(&cluster, "alter system set synchronous_standby_names = 'nobody'").await;
    let mut number = 0;
    let error = loop {
        number += 1;
        assert!(number < 200, "every change is stored");
        match write(&db, number).await {
            Ok(()) => sleep(Duration::from_millis(20)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), DbErrorKind::OutcomeUnknown, "{error:?}");
    for _ in 0..2 {
        let start = Instant::now();
        let asked = (0..30).map(|_| db.takes_writes());
        for takes_writes in futures_util::future::join_all(asked).await {
            assert!(!takes_writes.unwrap());
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        let (waiting,) = db.one::<(i64,)>(sql, args![]).await.unwrap();
        assert_eq!(waiting, 2, "the change, and one try");
    }
    set(&cluster, "alter system reset synchronous_standby_names").await;
    eventually(&db).await;
    write(&db, 1000).await.unwrap();

    let of_owner = cluster.url();
    set(&cluster, "create role limited login").await;
    set(&cluster, "grant all on numbers, schema_migrations to limited").await;
    let limited = Db::open(options(&of_owner.replace("palisade@", "limited@"))).await.unwrap();
    write(&limited, 1001).await.unwrap();
    set(&cluster, "revoke insert, update on numbers, schema_migrations from limited").await;
    assert!(limited.takes_writes().await.unwrap());
    let error = write(&limited, 1002).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Unavailable, "{error:?}");
    for _ in 0..2 {
        assert!(!limited.takes_writes().await.unwrap());
    }
    set(&cluster, "grant insert, update on numbers, schema_migrations to limited").await;
    eventually(&limited).await;
    write(&limited, 1002).await.unwrap();
}

async fn eventually(db: &Db) {
    let start = Instant::now();
    while !db.takes_writes().await.unwrap() {
        assert!(start.elapsed() < Duration::from_secs(10), "never ready again");
        sleep(Duration::from_millis(20)).await;
    }
}
