//! A real pgbouncer in front of PostgreSQL.

use palisade_db::testing::{Cluster, Pooler, options};
use palisade_db::{Db, DbErrorKind, Options};

use crate::transactions::{count, insert, with_numbers};

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
