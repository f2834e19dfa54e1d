//! Files and directories that the operator provides: who else may use them, and what text they contain.
//!
//! # Promises
//!
//! - A secret file that a setting names is read only if no other user can read or change it. The one exception is a file
//!   of root, or of the service manager, that a group of this process may read.
//! - A data directory or a `.env` that other users can change is refused.
//! - A byte order mark is not part of a text, and UTF-16 is named as the reason why a file can't be read.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid, getgroups};

/// Any access by users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
/// Writing by users who are neither the owner nor in the group.
const OTHERS_WRITE: u32 = 0o002;
/// Reading by the group.
const GROUP_READS: u32 = 0o040;
/// Writing by the group.
const GROUP_WRITES: u32 = 0o020;
/// What no group may do with a secret file.
const GROUP_NEVER: u32 = 0o030;

/// The owner, the group and the mode of a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// The mode. Bits above the permissions are ignored.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl From<&Metadata> for Permissions {
    fn from(found: &Metadata) -> Self {
        Self { mode: found.mode(), uid: found.uid(), gid: found.gid() }
    }
}

/// Who this process is to the file system.
#[derive(Clone, Debug)]
pub struct Process {
    /// The effective user.
    pub uid: u32,
    /// The effective group and all others.
    pub groups: Vec<u32>,
    /// The directory in which the service manager puts credentials (`$CREDENTIALS_DIRECTORY` of systemd).
    pub credentials: Option<PathBuf>,
}

/// Why a file or directory is not private enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Other users have access.
    Others,
    /// The group with this number can change it.
    GroupWrites(u32),
    /// The group with this number can read it.
    GroupReads(u32),
    /// It belongs to the user with this number.
    Owner(u32),
}

impl Process {
    /// Returns the identity of this process, without a directory of credentials.
    ///
    /// # Errors
    /// Returns an error if the system doesn't tell the groups.
    pub fn current() -> io::Result<Self> {
        let mut groups: Vec<u32> = getgroups()?.into_iter().map(|group| group.as_raw()).collect();
        groups.push(getegid().as_raw());
        Ok(Self { uid: geteuid().as_raw(), groups, credentials: None })
    }

    /// Checks the permissions of a secret file. `is_credential` states that the service manager provided it.
    ///
    /// SECURITY: a file that root owns can't be closed by the process, and its group is a choice of root (test:
    /// a_secret_file_is_private_or_of_root_and_a_group_of_the_process). The service manager decides who reads its files
    /// by other means than the group (test: a_credential_may_be_read_by_its_group).
    ///
    /// # Errors
    /// Returns how the file is exposed.
    pub fn secret_file(&self, file: Permissions, is_credential: bool) -> Result<(), Exposure> {
        if file.mode & OTHERS != 0 {
            return Err(Exposure::Others);
        }
        if file.mode & GROUP_NEVER != 0 {
            return Err(Exposure::GroupWrites(file.gid));
        }
        if file.mode & GROUP_READS != 0 && !is_credential && !self.shares_with_root(file) {
            return Err(Exposure::GroupReads(file.gid));
        }
        if is_credential { Ok(()) } else { self.owner(file) }
    }

    /// Checks the permissions of the data directory: others may read it, because they can't read the files in it.
    ///
    /// SECURITY: who can write to the directory can replace the files in it (test:
    /// a_data_directory_is_never_writable_by_others).
    ///
    /// # Errors
    /// Returns how the directory is exposed.
    pub fn data_directory(&self, directory: Permissions) -> Result<(), Exposure> {
        if directory.mode & OTHERS_WRITE != 0 {
            return Err(Exposure::Others);
        }
        if directory.mode & GROUP_WRITES != 0 && !self.shares_with_root(directory) {
            return Err(Exposure::GroupWrites(directory.gid));
        }
        self.owner(directory)
    }

    /// Checks the permissions of a file of settings: others may read it.
    ///
    /// SECURITY: who can change the settings can change what the process does (test:
    /// a_settings_file_is_never_writable_by_others).
    ///
    /// # Errors
    /// Returns how the file is exposed.
    pub fn settings_file(&self, file: Permissions) -> Result<(), Exposure> {
        if file.mode & OTHERS_WRITE != 0 {
            return Err(Exposure::Others);
        }
        if file.mode & GROUP_WRITES != 0 {
            return Err(Exposure::GroupWrites(file.gid));
        }
        self.owner(file)
    }

