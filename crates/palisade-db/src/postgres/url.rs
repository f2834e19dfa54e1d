//! Reads a PostgreSQL URL, and checks the TLS mode that it requests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use form_urlencoded::Serializer;
use ipnet::IpNet;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::DbError;

/// The number of statements kept prepared per connection.
const PREPARED_STATEMENTS: usize = 256;

/// How to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    /// Whether the connection is to another machine and without TLS.
    pub(super) is_plaintext: bool,
}

/// Reads what follows `postgres://`.
///
/// SECURITY: the driver's own default, `prefer`, continues without encryption if the server (or someone in between)
/// offers no TLS, and `require` accepts any certificate. For other machines, only `verify-full` is accepted (test:
/// off_this_machine_anything_below_verify_full_is_refused), or no TLS at all in a network that the operator has named
/// (test: without_tls_only_named_networks_are_reached).
pub(super) fn target(url: &str, plaintext_networks: &[IpNet]) -> Result<Target, DbError> {
    let (plain, mode) = plain_url(url)?;
    let asked = mode.as_deref();
    if let Some(asked) = asked
        && !MODES.contains(&asked)
    {
        return Err(DbError::wrong(format!(
            "the database URL has an unknown sslmode; these are known: {}",
            MODES.join(", ")
        )));
    }
    let options = PgConnectOptions::from_str(&plain)
        .map_err(|cause| DbError::wrong("the database URL is malformed").caused_by(cause))?
        .application_name("palisade")
        // Poolers refuse parameters that they don't know, and no statement reads a floating-point number.
        .extra_float_digits(None)
        .statement_cache_capacity(PREPARED_STATEMENTS)
        .disable_statement_logging();
    if is_on_this_machine(&options) {
        let options = if asked.is_some() { options } else { options.ssl_mode(PgSslMode::Prefer) };
        return Ok(Target { options, is_plaintext: false });
    }
    match asked {
        None | Some("verify-full") => {
            let options = options.ssl_mode(PgSslMode::VerifyFull);
            Ok(Target { options, is_plaintext: false })
        }
        Some("disable") if !plaintext_networks.is_empty() => {
            if let Ok(ip) = options.get_host().parse::<IpAddr>()
                && !is_in(plaintext_networks, ip)
            {
                return Err(outside());
            }
            Ok(Target { options, is_plaintext: true })
        }
        Some(weaker) => Err(DbError::wrong(format!(
            "sslmode={weaker} does not protect the connection to another host: use \
             sslmode=verify-full, and sslrootcert=FILE if the server's certificate comes from a \
             private authority"
        ))),
    }
}

/// Returns where the server is: the path of its socket, or its host and port.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    let directory = options.get_socket().map(|path| path.display().to_string());
    match directory.or_else(|| host.starts_with('/').then(|| host.to_owned())) {
        Some(directory) => format!("{directory}/.s.PGSQL.{port}"),
        None => format!("{host}:{port}"),
    }
}

