//! Which pages of other origins may call the server, and which headers their requests may have.

use super::origin::WebOrigin;
use super::value::{Item, Shape, Value};

/// An origin whose pages may call the API from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: every origin. Development only.
    Any,
    /// Only this origin, as browsers send it: a web origin, or that of an application, such as `capacitor://localhost`.
    Exact(String),
}

/// Schemes whose pages have no origin of their own: browsers send `null`, or the page is in no application's control.
const NO_ORIGIN: [&str; 14] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "javascript",
    "mailto",
    "null",
    "urn",
    "view-source",
    "ws",
    "wss",
];

impl CorsOrigin {
    /// Parses the origin of an application (RFC 6454 section 4): a scheme of its own, a host and optionally a port.
    /// Browsers change nothing in such a host, so upper-case letters are kept.
    fn of_application(scheme: &str, rest: &str) -> Result<Self, String> {
        let scheme = scheme.to_ascii_lowercase();
        // SECURITY: (test: an_origin_that_many_pages_share_is_refused)
        if NO_ORIGIN.contains(&scheme.as_str()) {
            return Err(format!(
                "does not begin with `https://` or `http://`, and pages of the scheme `{scheme}` have \
                 no origin of their own"
            ));
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
            || !scheme.bytes().all(letter)
        {
            return Err("has a scheme that is not a name".to_owned());
        }
        if rest.contains(['/', '\\', '?', '#', '@']) {
            return Err(
                "has more than a host and port; an origin ends there, without a slash".into()
            );
        }
        let (host, port) = rest.split_once(':').unwrap_or((rest, "1"));
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err("has a port that is not a number from 1 to 65535".to_owned());
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(letter) {
            return Err("has a host that is neither a name nor an identifier".to_owned());
        }
        Ok(Self::Exact(format!("{scheme}://{rest}")))
    }
}

impl Value for CorsOrigin {
    const EXPECTED: &'static str =
        "an origin, such as `https://app.example.com` or `capacitor://localhost`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            _ if text == "*" => Ok(Self::Any),
            Some((scheme, rest)) if !["http", "https"].contains(&&*scheme.to_ascii_lowercase()) => {
                Self::of_application(scheme, rest)
            }
            _ => WebOrigin::parse(text).map(|origin| Self::Exact(origin.as_str().to_owned())),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(origin) => origin.clone(),
        }
    }
}

impl Item for CorsOrigin {
    const LIST: &'static str =
        "a list of origins, such as `https://app.example.com` or `capacitor://localhost`";
}

/// The name of a request header that pages of other origins may send, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsHeader(String);

/// Headers that scripts can't set (Fetch standard, section 2.2.2), and those in which proxies identify the client.
const NOT_FOR_SCRIPTS: [&str; 25] = [
    "accept-charset",
    "accept-encoding",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
];
const NOT_FOR_SCRIPTS_PREFIXES: [&str; 4] = ["access-control-", "proxy-", "sec-", "x-forwarded-"];

impl CorsHeader {
    /// Returns the name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for CorsHeader {
    const EXPECTED: &'static str = "the name of a header, such as `x-client-version`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("stands for every header; name each one".to_owned());
        }
        // RFC 9110 section 5.6.2.
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(letter) {
            return Err("is not the name of a header of at most 64 characters".to_owned());
        }
        let name = text.to_ascii_lowercase();
        let reserved = NOT_FOR_SCRIPTS.contains(&name.as_str())
            || NOT_FOR_SCRIPTS_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        // SECURITY: (test: a_header_that_is_not_for_scripts_is_refused)
        if reserved {
            return Err("is set by browsers or proxies and not by scripts".to_owned());
        }
        Ok(Self(name))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Item for CorsHeader {
    const LIST: &'static str = "a list of header names, such as `x-client-version`";
}
