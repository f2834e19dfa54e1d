//! How the text of a setting becomes a value, and how a value is shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

/// How a setting is written in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Flag,
    List,
}

/// A type that a setting can have.
///
/// Every source hands over text: the environment and flags by nature, the configuration file after
/// its own types have been compared with [`Value::SHAPE`]. The items of a list are joined by commas.
pub(super) trait Value: Sized {
    /// What is expected, as it reads after "expected".
    const EXPECTED: &'static str;
    /// How the value is written in the configuration file.
    const SHAPE: Shape;

    /// Reads the value; the error says what is wrong, without repeating the text.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value for people, without anything secret in it.
    fn show(&self) -> String;

    /// The value of a setting that is not set and has no default, where that is allowed.
    fn absent() -> Option<Self> {
        None
    }

    /// The size by which bounds are compared: a number, bytes or milliseconds.
    fn size(&self) -> Option<u128> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SHAPE: Shape = T::SHAPE;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), T::show)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn size(&self) -> Option<u128> {
        self.as_ref().and_then(T::size)
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            const EXPECTED: &'static str = "a whole number";
            const SHAPE: Shape = Shape::Number;

            fn parse(text: &str) -> Result<Self, String> {
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("is not a whole number".to_owned());
                }
                text.parse().map_err(|_| "is too large".to_owned())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn size(&self) -> Option<u128> {
                Some(u128::from(*self))
            }
        }
    )*};
}

whole_numbers!(u8, u32);

impl Value for bool {
    const EXPECTED: &'static str = "`true` or `false`";
    const SHAPE: Shape = Shape::Flag;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is neither `true` nor `false`".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character".to_owned());
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(Self::from)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an IP address with a port, such as `127.0.0.1:8000`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not an IP address with a port".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "an IP network, such as `10.0.0.0/8`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let network: Self = text
            .parse()
            .map_err(|_| "is not an IP network; a single address ends in /32 or /128".to_owned())?;
        if network.addr() != network.network() {
            return Err("names an address inside a network; write the network's own address \
                        before the slash"
                .to_owned());
        }
        Ok(network)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A list whose items can be told apart.
pub(super) trait Item: Value {
    /// What a list of these is called, as it reads after "expected".
    const LIST: &'static str;
}

impl Item for IpNet {
    const LIST: &'static str = "a list of IP networks, such as `10.0.0.0/8`";
}

impl Item for CorsOrigin {
    const LIST: &'static str = "a list of origins, such as `https://app.example.com`";
}

impl<T: Item> Value for Vec<T> {
    const EXPECTED: &'static str = T::LIST;
    const SHAPE: Shape = Shape::List;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        let item = |(index, item): (usize, &str)| {
            T::parse(item.trim()).map_err(|wrong| format!("item {}: {wrong}", index + 1))
        };
        text.split(',').enumerate().map(item).collect()
    }

    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| format!("\"{}\"", item.show())).collect();
        format!("[{}]", items.join(", "))
    }
}

/// The units of a duration, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Value for Duration {
    const EXPECTED: &'static str = "a duration, such as `500ms`, `30s`, `15m`, `12h` or `14d`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        with_unit(text, &DURATION_UNITS, "ms, s, m, h and d").map(Self::from_millis)
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        DURATION_UNITS
            .iter()
            .rev()
            .find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)))
            .map_or_else(
                || "0s".to_owned(),
                |(name, unit)| format!("{}{name}", millis / u128::from(*unit)),
            )
    }

    fn size(&self) -> Option<u128> {
        Some(self.as_millis())
    }
}

/// The units of a byte size, in bytes.
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Of the settings, those of this type are numbers of bytes; counts are `u8` or `u32`.
impl Value for u64 {
    const EXPECTED: &'static str = "a size, such as `512B`, `64KiB` or `1MiB`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        with_unit(text, &SIZE_UNITS, "B, KiB, MiB and GiB")
    }

    fn show(&self) -> String {
        SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, unit)| *self > 0 && self.is_multiple_of(*unit))
            .map_or_else(|| "0B".to_owned(), |(name, unit)| format!("{}{name}", self / unit))
    }

    fn size(&self) -> Option<u128> {
        Some(u128::from(*self))
    }
}

/// Reads a whole number with one of `units` behind it, in the smallest of them.
fn with_unit(text: &str, units: &[(&str, u64)], names: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("does not begin with a whole number".to_owned());
    }
    let number: u64 = number.parse().map_err(|_| "is too large".to_owned())?;
    if unit.is_empty() {
        return Err(format!("has no unit; the units are {names}"));
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("has an unknown unit; the units are {names}, without a space"))?;
    number.checked_mul(*factor).ok_or_else(|| "is too large".to_owned())
}