/// Returns whether one of the networks contains an IP address.
pub(super) fn is_in(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Returns the error for a database server outside the networks in which TLS may be absent.
pub(crate) fn outside() -> DbError {
    DbError::wrong(
        "the database server is in none of the networks of database.plaintext_networks, so it is not reached \
         without TLS: use sslmode=verify-full",
    )
}

/// Checks whether a URL can be used, without connecting.
pub(crate) fn check_url(url: &str, plaintext_networks: &[IpNet]) -> Result<(), DbError> {
    target(url, plaintext_networks).map(drop)
}

/// What libpq accepts as `sslmode`.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Rewrites a URL so that the driver reads it without guessing, and returns the last `sslmode` in it. Everything becomes
/// a parameter: the driver can't read a user in front of an empty host, or an IPv6 address in brackets.
fn plain_url(url: &str) -> Result<(String, Option<String>), DbError> {
    if url.contains('#') {
        return Err(unescaped());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (authority, database) = base.split_once('/').unwrap_or((base, ""));
    let (login, place) = match authority.split_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, authority),
    };
    let (host, port) = host_and_port(place)?;
    let is_bad_port = port.is_some_and(|port| !is_port(port));
    let is_cut = is_bad_port && login.is_none() && url.contains('@');
    if place.contains('@') || database.contains('@') || is_cut {
        return Err(unescaped());
    }
    if is_bad_port {
        return Err(DbError::wrong("the port in the database URL is not a number from 1 to 65535"));
    }
    let (user, password) =
        login.map_or(("", ""), |login| login.split_once(':').unwrap_or((login, "")));
    let mut plain = Serializer::new(String::from("postgres:///?"));
    for (name, value) in [
        ("user", user),
        ("password", password),
        ("host", host),
        ("port", port.unwrap_or_default()),
        ("dbname", database),
    ] {
        if !value.is_empty() {
            plain.append_pair(name, &decoded(value)?);
        }
    }
    let mut mode = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !is_parameter(&name)? {
            continue;
        }
        if matches!(&*name, "host" | "hostaddr") && value.contains(',') {
            return Err(several_hosts());
        }
        if matches!(&*name, "sslmode" | "ssl-mode") {
            mode = Some(value.to_ascii_lowercase());
        }
        plain.append_pair(&name, &value);
    }
    Ok((plain.finish(), mode))
}

fn host_and_port(place: &str) -> Result<(&str, Option<&str>), DbError> {
    if place.contains(',') {
        return Err(several_hosts());
    }
    if let Some((ip, rest)) = place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Ok((ip, rest.strip_prefix(':')));
    }
    Ok(place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn several_hosts() -> DbError {
    DbError::wrong(
        "the database URL names several hosts: name one, such as a host name that always leads to the primary server",
    )
}

/// Decodes one part of a URL. A `+` stays a `+`.
fn decoded(part: &str) -> Result<Cow<'_, str>, DbError> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !part.split('%').skip(1).all(is_escape) {
        return Err(unescaped());
    }
    // The parser of forms would read a `+` as a space.
    let whole = part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let value =
        form_urlencoded::parse(whole.as_bytes()).next().map(|(value, _)| value.into_owned());
    Ok(Cow::Owned(value.unwrap_or_default()))
}

fn unescaped() -> DbError {
    DbError::wrong(
        "the user, the password or the database name in the database URL contains a character that must be \
         percent-encoded: write %40 for @, %2F for /, %23 for #, %3F for ?, %25 for % and %3A for :",
    )
}

/// Returns whether the driver gets a parameter. One without effect here is left out.
///
/// SECURITY: the driver ignores a parameter that it doesn't know, and writes it with its value into the log. It may be
/// a password, for example that of a client key, or what follows an unescaped `?` in one (test:
/// an_unknown_parameter_is_refused_and_not_repeated).
fn is_parameter(name: &str) -> Result<bool, DbError> {
    if PARAMETERS.contains(&name) || name.starts_with("options[") {
        return Ok(true);
    }
    match name {
        name if IGNORED.contains(&name) => Ok(false),
        "schema" | "currentSchema" | "search_path" => Err(DbError::wrong(
            "the database URL names a schema in a parameter: remove the parameter and set database.schema",
        )),
        "pgbouncer" => Err(DbError::wrong(
            "the database URL has the parameter pgbouncer: remove it, and use the URL of the database server itself \
             or of a pooler in session mode",
        )),
        _ => Err(DbError::wrong(format!(
            "the database URL has an unknown parameter; a ? in a password is written %3F; these parameters are \
             known: {}",
            PARAMETERS.join(", ")
        ))),
    }
}

/// Parameters of libpq that the driver doesn't have, and without which a connection is no less secure: it is encrypted
/// and verified as `sslmode` says. Addresses that hosting providers give out contain some of them.
const IGNORED: [&str; 13] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "uselibpqcompat",
];

/// The parameters that the driver knows.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

