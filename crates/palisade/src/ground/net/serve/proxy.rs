//! The PROXY protocol, versions 1 and 2: before the bytes that a proxy forwards, it states which client they come from.
//!
//! The header is read to its last byte and no further, so whatever follows it, TLS or HTTP, is read as if there had been
//! no header.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The first bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const WORD: &[u8] = b"PROXY ";
/// No header is shorter than the signature of version 2.
pub(super) const SHORTEST: usize = SIGNATURE.len();
/// The maximum length of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The maximum length of version 2 after its fixed part. Proxies need less than a tenth of it.
const LONGEST_REST: u16 = 4096;
/// The length of two addresses of UNIX sockets.
const UNIX_ADDRESSES: usize = 216;
/// The type of the value that states how the client connected to the proxy (`PP2_TYPE_SSL`), and the bit that stands for
/// TLS in its first byte (`PP2_CLIENT_SSL`).
const TLS_STATUS: u8 = 0x20;
const OVER_TLS: u8 = 0x01;

/// What a header states.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The client, unless the proxy itself is the client (a health check) or can't name it.
    pub(super) client: Option<SocketAddr>,
    /// Whether the client connected to the proxy over TLS, if the header states it.
    pub(super) tls: Option<bool>,
}

/// How a connection begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Header(Header),
    /// Without a header; these bytes have been read.
    Other(Vec<u8>),
}

/// Returns whether bytes begin with a header, or with the first part of one.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, other)| byte == other);
    begins(SIGNATURE) || begins(WORD)
}

/// Reads the header of a connection.
///
/// # Errors
/// Returns an error if the header breaks the protocol, or the connection does.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Beginning> {
    let mut seen = Vec::with_capacity(LONGEST_LINE);
    while seen.len() < SHORTEST {
        let missing = SHORTEST - seen.len();
        if (&mut *stream).take(missing as u64).read_buf(&mut seen).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !is_header(&seen) {
            return Ok(Beginning::Other(seen));
        }
    }
    let header = if seen == SIGNATURE {
        let [command, family, high, low] = stream.read_u32().await?.to_be_bytes();
        let length = u16::from_be_bytes([high, low]);
        // SECURITY: a proxy doesn't decide how much memory a connection takes (test: a_header_has_a_largest_size).
        if length > LONGEST_REST {
            return Err(invalid());
        }
        let mut rest = vec![0; usize::from(length)];
        stream.read_exact(&mut rest).await?;
        version_2(command, family, &rest)
    } else {
        read_line(stream, &mut seen).await?;
        version_1(&seen)
    };
    header.map(Beginning::Header).ok_or_else(invalid)
}

/// Reads the rest of a line, and nothing after it.
async fn read_line(stream: &mut TcpStream, line: &mut Vec<u8>) -> io::Result<()> {
    let mut next = [0; LONGEST_LINE];
    while line.len() < LONGEST_LINE {
        let room = next.get_mut(line.len()..).unwrap_or_default();
        let count = stream.peek(room).await?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let end = room.iter().take(count).position(|byte| *byte == b'\n');
        let own = end.map_or(count, |end| end + 1);
        // What was peeked is there, and a read takes as much as is there.
        (&mut *stream).take(own as u64).read_buf(line).await?;
        if end.is_some() {
            return Ok(());
        }
    }
    Err(invalid())
}

fn invalid() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the header of the PROXY protocol is invalid")
}

/// Parses the line of version 1. Returns `None` if it breaks the protocol.
fn version_1(line: &[u8]) -> Option<Header> {
    let line = str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let [word, family, rest @ ..] = words.as_slice() else { return None };
    if word.as_bytes() != WORD.trim_ascii_end() {
        return None;
    }
    if *family == "UNKNOWN" {
        return Some(Header::default());
    }
    let [source, destination, source_port, destination_port] = rest else { return None };
    port(destination_port)?;
    let ip = match *family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    Some(Header { client: Some(client(ip, port(source_port)?)), tls: None })
}

fn port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

