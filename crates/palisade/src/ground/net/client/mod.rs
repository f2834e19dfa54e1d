//! The caller as identified by the network: the client's IP address and scheme, also behind proxies.
//!
//! IPv4-mapped IPv6 addresses are treated as the IPv4 addresses they are.
//!
//! # Promises
//!
//! - Forwarded headers are used only when the connection itself comes from a trusted proxy. From any other peer they
//!   have no effect, regardless of their content and number.
//! - `X-Forwarded-For` and `Forwarded` (RFC 7239) are read from the right, the end that trusted proxies write, and only
//!   as far as each hop is trusted. An entry that can't be read ends the walk at the last hop that could be read.
//! - If both headers are present and do not name the same client, neither is trusted and the proxy's own IP address is
//!   used: a proxy sets only one of them, so the other came from the client.
//! - A client that a proxy names by the PROXY protocol counts like the peer of a connection: its forwarded headers are
//!   used only if it is a trusted proxy too. If a header of that protocol names no client, no forwarded header names one.
//! - A scheme counts as `https` only if every proxy that states a scheme states `https`.
//! - `X-Real-IP`, `True-Client-IP`, `CF-Connecting-IP` and similar headers never name a client.

mod forwarded;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net};

use super::serve::Connection;
use crate::limits;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The networks whose forwarded headers are trusted.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Creates a list of trusted proxies that contains every IP address in `networks`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(to_canonical).collect())
    }

    /// Returns whether `ip` is a trusted proxy.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Converts a network of IPv4-mapped addresses (RFC 4291, section 2.5.5.2) to the IPv4 network that it represents.
/// Returns any other network unchanged.
fn to_canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = match network.addr() {
        IpAddr::V6(ip) if network.prefix_len() >= MAPPED => ip.to_ipv4_mapped(),
        _ => None,
    };
    let plain = |ip: Ipv4Addr| Ipv4Net::new(ip, network.prefix_len() - MAPPED).ok();
    mapped.and_then(plain).map_or(network, IpNet::V4)
}

/// The IP address that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp {
    /// The nearest IP address that is not a trusted proxy, or the last one that could be read.
    pub ip: IpAddr,
    /// Whether a trusted proxy reported it; otherwise, it is the IP address of the connection's peer.
    pub forwarded: bool,
}

/// How the client sent its request, as far as can be determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Over TLS, up to this server or a trusted proxy.
    Https,
    /// In plain text, from a peer that isn't a trusted proxy.
    Http,
    /// In plain text, as a trusted proxy reports.
    MarkedHttp,
    /// Unknown: a trusted proxy sent the request in plain text and doesn't report how it received it.
    Unmarked,
    /// Unknown: what trusted proxies report is contradictory or can't be read.
    Contradictory,
}

