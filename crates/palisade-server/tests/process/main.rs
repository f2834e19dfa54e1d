//! What the operating system sees of the real binary.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test starts the program")]

mod service;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use palisade_db::testing::{Cluster, options, until_one_waits};
use palisade_db::{Db, Migration, Options, Sql, Timestamp, args};
use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Signal, geteuid, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_palisade");
const NOBODY: u32 = 65_534;

/// A directory of its own with the binary beside it, run without any rights: as root, as another user.
struct Place {
    directory: tempfile::TempDir,
    binary: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("palisade").tempdir().unwrap();
        let mut binary = PathBuf::from(BINARY);
        if geteuid().is_root() {
            own(directory.path());
            binary = directory.path().join("palisade");
            fs::copy(BINARY, &binary).unwrap();
        }
        Self { directory, binary }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words);
        self.prepared(command)
    }

    /// `serve`, by a shell that limits itself first.
    fn limited(&self, limit: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = format!("{limit} && exec \"$0\" serve");
        command.args(["-c", &script]).arg(&self.binary);
        self.prepared(command)
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(self.path()).env_clear();
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
    fn start(place: &Place) -> Self {
        Self::run(place, &mut place.command(&["serve"]))
    }

    fn run(place: &Place, command: &mut Command) -> Self {
        let log = File::create(place.path().join("log")).unwrap();
        Self::logging_to(place, command, log.into())
    }

    fn logging_to(place: &Place, command: &mut Command, log: Stdio) -> Self {
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
        Self { process, address }
    }

    /// What the kernel shows of it.
    fn shown(&self, name: &str) -> PathBuf {
        shown(&self.process, name)
    }

    fn get(&self, path: &str) -> String {
        get(&self.address, path)
    }

    /// Asks it to stop, and waits for that no longer than this.
    fn stop(&mut self, within: Duration) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let soon = Instant::now() + within;
        let ended = loop {
            match self.process.try_wait().unwrap() {
                Some(ended) => break ended,
                None if Instant::now() < soon => sleep(Duration::from_millis(20)),
                None => panic!("it does not stop"),
            }
        };
        assert!(ended.success(), "{ended}");
    }
}