    /// Checks that no other user can change an open file of settings. `path` is where it was found.
    ///
    /// # Errors
    /// Returns how the file is exposed and what to do, or the reason why the permissions can't be read.
    pub fn require_unchangeable(&self, path: &Path, file: &File) -> io::Result<()> {
        let found = Permissions::from(&file.metadata()?);
        self.settings_file(found).map_err(|exposure| {
            let path = path.display();
            let fix = match exposure {
                Exposure::Owner(_) => {
                    format!("run: chown {} {path} && chmod go-w {path}", self.uid)
                }
                _ => format!("run: chmod go-w {path}"),
            };
            exposure.refusal(found, &fix)
        })
    }

    /// Checks that an open secret file is private. `path` is where it was found.
    ///
    /// SECURITY: checks the open file, not its path, so that the checked file is the one that is read (test:
    /// a_key_open_to_others_is_refused).
    ///
    /// # Errors
    /// Returns how the file is exposed and what to do, or the reason why the permissions can't be read.
    pub fn require_private(&self, path: &Path, file: &File) -> io::Result<()> {
        let found = Permissions::from(&file.metadata()?);
        self.secret_file(found, self.is_credential(path)).map_err(|exposure| {
            let path = path.display();
            let fix = if found.uid == self.uid {
                format!("run: chmod 600 {path}")
            } else if self.shares_with_root(found) {
                format!("run: chmod 640 {path}")
            } else {
                format!("run: chown {} {path} && chmod 600 {path}", self.uid)
            };
            exposure.refusal(found, &fix)
        })
    }

    /// Checks that no other user can change the data directory.
    ///
    /// # Errors
    /// Returns how the directory is exposed and what to do, or the reason why the permissions can't be read.
    pub fn require_private_directory(&self, path: &Path) -> io::Result<()> {
        let found = Permissions::from(&std::fs::metadata(path)?);
        self.data_directory(found).map_err(|exposure| {
            let path = path.display().to_string();
            let path = path.trim_end_matches('/');
            let fix = if found.uid == self.uid {
                format!("run: chmod go-w {path}")
            } else {
                format!(
                    "run: chown {} {path} && chmod go-w {path}. If that is not possible, set \
                     data.directory to a new directory below it, such as {path}/palisade",
                    self.uid
                )
            };
            exposure.refusal(found, &fix)
        })
    }

    /// Returns whether root owns the file, and its group is one of this process's.
    fn shares_with_root(&self, file: Permissions) -> bool {
        file.uid == 0 && self.groups.contains(&file.gid)
    }

    /// Root may use every file, so that commands also work with `sudo`.
    fn owner(&self, file: Permissions) -> Result<(), Exposure> {
        if [0, self.uid].contains(&file.uid) || self.uid == 0 {
            Ok(())
        } else {
            Err(Exposure::Owner(file.uid))
        }
    }

    /// Returns whether the file at `path` is in the directory of credentials, however the path leads there.
    fn is_credential(&self, path: &Path) -> bool {
        let Some(directory) = &self.credentials else { return false };
        match (path.canonicalize(), directory.canonicalize()) {
            (Ok(path), Ok(directory)) => path.starts_with(directory),
            _ => false,
        }
    }
}

impl Exposure {
    /// Returns the error for a file that is exposed in this way.
    fn refusal(self, found: Permissions, fix: &str) -> io::Error {
        let mode = found.mode & 0o7777;
        let text = format!("it {self} (mode {mode:04o}); {fix}");
        io::Error::new(ErrorKind::PermissionDenied, text)
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Others => f.write_str("is open to other users"),
            Self::GroupWrites(group) => write!(f, "can be changed by the group {group}"),
            Self::GroupReads(group) => write!(f, "is open to the group {group}"),
            Self::Owner(user) => write!(f, "belongs to another user ({user})"),
        }
    }
}

/// The byte order mark in UTF-8.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Reads a file. Its byte order mark, if any, is dropped.
///
/// # Errors
/// Returns an error if the file can't be read, or if it is UTF-16.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    without_mark(std::fs::read(path)?)
}

/// Reads a text file. Its byte order mark, if any, is dropped.
///
/// # Errors
/// Returns an error if the file can't be read, or if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    text(std::fs::read(path)?)
}

