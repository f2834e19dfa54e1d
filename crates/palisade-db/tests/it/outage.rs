//! PostgreSQL goes away and comes back.

use std::time::Duration;

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, DbErrorKind, args};
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