fn shown(process: &Child, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", process.id()))
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A sign-in that is refused, which is an event.
fn refused_sign_in(address: &str) {
    let answer = sign_in(address, "nobody@example.com");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

fn sign_in(address: &str, email: &str) -> String {
    let body = format!(r#"{{"email":"{email}","password":"seven purple teapots orbit"}}"#);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A place for a server on each kind of database, and the URL of that.
fn on_each_database(cluster: &Cluster) -> [(Place, String); 2] {
    let (sqlite, postgres) = (Place::new(), Place::new());
    let file = format!("sqlite:{}", sqlite.data("palisade.db").display());
    [(sqlite, file), (postgres, cluster.create_database("palisade_test", "template0"))]
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// How many records the audit log has, and how many of them are not chained.
async fn records(url: &str) -> (i64, i64) {
    let db = Db::open(options(url)).await.unwrap();
    let sql = "select count(*), count(*) - count(position) from audit_events";
    let counted = db.one(sql, args![]).await.unwrap();
    db.close().await;
    counted
}

/// The soft and the hard limit of a process, by its line in `/proc/PID/limits`.
fn limit(process: &Child, name: &str) -> [String; 2] {
    let limits = fs::read_to_string(shown(process, "limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    [words.next().unwrap(), words.next().unwrap()]
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
    assert_eq!(limit(&server.process, "Max core file size"), ["0", "0"]);
    // A process that may not be dumped belongs to root there, no matter who runs it (proc(5)).
    assert_eq!(fs::metadata(server.shown("mem")).unwrap().uid(), 0);
    assert_ne!(fs::metadata(place.path()).unwrap().uid(), 0, "run by a user without rights");
    // What the hashing threads read of themselves stays readable.
    assert_eq!(fs::metadata(server.shown("schedstat")).unwrap().mode() & 0o444, 0o444);
    assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
}

#[test]
fn no_memory_of_a_command_reaches_a_disk() {
    let place = Place::new();
    // It waits for the password.
    let mut command = place.command(&["user", "create", "ann@example.com"]);
    let mut process = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its first act. What is asked before that is asked of a process that hasn't begun.
    let forbidden = || limit(&process, "Max core file size") == ["0", "0"];
    let soon = Instant::now() + Duration::from_secs(5);
    while !forbidden() && Instant::now() < soon {
        sleep(Duration::from_millis(10));
    }
    assert!(forbidden(), "{:?}", limit(&process, "Max core file size"));
    let memory = || fs::metadata(shown(&process, "mem")).unwrap().uid();
    while memory() != 0 && Instant::now() < soon {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(memory(), 0);
    writeln!(process.stdin.take().unwrap(), "seven purple teapots orbit").unwrap();
    let ended = process.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let place = Place::new();
    let server = Server::run(&place, &mut place.limited("ulimit -Sn 256"));
    let [soft, hard] = limit(&server.process, "Max open files");
    assert_eq!(soft, hard);
    assert_ne!(soft, "256");
}

#[test]
fn the_admin_listener_answers_when_the_public_one_is_full() {
    // More than are served with so few files, and fewer than would overflow the kernel's queue.
    const FLOOD: usize = 220;
    let place = Place::new();
    let mut command = place.limited("ulimit -n 300");
    let admin = format!("127.0.0.1:{}", free_port());
    let server = Server::run(&place, command.env("PALISADE_SERVER__ADMIN_LISTEN", &admin));
    assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    // Loopback has no share: it may take every connection.
    let flood: Vec<TcpStream> =
        (0..FLOOD).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let mut late = TcpStream::connect(&server.address).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let waits = late.read(&mut [0]).unwrap_err();
    assert!(matches!(waits.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits}");
    for _ in 0..10 {
        assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    }
    drop(flood);
    assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
    let log = fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("connections are limited"), "{log}");
    assert!(!log.contains("can't accept"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    // What a pipe holds and what may wait, in lines of more than 250 bytes.
    const REQUESTS: usize = 6_000;
    let place = Place::new();
    let mut server = Server::logging_to(&place, &mut place.command(&["serve"]), Stdio::piped());
    let mut stream = BufReader::new(TcpStream::connect(&server.address).unwrap());
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let hundred = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    for _ in 0..REQUESTS / 100 {
        stream.get_mut().write_all(hundred.as_bytes()).unwrap();
        let mut answers = 0;
        while answers < 100 {
            let mut line = String::new();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no answer");
            answers += usize::from(line.starts_with("HTTP/1.1 200"));
        }
    }
    drop(stream);
    assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
    // It doesn't wait for the reader of its log.
    server.stop(Duration::from_secs(5));
    let mut log = String::new();
    server.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.len() < REQUESTS * 250, "the pipe took all: {}", log.len());
}

#[test]
fn what_waits_for_the_chain_is_chained_at_a_regular_stop() {
    let cluster = Cluster::start();
    for (place, url) in on_each_database(&cluster) {
        for _ in 0..3 {
            let mut command = place.command(&["serve"]);
            let mut server = Server::run(&place, command.env("PALISADE_DATABASE__URL", &url));
            refused_sign_in(&server.address);
            server.stop(Duration::from_secs(5));
        }
        let (all, waiting) = now(records(&url));
        assert!(all > 3 && waiting == 0, "{url}: {waiting} of {all} records are not chained");
    }
}

#[test]
fn what_a_command_wrote_is_chained_when_it_ends() {
    let cluster = Cluster::start();
    for (place, url) in on_each_database(&cluster) {
        // The first one fails, once it has made the first keys of the database.
        for words in [&["user", "show", "ann@example.com"][..], &["setup-link"]] {
            let mut command = place.command(words);
            let ended = command.env("PALISADE_DATABASE__URL", &url).output().unwrap();
            assert_eq!(ended.status.success(), words.len() == 1, "{words:?}: {ended:?}");
            let (all, waiting) = now(records(&url));
            assert!(all > 0 && waiting == 0, "{url}: {words:?} left {waiting} of {all} records");
        }
    }
}

#[test]
fn a_stop_waits_for_no_database() {
    let cluster = Cluster::start();
    for (place, url) in on_each_database(&cluster) {
        let mut command = place.command(&["serve"]);
        // No statement ends sooner by itself.
        command.env("PALISADE_DATABASE__STATEMENT_TIMEOUT", "60s");
        let mut server = Server::run(&place, command.env("PALISADE_DATABASE__URL", &url));
        now(async {
            // It holds longer than it may take.
            let statement_timeout = Duration::from_secs(60);
            let db = Db::open(Options { statement_timeout, ..options(&url) }).await.unwrap();
            refused_sign_in(&server.address);
            // The end of the chain is held.
            let mut tx = db.begin().await.unwrap();
            let held = tx.run("update audit_head set position = position", args![]).await.unwrap();
            assert_eq!(held, 1);
            server.stop(Duration::from_secs(12));
            drop(tx);
            db.close().await;
        });
        let log = fs::read_to_string(place.path().join("log")).unwrap();
        let (all, waiting) = now(records(&url));
        assert_eq!(waiting > 0, log.contains("are not chained yet"), "{waiting} of {all}: {log}");
    }
    let (place, url) = (Place::new(), cluster.create_database("palisade_away", "template0"));
    let mut command = place.command(&["serve"]);
    let mut server = Server::run(&place, command.env("PALISADE_DATABASE__URL", &url));
    refused_sign_in(&server.address);
    cluster.stop();
    server.stop(Duration::from_secs(8));
}

/// What an application on the library has put into the database beside Palisade's own.
const NOTES: Migration = Migration {
    module: "notes",
    number: 1,
    name: "notes",
    sql: Sql::Both("create table notes (user_id id not null references users (id))"),
};

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_work_on_a_database_with_a_module_that_the_program_does_not_know() {
    let cluster = Cluster::start();
    for (place, url) in on_each_database(&cluster) {
        let run = |words: &[&str]| {
            place.command(words).env("PALISADE_DATABASE__URL", &url).output().unwrap()
        };
        assert!(!printed(&run(&["migrate", "up"])).contains("notes"));
        assert!(!printed(&run(&["migrate", "status"])).contains("not part of this server"));
        now(async {
            let db = Db::open(options(&url)).await.unwrap();
            let at = Timestamp::from_seconds(1_900_000_000);
            assert_eq!(db.migrate(&[NOTES], at).await.unwrap().len(), 1);
            db.close().await;
        });
        let status = printed(&run(&["migrate", "status"]));
        assert!(status.contains("MODULE") && status.contains("users"), "{status}");
        let named = "Modules in the database that are not part of this server (their tables stay unchanged): notes";
        assert!(status.ends_with(&format!("{named}\n")), "{status}");
        let status = printed(&run(&["--json", "migrate", "status"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["unknown_modules"], serde_json::json!(["notes"]));
        assert_eq!(status["missing"], 0);
        printed(&run(&["migrate", "up"]));
        printed(&run(&["user", "list"]));
        printed(&run(&["audit", "verify"]));
        now(async {
            let db = Db::open(options(&url)).await.unwrap();
            db.one::<(i64,)>("select count(*) from notes", args![]).await.unwrap();
            db.close().await;
        });
    }
}

#[test]
fn a_database_from_before_the_first_release_is_refused() {
    let cluster = Cluster::start();
    for (place, url) in on_each_database(&cluster) {
        let run = |words: &[&str]| {
            place.command(words).env("PALISADE_DATABASE__URL", &url).output().unwrap()
        };
        printed(&run(&["migrate", "up"]));
        now(async {
            let db = Db::open(options(&url)).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            tx.run("drop table schema_migrations", args![]).await.unwrap();
            let former = "create table schema_migrations (version bigint not null primary key,
                name text not null, sql text not null, applied_at bigint not null)";
            tx.run(former, args![]).await.unwrap();
            tx.commit().await.unwrap();
            db.close().await;
        });
        for words in [&["migrate", "status"][..], &["migrate", "up"], &["user", "list"]] {
            let refused = run(words);
            let message = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{message}");
            assert!(message.contains("before the first release"), "{message}");
            assert!(message.contains("a new, empty database"), "{message}");
        }
    }
}

#[test]
fn what_set_is_given_is_not_repeated() {
    let place = Place::new();
    for words in [
        &["--set", "tiger-hunter2", "config", "check"][..],
        &["--json", "--set", "tiger-hunter2", "config", "check"],
        &["user", "list", "--set", "tiger-hunter2"],
    ] {
        let refused = place.run(words);
        let message = [refused.stdout, refused.stderr].concat();
        let message = String::from_utf8_lossy(&message);
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains("--set needs KEY=VALUE"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
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
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(
        message.contains("root.key can't be read") && message.contains("is a symbolic link"),
        "{message}"
    );
    // A link that the operator lays elsewhere is followed, as Kubernetes lays secrets out.
    fs::remove_file(place.data("root.key")).unwrap();
    symlink(&elsewhere, place.path().join("mounted.key")).unwrap();
    let named = ["--set", "keys.root_key=mounted.key", "key", "list"];
    let listed = place.run(&named);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    // And what it leads to is held to the same rules.
    set_mode(&elsewhere, 0o644);
    let message = String::from_utf8_lossy(&place.run(&named).stderr).into_owned();
    assert!(message.contains("is open to other users"), "{message}");
}

#[test]
fn a_root_key_below_the_data_directory_is_never_a_link() {
    let place = Place::new();
    let made = place.run(&["init"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let listed = |key: &str| {
        let set = format!("keys.root_key={key}");
        let output = place.run(&["--set", &set, "key", "list"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let key = place.data("root.key");
    for folder in ["keys", "keys/inner"] {
        fs::create_dir(place.data(folder)).unwrap();
    }
    fs::copy(&key, place.data("keys/inner/root.key")).unwrap();
    own(&place.data("keys/inner/root.key"));
    symlink(&key, place.data("keys/inner/link.key")).unwrap();
    symlink(place.data("keys/inner"), place.data("keys/linked")).unwrap();
    let absolute = place.data("keys/inner/root.key").display().to_string();
    for good in ["palisade-data/keys/inner/root.key", &absolute] {
        let (well, message) = listed(good);
        assert!(well, "{good}: {message}");
    }
    for linked in ["keys/inner/link.key", "keys/linked/root.key", "keys/linked/link.key"] {
        let (well, message) = listed(&format!("palisade-data/{linked}"));
        assert!(!well && message.contains("is a symbolic link"), "{linked}: {message}");
    }
    // Also by way of a link that leads into it.
    symlink(place.data("keys"), place.path().join("outside")).unwrap();
    let (well, message) = listed("outside/inner/link.key");
    assert!(!well && message.contains("is a symbolic link"), "{message}");
}

/// Gives a file to the user who runs the binary.
fn own(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// Runs the command and returns whether it succeeded, with what it reported.
fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_data_directory_may_be_readable_by_others_and_not_writable() {
    let place = Place::new();
    let directory = place.path().join("palisade-data");
    fs::create_dir(&directory).unwrap();
    own(&directory);
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        set_mode(&directory, mode);
        let (well, message) = outcome(&mut place.command(&["user", "list"]));
        let named =
            message.contains("palisade-data can't be used") && message.contains("chmod go-w");
        assert!(!well && named, "{mode:o}: {message}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    set_mode(&directory, 0o2755);
    let mut server = Server::start(&place);
    server.stop(Duration::from_secs(20));
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o2755);
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    if geteuid().is_root() {
        // As Kubernetes makes a volume for a group.
        chown(&directory, Some(Uid::ROOT), Some(Gid::from_raw(NOBODY))).unwrap();
        set_mode(&directory, 0o2775);
        let (well, message) = outcome(&mut place.command(&["user", "list"]));
        assert!(well, "{message}");
        chown(&directory, Some(Uid::from_raw(1)), Some(Gid::from_raw(NOBODY))).unwrap();
        let (well, message) = outcome(&mut place.command(&["user", "list"]));
        assert!(!well && message.contains("palisade-data can't be used"), "{message}");
    }
}

#[test]
fn a_root_key_that_others_can_read_or_change_is_refused() {
    let place = Place::new();
    assert!(place.run(&["init"]).status.success());
    let credentials = place.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let key = credentials.join("key");
    fs::copy(place.data("root.key"), &key).unwrap();
    own(&key);
    let list = || {
        let mut command = place.command(&["key", "list"]);
        command.env("PALISADE_KEYS__ROOT_KEY", &key);
        command
    };
    for mode in [0o440, 0o640, 0o660, 0o604] {
        set_mode(&key, mode);
        let (well, message) = outcome(&mut list());
        assert!(!well && message.contains("chmod 600"), "{mode:o}: {message}");
    }
    // The service manager's own directory.
    set_mode(&key, 0o440);
    let (well, message) = outcome(list().env("CREDENTIALS_DIRECTORY", &credentials));
    assert!(well, "{message}");
    let (well, _) =
        outcome(list().env("CREDENTIALS_DIRECTORY", place.path().join("palisade-data")));
    assert!(!well);
    set_mode(&key, 0o444);
    let (well, _) = outcome(list().env("CREDENTIALS_DIRECTORY", &credentials));
    assert!(!well);
    if geteuid().is_root() {
        // As Kubernetes mounts a secret for a group, and Debian stores private keys.
        chown(&key, Some(Uid::ROOT), Some(Gid::from_raw(NOBODY))).unwrap();
        for (mode, accepted) in [(0o440, true), (0o640, true), (0o660, false), (0o644, false)] {
            set_mode(&key, mode);
            let (well, message) = outcome(&mut list());
            assert_eq!(well, accepted, "{mode:o}: {message}");
        }
    }
    set_mode(&key, 0o400);
    own(&key);
    let (well, message) = outcome(&mut list());
    assert!(well, "{message}");
}

#[test]
fn an_env_file_next_to_the_configuration_is_read() {
    let place = Place::new();
    let settings = place.path().join("settings");
    fs::create_dir(&settings).unwrap();
    fs::write(settings.join("palisade.toml"), "tokens.issuer = \"toml\"").unwrap();
    let env = settings.join(".env");
    let check = |words: &[&str]| {
        let named = ["--config", "settings/palisade.toml"];
        let output = place.run(&[&named[..], words].concat());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let text = "export OTHER='x\ny'\nPALISADE_MAIL__FROM=a@example.com\n\
                PALISADE_MAIL__SMTP_URL=\"smtps://u:hunter2@mail.example.com\"\n";
    fs::write(&env, text).unwrap();
    own(&env);
    set_mode(&env, 0o600);
    let shown = check(&["config", "show"]);
    assert!(shown.contains("settings/.env, line 4") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(check(&["config", "check"]), "The settings are valid.\n");
    // A file without a secret may be read by anyone.
    set_mode(&env, 0o644);
    fs::write(&env, "PALISADE_MAIL__FROM=a@example.com\nPALISADE_SERVER__LISTNE=1").unwrap();
    let said = check(&["config", "check"]);
    assert!(said.contains("PALISADE_SERVER__LISTNE (settings/.env, line 2)"), "{said}");
    fs::write(&env, b"\xff\xfeA\0").unwrap();
    let said = check(&["config", "check"]);
    assert!(said.contains("settings/.env can't be read") && said.contains("UTF-16"), "{said}");
    // A directory of this name belongs to another program.
    fs::remove_file(&env).unwrap();
    fs::create_dir(&env).unwrap();
    assert_eq!(check(&["config", "check"]), "The settings are valid.\n");
}

#[test]
fn an_env_file_that_others_can_change_or_whose_secrets_they_can_read_is_refused() {
    let place = Place::new();
    let env = place.path().join(".env");
    let check = || outcome(&mut place.command(&["config", "check"]));
    let refused = |mode: u32, fix: &str| {
        set_mode(&env, mode);
        let (well, said) = check();
        assert!(!well && said.contains(".env can't be used"), "{mode:o}: {said}");
        assert!(said.contains(fix) && !said.contains("hunter2"), "{mode:o}: {said}");
    };
    let accepted = |mode: u32| {
        set_mode(&env, mode);
        let (well, said) = check();
        assert!(well, "{mode:o}: {said}");
    };
    fs::write(&env, "PALISADE_TOKENS__ISSUER=https://example.com\n").unwrap();
    own(&env);
    for mode in [0o400, 0o600, 0o640, 0o644, 0o444] {
        accepted(mode);
    }
    for mode in [0o660, 0o664, 0o646, 0o666, 0o602] {
        refused(mode, "run: chmod go-w .env");
    }
    fs::write(place.path().join("secret"), "smtps://u:hunter2@mail.example.com").unwrap();
    own(&place.path().join("secret"));
    set_mode(&place.path().join("secret"), 0o400);
    let other = Place::new();
    assert!(other.run(&["init"]).status.success());
    let key = fs::read_to_string(other.data("root.key")).unwrap();
    for secret in [
        "SMTP_URL=smtps://u:hunter2@mail.example.com\nPALISADE_MAIL__FROM=a@example.com\n",
        &format!("PALISADE_KEYS__ROOT_KEY={}\n", key.trim()),
    ] {
        fs::remove_file(&env).unwrap();
        fs::write(&env, secret).unwrap();
        own(&env);
        for mode in [0o400, 0o600] {
            accepted(mode);
        }
        for mode in [0o440, 0o640, 0o644, 0o604] {
            refused(mode, "run: chmod 600 .env");
        }
        // No command works with it.
        let (well, said) = outcome(&mut place.command(&["serve"]));
        assert!(!well && said.contains("it contains a secret"), "{said}");
        assert!(!place.path().join("palisade-data").exists());
    }
    // The secret is in another file.
    fs::remove_file(&env).unwrap();
    fs::write(&env, "SMTP_URL_FILE=secret\nPALISADE_MAIL__FROM=a@example.com\n").unwrap();
    own(&env);
    accepted(0o644);
    if geteuid().is_root() {
        chown(&env, Some(Uid::from_raw(NOBODY - 1)), None).unwrap();
        refused(0o644, &format!("run: chown {NOBODY} .env"));
        chown(&env, Some(Uid::ROOT), None).unwrap();
        accepted(0o644);
    }
}

#[test]
fn a_settings_file_with_a_secret_that_others_can_read_is_warned_of() {
    let place = Place::new();
    let config = place.path().join("palisade.toml");
    let text =
        "[mail]\nfrom = \"a@example.com\"\nsmtp_url = \"smtps://u:hunter2@mail.example.com\"";
    fs::write(&config, text).unwrap();
    own(&config);
    set_mode(&config, 0o644);
    let output = place.run(&["config", "check"]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("warning: mail.smtp_url") && said.contains("chmod 600"), "{said}");
}

#[test]
fn a_password_on_standard_input_ends_with_its_text() {
    let place = Place::new();
    let create = |input: &[u8]| {
        let mut command = place.command(&["user", "create", "ann@example.com"]);
        let mut process = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(input).unwrap();
        let output = process.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (well, message) = create(b"\xff\xfes\0e\0v\0e\0n\0\n\0");
    assert!(!well && message.contains("UTF-16"), "{message}");
    let (well, message) = create(b"\xef\xbb\xbfseven purple teapots orbit \t\r\n\n");
    assert!(well, "{message}");
    let server = Server::start(&place);
    let answer = sign_in(&server.address, "ann@example.com");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_exposed_development_server_says_so_at_every_start() {
    let place = Place::new();
    let log = place.path().join("log");
    for (exposed, expected) in [("false", false), ("true", true), ("true", true)] {
        let mut command = place.command(&["serve"]);
        command.env("PALISADE_SERVER__EXPOSE_DEVELOPMENT", exposed);
        Server::run(&place, &mut command).stop(Duration::from_secs(20));
        let log = fs::read_to_string(&log).unwrap();
        assert_eq!(log.contains("server.expose_development is true"), expected, "{log}");
    }
}

#[test]
fn errors_at_the_start_name_the_path() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::write(place.path().join("file"), "").unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    own(&place.path().join("file"));
    for (variable, value, named) in [
        ("DATA__DIRECTORY", path("file/data"), path("file/data")),
        ("DATABASE__URL", format!("sqlite:{}", path("directory")), path("directory")),
        ("DATABASE__URL", format!("sqlite:{}", path("file/db")), path("file")),
        ("DATABASE__URL", "postgres:///app?host=/none".into(), "/none/.s.PGSQL.5432".into()),
        ("DATABASE__URL", "postgres://127.0.0.1:1/app".into(), "127.0.0.1:1".into()),
        ("KEYS__ROOT_KEY", path("directory"), path("directory")),
        ("KEYS__ROOT_KEY", path("none/key"), path("none/key")),
        ("PASSWORDS__BLOCKLIST_PATH", path("none"), path("none")),
        ("MAIL__TEMPLATES", path("none"), path("none")),
        ("MFA__ATTESTATION_ROOTS", path("none"), path("none")),
        ("MAIL__ROOT_CERTIFICATE", path("none"), path("none")),
        ("SERVER__TLS__CERTIFICATE", path("none"), path("none")),
    ] {
        let mut command = place.command(&["serve"]);
        if variable.starts_with("SERVER__TLS") {
            command.env("PALISADE_SERVER__TLS__KEY", path("file"));
        }
        command.env("PALISADE_MAIL__SMTP_URL", "smtp://127.0.0.1:1");
        command.env("PALISADE_MAIL__FROM", "a@example.com");
        let (well, message) = outcome(command.env(format!("PALISADE_{variable}"), &value));
        assert!(!well && message.contains(&named), "{variable}={value}: {message}");
        assert!(!message.contains(" at line "), "{message}");
    }
}

#[test]
fn init_writes_nothing_without_a_place_for_its_key() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").unwrap();
    let (well, message) =
        outcome(place.command(&["init"]).env("PALISADE_DATA__DIRECTORY", "file/data"));
    assert!(!well && message.contains("file/data can't be created"), "{message}");
    assert!(!place.path().join("palisade.toml").exists());
    assert!(!place.path().join(".env.example").exists());
    let (well, message) = outcome(&mut place.command(&["init"]));
    assert!(well, "{message}");
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

#[test]
fn the_version_says_what_the_program_was_built_with() {
    let place = Place::new();
    let printed = place.run(&["version", "--json"]);
    assert!(printed.status.success(), "{printed:?}");
    let shown: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(shown["version"], env!("CARGO_PKG_VERSION"));
    assert!(shown["commit"].is_null() || shown["commit"].is_string());
    for (name, start) in [("target", std::env::consts::ARCH), ("rustc", "rustc "), ("sqlite", "3.")]
    {
        let value = shown[name].as_str().unwrap();
        assert!(value.starts_with(start), "{name}: {value}");
    }
    assert!(!shown["profile"].as_str().unwrap().is_empty());
    assert!(shown["schema"]["users"].as_i64().unwrap() > 0, "{shown}");
    let line = String::from_utf8(place.run(&["version"]).stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with(concat!("palisade ", env!("CARGO_PKG_VERSION"), " (")), "{line}");
    // It creates nothing.
    assert!(!place.path().join("palisade-data").exists());
}
