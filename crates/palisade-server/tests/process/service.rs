//! What a service manager sees: signals, and the messages of `sd_notify(3)`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let latest = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < latest, "not in time: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

#[test]
fn only_signals_that_stop_it_end_the_server() {
    for stop in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let place = Place::new();
        let mut server = Server::start(&place);
        let log = || fs::read_to_string(place.path().join("log")).unwrap();
        for (name, other) in
            [("SIGHUP", Signal::HUP), ("SIGUSR1", Signal::USR1), ("SIGUSR2", Signal::USR2)]
        {
            signal(&server.process, other);
            let line = |line: &str| line.contains(name) && line.contains("has no effect");
            until(name, || log().lines().any(line));
        }
        assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
        signal(&server.process, stop);
        let mut ended = None;
        until("its end", || {
            ended = server.process.try_wait().unwrap();
            ended.is_some()
        });
        assert!(ended.unwrap().success(), "{stop:?}: {ended:?}");
        assert!(log().contains("stopped"), "{}", log());
    }
}

#[test]
fn a_signal_during_the_start_does_not_end_it() {
    let place = Place::new();
    let config = place.path().join("config.toml");
    // It waits for its configuration.
    mknodat(CWD, &config, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let log = File::create(place.path().join("log")).unwrap();
    let mut command = place.command(&["--config", "config.toml", "serve"]);
    let mut process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let handled = || {
        let status = fs::read_to_string(shown(&process, "status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (Signal::HUP.as_raw() - 1) != 0
    };
    until("a handler", handled);
    signal(&process, Signal::HUP);
    signal(&process, Signal::USR1);
    fs::write(&config, "").unwrap();
    let log = || fs::read_to_string(place.path().join("log")).unwrap();
    until("the signals in the log", || log().contains("SIGHUP") && log().contains("SIGUSR1"));
    signal(&process, Signal::TERM);
    let ended = process.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", log());
}

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    /// One that any user can write to.
    fn new(place: &Place) -> Self {
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self::at(socket)
    }

    fn told(&self) -> String {
        self.told_by(SOON).unwrap_or_else(|| panic!("nothing was told"))
    }

    fn told_by(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut message = [0; 256];
        let length = self.0.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }
}

#[test]
fn a_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() {
    let place = Place::new();
    let name = format!("palisade-test-{}", std::process::id());
    let abstract_name = UnixAddr::from_abstract_name(&name).unwrap();
    let hidden = Manager::at(UnixDatagram::bind_addr(&abstract_name).unwrap());
    let visible = Manager::new(&place);
    let path = place.path().join("notify").display().to_string();
    for (manager, name) in [(visible, path), (hidden, format!("@{name}"))] {
        let mut command = place.command(&["serve"]);
        let mut server = Server::run(&place, command.env("NOTIFY_SOCKET", name));
        assert_eq!(manager.told(), "READY=1");
        assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
        // Without an interval, it wants no signs of life.
        assert_eq!(manager.told_by(Duration::from_millis(300)), None);
        server.stop(SOON);
        assert_eq!(manager.told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000");
    }
}

#[test]
fn a_service_manager_is_told_of_a_reload() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let path = place.path().join("notify");
    let mut server = Server::run(&place, place.command(&["serve"]).env("NOTIFY_SOCKET", path));
    assert_eq!(manager.told(), "READY=1");
    for _ in 0..2 {
        let clock = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
        };
        let before = clock();
        signal(&server.process, Signal::HUP);
        let told = manager.told();
        let at = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let at: i64 = at.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
        assert!((before..=clock()).contains(&at), "{at} {before}");
        assert_eq!(manager.told(), "READY=1");
    }
    server.stop(SOON);
    assert!(manager.told().starts_with("STOPPING=1"));
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path().join("notify"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = command.env("PALISADE_SERVER__ADMIN_LISTEN", address).output().unwrap();
    assert!(!ended.status.success());
    assert_eq!(manager.told_by(Duration::from_millis(100)), None);
}

#[test]
fn a_socket_of_a_manager_that_is_gone_stops_nothing() {
    let place = Place::new();
    for name in ["/nonexistent/notify", "vsock:2:1234", "@", ""] {
        let mut command = place.command(&["serve"]);
        let mut server = Server::run(&place, command.env("NOTIFY_SOCKET", name));
        assert!(server.get("/livez").starts_with("HTTP/1.1 200"), "{name}");
        server.stop(SOON);
    }
}

#[test]
fn clients_that_hold_every_admin_connection_do_not_stop_the_signs_of_life() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let admin = format!("127.0.0.1:{}", free_port());
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path().join("notify"));
    command.env("PALISADE_SERVER__ADMIN_LISTEN", &admin);
    let mut server = Server::run(&place, command.env("WATCHDOG_USEC", "900000"));
    assert_eq!(manager.told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told_by(Duration::from_millis(900)).as_deref(), Some("WATCHDOG=1"));
    }
    // The admin listener has no room for another connection.
    let _full: Vec<TcpStream> = (0..70).map(|_| TcpStream::connect(&admin).unwrap()).collect();
    let mut late = TcpStream::connect(&admin).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    late.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    late.read_exact(&mut [0]).expect_err("there was room");
    while manager.told_by(Duration::from_millis(1)).is_some() {}
    for _ in 0..5 {
        assert_eq!(manager.told_by(Duration::from_millis(900)).as_deref(), Some("WATCHDOG=1"));
    }
    let log = fs::read_to_string(place.path().join("log")).unwrap();
    assert!(!log.contains("does not respond to its own health check"), "{log}");
    server.stop(SOON);
}

