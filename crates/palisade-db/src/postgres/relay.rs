//! Reaches a server without TLS: only in the named networks, and only with SCRAM.
//!
//! The driver resolves a host name itself and doesn't say where it led, and it sends a password in whatever form the
//! server requests. It therefore connects to a loopback port of this process, which passes the bytes on.
//!
//! SECURITY: the IP address that is checked is the one that is connected to, for each connection again, because a name
//! may lead elsewhere later. An attacker in the network who poses as the server gets no password: SCRAM proves that the
//! client knows the password without sending it, and that the server knows it too (tests:
//! a_name_that_leads_out_of_the_networks_is_not_reached, a_server_that_asks_for_the_password_itself_is_refused).
//! `login` judges the server's messages until the driver has logged in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use ipnet::IpNet;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::login::Login;
use super::url::{Target, is_in};
use crate::DbError;

/// The codes with which the relay itself refuses a connection. PostgreSQL has none that begin with `PL`.
pub(crate) const OUTSIDE: &str = "PLNET";
pub(crate) const NO_SCRAM: &str = "PLSCR";
pub(crate) const UNREACHABLE: &str = "PLOFF";

/// How long a login may take, from the first byte of the driver until the server is ready for a query. A connection on
/// which nothing is sent lasts no longer either.
const LOGIN: Duration = Duration::from_secs(10);

/// How long the connection to the server may take, to all its IP addresses together. Less than the driver waits at the
/// start, so that the error has its cause.
const CONNECT: Duration = Duration::from_secs(4);

/// When to try the next IP address of a name, while the one before it doesn't respond. A connection of the pool must
/// still be in time.
const NEXT_ADDRESS: Duration = Duration::from_millis(100);

/// The maximum number of IP addresses of a name that are tried.
const MOST_ADDRESSES: usize = 6;

/// The connections beside those of the pool: for notifications, migrations, and checks at the start.
const BESIDE_THE_POOL: u32 = 8;

/// The longest message that a client sends first: PostgreSQL accepts no longer one.
const LONGEST_STARTUP: u32 = 10_000;

/// The longest message that a server sends during a login.
const LONGEST: u32 = 64 * 1024;

/// A listener that passes connections on. It stops when it is dropped; open connections continue.
pub(super) struct Relay {
    task: AbortHandle,
}

/// The server and where it may be.
struct Server {
    host: String,
    port: u16,
    networks: Vec<IpNet>,
    /// [`LOGIN`], or less in tests.
    login: Duration,
}

impl Relay {
    /// Starts a relay for `connections` and a few more if the target is reached without TLS, and returns the options
    /// with which to connect.
    pub(super) async fn start(
        target: Target,
        networks: &[IpNet],
        connections: u32,
    ) -> Result<(PgConnectOptions, Option<Self>), DbError> {
        let Target { options, is_plaintext } = target;
        if !is_plaintext {
            return Ok((options, None));
        }
        let failed =
            |cause| DbError::unavailable("no loopback port can be opened").caused_by(cause);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let server = Server {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            networks: networks.to_vec(),
            login: LOGIN,
        };
        let most = usize::try_from(connections.saturating_add(BESIDE_THE_POOL)).unwrap_or_default();
        let task = tokio::spawn(serve(listener, Arc::new(server), most));
        let options = options.host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable);
        Ok((options, Some(Self { task: task.abort_handle() })))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on at most `most` connections at a time. Further ones wait.
///
/// SECURITY: any process on this machine can connect to the port. It doesn't use up the descriptors of this process
/// (test: connections_beyond_the_limit_wait), and a connection that doesn't log in makes room for another one (test:
/// a_login_that_never_ends_is_ended).
async fn serve(listener: TcpListener, server: Arc<Server>, most: usize) {
    let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(cause) = server.relay(client).await {
                tracing::debug!(%cause, "a connection to the database server ended");
            }
            drop(place);
        });
    }
}

