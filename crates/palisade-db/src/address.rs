//! Reads a database URL, in the forms that libpq, hosting providers, SQLAlchemy and sqlx use.

use std::path::PathBuf;

use crate::{DbError, postgres};

/// Drivers that SQLAlchemy names in a URL, such as `postgresql+psycopg://`. They have no meaning here.
const POSTGRES_DRIVERS: [&str; 6] =
    ["asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async"];
const SQLITE_DRIVERS: [&str; 2] = ["aiosqlite", "pysqlite"];

/// Where a database is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// The path of a SQLite file.
    Sqlite(PathBuf),
    /// What follows `postgres://`.
    Postgres(String),
}

/// Reads a URL. The errors repeat no part of it, because every part may contain a password.
pub(crate) fn read(url: &str) -> Result<Address, DbError> {
    let (scheme, rest) = url.split_once(':').ok_or_else(unknown_kind)?;
    let (kind, driver) = match scheme.split_once('+') {
        Some((kind, driver)) => (kind, Some(driver)),
        None => (scheme, None),
    };
    match (kind, rest.strip_prefix("//")) {
        ("sqlite", _) => {
            known_driver(driver, &SQLITE_DRIVERS)?;
            sqlite_path(rest, driver.is_some()).map(Address::Sqlite)
        }
        ("postgres" | "postgresql", Some(rest)) => {
            known_driver(driver, &POSTGRES_DRIVERS)?;
            Ok(Address::Postgres(rest.to_owned()))
        }
        ("jdbc", _) => Err(DbError::wrong(
            "the database URL begins with jdbc:, which only Java programs read: remove it, and write the user \
             and the password before the host",
        )),
        _ => Err(unknown_kind()),
    }
}

/// Checks whether [`Db::open`](crate::Db::open) would accept a URL with these `plaintext_networks`, without connecting.
///
/// # Errors
/// Returns what is wrong with the URL: it is for a different kind of database, is malformed, or uses TLS that doesn't
/// protect the connection to another host. The message contains no part of the URL except its `sslmode`.
pub fn check_url(url: &str, plaintext_networks: &[ipnet::IpNet]) -> Result<(), DbError> {
    match read(url)? {
        Address::Sqlite(_) => Ok(()),
        Address::Postgres(rest) => postgres::check_url(&rest, plaintext_networks),
    }
}

/// Returns the path of the file that a SQLite URL names, or `None` if the URL names no SQLite file.
pub fn sqlite_file(url: &str) -> Option<PathBuf> {
    match read(url) {
        Ok(Address::Sqlite(path)) => Some(path),
        _ => None,
    }
}

fn unknown_kind() -> DbError {
    DbError::wrong("a database URL must start with sqlite:, postgres:// or postgresql://")
}

fn known_driver(driver: Option<&str>, known: &[&str]) -> Result<(), DbError> {
    match driver {
        Some(driver) if !known.contains(&driver) => Err(DbError::wrong(format!(
            "the database URL names an unknown driver after the +: remove it, or use one of {}",
            known.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// Returns the path in what follows `sqlite:`. In SQLAlchemy, the path begins after the third slash, so that
/// `///app.db` is a relative path; elsewhere, three slashes begin an absolute path.
fn sqlite_path(rest: &str, is_sqlalchemy: bool) -> Result<PathBuf, DbError> {
    let path = match (rest.strip_prefix("///"), rest.strip_prefix("//")) {
        (Some(path), _) if path.starts_with(['/', '.']) || is_sqlalchemy => path,
        (Some(path), Some(absolute)) if path.contains('/') => absolute,
        (Some(path), _) if !path.is_empty() && !path.starts_with(':') => {
            return Err(DbError::wrong(
                "a SQLite URL with three slashes and a file name is ambiguous: write sqlite:NAME for a file in the \
                 working directory, or sqlite:/NAME for a file in the root directory",
            ));
        }
        (Some(path), _) => path,
        (None, Some(path)) if !is_sqlalchemy => path,
        (None, None) if !is_sqlalchemy => rest,
        _ => "",
    };
    let in_memory = path.contains(":memory:") || path.starts_with([':', '?']) || rest == "//";
    if in_memory {
        return Err(DbError::wrong(
            "a SQLite URL must name a file, as in sqlite:PATH: a database in memory would be lost at every restart",
        ));
    }
    if path.is_empty() || path.starts_with("file:") || path.contains('?') {
        return Err(DbError::wrong(
            "a SQLite URL must have the form sqlite:PATH, without parameters",
        ));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str) -> String {
        sqlite_file(url).unwrap_or_else(|| panic!("{url}")).display().to_string()
    }

    fn refused(url: &str) -> String {
        check_url(url, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_path_of_sqlalchemy_never_leads_to_the_root_directory() {
        for (url, path) in [
            ("sqlite:app.db", "app.db"),
            ("sqlite:./data/app.db", "./data/app.db"),
            ("sqlite:/srv/app.db", "/srv/app.db"),
            ("sqlite://app.db", "app.db"),
            ("sqlite:///./app.db", "./app.db"),
            ("sqlite:///../app.db", "../app.db"),
            ("sqlite:///.data/app.db", ".data/app.db"),
            ("sqlite:///srv/data/app.db", "/srv/data/app.db"),
            ("sqlite:////srv/app.db", "/srv/app.db"),
            ("sqlite+aiosqlite:///./app.db", "./app.db"),
            ("sqlite+aiosqlite:///app.db", "app.db"),
            ("sqlite+aiosqlite:///data/app.db", "data/app.db"),
            ("sqlite+pysqlite:////srv/app.db", "/srv/app.db"),
        ] {
            assert_eq!(file(url), path, "{url}");
        }
        let ambiguous = refused("sqlite:///app.db");
        assert!(ambiguous.contains("sqlite:NAME") && ambiguous.contains("sqlite:/NAME"));
    }

    #[test]
    fn what_is_no_path_of_a_file_is_refused() {
        for url in [
            "sqlite:",
            "sqlite:///",
            "sqlite+aiosqlite:app.db",
            "sqlite+aiosqlite://app.db",
            "sqlite:file:app.db",
            "sqlite:app.db?mode=ro",
            "sqlite:///./app.db?check_same_thread=False",
        ] {
            assert!(refused(url).contains("sqlite:PATH"), "{url}");
        }
        for url in
            ["sqlite::memory:", "sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite:///:memory:"]
        {
            assert!(refused(url).contains("memory"), "{url}");
        }
    }

    #[test]
    fn what_sqlalchemy_and_java_write_before_the_host_is_taken_or_named() {
        for driver in POSTGRES_DRIVERS {
            let url = format!("postgresql+{driver}://app:hunter2@127.0.0.1/app");
            assert_eq!(read(&url).unwrap(), Address::Postgres("app:hunter2@127.0.0.1/app".into()));
        }
        assert!(refused("postgresql+other://app:hunter2@h/app").contains("psycopg"));
        assert!(refused("sqlite+libsql:///app.db").contains("aiosqlite"));
        let java = refused("jdbc:postgresql://h/app?user=app&password=hunter2");
        assert!(java.contains("jdbc:") && !java.contains("hunter2"), "{java}");
        for url in ["mysql://h/app", "postgres:app", "app", "+psycopg://h/app"] {
            assert!(refused(url).contains("must start with"), "{url}");
        }
    }
}
