//! Reads a PostgreSQL URL, and checks the TLS mode that it requests.

use std::net::IpAddr;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::DbError;

/// The number of statements kept prepared per connection.
const PREPARED_STATEMENTS: usize = 256;

/// SECURITY: the driver's own default, `prefer`, continues without encryption if the server (or someone in between)
/// offers no TLS, and `require` accepts any certificate. For other machines, only `verify-full` is accepted (test:
/// off_this_machine_anything_below_verify_full_is_refused).
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions, DbError> {
    let options = PgConnectOptions::from_str(&without_ignored(url)?)
        .map_err(|cause| DbError::wrong("the database URL is malformed").caused_by(cause))?
        .application_name("palisade")
        .statement_cache_capacity(PREPARED_STATEMENTS)
        .disable_statement_logging();
    let asked = asked_mode(url);
    if is_on_this_machine(&options) {
        return Ok(match asked {
            Some(_) => options,
            None => options.ssl_mode(PgSslMode::Prefer),
        });
    }
    match asked.as_deref() {
        None | Some("verify-full") => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        Some(weaker) => Err(DbError::wrong(format!(
            "sslmode={weaker} does not protect the connection to another host: use \
             sslmode=verify-full, and sslrootcert=FILE if the server's certificate comes from a \
             private authority"
        ))),
    }
}

/// Checks whether a URL can be used, without connecting.
pub(crate) fn check_url(url: &str) -> Result<(), DbError> {
    connect_options(url).map(drop)
}

/// Returns the URL without the parameters that have no effect here.
///
/// SECURITY: the driver ignores a parameter that it doesn't know, and writes it with its value into the log. It may be
/// a password, for example that of a client key, or what follows an unescaped `?` in one (test:
/// an_unknown_parameter_is_refused_and_not_repeated).
fn without_ignored(url: &str) -> Result<String, DbError> {
    let Some((base, _)) = url.split_once('?') else { return Ok(url.to_owned()) };
    let mut kept = Vec::new();
    for pair in query(url).split('&').filter(|pair| !pair.is_empty()) {
        let (name, _) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        if PARAMETERS.contains(&&*name) || name.starts_with("options[") {
            kept.push(pair);
        } else if !IGNORED.contains(&&*name) {
            return Err(DbError::wrong(format!(
                "the database URL has an unknown parameter; these are known: {}",
                PARAMETERS.join(", ")
            )));
        }
    }
    Ok(format!("{base}?{}", kept.join("&")))
}

/// Parameters of libpq that the driver doesn't have, and without which a connection is no less secure: it is encrypted
/// and verified as `sslmode` says. Addresses that hosting providers give out contain some of them.
const IGNORED: [&str; 12] = [
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

fn query(url: &str) -> &str {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('#').next().unwrap_or_default()
}

/// Returns the `sslmode` that the URL itself requests; the last one counts, as in the driver.
fn asked_mode(url: &str) -> Option<String> {
    query(url)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| matches!(*key, "sslmode" | "ssl-mode"))
        .map(|(_, mode)| mode.to_ascii_lowercase())
        .next_back()
}

fn is_on_this_machine(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ] {
                match connect_options(&url) {
                    Err(refused) => assert!(refused.to_string().contains("sslmode=verify-full")),
                    Ok(options) => {
                        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull), "{url}");
                    }
                }
            }
        }
    }

    #[test]
    fn off_this_machine_verify_full_is_the_default() {
        for url in [
            "postgres://db.example/app",
            "postgresql://192.0.2.1/app?sslmode=verify-full",
            "postgres://localhost.example/app",
            "postgres://[2001:db8::1]/app",
        ] {
            assert!(matches!(mode(url), PgSslMode::VerifyFull), "{url}");
        }
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
    }

    #[test]
    fn what_libpq_knows_and_has_no_effect_here_is_taken() {
        let url = "postgres://db.example/app?sslmode=verify-full&channel_binding=require\
                   &connect_timeout=10&user=ann";
        let options = connect_options(url).unwrap();
        assert_eq!((options.get_host(), options.get_username()), ("db.example", "ann"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
        assert!(!without_ignored(url).unwrap().contains("timeout"));
        assert_eq!(without_ignored("postgres://h/app").unwrap(), "postgres://h/app");
    }

    #[test]
    fn on_this_machine_the_url_decides() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(matches!(mode(&format!("postgres://u@{host}/app")), PgSslMode::Prefer));
        }
        assert!(matches!(mode("postgres://localhost/app?sslmode=disable"), PgSslMode::Disable));
    }
}