impl Server {
    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        let latest = Instant::now() + self.login;
        client.set_nodelay(true)?;
        let startup = timeout_at(latest, read_startup(&mut client)).await??;
        let mut next = [0];
        let connected = tokio::select! {
            connected = timeout(CONNECT, self.connect()) => connected.map_err(io::Error::from).flatten(),
            // The driver is silent until the server responds: it has given up.
            _ = client.peek(&mut next) => return Ok(()),
        };
        let mut server = match connected {
            Ok(Some(server)) => server,
            Ok(None) => return refuse(&mut client, OUTSIDE, "").await,
            Err(cause) => return refuse(&mut client, UNREACHABLE, &cause.to_string()).await,
        };
        server.set_nodelay(true)?;
        server.write_all(&startup).await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let out = copy(&mut from_client, &mut to_server);
        let back = async {
            let login = log_in(&mut from_server, &mut to_client);
            match timeout_at(latest, login).await.map_err(io::Error::from).flatten() {
                Ok(true) => copy(&mut from_server, &mut to_client).await.map(drop),
                Ok(false) => refuse(&mut to_client, NO_SCRAM, "").await,
                Err(cause) => refuse(&mut to_client, UNREACHABLE, &cause.to_string()).await,
            }
        };
        tokio::select! {
            ended = out => ended.map(drop),
            ended = back => ended,
        }
    }

    /// Connects to an IP address of the host that is in one of the networks, or returns `None` if none is.
    async fn connect(&self) -> io::Result<Option<TcpStream>> {
        let found = lookup_host((self.host.as_str(), self.port)).await?;
        let usable = found.filter(|address| is_in(&self.networks, address.ip()));
        let usable: Vec<SocketAddr> = usable.take(MOST_ADDRESSES).collect();
        match usable.is_empty() {
            true => Ok(None),
            false => connect_to_one_of(usable).await.map(Some),
        }
    }
}

/// Connects to the first IP address that accepts a connection. An IP address that doesn't respond delays the next one
/// only briefly.
async fn connect_to_one_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut after = Duration::ZERO;
    let attempts = addresses.into_iter().map(|address| {
        let wait = after;
        after += NEXT_ADDRESS;
        Box::pin(async move {
            sleep(wait).await;
            TcpStream::connect(address).await
        })
    });
    select_ok(attempts).await.map(|(connected, _)| connected)
}

/// Passes the server's messages on until the driver has logged in. Returns false if the driver may not see one.
async fn log_in(
    server: &mut (impl AsyncRead + Unpin),
    driver: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    let mut login = Login::default();
    while !login.is_done() {
        let message = read_message(server).await?;
        if !login.allows(&message) {
            return Ok(false);
        }
        driver.write_all(&message).await?;
    }
    Ok(true)
}

/// Reads a message whole: its type, its length including itself, its body.
async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut kind = [0];
    from.read_exact(&mut kind).await?;
    read_rest(from, kind.to_vec(), LONGEST).await
}

/// Reads the first message of a client, which has no type.
async fn read_startup(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    read_rest(from, Vec::new(), LONGEST_STARTUP).await
}

async fn read_rest(
    from: &mut (impl AsyncRead + Unpin),
    mut message: Vec<u8>,
    longest: u32,
) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if !(4..=longest).contains(&length) {
        return Err(io::Error::other("the length of a message is malformed"));
    }
    message.extend(length.to_be_bytes());
    let body = message.len();
    message.resize(body + usize::try_from(length - 4).map_err(io::Error::other)?, 0);
    if let Some(body) = message.get_mut(body..) {
        from.read_exact(body).await?;
    }
    Ok(message)
}

