//! The real binary on databases that others have set up.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test starts the program")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use palisade_db::testing::{Cluster, Pooler, options};
use palisade_db::{Db, Options, args};
use serde_json::Value;

/// A directory to run the binary in, with the URL of a database.
struct Place {
    directory: tempfile::TempDir,
    url: String,
}

impl Place {
    fn new(url: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("palisade").tempdir().unwrap();
        Self { directory, url: url.to_owned() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        command.args(words).current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.env("PALISADE_SERVER__LISTEN", port().to_string());
        command.env("PALISADE_SERVER__ADMIN_LISTEN", port().to_string());
        command.env("PALISADE_PASSWORDS__COST", "light");
        command.env("DATABASE_URL", &self.url);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server, killed at the end.
struct Server(Child, String);

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut process = command.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in lines {
            if let Some((_, rest)) = line.split_once("http://") {
                let address = rest.split_whitespace().next().unwrap().to_owned();
                return Self(process, address);
            }
        }
        let _ = process.kill();
        panic!("the server did not start: {:?}", process.wait());
    }

    fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs SQL as the superuser.
fn set(cluster: &Cluster, statements: &[&'static str]) {
    now(async {
        let db = Db::open(options(&cluster.url())).await.unwrap();
        for sql in statements.iter().copied() {
            let mut tx = db.begin().await.unwrap();
            tx.run(sql, args![]).await.unwrap();
            tx.commit().await.unwrap();
        }
        db.close().await;
    });
}

#[test]
fn a_role_without_the_privilege_to_change_tables_serves() {
    let cluster = Cluster::start();
    set(
        &cluster,
        &[
            "create role owner login",
            "create role app login",
            "create schema app authorization owner",
            "grant usage on schema app to app",
            "alter default privileges for role owner in schema app
                 grant select, insert, update, delete on tables to app",
            "alter default privileges for role owner in schema app
                 grant usage, update on sequences to app",
        ],
    );
    let url = |role: &str| cluster.url().replace("palisade@", &format!("{role}@"));
    let place = Place::new(&url("app"));
    let command = |words: &[&str]| {
        let mut command = place.command(words);
        command.env("PALISADE_DATABASE__SCHEMA", "app").env("PALISADE_DATABASE__MIGRATE", "auto");
        command
    };
    for words in [["migrate", "up"], ["user", "list"]] {
        let refused = command(&words).output().unwrap();
        let said = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("database.migrate_url") && !said.contains("at line"), "{said}");
    }
    let plan = printed(&command(&["migrate", "plan"]).output().unwrap());
    assert!(plan.contains("-- migration 1 of users (users)\n"), "{plan}");
    assert!(plan.contains("\ncreate table users ("), "{plan}");
    let up = command(&["migrate", "up"])
        .env("PALISADE_DATABASE__MIGRATE_URL", url("owner"))
        .output()
        .unwrap();
    assert!(printed(&up).contains("Migrations applied"));
    let plan = printed(&command(&["--json", "migrate", "plan"]).output().unwrap());
    assert_eq!(serde_json::from_str::<Value>(&plan).unwrap()["items"], serde_json::json!([]));

    let server = Server::start(&mut command(&[]));
    let who = r#"{"email":"ann@example.com","password":"mossy lantern drifts inland"}"#;
    let registered = server.post("/api/v1/auth/register", who);
    assert!(registered.starts_with("HTTP/1.1 2"), "{registered}");
    let signed_in = server.post("/api/v1/auth/login", who);
    assert!(signed_in.starts_with("HTTP/1.1 200"), "{signed_in}");
    drop(server);
    printed(&command(&["audit", "verify"]).output().unwrap());
    printed(&command(&["user", "delete", "ann@example.com", "--yes"]).output().unwrap());
}

#[test]
fn tables_of_another_program_stop_every_command_and_a_schema_solves_it() {
    let cluster = Cluster::start();
    set(&cluster, &["create table users (id int)", "create table sessions (id int)"]);
    let place = Place::new(&cluster.url());
    for words in
        [&["migrate", "up"][..], &["migrate", "status"], &["migrate", "plan"], &["user", "list"]]
    {
        let refused = place.run(words);
        assert_eq!(refused.status.code(), Some(1));
        let said = said(&refused);
        assert!(said.contains("sessions, users") && said.contains("database.schema"), "{said}");
    }
    let in_schema = |words: &[&str]| {
        place.command(words).env("PALISADE_DATABASE__SCHEMA", "auth").output().unwrap()
    };
    printed(&in_schema(&["migrate", "up"]));
    printed(&in_schema(&["user", "list"]));
    now(async {
        let own = Options { schema: Some("auth".into()), ..options(&cluster.url()) };
        let db = Db::open(own).await.unwrap();
        let other = "select count(*) from pg_tables where schemaname = 'public'";
        assert_eq!(db.one::<(i64,)>(other, args![]).await.unwrap(), (2,));
        db.close().await;
    });
}

#[test]
fn a_second_server_on_a_file_is_refused_in_every_form_of_its_url() {
    let place = Place::new("sqlite:///./data/app.db");
    let _server = Server::start(&mut place.command(&[]));
    assert!(place.directory.path().join("data/app.db").exists());
    let absolute = place.directory.path().join("data/app.db").display().to_string();
    for url in [
        "sqlite:data/app.db".to_owned(),
        "sqlite+aiosqlite:///data/app.db".to_owned(),
        format!("sqlite:{absolute}"),
        format!("sqlite://{absolute}"),
        format!("sqlite:///{absolute}"),
    ] {
        let refused = place.command(&["serve"]).env("DATABASE_URL", &url).output().unwrap();
        assert!(said(&refused).contains("already serving"), "{url}: {}", said(&refused));
    }
}

#[test]
fn a_pooler_in_transaction_mode_stops_the_start_and_one_in_session_mode_serves() {
    let cluster = Cluster::start();
    let pooler = Pooler::start(&cluster, "transaction", "");
    let refused = Place::new(&pooler.url()).run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("session mode"), "{}", said(&refused));
    let pooler = Pooler::start(&cluster, "session", "default_pool_size = 40\n");
    let place = Place::new(&pooler.url());
    let server = Server::start(&mut place.command(&[]));
    let who = r#"{"email":"ann@example.com","password":"mossy lantern drifts inland"}"#;
    assert!(server.post("/api/v1/auth/register", who).starts_with("HTTP/1.1 2"));
}

#[test]
fn what_is_weak_about_the_database_is_logged_at_the_start() {
    let cluster = Cluster::start();
    set(&cluster, &["grant create on schema public to public"]);
    let place = Place::new(&cluster.url());
    let path = place.directory.path().join("log");
    let networks = r#"[{"network": "10.1.0.0/16", "reason": "wired by hand"}]"#;
    let mut command = place.command(&[]);
    command.env("PALISADE_DATABASE__PLAINTEXT_NETWORKS", networks);
    let server = Server::start(command.stderr(File::create(&path).unwrap()));
    let written = || std::fs::read_to_string(&path).unwrap();
    let start = Instant::now();
    while !written().contains("wired by hand") && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(server);
    let log = written();
    assert!(log.contains("revoke create on schema"), "{log}");
    assert!(log.contains("10.1.0.0/16") && log.contains("wired by hand"), "{log}");
    assert!(!log.contains("already exists"), "{log}");
}