fn is_on_this_machine(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect_options(url: &str) -> Result<PgConnectOptions, DbError> {
        target(url.strip_prefix("postgres://").unwrap(), &[]).map(|target| target.options)
    }

    fn mode(url: &str) -> PgSslMode {
        connect_options(url).unwrap().get_ssl_mode()
    }

    #[test]
    fn off_this_machine_anything_below_verify_full_is_refused() {
        for weaker in ["disable", "allow", "prefer", "require", "verify-ca", "REQUIRE"] {
            for url in [
                format!("postgres://db.example/app?sslmode={weaker}"),
                format!("postgres://db.example/app?ssl-mode={weaker}"),
                format!("postgres://localhost/app?host=db.example&sslmode={weaker}"),
                format!("postgres://127.0.0.1/app?hostaddr=192.0.2.1&sslmode={weaker}"),
                format!("postgres://db.example/app?sslmode=verify-full&sslmode={weaker}"),
                format!("postgres://db.example/app?%73slmode={weaker}"),
                format!("postgres:///app?host=db.example&sslmode={weaker}"),
                format!("postgres://u:p@/app?host=db.example&sslmode={weaker}"),
            ] {
                let refused = connect_options(&url).unwrap_err().to_string();
                assert!(refused.contains("sslmode=verify-full"), "{url}: {refused}");
            }
        }
    }

    #[test]
    fn off_this_machine_verify_full_is_the_default() {
        for url in [
            "postgres://db.example/app",
            "postgres://192.0.2.1/app?sslmode=verify-full",
            "postgres://localhost.example/app",
            "postgres://[2001:db8::1]/app",
        ] {
            assert!(matches!(mode(url), PgSslMode::VerifyFull), "{url}");
        }
    }

    #[test]
    fn without_tls_only_named_networks_are_reached() {
        let networks = ["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let asked = |url: &str| target(url, &networks).map(|target| target.is_plaintext);
        for plaintext in ["10.1.2.3/app", "[fd00::1]/app", "[::ffff:10.1.2.3]/app", "db/app"] {
            assert!(asked(&format!("{plaintext}?sslmode=disable")).unwrap(), "{plaintext}");
            assert!(!asked(plaintext).unwrap(), "{plaintext}");
        }
        for mode in ["allow", "prefer", "require", "verify-ca"] {
            assert!(asked(&format!("10.1.2.3/app?sslmode={mode}")).is_err(), "{mode}");
        }
        for elsewhere in ["10.2.0.1", "192.0.2.1", "[fe80::1]", "10.1.2.3/app?hostaddr=10.2.0.1&"] {
            let url = format!("{elsewhere}?sslmode=disable").replace("&?", "&");
            let refused = asked(&url).unwrap_err().to_string();
            assert!(refused.contains("plaintext_networks"), "{refused}");
        }
        assert!(!asked("localhost/app?sslmode=disable").unwrap());
    }

    #[test]
    fn an_unknown_parameter_is_refused_and_not_repeated() {
        for unknown in ["sslpassword=hunter2", "p=hunter2", "hunter2", "%73slpassword=hunter2"] {
            let url = format!("postgres://localhost/app?sslmode=disable&{unknown}");
            let refused = format!("{:?}", connect_options(&url).unwrap_err());
            assert!(refused.contains("parameter") && !refused.contains("hunter2"), "{refused}");
        }
        let known = "postgres://localhost/app?%6fptions=-c%20geqo%3doff&options[jit]=off&user=a";
        assert!(connect_options(known).is_ok());
        for (parameter, fix) in [
            ("schema=app", "database.schema"),
            ("currentSchema=app", "database.schema"),
            ("pgbouncer=true", "session mode"),
            ("sslmode=strict", "verify-full"),
        ] {
            let url = format!("postgres://localhost/app?{parameter}");
            let refused = connect_options(&url).unwrap_err().to_string();
            assert!(refused.contains(fix), "{refused}");
        }
    }

    #[test]
    fn what_libpq_knows_and_has_no_effect_here_is_taken() {
        let url = "postgres://db.example/app?sslmode=verify-full&channel_binding=require\
                   &connect_timeout=10&user=ann";
        let options = connect_options(url).unwrap();
        assert_eq!((options.get_host(), options.get_username()), ("db.example", "ann"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
        let (plain, _) = plain_url(url.strip_prefix("postgres://").unwrap()).unwrap();
        assert!(!plain.contains("timeout"));
    }

    #[test]
    fn on_this_machine_the_url_decides() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(matches!(mode(&format!("postgres://u@{host}/app")), PgSslMode::Prefer));
        }
        for known in MODES {
            connect_options(&format!("postgres://localhost/app?sslmode={known}")).unwrap();
        }
        assert!(matches!(mode("postgres://localhost/app?sslmode=disable"), PgSslMode::Disable));
        let last = "postgres://localhost/app?sslmode=disable&%73slmode=verify-full";
        assert!(matches!(mode(last), PgSslMode::VerifyFull));
    }

    #[test]
    fn a_socket_is_this_machine_however_it_is_written() {
        for url in [
            "postgres://app:pw@/app?host=/cloudsql/p:r:i",
            "postgres://app:pw@/app?host=%2Fcloudsql%2Fp%3Ar%3Ai",
            "postgres://app:pw@%2Fcloudsql%2Fp%3Ar%3Ai/app",
            "postgres://app:pw@%2Fcloudsql%2Fp%3Ar%3Ai:5433/app",
            "postgres://app:pw@localhost/app?host=/cloudsql/p:r:i",
            "postgres:///app?host=/cloudsql/p:r:i&user=app&password=pw",
        ] {
            let options = connect_options(url).unwrap();
            let socket = options.get_socket().unwrap().display().to_string();
            assert_eq!(socket, "/cloudsql/p:r:i", "{url}");
            assert_eq!((options.get_username(), options.get_database()), ("app", Some("app")));
            assert!(matches!(options.get_ssl_mode(), PgSslMode::Prefer), "{url}");
        }
    }

    #[test]
    fn a_character_that_must_be_escaped_is_named_and_the_password_is_not_repeated() {
        for password in [
            "hunter2@x",
            "hunter2/x",
            "hunter2#x",
            "hunter2?x",
            "hunter2%x",
            "hunter2%",
            "a@b/hunter2",
            "a/b@hunter2",
            "a#hunter2@x",
            "hunter2/w#rd",
            "1?hunter2",
            "hunter2@[x",
        ] {
            let url = format!("postgres://app:{password}@db.example/app");
            let refused = format!("{:?}", connect_options(&url).unwrap_err());
            assert!(
                refused.contains("%3F") && !refused.contains("hunter2"),
                "{password}: {refused}"
            );
        }
        for url in ["postgres://db.example:port/app", "postgres://app:pw@db.example:65536/app"] {
            let refused = connect_options(url).unwrap_err().to_string();
            assert!(refused.contains("the port"), "{refused}");
        }
        for several in ["postgres://a,b/app", "postgres://a:1,b:2/app", "postgres:///app?host=a,b"]
        {
            let refused = connect_options(several).unwrap_err().to_string();
            assert!(refused.contains("several hosts"), "{refused}");
        }
    }

    #[test]
    fn every_part_of_a_url_is_decoded() {
        let (plain, _) =
            plain_url("a%2Bb:p%40+:%26=%25@[::1]:5433/my%2Fapp?sslmode=disable").unwrap();
        let read: Vec<(String, String)> =
            form_urlencoded::parse(plain.split_once('?').unwrap().1.as_bytes())
                .into_owned()
                .collect();
        let read: Vec<(&str, &str)> = read.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(
            read,
            [
                ("user", "a+b"),
                ("password", "p@+:&=%"),
                ("host", "::1"),
                ("port", "5433"),
                ("dbname", "my/app"),
                ("sslmode", "disable"),
            ]
        );
        let options = connect_options("postgres://ann@[::1]:5433/app").unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("::1", 5433));
    }
}
