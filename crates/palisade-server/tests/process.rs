//! What the operating system sees of the real binary.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test starts the program")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};

const BINARY: &str = env!("CARGO_BIN_EXE_palisade");
const NOBODY: u32 = 65_534;

/// A directory of its own with the binary beside it, run without any rights: as root, as another user.
struct Place {
    directory: tempfile::TempDir,
    binary: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::Builder::new().prefix("palisade").tempdir().unwrap();
        let mut binary = PathBuf::from(BINARY);
        if geteuid().is_root() {
            let owner = (Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)));
            chown(directory.path(), owner.0, owner.1).unwrap();
            binary = directory.path().join("palisade");
            fs::copy(BINARY, &binary).unwrap();
        }
        Place { directory, binary }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).current_dir(self.path()).env_clear();
        command.env("PALISADE_SERVER__LISTEN", format!("127.0.0.1:{}", free_port()));
        command.env("PALISADE_SERVER__ADMIN_LISTEN", format!("127.0.0.1:{}", free_port()));
        command.stdin(Stdio::null());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.path().join("palisade-data").join(name)
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server, killed at the end.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(place: &Place) -> Server {
        let log = File::create(place.path().join("log")).unwrap();
        let mut command = place.command(&["serve"]);
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| {
                panic!("{}", fs::read_to_string(place.path().join("log")).unwrap())
            });
            if let Some((_, rest)) = line.unwrap().split_once("http://") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        Server { process, address }
    }

    /// What the kernel shows of it.
    fn shown(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn no_memory_of_the_process_reaches_a_disk() {
    let place = Place::new();
    let server = Server::start(&place);
    let limits = fs::read_to_string(server.shown("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // A process that may not be dumped belongs to root there, whoever runs it (proc(5)).
    assert_eq!(fs::metadata(server.shown("mem")).unwrap().uid(), 0);
    assert_ne!(fs::metadata(place.path()).unwrap().uid(), 0, "run by a user without rights");
    // What the hashing threads read of themselves stays readable.
    assert_eq!(fs::metadata(server.shown("schedstat")).unwrap().mode() & 0o444, 0o444);
    assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let place = Place::new();
    let own = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(256), maximum: own.maximum };
    let me: Option<Pid> = None;
    prlimit(me, Resource::Nofile, few).unwrap();
    let server = Server::start(&place);
    prlimit(me, Resource::Nofile, own).unwrap();
    let limits = fs::read_to_string(server.shown("limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{files}");
    assert_ne!(words[3], "256", "{files}");
}

#[test]
fn a_root_key_in_the_data_directory_is_never_a_link() {
    let place = Place::new();
    let made = place.run(&["init"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let elsewhere = place.path().join("elsewhere.key");
    fs::rename(place.data("root.key"), &elsewhere).unwrap();
    symlink(&elsewhere, place.data("root.key")).unwrap();
    let refused = place.run(&["key", "list"]);
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{says}");
    assert!(
        says.contains("root.key can't be read") && says.contains("is a symbolic link"),
        "{says}"
    );
    // A link that the operator lays elsewhere is followed, as Kubernetes lays secrets out.
    fs::remove_file(place.data("root.key")).unwrap();
    symlink(&elsewhere, place.path().join("mounted.key")).unwrap();
    let named = ["--set", "keys.root_key=mounted.key", "key", "list"];
    let listed = place.run(&named);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    // And what it leads to is held to the same rules.
    fs::set_permissions(&elsewhere, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let says = String::from_utf8_lossy(&place.run(&named).stderr).into_owned();
    assert!(says.contains("can be read by other users"), "{says}");
}

#[test]
fn init_writes_through_no_link() {
    let place = Place::new();
    let victim = place.path().join("victim");
    symlink(&victim, place.path().join(".env.example")).unwrap();
    let refused = place.run(&["init"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!victim.exists() && !place.path().join("palisade.toml").exists());
}
