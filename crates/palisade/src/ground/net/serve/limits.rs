//! The limits of the listener.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;

/// The smallest read buffer with which HTTP/1.1 works.
const SMALLEST_BUFFER: usize = 8 * 1024;
/// The number of header lines up to which the parser allocates no memory.
const HEADERS_ON_STACK: usize = 100;

/// Decides which IP addresses are exempt from the limits per IP address and per network, or must use the PROXY protocol.
pub type Exempt = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The limits of the listener: connections, deadlines and sizes.
#[derive(Clone)]
pub struct Limits {
    /// The maximum number of open connections; more wait in the operating system's queue. A network (IPv4 /24, IPv6
    /// /48) may have a quarter of those that are still free, and an IPv6 /32 may have half of them.
    pub connections: usize,
    /// The maximum number of open connections per IP address, for IPv6 per /64 network; more are closed immediately.
    pub connections_per_ip: usize,
    /// IP addresses that are exempt from `connections_per_ip` and from the shares of networks. Loopback by default.
    pub exempt: Exempt,
    /// The peers that must begin every connection with a header of the PROXY protocol (version 1 or 2). No other peer may
    /// send one. None by default.
    pub proxy_protocol: Option<Exempt>,
    /// How long a TLS handshake may take, and how long a header of the PROXY protocol may take.
    pub tls_handshake_timeout: Duration,
    /// How long a request's head may take, from its first byte (for the first head, from the opening of the
    /// connection).
    pub header_timeout: Duration,
    /// How long an HTTP/1.1 connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// How long the peer may go without reading any more of a response.
    pub write_timeout: Duration,
    /// The maximum size of a request's head in HTTP/1.1, and of a header list in HTTP/2. In HTTP/1.1, values below 8
    /// KiB count as 8 KiB.
    pub max_header_bytes: u32,
    /// The maximum number of header lines in HTTP/1.1.
    pub max_headers: usize,
    /// The maximum number of concurrent HTTP/2 requests on one connection.
    pub h2_concurrent_streams: u32,
    /// The interval at which a silent HTTP/2 peer is pinged.
    pub h2_ping_interval: Duration,
    /// How long the peer may take to acknowledge a ping.
    pub h2_ping_timeout: Duration,
    /// The maximum number of requests that the peer has reset before the service received them ("rapid reset",
    /// CVE-2023-44487).
    pub h2_pending_resets: usize,
    /// How many streams the server resets because the peer broke the protocol, before it ends the connection.
    pub h2_error_resets: usize,
    /// How long requests that have begun may take to finish once the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_ip: 512,
            exempt: Arc::new(|ip| ip.is_loopback()),
            proxy_protocol: None,
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

impl Limits {
    /// Returns the HTTP implementation, configured with these limits.
    pub(super) fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        let head = usize::try_from(self.max_header_bytes).unwrap_or(usize::MAX);
        builder.http1().max_buf_size(head.max(SMALLEST_BUFFER));
        if self.max_headers != HEADERS_ON_STACK {
            builder.http1().max_headers(self.max_headers);
        }
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.h2_concurrent_streams)
            .max_header_list_size(self.max_header_bytes)
            .keep_alive_interval(self.h2_ping_interval)
            .keep_alive_timeout(self.h2_ping_timeout)
            .max_pending_accept_reset_streams(self.h2_pending_resets)
            .max_local_error_reset_streams(self.h2_error_resets);
        builder
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Limits")
            .field("connections", &self.connections)
            .field("connections_per_ip", &self.connections_per_ip)
            .field("header_timeout", &self.header_timeout)
            .field("max_header_bytes", &self.max_header_bytes)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
