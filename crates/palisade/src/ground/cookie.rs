//! Cookies that only this host can set and no script can read.

use std::time::Duration;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use crate::settings::Settings;

/// The two names of a cookie: for HTTPS, and for plain HTTP on loopback.
#[derive(Clone, Copy, Debug)]
pub struct CookieName {
    /// With the prefix `__Host-`.
    pub secure: &'static str,
    /// Without it. The port of the public URL is added to it, such as `palisade-8000`.
    pub plain: &'static str,
}

/// A cookie that only this host can set and scripts can't read (RFC 6265bis section 4.1.3.2): with
/// `__Host-` and `Secure`, except over plain HTTP on loopback, where browsers would refuse it.
///
/// Browsers send a cookie to every port of a host. On loopback, the name therefore contains the port, so that a sign-in
/// to one server on this machine doesn't replace the cookie of another.
pub struct HostCookie {
    name: CookieName,
    /// The port of the public URL, over plain HTTP.
    port: Option<u16>,
}

impl HostCookie {
    /// Creates the cookie for the public URL in these settings.
    pub fn new(name: CookieName, settings: &Settings) -> Self {
        let url = &settings.server.public_url;
        Self { name, port: (!url.is_https()).then(|| url.port()) }
    }

    /// Returns the name of the cookie.
    pub fn name(&self) -> String {
        match self.port {
            None => self.name.secure.to_owned(),
            Some(port) => format!("{}-{port}", self.name.plain),
        }
    }

    /// Returns whether this is the name of the cookie. Allocates nothing, because every request asks.
    fn is_named(&self, name: &[u8]) -> bool {
        let Some(port) = self.port else { return name == self.name.secure.as_bytes() };
        let suffix = name
            .strip_prefix(self.name.plain.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"-"))
            // Only the form that `name` returns, without a sign or leading zeros.
            .filter(|digits| digits.first().is_some_and(|first| matches!(first, b'1'..=b'9')));
        let suffix = suffix.and_then(|digits| std::str::from_utf8(digits).ok());
        suffix.is_some_and(|digits| digits.parse() == Ok(port))
    }

    /// Returns a `Set-Cookie` header with this value, which the browser keeps for `max_age`.
    pub fn set(&self, value: &str, max_age: Duration) -> Option<HeaderValue> {
        self.header(value, max_age.as_secs())
    }

    /// Returns a `Set-Cookie` header that removes the cookie.
    pub fn clear(&self) -> Option<HeaderValue> {
        self.header("", 0)
    }

    fn header(&self, value: &str, max_age: u64) -> Option<HeaderValue> {
        let secure = if self.port.is_none() { "; Secure" } else { "" };
        let text = format!(
            "{}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}",
            self.name()
        );
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Finds the cookie in a request. If there are two with the same name, neither is trusted, because a sibling host
    /// may have set one.
    ///
    /// Other cookies are passed over byte by byte, because applications on the same host may set any value. A value in
    /// quotes is the text between them (RFC 6265 section 4.1.1).
    pub fn get<'a>(&self, headers: &'a HeaderMap) -> Found<'a> {
        let mut values = headers
            .get_all(COOKIE)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| {
                let mut halves = pair.splitn(2, |byte| *byte == b'=');
                let (name, value) = (halves.next()?, halves.next()?);
                self.is_named(name.trim_ascii()).then_some(value.trim_ascii())
            })
            // No value of ours is empty, so one that isn't text stands for none of them.
            .map(|value| std::str::from_utf8(value).map_or("", unquoted));
        match (values.next(), values.next()) {
            (None, _) => Found::None,
            (Some(value), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

fn unquoted(value: &str) -> &str {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    bare.unwrap_or(value)
}

/// The cookies with a given name in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// None.
    None,
    /// One, with this value.
    One(&'a str),
    /// More than one: not to be trusted.
    Several,
}