/// Sends an error message as a server does, and ends the connection.
async fn refuse(
    client: &mut (impl AsyncWrite + Unpin),
    code: &str,
    message: &str,
) -> io::Result<()> {
    let body = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    client.write_all(&[b"E", &length.to_be_bytes()[..], body.as_bytes()].concat()).await?;
    client.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::TcpSocket;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const STARTUP: &[u8] = b"\0\0\0\x09\0\x03\0\0\0";

    /// Starts a relay in front of a server.
    async fn relay_to(port: u16, most: usize, login: Duration) -> SocketAddr {
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        let server = Server { host: "127.0.0.1".into(), port, networks, login };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(server), most));
        address
    }

    /// A server that accepts connections and stays silent, and the relay in front of it.
    async fn silent_server(most: usize, login: Duration) -> (TcpListener, SocketAddr) {
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = relay_to(silent.local_addr().unwrap().port(), most, login).await;
        (silent, address)
    }

    async fn started(relay: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(relay).await.unwrap();
        client.write_all(STARTUP).await.unwrap();
        client
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let (silent, relay) = silent_server(2, LOGIN * 100).await;
        let first = started(relay).await;
        let _second = started(relay).await;
        let mut third = started(relay).await;
        let mut served = Vec::new();
        for _ in 0..2 {
            served.push(timeout(SOON, silent.accept()).await.unwrap().unwrap());
        }
        assert!(timeout(Duration::from_millis(300), silent.accept()).await.is_err());
        // A driver that gives up makes room.
        drop(first);
        let (mut server, _) = timeout(SOON, silent.accept()).await.unwrap().unwrap();
        let mut startup = [0; STARTUP.len()];
        server.read_exact(&mut startup).await.unwrap();
        assert_eq!(startup, STARTUP);
        server.write_all(b"E\0\0\0\x05\0").await.unwrap();
        let mut error = [0; 6];
        third.read_exact(&mut error).await.unwrap();
        assert_eq!(&error, b"E\0\0\0\x05\0");
    }

    #[tokio::test]
    async fn a_login_that_never_ends_is_ended() {
        let (_silent, relay) = silent_server(2, Duration::from_millis(300)).await;
        let mut mute = TcpStream::connect(relay).await.unwrap();
        let mut waiting = started(relay).await;
        let mut said = Vec::new();
        timeout(SOON, mute.read_to_end(&mut said)).await.unwrap().unwrap();
        assert_eq!(said, b"");
        timeout(SOON, waiting.read_to_end(&mut said)).await.unwrap().unwrap();
        assert!(String::from_utf8(said).unwrap().contains(UNREACHABLE));
    }

    #[tokio::test]
    async fn a_first_message_of_the_wrong_length_is_refused() {
        for length in [0, 3, LONGEST_STARTUP + 1, u32::MAX] {
            let start = [&length.to_be_bytes()[..], &[0; 16]].concat();
            assert!(read_startup(&mut &start[..]).await.is_err(), "{length}");
        }
        assert_eq!(read_startup(&mut &STARTUP[..]).await.unwrap(), STARTUP);
    }

    /// A port on which connections are neither accepted nor refused.
    async fn dead() -> (Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(client) =
            timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            queued.push(client.unwrap());
        }
        (queued, listener)
    }

    #[tokio::test]
    async fn a_driver_that_gives_up_before_the_server_is_reached_makes_room() {
        let (_queued, dead) = dead().await;
        let relay = relay_to(dead.local_addr().unwrap().port(), 1, LOGIN * 100).await;
        drop(started(relay).await);
        let mut second = started(relay).await;
        let mut said = Vec::new();
        timeout(CONNECT * 3 / 2, second.read_to_end(&mut said)).await.unwrap().unwrap();
        assert!(String::from_utf8(said).unwrap().contains(UNREACHABLE));
    }

    #[tokio::test]
    async fn an_ip_address_that_does_not_respond_does_not_hide_the_next() {
        let (_queued, dead) = dead().await;
        let live = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = [&dead, &live].map(|listener| listener.local_addr().unwrap());
        let connected = timeout(CONNECT, connect_to_one_of(addresses.to_vec())).await;
        assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), addresses[1]);
        drop(live);
        let refused = timeout(SOON, connect_to_one_of(addresses[1..].to_vec())).await.unwrap();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
