//! The listener: turns TCP connections into requests to a service, over HTTP/1.1 or HTTP/2, plain or with TLS.
//!
//! Every request carries a [`Carrier`] in its extensions.
//!
//! # Promises
//!
//! - No peer can hold a connection by being slow: the TLS handshake, the request's head, an idle HTTP/1.1 connection
//!   and a response that is not read each have a deadline; an HTTP/2 peer must answer pings. (The service is
//!   responsible for the pace of a request's body.)
//! - An IP address or a network can't take all connections. Connections beyond its share are closed immediately.
//! - Heads that are too large are refused (431), and HTTP/2 is bounded in streams, header lists and
//!   resets.
//! - A request whose end or host could be read in two ways never reaches the service.
//! - The service ([`Refuse`]) responds to requests that the listener itself refuses, as it does to any other request.
//!   The only exception is an HTTP/2 header list of more than four times the limit.
//! - A header of the PROXY protocol is read only from peers that must send one, and decides nothing else than who the
//!   peer is. Its size and its time are bounded.
//! - A failure to accept a connection never ends the server, whether a peer or the operating system causes it.
//! - When the server stops, no new connection is accepted, idle ones are closed, and requests that have begun get the
//!   drain time to finish.

mod admission;
mod connection;
mod limits;
mod progress;
mod proxy;
mod refusing;
#[cfg(test)]
mod tests;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use admission::{Admission, Seat};
pub use limits::{Exempt, Limits};
use proxy::Beginning;
use refusing::{Head, no_proxy_header, written};
pub use refusing::{Refuse, Refused};

/// How long to wait after the operating system could not accept a connection, for example because the process has no
/// file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The maximum number of bytes that are still read from a peer that should have used TLS, so that it receives the
/// response.
const LARGEST_REST: u64 = 1024 * 1024;
/// The maximum number of bytes that are read of the head of a request that is refused without being parsed.
const LARGEST_HEAD: u64 = 4096;

/// The connection that a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The address of the peer: the client or a proxy. IPv4-mapped IPv6 is given as IPv4. If a proxy named its client by
    /// the PROXY protocol, that client is the peer.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// Whether the connection is encrypted up to this process.
    pub tls: bool,
    /// The proxy that forwards the connection, if it began with a header of the PROXY protocol.
    pub proxy: Option<Proxy>,
}

/// A proxy that began a connection with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// The proxy's IP address. IPv4-mapped IPv6 is given as IPv4.
    pub ip: IpAddr,
    /// Whether the header named the client.
    pub names_client: bool,
    /// Whether the client connected to the proxy over TLS, if the header stated it.
    pub client_tls: Option<bool>,
}

/// The connection of a request, and the signal that the server is stopping. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Carrier(Arc<(Connection, Stopping)>);

impl Carrier {
    /// Combines a connection with the signal that the server is stopping.
    #[must_use]
    pub fn new(connection: Connection, stopping: Stopping) -> Self {
        Self(Arc::new((connection, stopping)))
    }

    /// Returns the connection that the request came over.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.0.0
    }
}

/// Signals to a request that the server is stopping, so that an endless response can end.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Option<watch::Receiver<bool>>);

impl Stopping {
    /// Waits until the server stops. Never returns if the request didn't come through a listener.
    pub async fn wait(&mut self) {
        match &mut self.0 {
            // Without a sender the server has stopped already.
            Some(stopped) => drop(stopped.wait_for(|stopped| *stopped).await),
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Stopping {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Carrier>().map(|carrier| carrier.0.1.clone()).unwrap_or_default())
    }
}

/// How a server stopped.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request that had begun was answered.
    Finished,
    /// This many connections were still busy at the end of the drain time and were closed.
    Cut(usize),
}

/// A service that answers every request, including those that the listener refuses, and never fails.
pub trait Handler:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
    + Refuse
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Handler for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
        + Refuse
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
/// Returns an error if the listener's socket is not usable at all. Failures to accept individual connections are logged
/// and don't stop the server.
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
        headers_missed: AtomicBool::new(false),
        limits,
    });
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            // Before accepting, so that ended connections take no memory in a flood of new ones.
            Some(ended) = connections.join_next() => note_end(ended),
            (stream, peer, slot) = front.accept(&listener) => {
                let Some(seat) = front.admission.admit(peer.ip()) else { continue };
                let (front, service) = (Arc::clone(&front), service.clone());
                connections.spawn(async move {
                    let _held = slot;
                    let local = stream.local_addr().unwrap_or(local);
                    let ends = Ends { peer, local, proxy: None };
                    front.welcome(stream, ends, seat, service).await;
                });
            }
        }
    }
    drop(listener);
    // This can't fail: `front` still holds a receiver.
    let _ = stopping.send(true);
    Ok(finish(connections, drain).await)
}

/// Configures HTTP/2 to accept header lists of up to four times the limit. The service refuses those above the limit,
/// because a refusal by the HTTP/2 implementation has no headers. The implementation refuses longer lists, and ends the
/// connection if a list exceeds sixteen times the limit. More can't be accepted: a header costs one byte on the wire
/// but up to 80 in memory, and a connection may send a hundred lists before the service receives the first (test:
/// an_http2_header_list_is_never_kept_beyond_four_times_the_limit).
fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = limits.builder();
    builder.http2().max_header_list_size(limits.max_header_bytes.saturating_mul(4));
    builder
}

/// Waits for the connections to end and closes those that take too long.
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

/// The socket addresses of both ends of a connection, and the proxy between them.
#[derive(Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
    proxy: Option<Proxy>,
}

