//! The mail server and the sender of outgoing email.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use lettre::{Address, message};
use rustls::pki_types::ServerName;

use super::origin::{WebOrigin, canonical_host};
use super::value::{Shape, Value};

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// From its first byte (RFC 8314 section 3.3).
    FromTheStart,
    /// With STARTTLS (RFC 3207).
    StartTls,
    /// Not at all. Production refuses this.
    Never,
}

/// The URL of a mail server: `smtps://USER:PASSWORD@HOST:PORT`, or with STARTTLS `smtp://…`, or without encryption
/// `smtp://HOST:PORT?tls=never`.
///
/// `Display` and `Debug` hide the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    tls: SmtpTls,
    login: Option<(String, String)>,
    host: String,
    port: Option<u16>,
}

impl SmtpUrl {
    /// Returns how the connection is encrypted.
    pub fn tls(&self) -> SmtpTls {
        self.tls
    }

    /// Returns the user and password, for the one place that signs in.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Returns the host's name or IP address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port: 465 with TLS from the start, otherwise 587, unless the URL contains another.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls == SmtpTls::FromTheStart { 465 } else { 587 })
    }

    /// Returns whether the server is on this machine, where emails may be sent unencrypted.
    pub fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1")
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls == SmtpTls::FromTheStart { "smtps" } else { "smtp" };
        let login = if self.login.is_some() { "(hidden)@" } else { "" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let never = if self.tls == SmtpTls::Never { "?tls=never" } else { "" };
        write!(f, "{scheme}://{login}{open}{}{close}:{}{never}", self.host, self.port())
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
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (place, query) = match place.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (place, None),
        };
        let tls = match (scheme.to_ascii_lowercase().as_str(), query) {
            ("smtps", None) => SmtpTls::FromTheStart,
            ("smtp", None) => SmtpTls::StartTls,
            ("smtp", Some("tls=never")) => SmtpTls::Never,
            ("smtp", Some(_)) => return Err("has a parameter other than tls=never".to_owned()),
            ("smtps", Some(_)) => return Err("has a parameter; smtps:// takes none".to_owned()),
            _ => return Err("begins with neither smtps:// nor smtp://".to_owned()),
        };
        let login = login
            .map(|login| match login.split_once(':') {
                Some((user, password)) => Ok((decoded(user)?, decoded(password)?)),
                None => Err("has a user but no password".to_owned()),
            })
            .transpose()?;
        let (host, port) = place_of_server(place.strip_suffix('/').unwrap_or(place))?;
        let url = Self { tls, login, host, port };
        // SECURITY: (test: a_password_is_not_sent_unencrypted_over_a_network)
        if url.tls == SmtpTls::Never && url.login.is_some() && !url.is_loopback() {
            return Err("sends a password unencrypted over a network; remove the user and the \
                        password, or remove ?tls=never"
                .to_owned());
        }
        Ok(url)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Returns the host in lower case, an IPv6 address without brackets, and the port.
fn place_of_server(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (host, Some(port.ok_or("has a port that is not a number from 1 to 65535")?))
        }
        _ => (place, None),
    };
    let host = host.to_ascii_lowercase();
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip: Ipv6Addr = inner
            .parse()
            .map_err(|_| "has brackets around something that is not an IPv6 address")?;
        return Ok((ip.to_string(), port));
    }
    // Names of containers often contain an underscore.
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(named) || ServerName::try_from(host.as_str()).is_err() {
        return Err("has no valid host".to_owned());
    }
    Ok((host, port))
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
        let sender: message::Mailbox = text.parse().map_err(|_| "is not a sender".to_owned())?;
        // Mail servers without SMTPUTF8 know only the ASCII form of a domain.
        let domain = idna::domain_to_ascii(sender.email.domain());
        let email = domain.ok().and_then(|ascii| Address::new(sender.email.user(), ascii).ok());
        let email = email.ok_or("is not a sender")?;
        Ok(Self(message::Mailbox::new(sender.name, email)))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// The name with which the server introduces itself to the mail server, as it stands in EHLO: a host name, or an IP
/// address as a literal (RFC 5321 section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(String);

impl HeloName {
    /// Returns the host of an origin.
    pub fn of(origin: &WebOrigin) -> Self {
        Self::from_host(origin.host())
    }

