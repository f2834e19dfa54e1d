//! The refusals of the listener itself, before a request reaches the service.
//!
//! When the parser can't read a head, it returns a bare status. That response is replaced with the service's own
//! ([`Refuse`]). Heads that the parser accepts are checked again, and any that two parsers could interpret differently
//! are refused (RFC 9112 sections 3.2 and 6.1, RFC 9113 section 8.3.1).

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, Version};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use super::{Connection, proxy};
use crate::error::{Error, Kind};

/// The maximum length of a logged path.
const LONGEST_PATH: usize = 1024;
/// The size counted for a header in addition to its name and value (RFC 9113 section 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// A request that the listener refuses.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The reason.
    pub error: Error,
    /// The request's method; `-` if it can't be read.
    pub method: Method,
    /// The request's path; empty if it can't be read.
    pub path: String,
    /// The request's headers; empty if they can't be read.
    pub headers: &'a HeaderMap,
}

/// Responds to requests that the listener refuses.
pub trait Refuse {
    /// Returns the complete response to a refused request on this connection.
    fn refuse(&self, connection: &Connection, refused: Refused<'_>) -> Response;
}

/// The bytes of a head as they were received.
#[derive(Clone, Copy)]
pub(super) struct Head<'a>(pub(super) &'a [u8]);

impl<'a> Head<'a> {
    /// Returns the lines from the request line on, without their ends. They include the blank line and what follows it.
    fn lines(self) -> impl Iterator<Item = &'a [u8]> {
        self.begun().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end)
    }

    /// Returns the head without blank lines that may precede the request line.
    fn begun(self) -> &'a [u8] {
        let blank = self.0.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.0.get(blank..).unwrap_or_default()
    }

    fn request_line(self) -> (Method, &'a str, &'a str) {
        let line = self.lines().next().and_then(|line| str::from_utf8(line).ok());
        let mut words = line.unwrap_or_default().split(' ');
        let method = words.next().and_then(|word| Method::from_bytes(word.as_bytes()).ok());
        let target = words.next().unwrap_or_default();
        (method.unwrap_or_else(unreadable), target, words.next().unwrap_or_default())
    }

    /// Returns the values of a header, given its name in lowercase.
    fn values(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(move |line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (found, value) = line.split_at_checked(colon)?;
            // The parser refuses a name with whitespace around it, but here such a header must not be overlooked.
            let same = found.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
            same.then(|| value.get(1..).unwrap_or_default().trim_ascii())
        })
    }

    /// Returns whether this is the whole head of `request`, and not the rest of a head whose beginning arrived with
    /// another request. Call it only for a head without Content-Length: the parser may drop that header, and the
    /// numbers of headers would differ.
    fn is_of<B>(self, request: &Request<B>) -> bool {
        let rest = self.begun().strip_prefix(request.method().as_str().as_bytes());
        // The first line of a rest isn't counted, even if it looks like a request line, so a rest has too few headers.
        let headers = self.lines().skip(1).take_while(|line| !line.is_empty()).count();
        rest.is_some_and(|rest| rest.starts_with(b" "))
            && headers == request.headers().len()
            && self.lines().skip(1).any(<[u8]>::is_empty)
    }

    fn is_tls(self) -> bool {
        self.0.starts_with(&[0x16, 0x03])
    }

    /// Returns the error for a header of the PROXY protocol where none is accepted.
    fn proxy_header(self) -> Option<Error> {
        let complete = self.0.len() >= proxy::SHORTEST && proxy::is_header(self.0);
        complete.then(|| {
            malformed(
                "The connection begins with a header of the PROXY protocol, which this server accepts only \
                 if server.proxy_protocol is true, on server.listen and from server.trusted_proxies.",
            )
        })
    }

    /// Returns the error for plain text on a port that accepts only TLS.
    pub(super) fn not_tls(self) -> Error {
        self.proxy_header().unwrap_or_else(|| {
            malformed("This port accepts only TLS, and the request is plain HTTP. Use https://.")
        })
    }

    /// Returns the refused request, with its method and path for the log.
    pub(super) fn refused(self, error: Error, headers: &HeaderMap) -> Refused<'_> {
        let (method, target, _) = self.request_line();
        let path = target.split('?').next().unwrap_or_default();
        let told = path.starts_with('/')
            && path.len() <= LONGEST_PATH
            && path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = if told { path.to_owned() } else { String::new() };
        Refused { error, method, path, headers }
    }

    /// Returns the error that explains why the parser refused this head with `status`.
    pub(super) fn fault(self, status: u16) -> Error {
        if self.is_tls() {
            return malformed(
                "This port accepts only plain HTTP, and the request uses TLS. Use http://.",
            );
        }
        if let Some(error) = self.proxy_header() {
            return error;
        }
        let in_first_line = !self.begun().contains(&b'\n');
        let (_, _, version) = self.request_line();
        match status {
            431 if !in_first_line => {
                let detail = "The headers are larger than the server accepts. Send fewer or shorter headers.";
                Error::new(Kind::HeadersTooLarge, "request.headers_too_large", detail)
            }
            431 | 414 => {
                let detail = "The request URI is longer than the server accepts.";
                Error::new(Kind::UriTooLong, "request.uri_too_long", detail)
            }
            _ if is_other_version(version) => {
                let detail = "Use HTTP/1.1 or HTTP/2.";
                Error::new(Kind::WrongVersion, "request.wrong_version", detail)
            }
            _ => self.bad_coding(version).unwrap_or_else(|| {
                malformed("The request line or a header breaks the rules of HTTP/1.1.")
            }),
        }
    }

    fn bad_coding(self, version: &str) -> Option<Error> {
        let values: Vec<&[u8]> = self.values("transfer-encoding").collect();
        match values.as_slice() {
            [] => None,
            _ if version == "HTTP/1.0" => {
                Some(malformed("HTTP/1.0 does not support Transfer-Encoding."))
            }
            [value] if value.eq_ignore_ascii_case(b"chunked") => None,
            _ => Some(other_coding()),
        }
    }
}

