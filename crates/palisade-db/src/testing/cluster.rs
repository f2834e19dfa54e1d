//! A PostgreSQL cluster that lives as long as its owner.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The settings of the server. Durability is off where only a power failure would show the difference. Everything that
/// tests can observe stays on.
const SETTINGS: &str = "\
    listen_addresses = '127.0.0.1'\n\
    unix_socket_directories = ''\n\
    max_connections = 300\n\
    fsync = off\n\
    full_page_writes = off\n\
    synchronous_commit = on\n\
    shared_buffers = 32MB\n";

/// A PostgreSQL cluster on a free loopback port, with the C locale and without passwords. Stopped and removed when
/// dropped.
pub struct Cluster {
    port: u16,
    keeper: Mutex<Keeper>,
}

/// The shell that runs `cluster.sh`.
struct Keeper {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Cluster {
    /// Starts a cluster.
    ///
    /// # Panics
    /// Panics if PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// Starts a cluster with additional lines in `postgresql.conf`, and with files (name, content) in the directory
    /// above its data directory, as for `ssl_key_file = '../server.key'`. A file `pg_hba.conf` becomes that of the cluster.
    ///
    /// # Panics
    /// Panics if PostgreSQL is not installed or does not start.
    pub fn start_with(settings: &str, files: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = unprivileged_shell();
        command.args(["-c", include_str!("cluster.sh"), "cluster"]);
        command.arg(programs()).arg(port.to_string());
        command.args(["settings", &format!("{SETTINGS}{settings}")]);
        for (name, content) in files {
            command.args([name, content]);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/")
            .spawn()
            .expect("a shell can be started");
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("the output is piped"));
        let mut keeper = Keeper { process, commands, answers };
        keeper.expect_ok("initdb");
        keeper.tell("start");
        Self { port, keeper: Mutex::new(keeper) }
    }

    /// Stops the server immediately, as a crash would. Leaves the files unchanged.
    ///
    /// # Panics
    /// Panics if the server does not stop.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts the server again, with the same port and files.
    ///
    /// # Panics
    /// Panics if the server does not start.
    pub fn start_again(&self) {
        self.tell("start");
    }

    /// Returns the URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates a database as a copy of `template` and returns its URL.
    ///
    /// # Panics
    /// Panics if PostgreSQL refuses.
    pub fn create_database(&self, name: &str, template: &str) -> String {
        self.tell(&format!("create {name} {template}"));
        self.url_of(name)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://palisade@127.0.0.1:{}/{database}", self.port)
    }

    fn tell(&self, command: &str) {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).tell(command);
    }
}

impl Keeper {
    fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("the cluster is running");
        writeln!(commands, "{command}").expect("the cluster's shell is running");
        self.expect_ok(command);
    }

    fn expect_ok(&mut self, command: &str) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the cluster's shell answers");
        assert_eq!(answer.trim(), "ok", "PostgreSQL: {command} failed");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.commands.take());
        // Waits only to leave no zombie: the shell removes the cluster in any case.
        let _ = self.process.wait();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a loopback port is free")
        .port()
}

/// Returns a shell without root privileges, because PostgreSQL refuses to run as root.
#[expect(clippy::disallowed_methods, reason = "tests run a real PostgreSQL")]
pub(super) fn unprivileged_shell() -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new("sh");
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user =
        if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" };
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), "--clear-groups", "sh"]);
    command
}

/// Returns the directory with the programs of the newest PostgreSQL version that Debian's packages installed. If there
/// is none, returns the first such directory on the `PATH`.
fn programs() -> PathBuf {
    let version = |directory: &PathBuf| {
        let name = directory.parent().and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().parse::<u32>().unwrap_or_default()
    };
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    debian
        .map(|entry| entry.path().join("bin"))
        .filter(|directory| directory.join("initdb").exists())
        .max_by_key(version)
        .or_else(programs_on_path)
        .unwrap_or_else(|| panic!("these tests need PostgreSQL: apt-get install postgresql"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "PostgreSQL may be anywhere on a developer's machine"
)]
fn programs_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|directory| directory.join("initdb").exists())
}
