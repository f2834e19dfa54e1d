//! A real pgbouncer in front of PostgreSQL.

use palisade_db::testing::{Cluster, Pooler, options};
use palisade_db::{Db, DbErrorKind, Options, Timestamp, args};

use crate::transactions::{NUMBERS, count, insert, with_numbers};

const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_no_session_is_refused() {
    let cluster = Cluster::start();
    for (mode, settings) in [
        ("transaction", ""),
        ("transaction", "server_round_robin = 1\nmin_pool_size = 4\n"),
        ("transaction", "default_pool_size = 1\n"),
        ("statement", ""),
        ("statement", "server_round_robin = 1\nmin_pool_size = 4\n"),
    ] {
        let pooler = Pooler::start(&cluster, mode, settings);
        for _ in 0..3 {
            let refused = Db::open(options(&pooler.url())).await.err().unwrap();
            assert_eq!(refused.kind(), DbErrorKind::Wrong, "{mode} {settings}: {refused:?}");
            let said = refused.to_string();
            assert!(said.contains("session mode") && said.contains("pooler"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_session_mode_is_accepted() {
    let cluster = Cluster::start();
    let pooler =
        Pooler::start(&cluster, "session", "server_round_robin = 1\ndefault_pool_size = 30\n");
    let first = Db::open(options(&pooler.url())).await.unwrap();
    with_numbers(&first).await;
    for number in 0..5 {
        // A server connection that another client has used.
        let db = Db::open(Options { schema: Some("public".into()), ..options(&pooler.url()) });
        let db = db.await.unwrap();
        insert(&db, number).await;
        assert_eq!(count(&db).await, number + 1);
        db.close().await;
    }
    // Too small to serve, but no reason to take it for another mode.
    let small = Pooler::start(&cluster, "session", "default_pool_size = 1\n");
    Db::open(options(&small.url())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_through_such_a_pooler_are_refused() {
    let cluster = Cluster::start();
    let through =
        |pooler: &Pooler| Options { migrate_url: Some(pooler.url()), ..options(&cluster.url()) };
    let pooler = Pooler::start(&cluster, "transaction", "");
    let db = Db::open(through(&pooler)).await.unwrap();
    for _ in 0..2 {
        let refused = db.migrate(NUMBERS, NOON).await.unwrap_err();
        assert_eq!(refused.kind(), DbErrorKind::Wrong, "{refused:?}");
        assert!(refused.to_string().contains("session mode"), "{refused}");
    }
    assert_eq!(db.migrations(NUMBERS).await.unwrap().missing(), 2);

    // Nothing stays behind on a connection that the next client gets.
    let session = "default_pool_size = 2\nserver_reset_query = deallocate all\n";
    let pooler = Pooler::start(&cluster, "session", session);
    let db = Db::open(through(&pooler)).await.unwrap();
    assert_eq!(db.migrate(NUMBERS, NOON).await.unwrap().len(), 2);
    let next = Db::open(options(&pooler.url())).await.unwrap();
    let read = "select current_setting('client_min_messages'), cast(pg_sleep(0.2) as text)";
    let (one, two) = tokio::join!(
        next.one::<(String, String)>(read, args![]),
        next.one::<(String, String)>(read, args![])
    );
    assert_eq!((one.unwrap().0, two.unwrap().0), ("notice".to_owned(), "notice".to_owned()));
}