fn unreadable() -> Method {
    // `-` is a token, as a method must be.
    Method::from_bytes(b"-").unwrap_or_default()
}

fn is_other_version(word: &str) -> bool {
    let digits = word.strip_prefix("HTTP/").and_then(|digits| digits.split_once('.'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.is_some_and(|(major, minor)| number(major) && number(minor))
        && !matches!(word, "HTTP/1.0" | "HTTP/1.1")
}

fn malformed(detail: &'static str) -> Error {
    Error::new(Kind::Malformed, "request.malformed", detail)
}

fn other_coding() -> Error {
    let detail = "The only supported Transfer-Encoding is a single `chunked`.";
    Error::new(Kind::NotImplemented, "request.transfer_encoding", detail)
}

/// Returns the error for a head that didn't arrive in time.
pub(super) fn too_slow() -> Error {
    Error::new(Kind::TooSlow, "request.too_slow", "The headers took too long to arrive.")
}

/// Returns the error for a request without the header of the PROXY protocol that the peer must send.
pub(super) fn no_proxy_header() -> Error {
    malformed(
        "A trusted proxy must begin every connection with a header of the PROXY protocol, because \
         server.proxy_protocol is true. Configure it to send one, or send this request to \
         server.admin_listen if it is a health check.",
    )
}

/// Checks a request that the parser accepted.
///
/// # Errors
/// Returns the error that the client receives.
pub(super) fn judge<B>(request: &Request<B>, head: Head<'_>, most: usize) -> Result<(), Error> {
    match request.version() {
        Version::HTTP_2 => {
            // For HTTP/1.1, the parser already limits the size of the headers.
            let size = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
                name.as_str().len() + value.len() + HEADER_OVERHEAD
            };
            if request.headers().iter().map(size).sum::<usize>() > most {
                return Err(Head(b"-\n").fault(431));
            }
        }
        _ => framing(request, head)?,
    }
    host(request)
}

/// SECURITY: if two readers disagree about where a request ends, a second request can be smuggled in (tests:
/// no_transfer_encoding_but_one_lone_chunked_is_taken, two_lengths_are_refused).
fn framing<B>(request: &Request<B>, head: Head<'_>) -> Result<(), Error> {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(other_coding());
    }
    // The parser drops Content-Length if there is a Transfer-Encoding. Only the received bytes still show it.
    if request.headers().contains_key(CONTENT_LENGTH)
        || head.values("content-length").next().is_some()
    {
        return Err(malformed("Send Content-Length or Transfer-Encoding, not both."));
    }
    // SECURITY: if the first part of a head was not kept, that part may have contained a Content-Length (test:
    // a_head_that_began_with_the_request_before_hides_no_length).
    if !head.is_of(request) {
        return Err(malformed(
            "Wait for the previous response before you send a request with Transfer-Encoding.",
        ));
    }
    Ok(())
}

