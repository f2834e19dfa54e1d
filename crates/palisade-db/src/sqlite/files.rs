//! Restricts the files to their owner, and checks that no other file has been put in their place.
//!
//! SECURITY: these files are never opened through a link. Otherwise, another user who may write to the directory, or an
//! unpacked archive, could make the process read, overwrite or expose a file somewhere else. (The directory itself may
//! be a link, because the operator chooses it.) (test: a_database_that_is_a_link_is_neither_opened_nor_made)

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, StatVfsMountFlags, access, statvfs};
use rustix::process::geteuid;

const OWNER_ONLY_FILE: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;

/// Returns options for opening a file without following a link and without blocking on a pipe.
pub(crate) fn no_link() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    options.custom_flags(flags.cast_signed());
    options
}

/// Opens a file, which must be a regular file. If `options` say so, creates it, accessible only to its owner.
pub(crate) fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(OWNER_ONLY_FILE).open(path).map_err(|error| {
        // With O_NOFOLLOW, opening a link fails with ELOOP (open(2)).
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return not_a_file(path);
        }
        error
    })?;
    if !file.metadata()?.is_file() {
        return Err(not_a_file(path));
    }
    Ok(file)
}

fn not_a_file(path: &Path) -> io::Error {
    let detail = format!(
        "{} is a link or not a regular file; put the file itself there, or configure its real path",
        path.display()
    );
    io::Error::new(ErrorKind::InvalidInput, detail)
}

/// Ensures that the database file exists, and that it and its companion files are readable and writable only by their
/// owner. A directory that has to be created is accessible only to its owner; an existing one is left as it is.
///
/// SECURITY: the file is created before SQLite opens it, because SQLite would create it with the process's umask.
/// SQLite gives `-wal` and `-shm` the mode of the database (test: nobody_but_the_owner_can_read_the_files).
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent).map_err(naming("the directory", parent, "can't be created"))?;
    }
    let file = open_file(no_link().create(true).truncate(false).write(true), path)
        .map_err(naming("the file", path, "can't be opened for writing"))?;
    restrict(&file, path)?;
    for companion in ["-wal", "-shm"] {
        let path = beside(path, companion);
        match open_file(no_link().write(true), &path) {
            Ok(file) => restrict(&file, &path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(naming("the file", &path, "can't be opened for writing")(error));
            }
        }
    }
    Ok(())
}

fn restrict(file: &File, path: &Path) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(OWNER_ONLY_FILE)).map_err(naming(
        "the mode of",
        path,
        "can't be set to 0600",
    ))
}

/// Adds the path, and what was to be done with it, to an error of the system.
pub(crate) fn naming(what: &str, path: &Path, failed: &str) -> impl FnOnce(io::Error) -> io::Error {
    let text = format!("{what} {} {failed}", path.display());
    // Errors that don't come from the system name the path themselves.
    move |error| match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), format!("{text}: {error}")),
        None => error,
    }
}

/// The identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// Identifies the file at `path`, which must be a regular file.
pub(crate) fn identity(path: &Path) -> io::Result<FileId> {
    let found: Metadata = fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Err(not_a_file(path));
    }
    Ok(FileId { device: found.dev(), inode: found.ino() })
}

/// A disk with less space than this counts as full: a change takes some pages in the log and in the file.
const FULL: u64 = 1024 * 1024;

/// Returns whether the file can be written and its disk has space.
pub(crate) fn can_be_written(path: &Path) -> bool {
    if access(path, Access::WRITE_OK).is_err() {
        return false;
    }
    // A file system that can't tell is no reason to refuse.
    let Ok(disk) = statvfs(path) else { return true };
    let free = if geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    let has_room = disk.f_blocks == 0 || free.saturating_mul(disk.f_frsize) >= FULL;
    has_room && !disk.f_flag.contains(StatVfsMountFlags::RDONLY)
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
