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
    /// Without it.
    pub plain: &'static str,
}

/// A cookie that only this host can set and scripts can't read (RFC 6265bis section 4.1.3.2): with
/// `__Host-` and `Secure`, except over plain HTTP on loopback, where browsers would refuse it.
pub struct HostCookie {
    name: CookieName,
    secure: bool,
}

impl HostCookie {
    /// Creates the cookie for the public URL in these settings.
    pub fn new(name: CookieName, settings: &Settings) -> Self {
        Self { name, secure: settings.server.public_url.is_https() }
    }

    /// Returns the name of the cookie.
    pub fn name(&self) -> &'static str {
        if self.secure { self.name.secure } else { self.name.plain }
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
        let secure = if self.secure { "; Secure" } else { "" };
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
    pub fn get<'a>(&self, headers: &'a HeaderMap) -> Found<'a> {
        let mut values = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name())
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Found::None,
            (Some(value), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
        }
    }
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
