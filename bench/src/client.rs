//! A minimal HTTP/1.1 client that can tell where a response ends. Requests are prepared in advance, and responses are
//! parsed only as far as needed to find their end, so that the load costs less than what it measures.

use std::net::{IpAddr, SocketAddr};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::Result;

/// A size that no measured response exceeds, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A request, ready to be written.
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Builds a `GET` request with these header lines, each terminated by `\r\n`.
    pub(crate) fn get(path: &str, headers: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes())
    }

    /// Builds a `PATCH` request with a JSON body and a bearer token.
    pub(crate) fn patch(path: &str, token: &str, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        let length = body.len();
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        Self((head + &body).into_bytes())
    }

    /// Builds a `POST` request with a JSON body, as a browser sends it from one of the server's own pages.
    pub(crate) fn post(path: &str, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        Self((head + &body).into_bytes())
    }
}

/// A response as it was received.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// The status line and header lines.
    pub(crate) head: &'a str,
    pub(crate) body: &'a [u8],
}

/// A persistent connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(LONGEST_ANSWER) })
    }

    /// Opens a connection from this local IP address.
    pub(crate) async fn open_from(from: IpAddr, address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(address).await?;
        Ok(Self { stream, received: Vec::with_capacity(LONGEST_ANSWER) })
    }

    /// Sends a request and waits for the response.
    pub(crate) async fn exchange(&mut self, request: &Request) -> Result<Answer<'_>> {
        self.stream.write_all(&request.0).await?;
        self.received.clear();
        let extent = loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(extent) = Extent::of(&self.received)? {
                break extent;
            }
        };
        if self.received.len() != extent.end {
            return Err("the server sent more than the response".into());
        }
        let head = std::str::from_utf8(&self.received[..extent.head])?;
        Ok(Answer { status: extent.status, head, body: &self.received[extent.head..] })
    }
}

/// The status of a complete response, and where its parts end.
struct Extent {
    status: u16,
    head: usize,
    end: usize,
}

impl Extent {
    /// Returns `None` while the response is incomplete.
    fn of(received: &[u8]) -> Result<Option<Self>> {
        let Some(head) = memmem::find(received, b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let length = match memmem::find(&received[..head], b"content-length: ") {
            Some(at) => number(&received[at + 16..])?,
            None => 0,
        };
        let end = head + length;
        if received.len() < end {
            return Ok(None);
        }
        let status = u16::try_from(number(&received["HTTP/1.1 ".len()..])?)?;
        Ok(Some(Self { status, head, end }))
    }
}

/// Parses the digits at the beginning.
fn number(bytes: &[u8]) -> Result<usize> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Ok(std::str::from_utf8(&bytes[..digits])?.parse()?)
}
