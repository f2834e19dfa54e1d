//! Ensures that only one server uses a directory.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::sqlite::{naming, no_link, open_file};

/// The lock file inside the directory.
const FILE: &str = "server.lock";

/// The exclusive right to serve from a directory, held until dropped. The operating system releases it when the process
/// ends, no matter how, so a leftover lock file doesn't block a server.
#[derive(Debug)]
pub struct ServerLock {
    file: File,
}

/// The reason why a server cannot use the directory.
#[derive(Debug)]
pub enum ServerLockError {
    /// Another process is serving from it.
    Held {
        /// The directory.
        directory: PathBuf,
        /// The process id that the other process wrote into the file, if it has done so.
        process: Option<u32>,
    },
    /// The lock file cannot be used.
    Io(io::Error),
}

impl ServerLock {
    /// Takes the lock on `directory`, which must exist, without waiting.
    ///
    /// # Errors
    /// Returns `Held` if another process (or this one) has the lock, and `Io` if the file cannot be created or written.
    pub fn acquire(directory: &Path) -> Result<Self, ServerLockError> {
        let mut options = no_link();
        options.create(true).truncate(false).read(true).write(true);
        // SECURITY: through a link, the process id would be written over a file elsewhere (test:
        // a_lock_file_that_is_a_link_is_refused).
        let path = directory.join(FILE);
        let failed =
            |error| ServerLockError::Io(naming("the lock file", &path, "can't be written")(error));
        let mut file = open_file(&mut options, &path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The process id is only for the message. That the lock is held is known without it.
                let process = file.read_to_string(&mut text).ok().and(text.trim().parse().ok());
                return Err(ServerLockError::Held { directory: directory.to_owned(), process });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        write_process_id(&mut file).map_err(failed)?;
        Ok(Self { file })
    }
}

fn write_process_id(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    file.flush()
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        if let Err(cause) = self.file.unlock() {
            tracing::debug!(%cause, "the server lock was not released; it ends with the process");
        }
    }
}

impl fmt::Display for ServerLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { directory, process } => {
                write!(f, "another server is using {}", directory.display())?;
                match process {
                    Some(process) => write!(f, " (process {process}); stop it first"),
                    None => f.write_str("; stop it first"),
                }
            }
            Self::Io(cause) => write!(f, "the server lock cannot be taken: {cause}"),
        }
    }
}

impl std::error::Error for ServerLockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io(cause) => Some(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_on_a_directory_is_refused_and_told_by_whom() {
        let directory = tempfile::tempdir().unwrap();
        let first = ServerLock::acquire(directory.path()).unwrap();
        let refused = ServerLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        ServerLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join(FILE)).unwrap();
        let refused = ServerLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("is a link"), "{refused}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
        // Nor one that leads nowhere.
        std::fs::remove_file(&victim).unwrap();
        ServerLock::acquire(directory.path()).unwrap_err();
        assert!(!victim.exists());
    }

    #[test]
    fn a_lock_file_left_over_locks_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "999999999999\n").unwrap();
        ServerLock::acquire(directory.path()).unwrap();
        let written = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert_eq!(written, format!("{}\n", std::process::id()));
    }
}