/// Checks that a request names exactly one host. HTTP/1.0 requests may name none.
///
/// SECURITY: otherwise, a proxy could check a request under one host name, and this server could serve it under another
/// (test: a_request_names_one_host).
fn host<B>(request: &Request<B>) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = request.uri().authority();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(malformed("Send one Host header."));
    }
    let Some(host) = host else {
        let needed = match request.version() {
            Version::HTTP_11 => true,
            Version::HTTP_2 => named.is_none(),
            _ => false,
        };
        return if needed {
            Err(malformed("Send a Host header."))
        } else {
            named.map_or(Ok(()), plain)
        };
    };
    if named.is_none() && is_usual(host.as_bytes()) {
        return Ok(());
    }
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let host =
        host.ok_or_else(|| malformed("The Host header must be a host with an optional port."))?;
    plain(&host)?;
    let scheme = request.uri().scheme_str();
    match named {
        Some(named) if canonical(named, scheme) != canonical(&host, scheme) => {
            Err(malformed("The Host header and the request URI name different hosts."))
        }
        _ => Ok(()),
    }
}

/// Returns whether the host is a name or an IPv4 address, without a port or with one of at most four digits, as in
/// nearly every request. Such a host needs no further checks.
fn is_usual(host: &[u8]) -> bool {
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => (host.get(..colon), host.get(colon + 1..)),
        None => (Some(host), None),
    };
    let named = |name: &[u8]| {
        !name.is_empty()
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    let numbered = |port: &[u8]| matches!(port.len(), 1..=4) && port.iter().all(u8::is_ascii_digit);
    name.is_some_and(named) && port.is_none_or(numbered)
}

fn plain(authority: &Authority) -> Result<(), Error> {
    if authority.as_str().contains('@') {
        return Err(malformed("The host must not contain a user name."));
    }
    Ok(())
}

/// Returns the authority in lowercase and without the default port of this scheme.
///
/// SECURITY: the default port of the other scheme belongs to another server (test:
/// an_http2_request_names_one_host_too).
fn canonical<'a>(authority: &'a Authority, scheme: Option<&str>) -> Cow<'a, str> {
    let text = authority.as_str();
    let unsaid = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => "",
    };
    let text = text.strip_suffix(unsaid).unwrap_or(text);
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// Finds a response that the parser itself wrote. Returns where it begins in the written bytes, and its status.
pub(super) fn automatic(written: &[u8]) -> Option<(usize, u16)> {
    /// The maximum length of a response that the parser writes.
    const LONGEST: usize = 200;
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = written.len().saturating_sub(LONGEST);
    let tail = written.get(from..)?;
    let at = tail.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let answer = str::from_utf8(tail.get(at..)?).ok()?;
    let status = answer.get(9..12)?.parse().ok()?;
    let bare = answer.contains("\r\ncontent-length: 0\r\n") && !answer.contains("x-request-id");
    (bare && matches!(status, 400 | 414 | 431)).then_some((from + at, status))
}

/// Returns a response as it is sent over an HTTP/1.1 connection that ends with it.
pub(super) fn written(response: Response, bodiless: bool) -> Bytes {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    let mut text = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let body = whole(body);
    text.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    text.extend_from_slice(b"connection: close\r\n\r\n");
    if !bodiless {
        text.extend_from_slice(&body);
    }
    text.into()
}

/// Returns the bytes of a body that is already in memory.
fn whole(body: Body) -> Bytes {
    body.collect()
        .now_or_never()
        .and_then(Result::ok)
        .map(|body| body.to_bytes())
        .unwrap_or_default()
}