/// Text that is never shown: neither by `Debug` nor in a message about settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The address of a database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`.
///
/// `Display` and `Debug` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The SQLite database in the file at `path`.
    pub fn sqlite(path: &Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// The whole address, password included, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the address carries a password.
    pub fn has_password(&self) -> bool {
        self.to_string() != self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, query) = match self.0.split_once("://") {
            Some((scheme, rest)) => hide_user_info(scheme, rest),
            None => (self.0.clone(), None),
        };
        f.write_str(&base)?;
        let Some(query) = query else { return Ok(()) };
        for (index, pair) in query.split('&').enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
                    write!(f, "{name}=(hidden)")?;
                }
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

/// Hides the password before the last `@`, wherever a password that holds `/`, `?` or `@` itself
/// puts it, and splits off the parameters.
fn hide_user_info(scheme: &str, rest: &str) -> (String, Option<String>) {
    let (user_info, place) = match rest.rsplit_once('@') {
        Some((user_info, place)) => (Some(user_info), place),
        None => (None, rest),
    };
    let (place, query) = match place.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (place, None),
    };
    let base = match user_info.map(|user_info| user_info.split_once(':').ok_or(user_info)) {
        Some(Ok((user, _))) => format!("{scheme}://{user}:(hidden)@{place}"),
        Some(Err(user)) => format!("{scheme}://{user}@{place}"),
        None => format!("{scheme}://{place}"),
    };
    (base, query)
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for DatabaseUrl {
    const EXPECTED: &'static str =
        "a database address, `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        let sqlite = text.strip_prefix("sqlite:").is_some_and(|path| !path.is_empty());
        let postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if sqlite || postgres {
            Ok(Self(text))
        } else {
            Err("is not a database address that is known here".to_owned())
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where the root key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// The file that holds it.
    File(PathBuf),
    /// The key itself, in its text form.
    Text(Secret),
}

/// What the text form of a root key begins with.
pub(super) const ROOT_KEY_PREFIX: &str = "palisade-root-key-v1.";

/// 32 bytes in base64url without padding.
const ROOT_KEY_CHARACTERS: usize = 43;

/// Secrets that stand in examples and tutorials; compared without case, spaces, `-` and `_`.
const PLACEHOLDERS: [&str; 14] = [
    "changeme",
    "changethis",
    "secret",
    "secretkey",
    "supersecret",
    "mysecret",
    "password",
    "default",
    "example",
    "placeholder",
    "replaceme",
    "todo",
    "test",
    "yoursecretkey",
];

/// Whether `text` is a secret that everybody knows.
fn is_placeholder(text: &str) -> bool {
    let plain: String = text
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | ' ' | '!' | '.' | '<' | '>'))
        .flat_map(char::to_lowercase)
        .collect();
    PLACEHOLDERS.contains(&plain.as_str())
}

impl Value for RootKey {
    const EXPECTED: &'static str = "the path of a root key file, with `/` or `.` in it; or, in \
         the environment only, a root key, which begins `palisade-root-key-v1.`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        let key = text.strip_prefix(ROOT_KEY_PREFIX);
        if is_placeholder(key.unwrap_or(&text)) {
            return Err("is a placeholder that everybody knows".to_owned());
        }
        let Some(key) = key else {
            return if text.contains(['/', '.']) {
                Ok(Self::File(PathBuf::from(text)))
            } else {
                Err("is neither a path nor a root key".to_owned())
            };
        };
        if key.len() < ROOT_KEY_CHARACTERS {
            return Err("is a root key of fewer than 32 bytes".to_owned());
        }
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if key.len() > ROOT_KEY_CHARACTERS || !key.bytes().all(base64url) {
            return Err("is not a root key in its text form".to_owned());
        }
        Ok(Self::Text(Secret::new(text)))
    }

    fn show(&self) -> String {
        match self {
            Self::File(path) => path.show(),
            Self::Text(_) => "(hidden)".to_owned(),
        }
    }
}

/// A web origin (RFC 6454): `http` or `https`, a host and perhaps a port; nothing else.
///
/// Held in the form that browsers send: lower case, without the default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebOrigin {
    text: String,
    https: bool,
    host: String,
}

