//! Who may read the files: nobody but their owner.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const OWNER_ONLY_FILE: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;

/// Makes sure that the database file exists and that it and its companions are readable and writable
/// for their owner alone. A directory that had to be made is closed to others too; one that was there
/// is left as it is.
///
/// SECURITY: the file is made before SQLite sees it, because SQLite would make it with the process's
/// umask; it gives `-wal` and `-shm` the mode of the database.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(OWNER_ONLY_FILE)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(OWNER_ONLY_FILE))?;
    for companion in ["-wal", "-shm"] {
        let path = beside(path, companion);
        if path.exists() {
            fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_FILE))?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_DIRECTORY))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