#[test]
fn the_watchdog_of_another_process_gets_no_signs_of_life() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path().join("notify"));
    command.env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1");
    while manager.told_by(Duration::from_millis(1)).is_some() {}
    let mut server = Server::run(&place, &mut command);
    assert_eq!(manager.told(), "READY=1");
    assert_eq!(manager.told_by(Duration::from_secs(1)), None);
    server.stop(SOON);
}

#[test]
fn a_service_manager_is_asked_for_more_time_while_the_start_takes_long() {
    let cluster = Cluster::start();
    let url = cluster.create_database("palisade_slow", "template0");
    let place = Place::new();
    let manager = Manager::new(&place);
    let migrated = place.command(&["migrate", "up"]).env("PALISADE_DATABASE__URL", &url).output();
    assert!(migrated.unwrap().status.success());
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path().join("notify"));
    command.env("PALISADE_DATABASE__URL", &url);
    command.env("PALISADE_DATABASE__STATEMENT_TIMEOUT", "60s");
    now(async {
        // Another program changes the schema, and the start waits for it.
        let statement_timeout = Duration::from_secs(60);
        let db = Db::open(Options { statement_timeout, ..options(&url) }).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.run("lock table schema_migrations in access exclusive mode", args![]).await.unwrap();
        let starting = std::thread::spawn(move || {
            let server = Server::run(&place, &mut command);
            (place, server)
        });
        let told = manager.told_by(Duration::from_secs(20));
        assert_eq!(told.as_deref(), Some("EXTEND_TIMEOUT_USEC=60000000"));
        drop(tx);
        db.close().await;
        let (_place, mut server) = starting.join().unwrap();
        while manager.told() != "READY=1" {}
        server.stop(SOON);
    });
}

#[test]
fn a_start_that_waits_is_stopped_by_a_signal() {
    let cluster = Cluster::start();
    let place = Place::new();
    let manager = Manager::new(&place);
    let url = cluster.create_database("palisade_waits", "template0");
    let log = File::create(place.path().join("log")).unwrap();
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path().join("notify"));
    command.env("PALISADE_DATABASE__URL", &url).stdout(Stdio::null()).stderr(log);
    now(async {
        let db = Db::open(options(&url)).await.unwrap();
        // Another program creates the table of migrations and doesn't come to an end.
        let mut tx = db.begin().await.unwrap();
        tx.run("create table schema_migrations (id int)", args![]).await.unwrap();
        let keep = "set local idle_in_transaction_session_timeout = 0";
        tx.run(keep, args![]).await.unwrap();
        let mut process = command.spawn().unwrap();
        until_one_waits(&db).await;
        signal(&process, Signal::TERM);
        let mut ended = None;
        until("its end", || {
            ended = process.try_wait().unwrap();
            ended.is_some()
        });
        let log = fs::read_to_string(place.path().join("log")).unwrap();
        assert!(ended.unwrap().success(), "{ended:?}: {log}");
        assert!(log.contains("stopping before the start is complete"), "{log}");
        tx.commit().await.unwrap();
        db.close().await;
    });
    // The manager was told nothing before, and is told that this takes no longer than a stop.
    assert_eq!(manager.told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000");
    assert_eq!(manager.told_by(Duration::from_millis(100)), None);
}

#[test]
fn load_balancers_that_probe_the_front_page_get_a_success() {
    let place = Place::new();
    for (reference, status) in [("true", "307"), ("false", "200")] {
        let mut command = place.command(&["serve"]);
        let mut server = Server::run(&place, command.env("PALISADE_REFERENCE__ENABLED", reference));
        for (probe, status) in [("GET /", status), ("HEAD /", status), ("OPTIONS /", "204")] {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            write!(stream, "{probe} HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{probe}: {answer}");
        }
        server.stop(SOON);
    }
}
