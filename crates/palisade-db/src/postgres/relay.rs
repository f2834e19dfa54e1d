//! Reaches a server without TLS: only in the named networks, and only with SCRAM.
//!
//! The driver resolves a host name itself and doesn't say where it led, and it sends a password in whatever form the
//! server requests. It therefore connects to a loopback port of this process, which passes the bytes on.
//!
//! SECURITY: the IP address that is checked is the one that is connected to, for each connection again, because a name
//! may lead elsewhere later. An attacker in the network who poses as the server gets no password: SCRAM proves that the
//! client knows the password without sending it, and that the server knows it too (tests:
//! a_name_that_leads_out_of_the_networks_is_not_reached, a_server_that_asks_for_the_password_itself_is_refused).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::url::{Target, is_in};
use crate::DbError;

/// The codes with which the relay itself refuses a connection. PostgreSQL has none that begin with `PL`.
pub(crate) const OUTSIDE: &str = "PLNET";
pub(crate) const NO_SCRAM: &str = "PLSCR";
pub(crate) const UNREACHABLE: &str = "PLOFF";

/// How long the connection to the server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The longest message that a server sends while it authenticates a client.
const LONGEST: u32 = 64 * 1024;

/// The lowest number of rounds of SCRAM (RFC 7677, section 4). With fewer, a false server could try passwords out.
const FEWEST_ROUNDS: u32 = 4096;

/// A listener that passes connections on. It stops when it is dropped; open connections continue.
pub(super) struct Relay {
    task: AbortHandle,
}

/// The server and where it may be.
struct Server {
    host: String,
    port: u16,
    networks: Vec<IpNet>,
}

impl Relay {
    /// Starts a relay if the target is reached without TLS, and returns the options with which to connect.
    pub(super) async fn start(
        target: Target,
        networks: &[IpNet],
    ) -> Result<(PgConnectOptions, Option<Self>), DbError> {
        let Target { options, is_plaintext } = target;
        if !is_plaintext {
            return Ok((options, None));
        }
        let failed =
            |cause| DbError::unavailable("no loopback port can be opened").caused_by(cause);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let server = Arc::new(Server {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            networks: networks.to_vec(),
        });
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(cause) = server.relay(client).await {
                        tracing::debug!(%cause, "a connection to the database server ended");
                    }
                });
            }
        });
        let options = options.host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable);
        Ok((options, Some(Self { task: task.abort_handle() })))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        let connected = timeout(CONNECT, self.connect()).await.map_err(io::Error::from);
        let server = match connected.flatten() {
            Ok(Some(server)) => server,
            Ok(None) => return refuse(&mut client, OUTSIDE, "").await,
            Err(cause) => return refuse(&mut client, UNREACHABLE, &cause.to_string()).await,
        };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let out = copy(&mut from_client, &mut to_server);
        let back = async {
            let mut login = Login::default();
            while !login.is_done() {
                let message = read_message(&mut from_server).await?;
                if !login.allows(&message) {
                    return refuse(&mut to_client, NO_SCRAM, "").await;
                }
                to_client.write_all(&message).await?;
            }
            copy(&mut from_server, &mut to_client).await.map(drop)
        };
        tokio::select! {
            ended = out => ended.map(drop),
            ended = back => ended,
        }
    }

    /// Connects to the first IP address of the host that is in one of the networks, or returns `None` if none is.
    async fn connect(&self) -> io::Result<Option<TcpStream>> {
        let found: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let mut failed = None;
        for address in found {
            if !is_in(&self.networks, address.ip()) {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(cause) => failed = Some(cause),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

/// How far the server has authenticated the client, and itself (PostgreSQL manual, section 55.2.1).
#[derive(Default)]
struct Login {
    steps: usize,
}

/// The authentication requests of SCRAM, in order: mechanisms, continuation, end, success.
const SCRAM: [u32; 4] = [10, 11, 12, 0];

impl Login {
    fn is_done(&self) -> bool {
        self.steps == SCRAM.len()
    }

    /// Returns whether the driver may see a message of the server.
    fn allows(&mut self, message: &[u8]) -> bool {
        let body = message.get(5..).unwrap_or_default();
        match message.first() {
            // an error, a notice, and the offer of another protocol version
            Some(b'E' | b'N' | b'v') => true,
            Some(b'R') => {
                let request = body.first_chunk().copied().map(u32::from_be_bytes);
                let expected = SCRAM.get(self.steps).copied();
                self.steps += 1;
                let text = body.get(4..).unwrap_or_default();
                request.is_some()
                    && request == expected
                    && (request != Some(11) || enough_rounds(text))
            }
            _ => false,
        }
    }
}

/// Returns whether the server's first message of SCRAM (`r=…,s=…,i=…`) requests enough rounds.
fn enough_rounds(text: &[u8]) -> bool {
    let rounds = std::str::from_utf8(text).ok().and_then(|text| {
        let rounds = text.split(',').find_map(|part| part.strip_prefix("i="))?;
        rounds.parse::<u32>().ok()
    });
    rounds.is_some_and(|rounds| rounds >= FEWEST_ROUNDS)
}

/// Reads a message whole: its type, its length including itself, its body.
async fn read_message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = message.get(1..).and_then(|length| length.first_chunk().copied());
    let length = length.map(u32::from_be_bytes).filter(|length| (4..LONGEST).contains(length));
    let length = length.ok_or_else(|| io::Error::other("a message of the server is malformed"))?;
    message.resize(1 + usize::try_from(length).map_err(io::Error::other)?, 0);
    if let Some(body) = message.get_mut(5..) {
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
    use super::*;

    fn request(number: u32, text: &str) -> Vec<u8> {
        let length = u32::try_from(8 + text.len()).unwrap();
        [b"R", &length.to_be_bytes()[..], &number.to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn only_a_whole_scram_exchange_is_passed_on() {
        let whole = [
            request(10, "SCRAM-SHA-256\0\0"),
            request(11, "r=x,s=y,i=4096"),
            request(12, "v=z"),
            request(0, ""),
        ];
        let mut login = Login::default();
        for message in &whole {
            assert!(!login.is_done() && login.allows(message));
        }
        assert!(login.is_done());
        // success at once, the password itself, its MD5, GSSAPI, a skipped step, too few rounds, another message
        for (before, wrong) in [
            (0, request(0, "")),
            (0, request(3, "")),
            (0, request(5, "salt")),
            (0, request(7, "")),
            (0, request(11, "r=x,s=y,i=4096")),
            (1, request(0, "")),
            (1, request(11, "r=x,s=y,i=4095")),
            (1, request(11, "r=x,s=y")),
            (2, request(0, "")),
            (3, request(3, "")),
            (3, b"Z\0\0\0\x05I".to_vec()),
            (0, b"R\0\0\0\x04".to_vec()),
        ] {
            let mut login = Login::default();
            assert!(whole.iter().take(before).all(|message| login.allows(message)));
            assert!(!login.allows(&wrong), "{before} {wrong:?}");
        }
    }
}
