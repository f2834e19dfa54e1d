//! A certificate that is replaced while the listener serves.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use rcgen::{Certificate, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::*;

/// The day on which these tests begin.
const TODAY: &str = "2026-06-01T00:00:00Z";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate with its key, both in PEM.
struct Made {
    certificate: Certificate,
    key: String,
}

impl Made {
    /// Valid for `host` from the first of January of a year to that of another.
    fn new(host: &str, years: (i32, i32)) -> Self {
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(years.0, 1, 1);
        parameters.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self { certificate: parameters.self_signed(&key).unwrap(), key: key.serialize_pem() }
    }

    fn good() -> Self {
        Self::new("localhost", (2026, 2027))
    }
}

/// Collects the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files of a certificate, what serves it, and its log.
struct Place {
    files: Certified,
    clock: Clock,
    served: Arc<ServerCertificate>,
    log: Log,
    _listening: tracing::subscriber::DefaultGuard,
}

impl Place {
    fn new(first: &Made) -> Self {
        let log = Log::default();
        let writer = log.clone();
        let lines =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let listening = tracing::subscriber::set_default(lines);
        let files = Certified::new();
        let clock = Clock::by_hand(Timestamp::parse_rfc3339(TODAY).unwrap());
        put(&files, first);
        let served = load_at(&files.chain(), &files.key(), clock.clone()).unwrap();
        Self { files, clock, served: Arc::new(served), log, _listening: listening }
    }

    /// Reads the files as often as in ten seconds.
    fn ten_seconds(&self) {
        for _ in 0..10 {
            self.clock.advance(Duration::from_secs(1));
            self.served.look();
        }
    }

    /// Writes a pair, and returns whether it is in use within five seconds.
    fn takes(&self, made: &Made) -> bool {
        put(&self.files, made);
        (0..5).any(|_| {
            self.clock.advance(Duration::from_secs(1));
            self.served.look();
            self.uses(made)
        })
    }

    fn uses(&self, made: &Made) -> bool {
        self.served.serves(made.certificate.der())
    }
}

fn put(files: &Certified, made: &Made) {
    std::fs::write(files.chain(), made.certificate.pem()).unwrap();
    std::fs::write(files.key(), &made.key).unwrap();
    files.set_mode(0o600);
}

#[test]
fn a_new_pair_is_used_and_its_end_is_known() {
    let (first, second) = (Made::good(), Made::new("localhost", (2026, 2028)));
    let place = Place::new(&first);
    assert!(place.uses(&first) && place.served.last_reload_succeeded());
    assert_eq!(place.served.expires_at().unwrap().to_string(), "2027-01-01T00:00:00Z");
    assert!(place.takes(&second));
    assert_eq!(place.served.expires_at().unwrap().to_string(), "2028-01-01T00:00:00Z");
    place.ten_seconds();
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("the new certificate is in use"), "{lines:?}");
}

#[test]
fn a_pair_whose_files_are_replaced_or_relinked_is_used() {
    let place = Place::new(&Made::good());
    let folder = place.files.folder.path();
    let written = |name: &str, made: &Made| {
        let version = folder.join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("chain.pem"), made.certificate.pem()).unwrap();
        std::fs::write(version.join("key.pem"), &made.key).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(version.join("key.pem"), private).unwrap();
        version
    };
    // Renamed over the old files.
    let made = Made::good();
    let version = written("renamed", &made);
    for path in [place.files.chain(), place.files.key()] {
        std::fs::rename(version.join(path.file_name().unwrap()), path).unwrap();
    }
    place.ten_seconds();
    assert!(place.uses(&made));
    // Links to a link to a directory, of which only that one is replaced, as Kubernetes does.
    for path in [place.files.chain(), place.files.key()] {
        std::fs::remove_file(&path).unwrap();
        symlink(Path::new("data").join(path.file_name().unwrap()), path).unwrap();
    }
    for name in ["one", "two"] {
        let made = Made::good();
        symlink(written(name, &made), folder.join("new")).unwrap();
        std::fs::rename(folder.join("new"), folder.join("data")).unwrap();
        place.ten_seconds();
        assert!(place.uses(&made), "{name}");
    }
    assert!(place.log.lines().iter().all(|line| line.contains("is in use")));
}

#[test]
fn files_that_are_being_written_are_neither_used_nor_a_failure() {
    let (first, second) = (Made::good(), Made::good());
    let place = Place::new(&first);
    std::fs::write(place.files.chain(), second.certificate.pem()).unwrap();
    for _ in 0..4 {
        place.clock.advance(Duration::from_secs(1));
        place.served.look();
    }
    std::fs::remove_file(place.files.key()).unwrap();
    place.served.look();
    put(&place.files, &second);
    place.served.look();
    assert!(place.uses(&first), "content that was seen once may be incomplete");
    assert!(place.served.last_reload_succeeded());
    place.served.look();
    assert!(place.uses(&second));
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("is in use"), "{lines:?}");
}

