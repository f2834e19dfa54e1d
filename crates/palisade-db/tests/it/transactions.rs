//! What a transaction leaves behind, and what not.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use palisade_db::testing::{TestDb, options};
use palisade_db::{Backend, Db, DbErrorKind, Lock, Migration, Options, Sql, Timestamp, args};
use tokio::time::{Instant, timeout};

pub(crate) const NUMBERS: &[Migration] = &[Migration {
    module: "tests",
    number: 1,
    name: "numbers",
    sql: Sql::Both("create table numbers (n bigint not null primary key)"),
}];

pub(crate) const INSERT: &str = "insert into numbers (n) values ($1)";

/// Takes minutes if no one stops it.
const SLOW: &str =
    "with recursive c(n) as (select $1 union all select n + 1 from c where n < 900000000)
    select count(*) from c";

pub(crate) async fn with_numbers(db: &Db) {
    db.migrate(NUMBERS, Timestamp::from_seconds(1)).await.unwrap();
}

pub(crate) async fn count(db: &Db) -> i64 {
    db.one::<(i64,)>("select count(*) from numbers", args![]).await.unwrap().0
}

pub(crate) async fn insert(db: &Db, number: i64) {
    let mut tx = db.begin().await.unwrap();
    tx.run(INSERT, args![number]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        let mut tx = db.begin().await.unwrap();
        tx.run(INSERT, args![1]).await.unwrap();
        drop(tx);
        insert(&db, 2).await;
        assert_eq!(db.all::<(i64,)>("select n from numbers", args![]).await.unwrap(), [(2,)]);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_cancelled_half_way_leaves_nothing_and_frees_the_writer() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        let other = db.clone();
        let cancelled = timeout(Duration::from_millis(100), async move {
            let mut tx = other.begin().await.unwrap();
            tx.run(INSERT, args![1]).await.unwrap();
            tx.one::<(i64,)>(SLOW, args![1_i64]).await
        });
        assert!(cancelled.await.is_err(), "the slow statement was meant to be cancelled");
        drop(timeout(Duration::from_secs(8), db.begin()).await.unwrap().unwrap());
        assert_eq!(count(&db).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_caller_is_gone_is_carried_out() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        let mut tx = db.begin().await.unwrap();
        tx.run(INSERT, args![1]).await.unwrap();
        let mut commit = Box::pin(tx.commit());
        // One poll sends it; then no one waits any more.
        let sent = poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        assert!(sent.is_pending());
        drop(commit);
        insert(&db, 2).await;
        let deadline = Instant::now() + Duration::from_secs(5);
        while count(&db).await < 2 {
            assert!(Instant::now() < deadline, "the commit was lost");
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_transaction_can_only_be_dropped() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        insert(&db, 1).await;
        let mut tx = db.begin().await.unwrap();
        tx.run(INSERT, args![2]).await.unwrap();
        tx.run(INSERT, args![1]).await.unwrap_err();
        assert_eq!(tx.run(INSERT, args![3]).await.unwrap_err().kind(), DbErrorKind::Wrong);
        assert_eq!(tx.commit().await.unwrap_err().kind(), DbErrorKind::Wrong);
        assert_eq!(count(&db).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_stopped() {
    for test in [TestDb::sqlite().await, TestDb::postgres().await] {
        let hasty =
            Options { statement_timeout: Duration::from_millis(300), ..options(test.url()) };
        let db = Db::open(hasty).await.unwrap();
        let start = Instant::now();
        let read = db.one::<(i64,)>(SLOW, args![1_i64]).await.unwrap_err();
        assert_eq!(read.kind(), DbErrorKind::Timeout, "{:?} {read:?}", db.backend());
        let mut tx = db.begin().await.unwrap();
        let written = tx.one::<(i64,)>(SLOW, args![1_i64]).await.unwrap_err();
        assert_eq!(written.kind(), DbErrorKind::Timeout, "{:?} {written:?}", db.backend());
        drop(tx);
        assert!(start.elapsed() < Duration::from_secs(4));
        with_numbers(&db).await;
        insert(&db, 1).await;
    }
}

#[tokio::test]
async fn a_transaction_that_is_never_finished_ends_at_its_deadline() {
    for test in [TestDb::sqlite().await, TestDb::postgres().await] {
        let hasty =
            Options { statement_timeout: Duration::from_millis(300), ..options(test.url()) };
        let db = Db::open(hasty).await.unwrap();
        with_numbers(&db).await;
        let mut idle = db.begin().await.unwrap();
        idle.run(INSERT, args![1]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        insert(&db, 1).await;
        let ended = idle.run(INSERT, args![2]).await.unwrap_err();
        assert!(
            matches!(ended.kind(), DbErrorKind::Timeout | DbErrorKind::Unavailable),
            "{ended:?}"
        );
        drop(idle);
        assert_eq!(count(&db).await, 1);
    }
}

#[tokio::test]
async fn reading_connections_of_sqlite_cannot_write() {
    let test = TestDb::sqlite().await;
    with_numbers(test.db()).await;
    assert_eq!(test.db().backend(), Backend::Sqlite);
    let sql = "insert into numbers (n) values (1) returning n";
    assert!(test.db().one::<(i64,)>(sql, args![]).await.is_err());
    assert_eq!(count(test.db()).await, 0);
}

#[tokio::test]
async fn a_cancelled_read_is_stopped() {
    let test = TestDb::sqlite().await;
    let db = test.db();
    with_numbers(db).await;
    insert(db, 1).await;
    let slow =
        "with recursive c(n) as (select $1 union all select n + 1 from c where n < 900000000)
        select count(*) from c, numbers where c.n + numbers.n > 0";
    for _ in 0..20 {
        let read = timeout(Duration::from_millis(20), db.one::<(i64,)>(slow, args![1_i64]));
        assert!(read.await.is_err());
    }
    insert(db, 2).await;
    // All of the log can be written back only when no reader still looks at its old state.
    let (_, log, written) =
        db.one::<(i64, i64, i64)>("pragma wal_checkpoint", args![]).await.unwrap();
    assert!(log > 0);
    assert_eq!(log, written, "a cancelled read is still running");
}

/// Begins a transaction that waits for the lock of one in another process, and answers how many rows it sees first.
async fn seen_after_waiting(db: &Db, other: &Db) -> i64 {
    let lock = |key, alone| Lock { key, alone };
    let mut first = db.begin_holding(vec![lock(7, true)]).await.unwrap();
    let other = other.clone();
    let waiting = tokio::spawn(async move {
        let mut tx = other.begin_holding(vec![lock(7, false), lock(-3, false)]).await.unwrap();
        tx.one::<(i64,)>("select count(*) from numbers", args![]).await.unwrap().0
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    first.run(INSERT, args![1]).await.unwrap();
    first.commit().await.unwrap();
    waiting.await.unwrap()
}

#[tokio::test]
async fn a_lock_is_taken_before_anything_is_looked_at() {
    let (sqlite, postgres) = (TestDb::sqlite().await, TestDb::postgres().await);
    for test in [&sqlite, &postgres] {
        with_numbers(test.db()).await;
        assert_eq!(seen_after_waiting(test.db(), test.db()).await, 1);
    }
    let test = TestDb::postgres().await;
    let (db, other) = (test.db(), Db::open(options(test.url())).await.unwrap());
    with_numbers(db).await;
    assert_eq!(seen_after_waiting(db, &other).await, 1);
    let lock = Lock { key: 7, alone: false };
    let one = db.begin_holding(vec![lock]).await.unwrap();
    db.begin_holding(vec![lock]).await.unwrap();
    other.begin_holding(vec![lock]).await.unwrap();
    drop(one);
}

#[tokio::test]
async fn changes_that_wait_for_a_lock_take_no_connection() {
    let test = TestDb::postgres().await;
    let db = Db::open(Options { max_connections: 2, ..options(test.url()) }).await.unwrap();
    let lock = Lock { key: 7, alone: true };
    let first = db.begin_holding(vec![lock]).await.unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { db.begin_holding(vec![lock]).await.unwrap().commit().await })
        })
        .collect();
    // Each has asked for its lock before the next begins.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    db.begin_holding(vec![Lock { key: 8, alone: true }]).await.unwrap();
    first.commit().await.unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_default_of_the_database_changes_no_level() {
    let test = TestDb::postgres().await;
    with_numbers(test.db()).await;
    let mut tx = test.db().begin().await.unwrap();
    let serializable = "do 'begin execute format(
        ''alter database %I set default_transaction_isolation = serializable'', current_database()); end'";
    tx.run(serializable, args![]).await.unwrap();
    tx.commit().await.unwrap();
    let db = Db::open(options(test.url())).await.unwrap();
    let level = "select current_setting('transaction_isolation')";
    let (read,): (String,) = db.one(level, args![]).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let (written,): (String,) = tx.one(level, args![]).await.unwrap();
    drop(tx);
    assert_eq!((read.as_str(), written.as_str()), ("read committed", "read committed"));
    assert_eq!(seen_after_waiting(&db, test.db()).await, 1);
}
