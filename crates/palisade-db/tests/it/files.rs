//! Who may read a SQLite database.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use palisade_db::testing::options;
use palisade_db::{Db, args};

use crate::transactions::{insert, with_numbers};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn nobody_but_the_owner_can_read_the_files() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let path = directory.join("app.db");
    let db = Db::open(options(&format!("sqlite://{}", path.display()))).await.unwrap();
    with_numbers(&db).await;
    insert(&db, 1).await;
    assert_eq!(mode(&directory), 0o700);
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_was_open_to_all_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("app.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    Db::open(options(&format!("sqlite:{}", path.display()))).await.unwrap();
    assert_eq!(mode(&path), 0o600);
}

/// What is acknowledged has to survive a power cut (SQLite documentation, `PRAGMA synchronous`).
#[tokio::test]
async fn a_commit_waits_for_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("app.db");
    let db = Db::open(options(&format!("sqlite:{}", path.display()))).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let (synchronous, journal): (i64, String) = tx
        .one(
            "select synchronous, journal_mode from pragma_synchronous, pragma_journal_mode",
            args![],
        )
        .await
        .unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
}
