//! Another process's changes wake those that wait for them.

use std::time::Duration;

use palisade_db::testing::{Cluster, TestDb, options};
use palisade_db::{Db, Migration, Sql, Timestamp, Woken, args};
use tokio::time::{Instant, sleep};

use crate::transactions::{INSERT, NUMBERS, with_numbers};

const LONG: Duration = Duration::from_secs(10);

async fn change(db: &Db, number: i64) {
    let mut tx = db.begin().await.unwrap();
    tx.run(INSERT, args![number]).await.unwrap();
    tx.notify();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_elsewhere_wakes_the_waiting() {
    for test in [TestDb::sqlite().await, TestDb::postgres().await] {
        with_numbers(test.db()).await;
        let elsewhere = Db::open(options(test.url())).await.unwrap();
        let mut changes = test.db().changes();
        changes.wait(LONG).await;
        for number in 0..3 {
            let writer = elsewhere.clone();
            let waker = tokio::spawn(async move {
                sleep(Duration::from_millis(200)).await;
                change(&writer, number).await;
            });
            let start = Instant::now();
            changes.wait(LONG).await;
            let waited = start.elapsed();
            assert!(waited >= Duration::from_millis(150), "woken by nothing: {waited:?}");
            assert!(waited < Duration::from_secs(1), "woken late: {waited:?}");
            waker.await.unwrap();
        }
    }
}

#[tokio::test]
async fn without_a_change_the_wait_ends_in_time() {
    TestDb::each(|db| async move {
        let mut changes = db.changes();
        changes.wait(LONG).await;
        let start = Instant::now();
        changes.wait(Duration::from_millis(300)).await;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(290), "{waited:?}");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_own_changes_wake_nobody_here() {
    let test = TestDb::postgres().await;
    with_numbers(test.db()).await;
    let mut changes = test.db().changes();
    changes.wait(LONG).await;
    let writer = test.db().clone();
    let changed = tokio::spawn(async move { change(&writer, 1).await });
    let start = Instant::now();
    changes.wait(Duration::from_millis(500)).await;
    let waited = start.elapsed();
    changed.await.unwrap();
    assert!(waited >= Duration::from_millis(490), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_outlives_an_outage() {
    let cluster = Cluster::start();
    let db = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&db).await;
    let mut changes = db.changes();
    changes.wait(LONG).await;
    cluster.stop();
    changes.wait(Duration::from_millis(300)).await;
    cluster.start_again();
    let start = Instant::now();
    changes.wait(LONG).await;
    assert!(start.elapsed() < Duration::from_secs(5), "a reconnection wakes, too");
    let elsewhere = Db::open(options(&cluster.url())).await.unwrap();
    let writer = elsewhere.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(200)).await;
        change(&writer, 1).await;
    });
    let start = Instant::now();
    changes.wait(LONG).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// SQLite raises the counter of its schema when a copy is brought back into an open file, as for a migration
/// (sqlite.org/c3ref/backup_finish.html).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_may_be_replaced_is_told_from_a_change() {
    let test = TestDb::sqlite().await;
    with_numbers(test.db()).await;
    let elsewhere = Db::open(options(test.url())).await.unwrap();
    let mut changes = test.db().changes();
    assert_eq!(changes.wait(LONG).await, Woken::Changed);
    change(&elsewhere, 1).await;
    assert_eq!(changes.wait(LONG).await, Woken::Changed);
    let more = Migration {
        number: 2,
        name: "more",
        sql: Sql::Both("create table more (n bigint)"),
        ..NUMBERS[0]
    };
    elsewhere.migrate(&[NUMBERS[0], more], Timestamp::from_seconds(1)).await.unwrap();
    let mut woken = Vec::new();
    for _ in 0..3 {
        woken.push(changes.wait(Duration::from_millis(300)).await);
    }
    assert!(woken.contains(&Woken::Replaced), "{woken:?}");
    change(&elsewhere, 2).await;
    assert_eq!(changes.wait(LONG).await, Woken::Changed);
}