/// Returns the client's IP address for a request with these headers.
#[must_use]
pub fn client_ip(
    connection: &Connection,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> ClientIp {
    let peer = connection.peer.ip().to_canonical();
    let named = connection.proxy.map(|proxy| proxy.names_client);
    let own = ClientIp { ip: peer, forwarded: named == Some(true) };
    // SECURITY: the peer is judged before any header is looked at
    // (tests: forged_headers_from_a_stranger_change_nothing, a_client_that_the_proxy_protocol_names_is_the_peer).
    if !trusted.contains(peer) || named == Some(false) {
        return own;
    }
    let ip = match (
        walk_x_forwarded_for(peer, headers, trusted),
        walk_forwarded(peer, headers, trusted),
    ) {
        (Some(one), Some(other)) if one != other => return own,
        (Some(ip), _) | (None, Some(ip)) => ip,
        (None, None) => return own,
    };
    ClientIp { ip, forwarded: own.forwarded || ip != peer }
}

/// Returns the scheme of a request.
///
/// A trusted proxy must state `https` without contradiction: in every value of every `X-Forwarded-Proto` line, in every
/// `proto` of `Forwarded`, and in the header of the PROXY protocol. A proxy that itself connects over TLS may state
/// nothing. If it states another scheme, that counts, because the client may not have used TLS.
///
/// Behind a header of the PROXY protocol, the statements of the proxy that sent it count, whether or not the client that
/// it named is trusted. If that proxy only forwards bytes, the client can claim `https` itself, without any advantage.
#[must_use]
pub fn scheme(connection: &Connection, headers: &HeaderMap, trusted: &TrustedProxies) -> Scheme {
    let sender = connection.proxy.map_or(connection.peer.ip(), |proxy| proxy.ip);
    let by_proxy = connection.proxy.and_then(|proxy| proxy.client_tls);
    if !trusted.contains(sender) {
        return if connection.tls { Scheme::Https } else { Scheme::Http };
    }
    // A proxy that passes TLS through can't know that the client uses it.
    if connection.tls && by_proxy == Some(false) {
        return Scheme::Contradictory;
    }
    let Some(said) = said(headers) else { return Scheme::Contradictory };
    match (said.https || by_proxy == Some(true), said.http || by_proxy == Some(false)) {
        (true, true) => Scheme::Contradictory,
        (true, false) => Scheme::Https,
        (false, true) => Scheme::MarkedHttp,
        (false, false) if connection.tls => Scheme::Https,
        (false, false) => Scheme::Unmarked,
    }
}

/// The schemes that the forwarded headers name.
#[derive(Default)]
struct Said {
    https: bool,
    http: bool,
}

/// Returns the schemes that the forwarded headers name, or `None` if a header can't be read or names a different
/// scheme.
fn said(headers: &HeaderMap) -> Option<Said> {
    let mut said = Said::default();
    let mut note = |scheme: &str| {
        let scheme = scheme.trim_matches([' ', '\t']);
        let https = scheme.eq_ignore_ascii_case("https");
        said.https |= https;
        said.http |= scheme.eq_ignore_ascii_case("http");
        (https || scheme.eq_ignore_ascii_case("http")).then_some(())
    };
    for line in headers.get_all(X_FORWARDED_PROTO) {
        line.to_str().ok()?.split(',').try_for_each(&mut note)?;
    }
    for line in headers.get_all(FORWARDED) {
        let hops = forwarded::parse(&text(line))?;
        hops.iter().filter_map(|hop| hop.proto.as_deref()).try_for_each(&mut note)?;
    }
    Some(said)
}

/// Returns whether a proxy, trusted or not, shows that it forwards the request: by the PROXY protocol or by a header.
#[must_use]
pub fn is_forwarded(connection: &Connection, headers: &HeaderMap) -> bool {
    let by_proxy = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded") || ["forwarded", "via", "x-real-ip"].contains(&name)
    };
    connection.proxy.is_some() || headers.keys().any(by_proxy)
}

/// Returns the IP address under which all of a client's IP addresses are counted: for IPv6, its /64 network.
#[must_use]
pub fn rate_key(ip: IpAddr) -> IpAddr {
    limits::ip_group(ip)
}

/// Walks the hops, starting with the nearest, and returns the client's IP address. `None` stands for a hop that can't
/// be read.
fn walk(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut last_good = peer;
    for hop in hops {
        let Some(ip) = hop else { break };
        last_good = ip;
        if !trusted.contains(ip) {
            break;
        }
    }
    last_good
}

fn walk_x_forwarded_for(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    if !headers.contains_key(X_FORWARDED_FOR) {
        return None;
    }
    let hops = headers.get_all(X_FORWARDED_FOR).iter().rev().flat_map(|line| {
        // A hop that is not text can't be read. The hops to its right can: a trusted proxy added them.
        let hops = line.as_bytes().rsplit(|byte| *byte == b',');
        hops.map(|hop| std::str::from_utf8(hop).ok().and_then(node_ip))
    });
    Some(walk(peer, hops, trusted))
}

fn walk_forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Option<IpAddr> {
    if !headers.contains_key(FORWARDED) {
        return None;
    }
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED).iter().rev() {
        match forwarded::parse(&text(line)) {
            Some(line) => {
                hops.extend(line.iter().rev().map(|hop| hop.node.as_deref().and_then(node_ip)));
            }
            None => hops.push(None),
        }
    }
    Some(walk(peer, hops.into_iter(), trusted))
}

/// Returns a header's value. Bytes that aren't UTF-8, which a quoted string may contain, become U+FFFD.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Parses an IP address with or without a port; IPv6 may be in brackets (RFC 7239 section 6).
fn node_ip(node: &str) -> Option<IpAddr> {
    let node = node.trim_matches([' ', '\t']);
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => node
            .parse::<IpAddr>()
            .or_else(|_| node.parse::<SocketAddr>().map(|socket| socket.ip()))
            .ok()?,
    };
    Some(ip.to_canonical())
}