    fn from_host(host: &str) -> Self {
        Self(match host.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
            Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
            Err(_) => host.to_owned(),
        })
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for HeloName {
    const EXPECTED: &'static str = "a host name or an IP address";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?.to_ascii_lowercase();
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let inner = inner.map(|inner| inner.strip_prefix("ipv6:").unwrap_or(inner));
        if let Ok(ip) = inner.unwrap_or(&text).parse::<IpAddr>() {
            return Ok(Self::from_host(&ip.to_string()));
        }
        canonical_host(&text).map(Self)
    }

    fn show(&self) -> String {
        self.0.clone()
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
            (url.host(), url.port(), url.tls()),
            ("mail.example.com", 465, SmtpTls::FromTheStart)
        );
        assert_eq!(url.show(), "smtps://(hidden)@mail.example.com:465");
        assert_eq!(format!("{url:?}"), url.show());
        let url = SmtpUrl::parse("smtp://127.0.0.1:1025").unwrap();
        assert_eq!((url.port(), url.is_loopback(), url.login()), (1025, true, None));
        let url = SmtpUrl::parse("smtp://[::1]").unwrap();
        assert_eq!((url.host(), url.port(), url.is_loopback()), ("::1", 587, true));
        assert!(!SmtpUrl::parse("smtp://mail.example.com").unwrap().is_loopback());
        let url = SmtpUrl::parse("smtp://[0::1]:2525/").unwrap();
        assert_eq!((url.host(), url.is_loopback()), ("::1", true));
        assert_eq!(url.show(), "smtp://[::1]:2525");
        let url = SmtpUrl::parse("SMTP://LocalHost/").unwrap();
        assert_eq!((url.port(), url.is_loopback(), url.tls()), (587, true, SmtpTls::StartTls));
        let url = SmtpUrl::parse("smtp://app_mailpit_1:1025?tls=never").unwrap();
        assert_eq!((url.host(), url.tls()), ("app_mailpit_1", SmtpTls::Never));
        assert_eq!(url.show(), "smtp://app_mailpit_1:1025?tls=never");
        for bad in [
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://user@mail.example.com",
            "smtp://mail.example.com:99999",
            "smtp://mail example.com",
            "smtp://a:b%2@mail.example.com",
            "smtps://mail.example.com?tls=none",
            "smtps://mail.example.com?tls=never",
            "smtp://mail.example.com?tls=none",
            "smtp://mail.example.com?",
            "smtp://mail.example.com:0",
            "smtp://[mail.example.com]",
            "smtp://[::1",
        ] {
            assert!(SmtpUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_sent_unencrypted_over_a_network() {
        assert!(SmtpUrl::parse("smtp://u:p@mailpit:1025?tls=never").is_err());
        assert!(SmtpUrl::parse("smtp://u:p@10.0.0.5:1025/?tls=never").is_err());
        assert!(SmtpUrl::parse("smtp://u:p@127.0.0.1:1025?tls=never").is_ok());
    }

    #[test]
    fn the_domain_of_a_sender_is_in_ascii() {
        let shown = |text: &str| Mailbox::parse(text).unwrap().show();
        assert_eq!(shown("Bücher <info@bücher.example>"), "Bücher <info@xn--bcher-kva.example>");
        assert_eq!(shown("no-reply@example.com"), "no-reply@example.com");
    }

    #[test]
    fn a_name_for_ehlo_is_a_host_name_or_an_ip_address_literal() {
        for (written, said) in [
            ("Mail.example.com", "mail.example.com"),
            ("localhost", "localhost"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(HeloName::parse(written).unwrap().to_string(), said);
        }
        for (origin, said) in [
            ("https://app.example.com:8443", "app.example.com"),
            ("http://127.0.0.1:8000", "[127.0.0.1]"),
            ("http://[::1]:8000", "[IPv6:::1]"),
        ] {
            assert_eq!(HeloName::of(&WebOrigin::parse(origin).unwrap()).to_string(), said);
        }
        for bad in
            ["", "mail example.com", "a\r\nMAIL", "-a.example.com", "[mail]", "mail:25", "é.fr"]
        {
            assert!(HeloName::parse(bad).is_err(), "{bad}");
        }
    }
}