impl WebOrigin {
    /// The origin as browsers send it, such as `https://app.example.com`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is this machine: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Reads an origin; the error says which part is wrong.
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
        let port = match port {
            Some(443) if https => String::new(),
            Some(80) if !https => String::new(),
            Some(port) => format!(":{port}"),
            None => String::new(),
        };
        Ok(Self { text: format!("{scheme}://{host}{port}"), https, host })
    }
}

/// Takes `HOST` or `HOST:PORT` apart.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let bracket = text.rfind(']').map_or(0, |index| index + 1);
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

/// A port as it stands in an address: digits alone, not zero.
fn read_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// A host as browsers write it: an IPv4 address, an IPv6 address in brackets, or an ASCII name.
fn canonical_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .map(|address| format!("[{address}]"))
            .map_err(|_| "has brackets around something that is not an IPv6 address".to_owned());
    }
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    if !host.is_ascii() {
        return Err("has a host with letters beyond ASCII; write its `xn--` form".to_owned());
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

/// An origin that may call from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: every origin. Development only.
    Any,
    /// This origin alone.
    Exact(WebOrigin),
}

impl Value for CorsOrigin {
    const EXPECTED: &'static str = WebOrigin::EXPECTED;
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" { Ok(Self::Any) } else { WebOrigin::read(text).map(Self::Exact) }
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(origin) => origin.show(),
        }
    }
}

/// Defines a setting that is one of a few words, with the words in one place.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident, $expected:literal { $( $(#[$meaning:meta])* $variant:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$meaning])* $variant ),+
        }

        impl $name {
            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word ),+
                }
            }
        }

        impl Value for $name {
            const EXPECTED: &'static str = $expected;
            const SHAPE: Shape = Shape::Text;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err("is not one of the known words".to_owned()),
                }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

words! {
    /// What the server is used for; decides some defaults and which refusals apply.
    Environment, "`development` or `production`" {
        /// One machine, loopback only; protections may be switched off.
        Development = "development",
        /// Serving people; nothing essential may be missing.
        Production = "production",
    }
}

words! {
    /// Who changes the schema of the database.
    Migrate, "`auto` or `manual`" {
        /// `palisade serve`, when it starts.
        Auto = "auto",
        /// Somebody who runs `palisade migrate up`.
        Manual = "manual",
    }
}

words! {
    /// The format of access tokens.
    TokenFormat, "`jwt` or `paseto`" {
        /// JWT with the profile of RFC 9068.
        Jwt = "jwt",
        /// PASETO version 4.
        Paseto = "paseto",
    }
}

words! {
    /// The signature algorithm of JWT access tokens (RFC 8037, RFC 7518).
    TokenAlgorithm, "`EdDSA` or `ES256`" {
        /// Ed25519.
        EdDsa = "EdDSA",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
    }
}

words! {
    /// The purpose of PASETO access tokens.
    Paseto, "`v4.public` or `v4.local`" {
        /// Signed: everybody can verify it.
        V4Public = "v4.public",
        /// Encrypted: only the server can read it.
        V4Local = "v4.local",
    }
}

words! {
    /// The hash of newly set passwords.
    PasswordAlgorithm, "`argon2id` or `bcrypt`" {
        /// Argon2id (RFC 9106).
        Argon2id = "argon2id",
        /// bcrypt.
        Bcrypt = "bcrypt",
    }
}

words! {
    /// How much an Argon2id password hash costs.
    PasswordCost, "`standard`, `light` or `custom`" {
        /// The cost that is recommended for servers.
        Standard = "standard",
        /// The least that OWASP's password storage sheet accepts.
        Light = "light",
        /// What the three `passwords.argon2_…` settings say.
        Custom = "custom",
    }
}

words! {
    /// Who may register.
    RegistrationMode, "`open` or `closed`" {
        /// Everybody.
        Open = "open",
        /// Nobody; accounts are created by an administrator.
        Closed = "closed",
    }
}

words! {
    /// Whether somebody who registers must prove the email address.
    EmailVerification, "`off`" {
        /// No proof is asked for.
        Off = "off",
    }
}

words! {
    /// The format of the log.
    LogFormat, "`auto`, `pretty` or `json`" {
        /// `pretty` on a terminal, else `json`.
        Auto = "auto",
        /// Lines for people.
        Pretty = "pretty",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least important log lines that are written.
    LogLevel, "`error`, `warn`, `info`, `debug` or `trace`" {
        /// Failures.
        Error = "error",
        /// And what may lead to one.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And how.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
