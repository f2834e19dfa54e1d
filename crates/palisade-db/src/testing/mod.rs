//! Throwaway databases for tests, behind the feature `testing`.
//!
//! [`TestDb`] is a fresh, empty database: a SQLite file in its own directory, or a separate database in a PostgreSQL
//! cluster that the test process starts when the first test needs it. [`Cluster`] is a whole cluster for a test that
//! stops it, and [`Pooler`] a pgbouncer in front of one. Everything started here ends with the test process, even if that process is killed.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, and this module only serves them"
)]

mod cluster;
mod pooler;
mod schema;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use cluster::Cluster;
pub use pooler::Pooler;
pub use schema::{ColumnShape, TableShape, schema};

use crate::db::Engine;
use crate::{Db, Options, ReadDb};

/// Returns the number of groups of changes that have been committed so far. Zero on PostgreSQL, where changes don't
/// share a commit.
pub fn committed_groups(db: &ReadDb) -> u64 {
    match &db.engine {
        Engine::Sqlite(sqlite) => sqlite.committed_groups(),
        Engine::Postgres(_) => 0,
    }
}

/// Returns once a change is waiting for another change. On SQLite, this is a change in this process that waits for its
/// turn to write; on PostgreSQL, any transaction in this database that waits for a lock.
///
/// # Panics
/// Panics if no change waits within ten seconds.
pub async fn until_one_waits(db: &ReadDb) {
    for _ in 0..2000 {
        let waiting = match &db.engine {
            Engine::Sqlite(sqlite) => sqlite.waiting() > 0,
            Engine::Postgres(_) => waits_for_a_lock(db).await,
        };
        if waiting {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no change waits for another");
}

async fn waits_for_a_lock(db: &ReadDb) -> bool {
    let sql = "select count(*) from pg_locks l join pg_stat_activity a on a.pid = l.pid
            where not l.granted and a.datname = current_database()";
    let (waiting,): (i64,) = db.one(sql, crate::args![]).await.expect("locks can be read");
    waiting > 0
}

/// Returns the options that tests use: ten connections, five seconds per statement.
pub fn options(url: &str) -> Options {
    Options::new(url)
}

/// A fresh, empty database.
pub struct TestDb {
    db: Db,
    url: String,
    _directory: Option<TempDir>,
}

impl TestDb {
    /// Creates a SQLite file in its own directory, which is removed with this value.
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let url = format!("sqlite:{}", directory.path().join("test.db").display());
        let db = Db::open(options(&url)).await.expect("the SQLite file opens");
        Self { db, url, _directory: Some(directory) }
    }

    /// Opens the database at this URL, for example that of a [`Cluster`] that the test stops and starts.
    pub async fn at(url: &str) -> Self {
        let db = Db::open(options(url)).await.expect("the database opens");
        Self { db, url: url.to_owned(), _directory: None }
    }

    /// Creates an empty database in this process's PostgreSQL cluster.
    pub async fn postgres() -> Self {
        Self::postgres_copy("template0").await
    }

    /// Creates a copy of the template `name`, which `prepare` fills the first time it is requested in this process.
    /// Copying is much faster than migrating.
    pub async fn postgres_from<F, Fut>(name: &str, prepare: F) -> Self
    where
        F: FnOnce(Db) -> Fut,
        Fut: Future<Output = ()>,
    {
        static TEMPLATES: OnceLock<Mutex<HashMap<String, Arc<OnceCell<()>>>>> = OnceLock::new();
        let prepared = {
            let mut templates = TEMPLATES
                .get_or_init(Mutex::default)
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(templates.entry(name.to_owned()).or_default())
        };
        prepared
            .get_or_init(|| async {
                let url = shared_cluster().create_database(name, "template0");
                let db = Db::open(options(&url)).await.expect("the template opens");
                prepare(db.clone()).await;
                // PostgreSQL copies only a database that no one is connected to.
                db.close().await;
            })
            .await;
        Self::postgres_copy(name).await
    }

    async fn postgres_copy(template: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = shared_cluster().create_database(&name, template);
        let db = Db::open(options(&url)).await.expect("the new database opens");
        Self { db, url, _directory: None }
    }

    /// Runs a test on a fresh database of each kind.
    pub async fn each<F, Fut>(test: F)
    where
        F: Fn(Db) -> Fut,
        Fut: Future<Output = ()>,
    {
        let sqlite = Self::sqlite().await;
        test(sqlite.db.clone()).await;
        let postgres = Self::postgres().await;
        test(postgres.db.clone()).await;
    }

    /// Returns the open database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Returns the URL of the database, for opening it again.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Returns the cluster that all tests of this process share. It is never dropped; it ends with the process.
fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}
