//! The mail server and the sender of outgoing email.

use std::fmt;

use lettre::message;

use super::value::{Shape, Value};

/// The URL of a mail server: `smtps://USER:PASSWORD@HOST:PORT` or, with STARTTLS, `smtp://…`.
///
/// `Display` and `Debug` hide the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    tls_from_the_start: bool,
    login: Option<(String, String)>,
    host: String,
    port: Option<u16>,
}

impl SmtpUrl {
    /// Returns whether the connection uses TLS from its first byte (RFC 8314 section 3.3) rather than STARTTLS.
    pub fn tls_from_the_start(&self) -> bool {
        self.tls_from_the_start
    }

    /// Returns the user and password, for the one place that signs in.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Returns the host's name or IP address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port: 465 with TLS from the start, 587 with STARTTLS, unless the URL contains another.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls_from_the_start { 465 } else { 587 })
    }

    /// Returns whether the server is on this machine, where emails may be sent unencrypted.
    pub fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "[::1]" | "::1")
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls_from_the_start { "smtps" } else { "smtp" };
        let login = if self.login.is_some() { "(hidden)@" } else { "" };
        write!(f, "{scheme}://{login}{}:{}", self.host, self.port())
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for SmtpUrl {
    const EXPECTED: &'static str =
        "the URL of a mail server, `smtps://USER:PASSWORD@HOST` or `smtp://USER:PASSWORD@HOST`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        let (scheme, rest) = text.split_once("://").ok_or("is not a URL with a scheme")?;
        let tls_from_the_start = match scheme {
            "smtps" => true,
            "smtp" => false,
            _ => return Err("begins with neither smtps:// nor smtp://".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let login = login
            .map(|login| match login.split_once(':') {
                Some((user, password)) => Ok((decoded(user)?, decoded(password)?)),
                None => Err("has a user but no password".to_owned()),
            })
            .transpose()?;
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                Some(port.parse().map_err(|_| "has a port that is not a number up to 65535")?),
            ),
            _ => (place, None),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':');
        if host.is_empty() || !host.chars().all(named) {
            return Err("has no valid host".to_owned());
        }
        Ok(Self { tls_from_the_start, login, host: host.to_owned(), port })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Decodes percent-encoded bytes such as `%40` (RFC 3986 section 2.1).
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()];
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match digits.map(digit) {
            [Some(high), Some(low)] => bytes.push(u8::try_from(high * 16 + low).unwrap_or(0)),
            _ => {
                return Err(
                    "has a % that is not followed by two hexadecimal digits; write % itself as %25"
                        .to_owned(),
                );
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The sender of outgoing email: `NAME <EMAIL>` or only an email address (RFC 5322 section 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox(message::Mailbox);

impl Mailbox {
    /// Returns the sender as a type of the mail library.
    pub(crate) fn inner(&self) -> &message::Mailbox {
        &self.0
    }
}

impl Value for Mailbox {
    const EXPECTED: &'static str = "a sender, `NAME <EMAIL>` or an email address";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        text.parse().map(Self).map_err(|_| "is not a sender".to_owned())
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_hides_its_secrets() {
        let url = SmtpUrl::parse("smtps://ann%40example.com:p%3Ass@mail.example.com").unwrap();
        assert_eq!(url.login(), Some(("ann@example.com", "p:ss")));
        assert_eq!(
            (url.host(), url.port(), url.tls_from_the_start()),
            ("mail.example.com", 465, true)
        );
        assert_eq!(url.show(), "smtps://(hidden)@mail.example.com:465");
        assert_eq!(format!("{url:?}"), url.show());
        let url = SmtpUrl::parse("smtp://127.0.0.1:1025").unwrap();
        assert_eq!((url.port(), url.is_loopback(), url.login()), (1025, true, None));
        assert!(!url.tls_from_the_start());
        assert_eq!(SmtpUrl::parse("smtp://[::1]:2525/").unwrap().host(), "[::1]");
        let url = SmtpUrl::parse("smtp://[::1]").unwrap();
        assert_eq!((url.host(), url.port(), url.is_loopback()), ("[::1]", 587, true));
        assert!(!SmtpUrl::parse("smtp://mail.example.com").unwrap().is_loopback());
        for bad in [
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://user@mail.example.com",
            "smtp://mail.example.com:99999",
            "smtp://mail example.com",
            "smtp://a:b%2@mail.example.com",
            "smtps://mail.example.com?tls=none",
        ] {
            assert!(SmtpUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
