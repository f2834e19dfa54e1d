//! The listener: from a TCP socket to requests for a service, HTTP/1.1 and HTTP/2, plain or TLS.
//!
//! Promises it keeps:
//! - No peer holds a connection by being slow: the TLS handshake, the request's head, an idle
//!   connection and a response nobody reads each have a deadline. (The pace of a request's body is
//!   the service's business.)
//! - One address cannot take all connections; what it opens beyond its share is closed at once.
//! - Heads that are too large are refused (431), and HTTP/2 is bounded in streams, header lists and
//!   resets.
//! - Nothing a peer or the operating system does on accepting ends the server.
//! - On stopping, no new connection is taken, idle ones are closed, and requests that have begun are
//!   finished within the drain time.
//!
//! Every request carries a [`Connection`] in its extensions.

mod admission;
mod connection;
mod progress;
#[cfg(test)]
mod tests;
pub mod tls;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use admission::Admission;

/// How long to leave the operating system alone after it could not accept a connection, for
/// example because the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The smallest read buffer HTTP/1.1 works with.
const SMALLEST_BUFFER: usize = 8 * 1024;
/// The number of header lines for which the parser needs no memory of its own.
const HEADERS_ON_STACK: usize = 100;

/// Which connection a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The other end: the client or a proxy. IPv4-mapped IPv6 is given as IPv4.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// Whether the connection is encrypted up to this process.
    pub tls: bool,
}

/// Tells which addresses the limit per address does not hold for.
pub type Exempt = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What a peer may take.
#[derive(Clone)]
pub struct Limits {
    /// Open connections; more wait in the operating system's queue.
    pub connections: usize,
    /// Open connections of one address, IPv6 by its /64 network; more are closed at once.
    pub connections_per_address: usize,
    /// Addresses `connections_per_address` does not hold for. Loopback unless set otherwise.
    pub exempt: Exempt,
    /// For a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// For a request's head, from its first byte (of the first head: from the connection's opening).
    pub header_timeout: Duration,
    /// For an HTTP/1.1 connection between two requests.
    pub idle_timeout: Duration,
    /// For the peer to take any more of a response.
    pub write_timeout: Duration,
    /// Size of a request's head in HTTP/1.1, at least 8 KiB, and of a header list in HTTP/2.
    pub max_header_bytes: u32,
    /// Number of header lines in HTTP/1.1.
    pub max_headers: usize,
    /// HTTP/2 requests at the same time on one connection.
    pub h2_concurrent_streams: u32,
    /// How often a quiet HTTP/2 peer is asked whether it is still there.
    pub h2_ping_interval: Duration,
    /// How long it may take to answer that.
    pub h2_ping_timeout: Duration,
    /// Requests the peer has reset and the service not seen yet ("rapid reset", CVE-2023-44487).
    pub h2_pending_resets: usize,
    /// Streams reset by us because the peer broke the protocol, before the connection ends.
    pub h2_error_resets: usize,
    /// How long requests that have begun may take to finish once the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 512,
            exempt: Arc::new(|address| address.is_loopback()),
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            max_header_bytes: 32 * 1024,
            max_headers: HEADERS_ON_STACK,
            h2_concurrent_streams: 100,
            h2_ping_interval: Duration::from_secs(20),
            h2_ping_timeout: Duration::from_secs(20),
            h2_pending_resets: 20,
            h2_error_resets: 200,
            drain: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Limits")
            .field("connections", &self.connections)
            .field("connections_per_address", &self.connections_per_address)
            .field("header_timeout", &self.header_timeout)
            .field("max_header_bytes", &self.max_header_bytes)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// How a server ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request that had begun was answered.
    Finished,
    /// So many connections were still busy when the drain time was over, and were cut.
    Cut(usize),
}

/// A service that answers every request and never fails.
pub trait Handler:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Handler for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves `service` on `listener`, over TLS if `tls` is given, until `stop` resolves; then finishes
/// the requests that have begun.
///
/// # Errors
/// When the listener's socket is not usable at all. Failures to accept single connections are
/// logged and survived.
pub async fn serve<S: Handler>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: S,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let local = listener.local_addr()?;
    let (stopping, stopped) = watch::channel(false);
    let drain = limits.drain;
    let front = Arc::new(Front {
        builder: builder(&limits),
        tls: tls.map(TlsAcceptor::from),
        stopped,
        slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
        admission: Arc::new(Admission::new(&limits)),
        limits,
    });
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            (stream, peer, slot) = front.accept(&listener) => {
                let Some(seat) = front.admission.admit(peer.ip()) else { continue };
                let (front, service) = (Arc::clone(&front), service.clone());
                connections.spawn(async move {
                    let _held = (slot, seat);
                    let local = stream.local_addr().unwrap_or(local);
                    front.converse(stream, Ends { peer, local }, service).await;
                });
            }
            Some(ended) = connections.join_next() => note_end(ended),
        }
    }
    drop(listener);
    // The receivers live in the connections; with none left nobody needs to know.
    let _ = stopping.send(true);
    Ok(finish(connections, drain).await)
}

/// Waits for the connections to end and cuts those that take too long.
async fn finish(mut connections: JoinSet<()>, drain: Duration) -> Drained {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if tokio::time::timeout(drain, all_ended).await.is_ok() {
        return Drained::Finished;
    }
    let cut = connections.len();
    connections.abort_all();
    Drained::Cut(cut)
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended because its request handler panicked");
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder.http1().max_buf_size(head.max(SMALLEST_BUFFER));
    if limits.max_headers != HEADERS_ON_STACK {
        builder.http1().max_headers(limits.max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.h2_ping_interval)
        .keep_alive_timeout(limits.h2_ping_timeout)
        .max_pending_accept_reset_streams(limits.h2_pending_resets)
        .max_local_error_reset_streams(limits.h2_error_resets);
    builder
}

/// The addresses of a connection.
#[derive(Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

/// What all connections share.
struct Front {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    slots: Arc<Semaphore>,
    admission: Arc<Admission>,
    stopped: watch::Receiver<bool>,
}

impl Front {
    /// The next connection, once there is a slot for it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer, slot);
                }
                Err(error) if ends_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection to its end.
    async fn converse<S: Handler>(&self, stream: TcpStream, ends: Ends, service: S) {
        // Without it answers only come later; a broken socket shows on the first read.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.drive(stream, self.builder.clone(), ends, service).await;
        };
        let mut stopped = self.stopped.clone();
        let handshake = tokio::time::timeout(self.limits.tls_handshake_timeout, tls.accept(stream));
        let stream = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            stream = handshake => stream,
        };
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, peer = %ends.peer, "no TLS handshake"),
            Err(_) => return tracing::debug!(peer = %ends.peer, "the TLS handshake took too long"),
        };
        let builder = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.builder.clone().http2_only(),
            _ => self.builder.clone().http1_only(),
        };
        self.drive(stream, builder, ends, service).await;
    }
}

/// Whether only the connection that was about to be accepted has failed.
fn ends_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