/// Parses what follows the signature of version 2: version and command, family and transport, and the rest after the
/// length. Returns `None` if it breaks the protocol.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Option<Header> {
    match command {
        // LOCAL: whatever follows has no meaning.
        0x20 => return Some(Header::default()),
        0x21 => {}
        _ => return None,
    }
    let (client, values) = match family {
        0x00 => return Some(Header::default()),
        0x11 => {
            let (source, rest) = rest.split_first_chunk::<4>()?;
            let (_, rest) = rest.split_first_chunk::<4>()?;
            let (port, values) = source_port(rest)?;
            (Some(client(IpAddr::from(*source), port)), values)
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>()?;
            let (_, rest) = rest.split_first_chunk::<16>()?;
            let (port, values) = source_port(rest)?;
            (Some(client(IpAddr::from(*source), port)), values)
        }
        // A UNIX socket, which has no IP address.
        0x31 => (None, rest.get(UNIX_ADDRESSES..)?),
        _ => return None,
    };
    Some(Header { client, tls: tls_status(values)? })
}

/// Returns the first of two ports, and what follows both.
fn source_port(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (source, rest) = bytes.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*source), rest))
}

fn client(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// Returns whether the client used TLS, if one of the values (type, length, value) states it. Returns `None` if a value
/// is cut off or states it a second time.
fn tls_status(mut values: &[u8]) -> Option<Option<bool>> {
    let mut status = None;
    while let [kind, high, low, rest @ ..] = values {
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == TLS_STATUS && status.replace(value.first()? & OVER_TLS != 0).is_some() {
            return None;
        }
        values = rest;
    }
    values.is_empty().then_some(status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (sender, listener.accept().await.unwrap().0)
    }

    /// What is read of these pieces, each of which arrives by itself, and what is left after it.
    async fn read_pieces(pieces: &[&[u8]]) -> (io::Result<Beginning>, Vec<u8>) {
        let (mut sender, mut receiver) = pair().await;
        let sending = async {
            for piece in pieces {
                sender.write_all(piece).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            sender.shutdown().await.unwrap();
        };
        let (beginning, ()) = tokio::join!(read(&mut receiver), sending);
        let mut rest = Vec::new();
        receiver.read_to_end(&mut rest).await.unwrap();
        (beginning, rest)
    }

    fn named(client: &str) -> Option<Header> {
        Some(Header { client: Some(client.parse().unwrap()), tls: None })
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// 192.0.2.7:4660 to 198.51.100.1:443.
    const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 1, 187];

    #[test]
    fn a_line_names_the_client() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n", "192.0.2.7:4660"),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n", "192.0.2.7:0"),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n", "[2001:db8::7]:4660"),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 443\r\n", "192.0.2.7:4660"),
        ] {
            assert_eq!(version_1(line.as_bytes()), named(expected), "{line}");
        }
        for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"] {
            assert_eq!(version_1(unknown.as_bytes()), Some(Header::default()), "{unknown}");
        }
        for broken in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 4660 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660 65536\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +466 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 04660 443\r\n",
            "PROXY TCP4 192.0.02.7 198.51.100.1 4660 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 4660 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 4660 443\r\n",
            "PROXY TCP6 fe80::1%eth0 fe80::2 4660 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4660 443\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 4660 443\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
        ] {
            assert_eq!(version_1(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn version_2_names_the_client_and_how_it_connected() {
        assert_eq!(version_2(0x21, 0x11, &FOUR), named("192.0.2.7:4660"));
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        six[32..34].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(version_2(0x21, 0x21, &six), named("[2001:db8::7]:4660"));
        six[..16].copy_from_slice(&"::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(version_2(0x21, 0x21, &six), named("192.0.2.7:4660"));
        // LOCAL, an unspecified family and a UNIX socket name no client.
        for (command, family, rest) in
            [(0x20, 0x00, &[][..]), (0x20, 0x11, &FOUR), (0x20, 0x77, b"x"), (0x21, 0x00, b"abc")]
        {
            assert_eq!(version_2(command, family, rest), Some(Header::default()));
        }
        assert_eq!(version_2(0x21, 0x31, &[b'/'; UNIX_ADDRESSES]), Some(Header::default()));
        for (command, family, rest) in [
            (0x11, 0x11, &FOUR[..]),
            (0x22, 0x11, &FOUR),
            (0x21, 0x12, &FOUR),
            (0x21, 0x22, &FOUR),
            (0x21, 0x11, &FOUR[..11]),
            (0x21, 0x21, &FOUR),
            (0x21, 0x31, &FOUR),
            (0x21, 0x41, &FOUR),
        ] {
            assert_eq!(version_2(command, family, rest), None, "{command:x} {family:x}");
        }
        let with = |values: &[u8]| {
            version_2(0x21, 0x11, &[&FOUR[..], values].concat()).map(|header| header.tls)
        };
        // ALPN and a checksum before it, a version of TLS within it.
        let other = [1, 0, 2, b'h', b'2', 3, 0, 4, 1, 2, 3, 4];
        for (flags, tls) in [(0, false), (1, true), (6, false), (7, true)] {
            let status = [0x20, 0, 9, flags, 0, 0, 0, 0, 0x21, 0, 1, b'1'];
            assert_eq!(with(&[&other[..], &status].concat()), Some(Some(tls)));
            assert_eq!(with(&[&status[..], &status].concat()), None);
            assert_eq!(with(&status[..11]), None);
        }
        assert_eq!(with(&other), Some(None));
        assert_eq!(with(&[0x20, 0, 0]), None);
        assert_eq!(with(&[4, 0]), None);
    }

    #[tokio::test]
    async fn what_follows_a_header_is_not_read() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n";
        let binary = v2(0x21, 0x11, &[&FOUR[..], &[4, 0, 3, 0, 0, 0]].concat());
        for header in [&line[..], &binary] {
            let whole = [header, b"GET /\n"].concat();
            for at in 0..header.len() {
                let (first, second) = whole.split_at(at);
                let (beginning, rest) = read_pieces(&[first, second]).await;
                let expected = named("192.0.2.7:4660").map(Beginning::Header);
                assert_eq!(beginning.ok(), expected, "{at}");
                assert_eq!(rest, b"GET /\n", "{at}");
            }
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            let (beginning, rest) = read_pieces(&bytes).await;
            assert!(matches!(beginning, Ok(Beginning::Header(_))) && rest == b"GET /\n");
            // It is cut off.
            let (beginning, _) = read_pieces(&[&header[..header.len() - 1]]).await;
            assert_eq!(beginning.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_header_has_a_largest_size() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 16));
        assert_eq!(long.len(), LONGEST_LINE);
        let (beginning, _) = read_pieces(&[long.as_bytes()]).await;
        assert_eq!(beginning.unwrap(), Beginning::Header(Header::default()));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 15));
        let (beginning, _) = read_pieces(&[longer.as_bytes()]).await;
        assert_eq!(beginning.unwrap_err().kind(), ErrorKind::InvalidData);
        let most = usize::from(LONGEST_REST);
        let (beginning, _) = read_pieces(&[&v2(0x20, 0, &vec![0; most])]).await;
        assert_eq!(beginning.unwrap(), Beginning::Header(Header::default()));
        let (beginning, rest) = read_pieces(&[&v2(0x20, 0, &vec![0; most + 1])]).await;
        assert_eq!(beginning.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(rest.len(), most + 1);
    }

    #[tokio::test]
    async fn a_connection_without_a_header_is_recognized_by_its_first_bytes() {
        for other in [
            &b"GET / HTTP/1.1"[..],
            b"POST /",
            b"P",
            b"PRI * HTTP/2.0",
            b"\x16\x03\x01",
            b"\r\nGET",
        ] {
            let (beginning, _) = read_pieces(&[other, b"\r\n\r\n\r\n\r\n"]).await;
            assert!(matches!(beginning, Ok(Beginning::Other(_))), "{other:?}: {beginning:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(line: Vec<u8>, command: u8, family: u8, rest: Vec<u8>) {
            let _ = version_1(&line);
            let _ = version_1(&[b"PROXY TCP4 ", &line[..], b"\r\n"].concat());
            let _ = version_2(command, family, &rest);
            let _ = version_2(0x21, 0x11, &rest);
        }

        #[test]
        fn every_client_is_named(ip: IpAddr, port: u16) {
            let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {ip} {ip} {port} {port}\r\n");
            let client = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(version_1(line.as_bytes()).unwrap().client, Some(client));
        }
    }
}
