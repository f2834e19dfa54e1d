//! Origins: where users reach the server, and which pages and apps may use its passkeys.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::value::{Item, Shape, Value};

/// A web origin (RFC 6454): `http` or `https`, a host and optionally a port; nothing else.
///
/// Stored in the form that browsers send: lower case, without the default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebOrigin {
    text: String,
    https: bool,
    host: String,
    port: u16,
}

impl WebOrigin {
    /// Returns the origin as browsers send it, such as `https://app.example.com`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Returns the host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, which is the scheme's default if the text has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the host is this machine: `localhost`, a name below it, or a loopback IP address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Parses an origin. The error states which part is wrong.
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(what.to_owned());
        if text == "null" {
            return wrong("is `null`, which is the origin of every sandboxed page");
        }
        let lower = text.to_ascii_lowercase();
        let (https, rest) = match (lower.strip_prefix("https://"), lower.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return wrong("does not begin with `https://` or `http://`"),
        };
        if rest.contains('@') {
            return wrong("contains a user name");
        }
        if rest.contains(['/', '\\']) {
            return wrong("has a path; an origin ends after the host and port, without a slash");
        }
        if rest.contains(['?', '#']) {
            return wrong("has a query or a fragment; an origin ends after the host and port");
        }
        let (host, port) = host_and_port(rest)?;
        let scheme = if https { "https" } else { "http" };
        let default = if https { 443 } else { 80 };
        let port = port.unwrap_or(default);
        let shown = if port == default { String::new() } else { format!(":{port}") };
        Ok(Self { text: format!("{scheme}://{host}{shown}"), https, host, port })
    }
}

/// Splits `HOST` or `HOST:PORT` into its parts.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let bracket = text.rfind(']').unwrap_or(0);
    let (host, port) = match text.rfind(':').filter(|colon| *colon >= bracket) {
        Some(colon) => {
            let (host, port) = text.split_at(colon);
            (host, Some(port.trim_start_matches(':')))
        }
        None => (text, None),
    };
    let port = match port {
        Some(port) => match read_port(port) {
            Some(port) => Some(port),
            None => return Err("has a port that is not a number from 1 to 65535".to_owned()),
        },
        None => None,
    };
    canonical_host(host).map(|host| (host, port))
}

/// Parses a port as it is written in a URL: only digits, not zero.
fn read_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Returns a host as browsers write it: an IPv4 address, an IPv6 address in brackets, or an ASCII name.
pub(super) fn canonical_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner
            .parse::<Ipv6Addr>()
            .map(|ip| format!("[{ip}]"))
            .map_err(|_| "has brackets around something that is not an IPv6 address".to_owned());
    }
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    if !host.is_ascii() {
        return Err("has a host with non-ASCII characters; write its `xn--` form".to_owned());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = host
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if host.len() > 253 || !host.split('.').all(label) || last_is_number {
        return Err("has a host that is neither a name nor an IP address".to_owned());
    }
    Ok(host.to_owned())
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Value for WebOrigin {
    const EXPECTED: &'static str = "an origin, such as `https://app.example.com`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Self::read(text)
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

impl Item for WebOrigin {
    const LIST: &'static str = "a list of origins, such as `https://app.example.com`";
}

/// An origin that may use the same passkeys as the server's own pages: that of a web page or of an Android app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasskeyOrigin {
    /// The pages of a web origin.
    Web(WebOrigin),
    /// The Android app whose signing certificate has this SHA-256 digest, in the form that Android writes into the
    /// client data: `android:apk-key-hash:` and the digest in base64url without padding.
    Android(String),
}

const APK_KEY_HASH: &str = "android:apk-key-hash:";
const SHA256_LENGTH: usize = 32;

impl PasskeyOrigin {
    /// Returns the origin as it appears in the client data of a passkey's response.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Web(origin) => origin.as_str(),
            Self::Android(text) => text,
        }
    }

    /// Returns the web origin, or `None` for an app.
    pub fn as_web(&self) -> Option<&WebOrigin> {
        match self {
            Self::Web(origin) => Some(origin),
            Self::Android(_) => None,
        }
    }
}

impl Value for PasskeyOrigin {
    const EXPECTED: &'static str =
        "an origin, such as `https://app.example.com` or `android:apk-key-hash:…`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.get(.."android:".len()).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("android:") {
            return WebOrigin::read(text).map(Self::Web);
        }
        let hash = text.strip_prefix(APK_KEY_HASH).ok_or_else(|| {
            format!("is an Android origin that does not begin with `{APK_KEY_HASH}`")
        })?;
        let bytes = URL_SAFE_NO_PAD.decode(hash).map_err(|_| {
            format!("has no base64url without padding after `{APK_KEY_HASH}`; encode the SHA-256 digest of the \
                     app's signing certificate, not its hexadecimal form")
        })?;
        if bytes.len() != SHA256_LENGTH {
            let length = bytes.len();
            return Err(format!("has a key hash of {length} bytes; a SHA-256 digest has 32"));
        }
        Ok(Self::Android(text.to_owned()))
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Item for PasskeyOrigin {
    const LIST: &'static str =
        "a list of origins, such as `https://app.example.com` or `android:apk-key-hash:…`";
}

/// Where browsers send reports: a URL with an origin, and optionally a path and a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportUrl {
    text: String,
    origin: WebOrigin,
}

impl ReportUrl {
    /// Returns the whole URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the origin that the URL begins with.
    pub fn origin(&self) -> &WebOrigin {
        &self.origin
    }
}

impl Value for ReportUrl {
    const EXPECTED: &'static str = "a URL, such as `https://reports.example.com/csp`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let authority = text.find("://").map_or(0, |colon| colon + "://".len());
        let end = text.get(authority..).and_then(|rest| rest.find(['/', '?', '#']));
        let (origin, rest) = text.split_at(end.map_or(text.len(), |end| authority + end));
        let origin = WebOrigin::read(origin)?;
        if rest.contains('#') {
            return Err("has a fragment, which browsers never send".to_owned());
        }
        // The excluded characters could end a directive of the policy or a string in a header.
        let plain = |letter: char| letter.is_ascii_graphic() && !";,\"'<>\\^`{|}".contains(letter);
        if !rest.chars().all(plain) {
            return Err("has a character that must be percent-encoded as %XX".to_owned());
        }
        let slash = if rest.starts_with('/') { "" } else { "/" };
        Ok(Self { text: format!("{origin}{slash}{rest}"), origin })
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}