/// What can be wrong with new files: a word of the log line, and what writes them.
type Fault = (&'static str, fn(&Certified));

const FAULTS: [Fault; 12] = [
    ("does not belong", |files| {
        std::fs::write(files.chain(), Made::good().certificate.pem()).unwrap();
    }),
    ("does not belong", |files| std::fs::write(files.key(), Made::good().key).unwrap()),
    ("expired at 2026-01-01", |files| put(files, &Made::new("localhost", (2025, 2026)))),
    ("not valid before 2027-01-01", |files| put(files, &Made::new("localhost", (2027, 2028)))),
    ("not valid for localhost", |files| put(files, &Made::new("other.example.com", (2026, 2027)))),
    ("is encrypted", |files| {
        let pem =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        std::fs::write(files.key(), pem).unwrap();
    }),
    ("chmod 600", |files| files.set_mode(0o644)),
    ("no certificate in PEM", |files| std::fs::write(files.chain(), "").unwrap()),
    ("not valid PEM", |files| {
        let pem = Made::good().certificate.pem();
        std::fs::write(files.chain(), pem.get(..pem.len() / 2).unwrap()).unwrap();
    }),
    ("no private key in PEM", |files| std::fs::write(files.key(), "none").unwrap()),
    ("can't be read", |files| std::fs::remove_file(files.chain()).unwrap()),
    ("not a regular file", |files| {
        std::fs::remove_file(files.key()).unwrap();
        std::fs::create_dir(files.key()).unwrap();
    }),
];

#[test]
fn a_pair_that_clients_would_refuse_replaces_nothing() {
    for (word, spoil) in FAULTS {
        let first = Made::good();
        let place = Place::new(&first);
        spoil(&place.files);
        place.ten_seconds();
        place.ten_seconds();
        assert!(place.uses(&first) && !place.served.last_reload_succeeded(), "{word}");
        let lines = place.log.lines();
        assert!(lines.len() == 1 && lines[0].contains(word), "{word}: {lines:?}");
        assert!(lines[0].contains("ERROR") && lines[0].contains(".pem"), "{lines:?}");
        // On request, the same is said again.
        place.served.reload();
        let lines = place.log.lines();
        assert!(lines.len() == 1 && lines[0].contains(word), "{word}: {lines:?}");
        if place.files.key().is_dir() {
            std::fs::remove_dir(place.files.key()).unwrap();
        }
        let second = Made::good();
        assert!(place.takes(&second) && place.served.last_reload_succeeded(), "{word}");
    }
}

#[test]
fn the_old_files_restored_end_a_failure() {
    let first = Made::good();
    let place = Place::new(&first);
    place.files.set_mode(0o644);
    place.ten_seconds();
    assert!(!place.served.last_reload_succeeded() && place.log.lines().len() == 1);
    place.files.set_mode(0o600);
    place.ten_seconds();
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("again"), "{lines:?}");
    assert!(place.served.last_reload_succeeded());
}

#[test]
fn a_reload_on_request_is_immediate_and_says_what_it_did() {
    let (first, second) = (Made::good(), Made::good());
    let place = Place::new(&first);
    place.served.reload();
    assert!(place.log.lines()[0].contains("have not changed"));
    std::fs::write(place.files.chain(), second.certificate.pem()).unwrap();
    place.served.reload();
    assert!(place.log.lines()[0].contains("does not belong"));
    put(&place.files, &second);
    place.served.reload();
    assert!(place.uses(&second) && place.log.lines()[0].contains("is in use"));
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_used_from_then_on() {
    let (first, next) = (Made::good(), Made::new("localhost", (2027, 2028)));
    let place = Place::new(&first);
    assert!(!place.takes(&next));
    place.clock.advance(DAY * 214);
    place.ten_seconds();
    assert!(place.uses(&next));
}

#[test]
fn a_certificate_for_another_host_is_used_if_the_last_was_for_another_too() {
    let place = Place::new(&Made::new("one.example.com", (2026, 2027)));
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("not valid for localhost"), "{lines:?}");
    assert!(place.takes(&Made::new("two.example.com", (2026, 2027))));
}

