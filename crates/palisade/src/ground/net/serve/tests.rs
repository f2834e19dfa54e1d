//! Tests of the listener over real sockets on loopback.

mod proxied;
mod renewed;

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use palisade_db::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::tls::ServerCertificate;
use super::*;
use crate::clock::Clock;
use crate::files::Process;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
const LONG: Duration = Duration::from_secs(10);

/// The numbers of `/forever` handlers that began and that were dropped.
#[derive(Default)]
struct Forever {
    begun: AtomicUsize,
    dropped: AtomicUsize,
}

struct CountDrop(Arc<Forever>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Running {
    address: SocketAddr,
    forever: Arc<Forever>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<Drained>>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        Self::start_with(limits, None).await
    }

    async fn start_with(limits: Limits, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let forever = Arc::new(Forever::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let service = routes(Arc::clone(&forever));
        let ended = tokio::spawn(serve(listener, tls, service, limits, stopped));
        Self { address, forever, stop: Some(stop), ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_from(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.connect(self.address).await
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn drained(self) -> Drained {
        timeout(LONG, self.ended).await.unwrap().unwrap().unwrap()
    }
}

fn routes(forever: Arc<Forever>) -> Router {
    Router::new()
        .route(
            "/",
            get(|Extension(carrier): Extension<Carrier>| async move {
                let from = carrier.connection();
                format!("{} tls={}", from.peer, from.tls)
            }),
        )
        .route(
            "/slow",
            get(|| async {
                sleep(Duration::from_millis(600)).await;
                "done"
            }),
        )
        .route("/large", get(|| async { Body::from(vec![b'x'; 64 * 1024 * 1024]) }))
        .route(
            "/forever",
            get(move || async move {
                let _counted = CountDrop(Arc::clone(&forever));
                forever.begun.fetch_add(1, Ordering::SeqCst);
                pending::<()>().await;
            }),
        )
}

fn quick() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        tls_handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

/// Reads until the other side closes the connection.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ =
        timeout(LONG, stream.read_to_end(&mut all)).await.expect("the connection was not closed");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one response on a connection that stays open.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = vec![0; 4096];
    let count = timeout(LONG, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("the condition was not met in time");
}

/// Sends a GET request over HTTP/2 and returns the response body.
async fn get_h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> String {
    let io = TokioIo::new(stream);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driven = tokio::spawn(connection);
    let request = Request::get("http://here/").body(Empty::<Bytes>::new()).unwrap();
    let answer = timeout(LONG, client.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.version(), hyper::Version::HTTP_2);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    driven.abort();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Responds with the bare minimum. The `frame` module determines what a refusal looks like.
impl Refuse for Router {
    fn refuse(&self, _: &Connection, refused: Refused<'_>) -> Response {
        let mut response = Response::new(Body::from(refused.error.code()));
        *response.status_mut() = refused.error.kind().status();
        response
    }
}

fn load(certificate: &Path, key: &Path) -> Result<ServerCertificate, tls::TlsError> {
    load_at(certificate, key, Clock::system())
}

fn load_at(
    certificate: &Path,
    key: &Path,
    clock: Clock,
) -> Result<ServerCertificate, tls::TlsError> {
    let files = tls::Files { certificate: certificate.to_owned(), key: key.to_owned() };
    ServerCertificate::open(files, Process::current().unwrap(), clock, "localhost")
}

struct Certified {
    folder: tempfile::TempDir,
    certificate: CertificateDer<'static>,
}

impl Certified {
    fn new() -> Self {
        Self::named("one")
    }

    fn named(name: &str) -> Self {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = Self { certificate: certificate.der().clone(), folder };
        std::fs::write(made.chain(), certificate.pem()).unwrap();
        std::fs::write(made.key(), key.serialize_pem()).unwrap();
        made.set_mode(0o600);
        made
    }

    fn chain(&self) -> std::path::PathBuf {
        self.folder.path().join("chain.pem")
    }

    fn key(&self) -> std::path::PathBuf {
        self.folder.path().join("key.pem")
    }

    fn set_mode(&self, mode: u32) {
        std::fs::set_permissions(self.key(), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<ServerCertificate, tls::TlsError> {
        load(&self.chain(), &self.key())
    }

    async fn connect(&self, to: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.over(TcpStream::connect(to).await.unwrap(), protocol).await
    }

    async fn over(&self, stream: TcpStream, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.try_over(stream, protocol).await.unwrap()
    }

    async fn try_over(
        &self,
        stream: TcpStream,
        protocol: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_each_knows_its_peer() {
    let server = Running::start(Limits::default()).await;
    let mut client = server.connect().await;
    let expected = format!("{} tls=false", client.local_addr().unwrap());
    for _ in 0..3 {
        write(&mut client, GET).await;
        let answer = read_answer(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&expected), "{answer}");
    }
}

#[tokio::test]
async fn http2_works_with_prior_knowledge() {
    let server = Running::start(Limits::default()).await;
    assert!(get_h2(server.connect().await).await.ends_with("tls=false"));
}

#[tokio::test]
async fn tls_serves_both_versions_as_negotiated() {
    let certified = Certified::new();
    let server =
        Running::start_with(Limits::default(), Some(certified.load().unwrap().config())).await;
    let mut one = certified.connect(server.address, b"http/1.1").await;
    write(&mut one, GET).await;
    assert!(read_answer(&mut one).await.ends_with("tls=true"));
    let two = certified.connect(server.address, b"h2").await;
    assert_eq!(two.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert!(get_h2(two).await.ends_with("tls=true"));
}

#[tokio::test]
async fn a_slow_head_is_cut_however_it_drips() {
    let server = Running::start(quick()).await;
    let began = Instant::now();
    let mut client = server.connect().await;
    let (mut reader, mut writer) = client.split();
    let drip = async {
        for byte in GET.iter().cycle().filter(|byte| **byte != b'\n') {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = drip => {}
        answer = read_to_end(&mut reader) => assert!(answer.starts_with("HTTP/1.1 408"), "{answer}"),
    }
    assert!(began.elapsed() >= Duration::from_millis(290), "cut too early");
    assert!(began.elapsed() < Duration::from_secs(2), "cut too late");
}

#[tokio::test]
async fn a_silent_peer_and_half_a_preface_are_cut() {
    let server = Running::start(quick()).await;
    for sent in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut client = server.connect().await;
        write(&mut client, sent).await;
        let began = Instant::now();
        assert_eq!(read_to_end(&mut client).await, "");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_silent_tls_peer_is_cut_and_others_are_served() {
    let certified = Certified::new();
    let server = Running::start_with(quick(), Some(certified.load().unwrap().config())).await;
    let mut silent = server.connect().await;
    let mut garbage = server.connect().await;
    write(&mut garbage, &[0xff; 200]).await;
    let mut client = certified.connect(server.address, b"http/1.1").await;
    write(&mut client, GET).await;
    assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
    read_to_end(&mut garbage).await;
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_takes_tls() {
    let certified = Certified::new();
    let server =
        Running::start_with(Limits::default(), Some(certified.load().unwrap().config())).await;
    let mut client = server.connect().await;
    write(&mut client, GET).await;
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("connection: close\r\n\r\nrequest.malformed"), "{answer}");
    let mut client = certified.connect(server.address, b"http/1.1").await;
    write(&mut client, b"GET\0/\r\n\r\n").await;
    assert!(read_to_end(&mut client).await.ends_with("request.malformed"));
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_deadline_but_not_its_own() {
    let limits = Limits { idle_timeout: Duration::from_millis(900), ..quick() };
    let server = Running::start(limits).await;
    let mut client = server.connect().await;
    write(&mut client, GET).await;
    read_answer(&mut client).await;
    sleep(Duration::from_millis(600)).await;
    write(&mut client, GET).await;
    assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
    let began = Instant::now();
    assert_eq!(read_to_end(&mut client).await, "");
    let idle = began.elapsed();
    assert!(idle > Duration::from_millis(600) && idle < Duration::from_secs(3), "{idle:?}");
}

#[tokio::test]
async fn a_second_head_has_the_head_deadline_not_the_idle_one() {
    let server = Running::start(quick()).await;
    let mut client = server.connect().await;
    write(&mut client, GET).await;
    read_answer(&mut client).await;
    sleep(Duration::from_millis(100)).await;
    write(&mut client, b"GET / HTT").await;
    let began = Instant::now();
    assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 408"));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_slow_handler_is_not_cut_by_the_head_deadline() {
    let server = Running::start(quick()).await;
    let mut client = server.connect().await;
    write(&mut client, b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await;
    assert!(read_answer(&mut client).await.ends_with("done"));
}

#[tokio::test]
async fn a_response_nobody_reads_is_cut() {
    let limits = Limits { write_timeout: Duration::from_millis(300), ..quick() };
    let server = Running::start(limits).await;
    let mut client = server.connect().await;
    write(&mut client, b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n").await;
    sleep(Duration::from_millis(1500)).await;
    assert!(read_to_end(&mut client).await.len() < 64 * 1024 * 1024);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = Running::start(Limits::default()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: here\r\nX: {}", "x".repeat(33 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: here\r\n{}\r\n", "X: x\r\n".repeat(101));
    for head in [long, many] {
        let mut client = server.connect().await;
        write(&mut client, head.as_bytes()).await;
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_just_below_the_limit_passes() {
    let server = Running::start(Limits::default()).await;
    let mut client = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: here\r\nX: {}\r\n\r\n", "x".repeat(31 * 1024));
    write(&mut client, head.as_bytes()).await;
    assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn garbage_does_not_disturb_anybody() {
    let server = Running::start(Limits::default()).await;
    for garbage in
        [&[0u8; 64][..], b"\r\n\r\n\x16\x03\x01\x02", b"GET\0/\0HTTP\r\n\r\n", &[0xff; 9000]]
    {
        let mut client = server.connect().await;
        let _ = client.write_all(garbage).await;
        let _ = client.shutdown().await;
        let answer = read_to_end(&mut client).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut client = server.connect().await;
    write(&mut client, GET).await;
    assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_ip_gets_its_share_and_no_more() {
    let limits = Limits {
        connections_per_ip: 3,
        exempt: Arc::new(|ip| ip == Ipv4Addr::new(127, 0, 0, 3)),
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    let flooder = Ipv4Addr::new(127, 0, 0, 2);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect_from(flooder).await.unwrap();
        write(&mut client, GET).await;
        assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
        held.push(client);
    }
    for _ in 0..20 {
        let mut excess = server.connect_from(flooder).await.unwrap();
        assert_eq!(read_to_end(&mut excess).await, "");
    }
    let mut exempt = Vec::new();
    for _ in 0..10 {
        let mut client = server.connect_from(Ipv4Addr::new(127, 0, 0, 3)).await.unwrap();
        write(&mut client, GET).await;
        assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
        exempt.push(client);
    }
    held.pop();
    let mut again = String::new();
    for _ in 0..100 {
        let mut client = server.connect_from(flooder).await.unwrap();
        let _ = client.write_all(GET).await;
        let mut answer = [0; 12];
        if client.read_exact(&mut answer).await.is_ok() {
            again = String::from_utf8_lossy(&answer).into_owned();
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(again, "HTTP/1.1 200", "the seat of a closed connection was not released");
}

#[tokio::test]
async fn beyond_all_connections_one_waits_for_a_free_slot() {
    let server = Running::start(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    write(&mut first, GET).await;
    read_answer(&mut first).await;
    let mut second = server.connect().await;
    write(&mut second, GET).await;
    let mut byte = [0; 1];
    assert!(timeout(Duration::from_millis(200), second.read(&mut byte)).await.is_err());
    drop(first);
    assert!(read_answer(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_handler() {
    let server = Running::start(Limits::default()).await;
    let mut client = server.connect().await;
    write(&mut client, b"GET /forever HTTP/1.1\r\nHost: here\r\n\r\n").await;
    until(|| server.forever.begun.load(Ordering::SeqCst) == 1).await;
    client.shutdown().await.unwrap();
    until(|| server.forever.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn stopping_finishes_requests_and_takes_no_new_connections() {
    let mut server = Running::start(Limits::default()).await;
    let mut idle = server.connect().await;
    write(&mut idle, GET).await;
    read_answer(&mut idle).await;
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    write(&mut busy, b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await;
    sleep(Duration::from_millis(100)).await;
    server.stop();
    let stopped = Instant::now();
    sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepts");
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(stopped.elapsed() < Duration::from_millis(400), "idle connections linger");
    assert!(read_to_end(&mut busy).await.ends_with("done"));
    assert_eq!(server.drained().await, Drained::Finished);
}

#[tokio::test]
async fn stopping_lets_http2_requests_finish() {
    let mut server = Running::start(Limits::default()).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driven = tokio::spawn(connection);
    let request = Request::get("http://here/slow").body(Empty::<Bytes>::new()).unwrap();
    let answer = client.send_request(request);
    sleep(Duration::from_millis(100)).await;
    server.stop();
    let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"done");
    assert_eq!(server.drained().await, Drained::Finished);
    assert!(timeout(LONG, driven).await.is_ok(), "the connection stayed open");
}

#[tokio::test]
async fn the_drain_deadline_cuts_what_is_left() {
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let mut server = Running::start(limits).await;
    let forever = Arc::clone(&server.forever);
    let mut client = server.connect().await;
    write(&mut client, b"GET /forever HTTP/1.1\r\nHost: here\r\n\r\n").await;
    let io = TokioIo::new(server.connect().await);
    let (mut second, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://here/forever").body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::spawn(second.send_request(request));
    until(|| forever.begun.load(Ordering::SeqCst) == 2).await;
    server.stop();
    assert_eq!(server.drained().await, Drained::Cut(2));
    assert_eq!(read_to_end(&mut client).await, "");
    assert!(timeout(LONG, answer).await.unwrap().unwrap().is_err());
    until(|| forever.dropped.load(Ordering::SeqCst) == 2).await;
}

#[test]
fn a_key_open_to_others_is_refused() {
    let certified = Certified::new();
    for mode in [0o644, 0o604, 0o660, 0o601] {
        certified.set_mode(mode);
        let said = certified.load().unwrap_err().to_string();
        assert!(said.contains("chmod 600") && said.contains("key.pem can't be read"), "{said}");
    }
    certified.set_mode(0o400);
    assert!(certified.load().is_ok());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, other) = (Certified::new(), Certified::named("other"));
    let error = load(&one.chain(), &other.key()).unwrap_err();
    assert!(matches!(error, tls::TlsError::Mismatch(..)), "{error}");
    // In a chain whose first certificate is another one, too.
    let read = |path| std::fs::read_to_string(path).unwrap();
    let chain = read(one.chain());
    std::fs::write(one.chain(), read(other.chain()) + &chain).unwrap();
    let error = one.load().unwrap_err();
    assert!(matches!(error, tls::TlsError::WrongOrder(..)), "{error}");
    std::fs::write(one.chain(), chain + &read(other.chain())).unwrap();
    let said = one.load().unwrap().concerns(Clock::system().now()).join("\n");
    assert!(said.contains("is not signed by certificate 2"), "{said}");
}

#[test]
fn files_that_hold_no_certificate_or_key_are_refused() {
    let certified = Certified::new();
    let error = load(&certified.key(), &certified.key()).unwrap_err();
    assert!(matches!(error, tls::TlsError::NoCertificate(_, true)), "{error}");
    let missing = certified.folder.path().join("none");
    let error = load(&missing, &certified.key()).unwrap_err();
    assert!(matches!(error, tls::TlsError::Unreadable(..)), "{error}");
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    std::fs::copy(certified.chain(), certified.key()).unwrap();
    certified.set_mode(0o600);
    let error = certified.load().unwrap_err();
    assert!(matches!(error, tls::TlsError::NoKey(_, true)), "{error}");
    std::fs::write(certified.key(), "no key").unwrap();
    assert!(matches!(certified.load().unwrap_err(), tls::TlsError::NoKey(_, false)));
}

#[test]
fn an_encrypted_key_is_named_with_the_fix() {
    let certified = Certified::new();
    for pem in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
         MIIB\n-----END RSA PRIVATE KEY-----\n",
    ] {
        std::fs::write(certified.key(), pem).unwrap();
        let said = certified.load().unwrap_err().to_string();
        assert!(said.contains("is encrypted") && said.contains("openssl pkey"), "{said}");
    }
}

#[test]
fn a_certificate_and_key_may_begin_with_a_byte_order_mark() {
    let certified = Certified::new();
    for path in [certified.chain(), certified.key()] {
        let pem = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("\u{feff}{pem}")).unwrap();
    }
    certified.load().unwrap();
}

#[test]
fn a_certificate_outside_its_validity_is_named() {
    let certified = Certified::new();
    let loaded = certified.load().unwrap();
    let at = |time| loaded.concerns(Timestamp::parse_rfc3339(time).unwrap()).join("\n");
    assert_eq!(at("2026-01-01T00:00:00Z"), "");
    let said = at("5000-01-01T00:00:00Z");
    assert!(said.contains("expired at 4096-01-01T00:00:00"), "{said}");
    let said = at("1970-01-01T00:00:00Z");
    assert!(said.contains("not valid before 1975-01-01T00:00:00"), "{said}");
}