impl Ends {
    fn connection(self, tls: bool) -> Connection {
        Connection { peer: self.peer, local: self.local, tls, proxy: self.proxy }
    }
}

/// The state that all connections share.
struct Front {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    slots: Arc<Semaphore>,
    admission: Arc<Admission>,
    /// Whether a proxy has failed to send a header, which is logged once.
    headers_missed: AtomicBool,
    stopped: watch::Receiver<bool>,
}

impl Front {
    /// Accepts the next connection once there is a slot for it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let mut told = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer, slot);
                }
                Err(error) if ends_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "can't accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection, after the header of the PROXY protocol if the peer must send one.
    async fn welcome<S: Handler>(
        &self,
        mut stream: TcpStream,
        mut ends: Ends,
        mut seat: Seat,
        service: S,
    ) {
        // SECURITY: a header is never looked for in what another peer sends
        // (test: a_header_from_anyone_else_is_no_header).
        if self.limits.proxy_protocol.as_ref().is_some_and(|proxies| proxies(ends.peer.ip())) {
            let Some(header) = self.header(&mut stream, ends).await else { return };
            let header = match header {
                Beginning::Header(header) => header,
                Beginning::Other(seen) => return self.refuse(stream, ends, &service, seen).await,
            };
            ends.proxy = Some(Proxy {
                ip: ends.peer.ip(),
                names_client: header.client.is_some(),
                client_tls: header.tls,
            });
            if let Some(client) = header.client {
                ends.peer = client;
                drop(seat);
                // SECURITY: the client has a share of its own, not the proxy's
                // (test: a_client_behind_the_proxy_protocol_has_a_share_of_its_own).
                let Some(own) = self.admission.admit(client.ip()) else { return };
                seat = own;
            }
        }
        self.converse(stream, ends, service).await;
        drop(seat);
    }

    /// Reads the header of the PROXY protocol. Returns `None` if it is invalid or takes too long, or if the server stops.
    async fn header(&self, stream: &mut TcpStream, ends: Ends) -> Option<Beginning> {
        let mut stopped = self.stopped.clone();
        let read = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return None,
            read = tokio::time::timeout(self.limits.tls_handshake_timeout, proxy::read(stream)) => read.ok()?,
        };
        match &read {
            Ok(Beginning::Header(_)) => {}
            Ok(Beginning::Other(_)) => self.note_missing_header(ends, "it is missing"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.note_missing_header(ends, "it is invalid");
            }
            // A proxy may open a connection only to check that it can.
            Err(error) => tracing::debug!(%error, peer = %ends.peer, "a PROXY header was cut off"),
        }
        read.ok()
    }

    fn note_missing_header(&self, ends: Ends, problem: &str) {
        if !self.headers_missed.swap(true, Ordering::Relaxed) {
            let peer = ends.peer.ip();
            tracing::warn!(
                %peer,
                "refused connections from a trusted proxy, which must begin each with a header of the \
                 PROXY protocol: {problem} (server.proxy_protocol)"
            );
        }
    }

    /// Serves one connection until it ends.
    async fn converse<S: Handler>(&self, stream: TcpStream, ends: Ends, service: S) {
        // If this fails, responses only arrive later, and a broken socket shows on the first read.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.drive(stream, self.builder.clone(), ends, service).await;
        };
        let mut stopped = self.stopped.clone();
        if self.is_plain(&stream).await {
            return self.refuse(stream, ends, &service, Vec::new()).await;
        }
        let handshake = tokio::time::timeout(self.limits.tls_handshake_timeout, tls.accept(stream));
        let stream = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            stream = handshake => stream,
        };
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return tracing::debug!(%error, peer = %ends.peer, "a TLS handshake failed");
            }
            Err(_) => return tracing::debug!(peer = %ends.peer, "the TLS handshake took too long"),
        };
        let builder = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.builder.clone().http2_only(),
            _ => self.builder.clone().http1_only(),
        };
        self.drive(stream, builder, ends, service).await;
    }
}

impl Front {
    /// Returns whether a peer that should use TLS begins with a letter, like plain HTTP.
    async fn is_plain(&self, stream: &TcpStream) -> bool {
        let mut first = [0];
        let peek = tokio::time::timeout(self.limits.tls_handshake_timeout, stream.peek(&mut first));
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => false,
            peeked = peek => matches!(peeked, Ok(Ok(1))) && first[0].is_ascii_alphabetic(),
        }
    }

    /// Sends a refusal to a peer that sends plain HTTP where TLS or a header of the PROXY protocol is expected. `head` is
    /// what has been read so far.
    async fn refuse<S: Handler>(
        &self,
        mut stream: TcpStream,
        ends: Ends,
        service: &S,
        mut head: Vec<u8>,
    ) {
        let no_header = !head.is_empty();
        if no_header && !head.first().is_some_and(u8::is_ascii_alphabetic) {
            return;
        }
        let conversation = async {
            (&mut stream).take(LARGEST_HEAD).read_buf(&mut head).await?;
            let head = Head(&head);
            let error = if no_header { no_proxy_header() } else { head.not_tls() };
            let headers = HeaderMap::new();
            let refused = head.refused(error, &headers);
            let bodiless = refused.method == Method::HEAD;
            let answer = written(service.refuse(&ends.connection(false), refused), bodiless);
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            // Closing the connection with unread bytes would reset it, and the peer would lose the response.
            let mut rest = stream.take(LARGEST_REST);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let ended = tokio::time::timeout(self.limits.tls_handshake_timeout, conversation).await;
        tracing::debug!(?ended, peer = %ends.peer, "plain HTTP where something else was expected");
    }
}

/// Returns whether only the connection that was about to be accepted has failed.
fn ends_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