#[test]
fn a_late_renewal_is_logged_daily_and_the_end_once() {
    let place = Place::new(&Made::good());
    // Fourteen days and an hour before its end.
    place.clock.advance(DAY * 200 - Duration::from_secs(3600));
    place.ten_seconds();
    assert_eq!(place.log.lines(), Vec::<String>::new());
    place.clock.advance(Duration::from_secs(7200));
    for _ in 0..3 {
        place.ten_seconds();
        let lines = place.log.lines();
        assert!(lines.len() == 1 && lines[0].contains("expires at 2027-01-01"), "{lines:?}");
        assert!(lines[0].contains("WARN"), "{lines:?}");
        place.clock.advance(DAY);
    }
    place.clock.advance(DAY * 12);
    place.ten_seconds();
    place.clock.advance(DAY * 2);
    place.ten_seconds();
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("expired at 2027-01-01"), "{lines:?}");
    assert!(lines[0].contains("ERROR"), "{lines:?}");
    // A new one is judged anew.
    assert!(place.takes(&Made::new("localhost", (2026, 2028))));
}

#[test]
fn an_expired_certificate_is_told_at_the_start_and_only_then() {
    let place = Place::new(&Made::new("localhost", (2025, 2026)));
    place.ten_seconds();
    let lines = place.log.lines();
    assert!(lines.len() == 1 && lines[0].contains("expired at 2026-01-01"), "{lines:?}");
}

/// A client that resumes its sessions and trusts all of these certificates.
fn client(trusted: &[Made], version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.certificate.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn handshake(client: &TlsConnector, to: SocketAddr) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    client.connect(name, TcpStream::connect(to).await.unwrap()).await.unwrap()
}

/// Sends requests until told to stop, over one connection or over a new one each time. Returns their number.
async fn requests(
    client: TlsConnector,
    to: SocketAddr,
    kept: bool,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut count = 0;
    let mut stream = handshake(&client, to).await;
    while !*stop.borrow() {
        if !kept {
            stream = handshake(&client, to).await;
        }
        write(&mut stream, GET).await;
        assert!(read_answer(&mut stream).await.ends_with("tls=true"));
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_certificate_is_replaced_fifty_times() {
    let made: Vec<Made> = (0..50).map(|_| Made::new("localhost", (1990, 4000))).collect();
    let files = Certified::new();
    put(&files, &made[0]);
    let served = Arc::new(files.load().unwrap());
    let limits = Limits { exempt: Arc::new(|_| true), ..Limits::default() };
    let server = Running::start_with(limits, Some(served.config())).await;
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let version = if number % 4 < 2 { &TLS13 } else { &TLS12 };
        // Most connections are kept.
        let kept = number % 10 != 0;
        clients.spawn(requests(client(&made, version), server.address, kept, stopped.clone()));
    }
    for next in &made {
        put(&files, next);
        let reloading = Arc::clone(&served);
        tokio::task::spawn_blocking(move || reloading.reload()).await.unwrap();
        let stream = handshake(&client(std::slice::from_ref(next), &TLS13), server.address).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(&shown[0], next.certificate.der());
        sleep(Duration::from_millis(10)).await;
    }
    stop.send(true).unwrap();
    let mut counts = Vec::new();
    while let Some(count) = clients.join_next().await {
        counts.push(count.unwrap());
    }
    assert!(counts.len() == 200 && counts.iter().sum::<usize>() > 200, "{counts:?}");
}

#[tokio::test]
async fn a_session_is_resumed_after_the_certificate_is_replaced() {
    for version in [&TLS12, &TLS13] {
        let made = [Made::new("localhost", (1990, 4000)), Made::new("localhost", (1990, 4000))];
        let files = Certified::new();
        put(&files, &made[0]);
        let served = files.load().unwrap();
        let server = Running::start_with(Limits::default(), Some(served.config())).await;
        let client = client(&made, version);
        let mut kinds = Vec::new();
        for round in 0..3 {
            if round == 2 {
                put(&files, &made[1]);
                served.reload();
            }
            let mut stream = handshake(&client, server.address).await;
            write(&mut stream, GET).await;
            // Tickets arrive with the response.
            assert!(read_answer(&mut stream).await.ends_with("tls=true"));
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        use rustls::HandshakeKind::{Full, Resumed};
        assert_eq!(kinds, [Full, Resumed, Resumed], "{version:?}");
    }
}

#[test]
fn the_profile_is_the_intermediate_one() {
    let config = Certified::new().load().unwrap().config();
    let mut suites: Vec<_> = config
        .crypto_provider()
        .cipher_suites
        .iter()
        .map(|suite| format!("{:?}", suite.suite()))
        .collect();
    suites.sort();
    // Mozilla's intermediate profile without the suites with finite-field Diffie-Hellman.
    assert_eq!(
        suites,
        [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ]
    );
    assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(config.cert_compressors.is_empty() && config.cert_decompressors.is_empty());
    assert_eq!(config.max_early_data_size, 0);
    assert!(config.ticketer.enabled() && config.ticketer.lifetime() <= 12 * 3600);
}
