//! Who may read a SQLite database.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, DbError, DbErrorKind, args};

use crate::transactions::{count, insert, with_numbers};

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

#[tokio::test]
async fn a_database_that_is_a_link_is_neither_opened_nor_made() {
    let root = tempfile::tempdir().unwrap();
    let (victim, path) = (root.path().join("victim"), root.path().join("app.db"));
    let url = format!("sqlite:{}", path.display());
    fs::write(&victim, "kept").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let link = root.path().join(name);
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let refused = Db::open(options(&url)).await.err().unwrap();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("is a link"), "{name}: {cause}");
        assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), mode(&victim)), ("kept", 0o644));
        fs::remove_file(&link).unwrap();
    }
    fs::remove_file(&victim).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    Db::open(options(&url)).await.err().unwrap();
    assert!(!victim.exists(), "a file was made through a link");
}

#[tokio::test]
async fn the_directory_of_the_database_may_be_a_link() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", root.path().join("data")).unwrap();
    let url = format!("sqlite:{}", root.path().join("data/app.db").display());
    let db = Db::open(options(&url)).await.unwrap();
    with_numbers(&db).await;
    assert!(root.path().join("real/app.db").exists());
}

#[tokio::test]
async fn a_file_that_was_replaced_is_not_used_any_more() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("app.db");
    let url = format!("sqlite:{}", path.display());
    let db = Db::open(options(&url)).await.unwrap();
    with_numbers(&db).await;
    insert(&db, 1).await;
    fs::rename(&path, root.path().join("old")).unwrap();
    fs::write(&path, "").unwrap();
    for _ in 0..2 {
        let refused = db.all::<(i64,)>("select n from numbers", args![]).await.unwrap_err();
        assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
        let refused = db.begin().await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{refused:?}");
        assert!(db.takes_writes().await.is_err());
    }
    assert_eq!(fs::read(&path).unwrap(), b"", "the new file was written to");
    fs::rename(root.path().join("old"), &path).unwrap();
    assert_eq!(count(&db).await, 1);
    insert(&db, 2).await;
}

#[tokio::test]
async fn a_failed_change_is_followed_by_a_try() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", root.path().join("app.db").display());
    let db = Db::open(options(&url)).await.unwrap();
    with_numbers(&db).await;
    assert!(db.takes_writes().await.unwrap());
    let mut tx = db.begin().await.unwrap();
    tx.all::<(i64,)>("pragma max_page_count = 1", args![]).await.unwrap();
    let full = tx
        .run(
            "with recursive c(n) as (select 1 union all select n + 1 from c where n < 100000)
             insert into numbers (n) select n from c",
            args![],
        )
        .await
        .unwrap_err();
    assert_eq!(full.kind(), DbErrorKind::Unavailable, "{full:?}");
    drop(tx);
    assert!(db.takes_writes().await.unwrap(), "there is room again");
    assert_eq!(count(&db).await, 0);
}

/// The text of the error and of its causes.
fn told(error: DbError) -> String {
    let mut text = error.to_string();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        text.push_str(&format!(": {next}"));
        cause = next;
    }
    text
}

#[tokio::test]
async fn an_error_at_opening_names_the_path_and_what_the_database_says() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "no database, but text that is long enough").unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    let open = async |name: &str| {
        let url = format!("sqlite:{}", root.path().join(name).display());
        told(Db::open(options(&url)).await.err().unwrap())
    };
    for (name, said) in [
        ("file/app.db", "the directory"),
        ("directory", "can't be opened for writing"),
        ("file", "file is not a database (code 26)"),
    ] {
        let text = open(name).await;
        let path = root.path().join(name.split('/').next().unwrap()).display().to_string();
        assert!(text.contains(&path) && text.contains(said), "{text}");
    }
    let cluster = Cluster::start();
    let missing = cluster.url().replace("/postgres", "/none");
    let text = told(Db::open(options(&missing)).await.err().unwrap());
    let expected = format!(
        "can't connect to the database at 127.0.0.1:{}: the database does not exist on the server: PostgreSQL \
         reports: database \"none\" does not exist (code 3D000)",
        cluster.port()
    );
    assert_eq!(text, expected);
}
