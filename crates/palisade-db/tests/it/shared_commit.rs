//! Changes that arrive together share one commit on SQLite, and none pays for another's mistake.

use std::time::Duration;

use palisade_db::testing::{TestDb, committed_groups, options};
use palisade_db::{Backend, Db, DbErrorKind, Options, args};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::transactions::{INSERT, count, insert, with_numbers};

const WRITERS: i64 = 64;
const CHANGES_EACH: i64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_lose_nothing_and_share_commits() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let db = db.clone();
            writers.spawn(async move {
                for change in 0..CHANGES_EACH {
                    insert(&db, writer * CHANGES_EACH + change).await;
                }
            });
        }
        writers.join_all().await;
        assert_eq!(count(&db).await, WRITERS * CHANGES_EACH);
        if db.backend() == Backend::Sqlite {
            let groups = committed_groups(&db);
            assert!(groups >= 5, "a group has at most 64 members: {groups}");
            assert!(groups <= 100, "320 changes took {groups} commits");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_members_mistake_does_not_hurt_the_others() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        insert(&db, -1).await;
        let mut writers = JoinSet::new();
        for number in 0..30_i64 {
            let db = db.clone();
            writers.spawn(async move {
                let mut tx = db.begin().await.unwrap();
                tx.run(INSERT, args![number]).await.unwrap();
                match number % 3 {
                    0 => tx.commit().await.unwrap(),
                    1 => {
                        let refused = tx.run(INSERT, args![-1]).await.unwrap_err();
                        assert_eq!(refused.kind(), DbErrorKind::Conflict);
                    }
                    _ => drop(tx),
                }
            });
        }
        writers.join_all().await;
        db.settled().await.unwrap();
        assert_eq!(count(&db).await, 11);
    })
    .await;
}

/// Its savepoint's journal grows far beyond what SQLite keeps in memory.
#[tokio::test]
async fn a_change_of_many_pages_is_stored() {
    TestDb::each(|db| async move {
        with_numbers(&db).await;
        let rows = "insert into numbers
            with recursive n(n) as (select 1 union all select n + 1 from n where n < 200000) select n from n";
        let mut tx = db.begin().await.unwrap();
        tx.run(rows, args![]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        assert_eq!(tx.run("delete from numbers where n % 2 = 0", args![]).await.unwrap(), 100_000);
        tx.commit().await.unwrap();
        assert_eq!(count(&db).await, 100_000);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_can_wait_for_the_rows_it_rests_on() {
    let test = TestDb::sqlite().await;
    let db = test.db();
    with_numbers(db).await;
    db.settled().await.unwrap();

    let mut first = db.begin().await.unwrap();
    let (second, third) = (tokio::spawn(begin(db)), tokio::spawn(begin(db)));
    tokio::task::yield_now().await;
    first.run(INSERT, args![1]).await.unwrap();
    let commit = tokio::spawn(first.commit());
    let mut second = second.await.unwrap();
    let seen: i64 = second.one::<(i64,)>("select count(*) from numbers", args![]).await.unwrap().0;
    assert_eq!((seen, count(db).await), (1, 0), "seen inside the group, not yet stored");
    drop(second);

    let third = third.await.unwrap();
    let early = timeout(Duration::from_millis(100), db.settled()).await;
    assert!(early.is_err(), "the group is still open");
    assert!(!commit.is_finished());
    drop(third);
    db.settled().await.unwrap();
    assert_eq!(count(db).await, 1);
    commit.await.unwrap().unwrap();
}

fn begin(db: &Db) -> impl Future<Output = palisade_db::Tx> + use<> {
    let db = db.clone();
    async move { db.begin().await.unwrap() }
}

#[tokio::test]
async fn a_waiter_that_gives_up_leaves_the_queue() {
    let test = TestDb::sqlite().await;
    let db = test.db();
    with_numbers(db).await;
    let holder = db.begin().await.unwrap();
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(1), db.begin()).await.is_err());
    }
    let last = tokio::spawn(begin(db));
    tokio::task::yield_now().await;
    drop(holder);
    timeout(Duration::from_secs(1), last).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_group_that_cannot_commit_tells_every_member_and_stores_nothing() {
    let test = TestDb::sqlite().await;
    let db = test.db();
    with_numbers(db).await;
    // A deferred foreign key is the one thing that fails at COMMIT and nowhere before.
    let mut tx = db.begin().await.unwrap();
    tx.run(
        "create table parts (n bigint references numbers (n) deferrable initially deferred)",
        args![],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();

    let mut first = db.begin().await.unwrap();
    let second = tokio::spawn(begin(db));
    tokio::task::yield_now().await;
    first.run(INSERT, args![1]).await.unwrap();
    let first = tokio::spawn(first.commit());
    let mut second = second.await.unwrap();
    second.run("insert into parts (n) values (77)", args![]).await.unwrap();
    let refused = second.commit().await.unwrap_err();
    assert_eq!(refused.kind(), DbErrorKind::Unavailable);
    assert_eq!(first.await.unwrap().unwrap_err().kind(), DbErrorKind::Unavailable);
    assert_eq!(count(db).await, 0);

    insert(db, 2).await;
    let stored: (i64,) = db.one("select count(*) from parts", args![]).await.unwrap();
    assert_eq!((stored.0, count(db).await), (0, 1), "the failed group came back");
}

#[tokio::test]
async fn a_full_disk_fails_the_group_and_ends_with_it() {
    let test = TestDb::sqlite().await;
    let db = test.db();
    with_numbers(db).await;

    let mut first = db.begin().await.unwrap();
    let second = tokio::spawn(begin(db));
    tokio::task::yield_now().await;
    first.run(INSERT, args![1]).await.unwrap();
    let first = tokio::spawn(first.commit());
    let mut second = second.await.unwrap();
    // As many pages as there are: the same error as a full disk.
    second.one::<(i64,)>("pragma max_page_count = 1", args![]).await.unwrap();
    let fill = "with recursive c(n) as (select $1 union all select n + 1 from c where n < 100000)
        insert into numbers (n) select n from c";
    let full = second.run(fill, args![2_i64]).await.unwrap_err();
    assert_eq!(full.kind(), DbErrorKind::Unavailable, "{full:?}");
    drop(second);
    assert_eq!(first.await.unwrap().unwrap_err().kind(), DbErrorKind::Unavailable);
    assert_eq!(count(db).await, 0);
    insert(db, 3).await;
    assert_eq!(count(db).await, 1);
}

#[tokio::test]
async fn a_file_locked_by_another_process_is_unavailable_and_heals() {
    let test = TestDb::sqlite().await;
    let hasty = Options { statement_timeout: Duration::from_millis(300), ..options(test.url()) };
    let db = Db::open(hasty).await.unwrap();
    with_numbers(&db).await;
    let holder = test.db().begin().await.unwrap();
    let refused = db.begin().await.err().unwrap();
    assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
    drop(holder);
    insert(&db, 1).await;
    assert_eq!(count(test.db()).await, 1);
}