/// Reads the rest of an open text file. Its byte order mark, if any, is dropped.
///
/// # Errors
/// Returns an error if the file can't be read, or if it is not UTF-8.
pub fn text_of(mut file: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    text(bytes)
}

/// Returns the text in `bytes`, without its byte order mark.
///
/// # Errors
/// Returns an error if the bytes are not UTF-8.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(without_mark(bytes)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8; save it as UTF-8"))
}

/// Drops the byte order mark of UTF-8.
///
/// # Errors
/// Returns an error if the bytes are UTF-16, which begins with its own mark or has a zero byte in its first character.
pub fn without_mark(mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let is_utf_16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    };
    if is_utf_16 {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with(&MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ME: u32 = 1000;
    const MY_GROUP: u32 = 1000;
    const SHARED: u32 = 2000;
    const FOREIGN: u32 = 3000;

    fn me() -> Process {
        Process { uid: ME, groups: vec![MY_GROUP, SHARED], credentials: None }
    }

    fn root() -> Process {
        Process { uid: 0, groups: vec![0], credentials: None }
    }

    fn file(mode: u32, uid: u32, gid: u32) -> Permissions {
        Permissions { mode: 0o100_000 | mode, uid, gid }
    }

    #[test]
    fn a_secret_file_is_private_or_of_root_and_a_group_of_the_process() {
        let judged = |who: &Process, mode, uid, gid| who.secret_file(file(mode, uid, gid), false);
        for mode in [0o400, 0o600] {
            assert_eq!(judged(&me(), mode, ME, FOREIGN), Ok(()));
            assert_eq!(judged(&me(), mode, 0, FOREIGN), Ok(()));
            assert_eq!(judged(&root(), mode, 0, 0), Ok(()));
            assert_eq!(judged(&root(), mode, ME, MY_GROUP), Ok(()));
            assert_eq!(judged(&me(), mode, 1001, SHARED), Err(Exposure::Owner(1001)));
        }
        for mode in [0o440, 0o640] {
            assert_eq!(judged(&me(), mode, 0, SHARED), Ok(()));
            assert_eq!(judged(&me(), mode, 0, FOREIGN), Err(Exposure::GroupReads(FOREIGN)));
            assert_eq!(judged(&me(), mode, ME, SHARED), Err(Exposure::GroupReads(SHARED)));
            assert_eq!(judged(&me(), mode, 1001, SHARED), Err(Exposure::GroupReads(SHARED)));
            assert_eq!(judged(&root(), mode, 0, SHARED), Err(Exposure::GroupReads(SHARED)));
            assert_eq!(judged(&root(), mode, ME, 0), Err(Exposure::GroupReads(0)));
        }
        for mode in [0o620, 0o660, 0o610, 0o650] {
            assert_eq!(judged(&me(), mode, 0, SHARED), Err(Exposure::GroupWrites(SHARED)));
        }
        for mode in [0o604, 0o602, 0o601, 0o644, 0o444, 0o004] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Err(Exposure::Others));
            assert_eq!(judged(&me(), mode, 0, SHARED), Err(Exposure::Others));
        }
    }

    #[test]
    fn a_credential_may_be_read_by_its_group() {
        let judged = |mode, uid, gid| me().secret_file(file(mode, uid, gid), true);
        for mode in [0o400, 0o440] {
            assert_eq!(judged(mode, 0, FOREIGN), Ok(()));
            assert_eq!(judged(mode, ME, MY_GROUP), Ok(()));
        }
        assert_eq!(judged(0o444, 0, FOREIGN), Err(Exposure::Others));
        assert_eq!(judged(0o460, 0, FOREIGN), Err(Exposure::GroupWrites(FOREIGN)));
    }

    #[test]
    fn a_credential_is_below_the_directory_of_credentials() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::create_dir(path("credentials")).unwrap();
        std::fs::create_dir(path("credentials-of-others")).unwrap();
        for name in ["credentials/key", "credentials-of-others/key", "key"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink(path("credentials/key"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("key"), path("credentials/link")).unwrap();
        let who = Process { credentials: Some(path("credentials")), ..me() };
        assert!(who.is_credential(&path("credentials/key")));
        assert!(who.is_credential(&path("link")));
        for elsewhere in [
            "key",
            "credentials/link",
            "credentials/../key",
            "credentials-of-others/key",
            "credentials/none",
        ] {
            assert!(!who.is_credential(&path(elsewhere)), "{elsewhere}");
        }
        assert!(!me().is_credential(&path("credentials/key")));
    }

    #[test]
    fn a_data_directory_is_never_writable_by_others() {
        let judged = |who: &Process, mode, uid, gid| who.data_directory(file(mode, uid, gid));
        for mode in [0o700, 0o750, 0o755, 0o2755, 0o711] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Ok(()));
            assert_eq!(judged(&root(), mode, 0, 0), Ok(()));
        }
        assert_eq!(judged(&me(), 0o2775, 0, SHARED), Ok(()));
        assert_eq!(judged(&me(), 0o770, 0, SHARED), Ok(()));
        assert_eq!(judged(&root(), 0o755, ME, MY_GROUP), Ok(()));
        assert_eq!(judged(&me(), 0o775, ME, MY_GROUP), Err(Exposure::GroupWrites(MY_GROUP)));
        assert_eq!(judged(&me(), 0o2775, 0, FOREIGN), Err(Exposure::GroupWrites(FOREIGN)));
        assert_eq!(judged(&me(), 0o2775, 1001, SHARED), Err(Exposure::GroupWrites(SHARED)));
        assert_eq!(judged(&me(), 0o755, 1001, SHARED), Err(Exposure::Owner(1001)));
        for mode in [0o777, 0o1777, 0o2777, 0o757, 0o702] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Err(Exposure::Others));
            assert_eq!(judged(&me(), mode, 0, SHARED), Err(Exposure::Others));
        }
    }

    #[test]
    fn a_settings_file_is_never_writable_by_others() {
        let judged = |who: &Process, mode, uid, gid| who.settings_file(file(mode, uid, gid));
        for mode in [0o400, 0o600, 0o640, 0o644, 0o444, 0o755] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Ok(()));
            assert_eq!(judged(&me(), mode, 0, 0), Ok(()));
            assert_eq!(judged(&root(), mode, ME, MY_GROUP), Ok(()));
            assert_eq!(judged(&me(), mode, 1001, SHARED), Err(Exposure::Owner(1001)));
        }
        for mode in [0o660, 0o664, 0o620] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Err(Exposure::GroupWrites(MY_GROUP)));
            assert_eq!(judged(&me(), mode, 0, SHARED), Err(Exposure::GroupWrites(SHARED)));
            assert_eq!(judged(&root(), mode, 0, 0), Err(Exposure::GroupWrites(0)));
        }
        for mode in [0o646, 0o666, 0o602] {
            assert_eq!(judged(&me(), mode, ME, MY_GROUP), Err(Exposure::Others));
            assert_eq!(judged(&me(), mode, 0, 0), Err(Exposure::Others));
        }
    }

    #[test]
    fn what_is_not_private_is_named_with_the_fix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "").unwrap();
        let process = Process::current().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let file = |mode| {
            set(&path, mode);
            process.require_private(&path, &File::open(&path).unwrap())
        };
        let said = file(0o644).unwrap_err().to_string();
        let expected = "it is open to other users (mode 0644); run: chmod 600 ";
        assert_eq!(said, format!("{expected}{}", path.display()));
        file(0o600).unwrap();
        set(directory.path(), 0o757);
        let said = process.require_private_directory(directory.path()).unwrap_err().to_string();
        let expected = "it is open to other users (mode 0757); run: chmod go-w ";
        assert_eq!(said, format!("{expected}{}", directory.path().display()));
        set(directory.path(), 0o755);
        process.require_private_directory(directory.path()).unwrap();
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_utf_16_is_named() {
        assert_eq!(text(b"\xef\xbb\xbfa\xef\xbb\xbf".to_vec()).unwrap(), "a\u{feff}");
        assert_eq!(text(Vec::new()).unwrap(), "");
        assert_eq!(text(b"a".to_vec()).unwrap(), "a");
        for utf_16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"a\0b\0", b"\0a\0b"] {
            let said = text(utf_16.to_vec()).unwrap_err().to_string();
            assert!(said.contains("UTF-16"), "{said}");
        }
        let said = text(b"caf\xe9".to_vec()).unwrap_err().to_string();
        assert!(said.contains("not UTF-8"), "{said}");
    }
}
