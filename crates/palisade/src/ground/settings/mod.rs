//! The settings of the server: read from every source, checked and typed.
//!
//! A setting is taken from a flag, the environment, a `.env` file, `palisade.toml` or its default, in this order of
//! precedence.
//! [`Settings::load`] reads nothing by itself: the caller passes in what it found, so the same input always gives the
//! same settings.
//!
//! # Promises
//!
//! - A mistake never becomes a default. An unknown key, or a value that can't be read or is out of bounds, prevents the
//!   server from starting. Only an empty variable counts as not set.
//! - All problems are reported together. Each one names the setting, where it was set and what to do.
//! - No secret appears in a problem, in `Debug` output, or where settings are shown.
//! - Settings that are essential in production can't be left out there, and a development server can't be reached from
//!   other machines unless `server.expose_development` is set.
//!
//! # Example
//!
//! ```
//! use palisade::settings::{Settings, Sources};
//!
//! let loaded = Settings::load(Sources {
//!     environment: vec![("PALISADE_SERVER__LISTEN".into(), "127.0.0.1:8443".into())],
//!     ..Sources::default()
//! })
//! .map_err(|problems| problems[0].to_string())?;
//! assert_eq!(loaded.settings.server.listen.port(), 8443);
//! # Ok::<(), String>(())
//! ```

mod catalogue;
mod concerns;
mod cors;
mod database;
mod dotenv;
mod listeners;
mod load;
mod log_levels;
mod origin;
mod passed_over;
mod render;
mod rules;
mod secret;
mod site;
mod smtp;
mod source;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files;

pub use catalogue::{
    Cors, Data, Database, Hsts, Keys, LimitRule, Limits, Lockout, Mail, Passwords, Reference,
    Registration, Server, Sessions, Settings, Telemetry, Tls, Tokens,
};
pub use cors::{CorsHeader, CorsOrigin};
pub use database::{PlaintextNetwork, PlaintextNetworks, SchemaName};
pub use log_levels::LogLevels;
pub use origin::{PasskeyOrigin, ReportUrl, WebOrigin};
pub use render::{environment_example, settings_markdown, template};
pub use secret::{DatabaseUrl, RootKey, Secret};
pub use site::SiteName;
pub use smtp::{HeloName, Mailbox, SmtpTls, SmtpUrl};
pub use source::is_variable;
pub use words::{
    AdminMfa, Attestation, EmailVerification, Environment, LogFormat, LogLevel, Migrate, Paseto,
    PasswordAlgorithm, PasswordCost, RegistrationMode, TokenAlgorithm, TokenClaim, TokenFormat,
};

/// All sources of settings.
pub struct Sources<'a> {
    /// Keys such as `server.listen`, with their values. If a key occurs twice, the later value counts.
    pub flags: Vec<(String, String)>,
    /// The environment. Variables for which [`is_variable`] returns true are read.
    pub environment: Vec<(String, String)>,
    /// The path of the `.env` file, used in messages, and its text. It contains the same variables, which rank below the
    /// environment.
    pub environment_file: Option<(PathBuf, String)>,
    /// The path of the configuration file, used in messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The limit rules that exist, with their defaults.
    pub limit_rules: &'a [LimitDefault],
    /// Reads a file named by a variable ending in `_FILE`.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Default for Sources<'_> {
    /// Returns empty sources. Files named by `_FILE` variables are read from the file system.
    fn default() -> Self {
        Self {
            flags: Vec::new(),
            environment: Vec::new(),
            environment_file: None,
            file: None,
            limit_rules: &[],
            read_file: &files::read_text,
        }
    }
}

/// A limit rule with its default values.
#[derive(Clone, Copy, Debug)]
pub struct LimitDefault {
    /// The name in `limits.rules.NAME`: lowercase letters, digits and `_`.
    pub name: &'static str,
    /// How many attempts are allowed at once.
    pub burst: u32,
    /// The time in which the whole burst becomes available again.
    pub per: Duration,
}

/// Settings read without a problem.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every value with its origin, in the order of the reference page.
    pub effective: Vec<Effective>,
    /// What the operator probably didn't intend. It doesn't stop the server.
    pub concerns: Vec<Concern>,
}

/// A setting that is valid, but probably not intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// How severe it is.
    pub severity: Severity,
    /// The setting, the reason and the fix.
    pub problem: Problem,
}

/// How severe a concern is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The service can't work as it is. `palisade config check` fails.
    Error,
    /// A part of the service doesn't work, or is less protected.
    Warning,
}

/// The effective value of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The full key.
    pub key: String,
    /// The value, with secrets hidden.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
    /// Whether the value, or a part of it, is secret.
    pub secret: bool,
    /// Whether the value is the content of a file that a variable with the suffix `_FILE` names.
    pub in_named_file: bool,
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not set: the default applies.
    Default,
    /// In the configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line number, starting at 1.
        line: usize,
    },
    /// In a `.env` file.
    EnvironmentFile {
        /// Its path.
        path: PathBuf,
        /// The line number, starting at 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Environment(String),
    /// By a flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } | Self::EnvironmentFile { path, line } => {
                write!(f, "{}, line {line}", path.display())
            }
            Self::Environment(variable) => write!(f, "environment, {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A problem with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key of the setting, or the unknown name. Empty if a whole line of a file is wrong.
    pub key: String,
    /// Where it was set.
    pub origin: Origin,
    /// What is wrong.
    pub wrong: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}. {}", self.origin, self.wrong, self.mend)
        } else {
            write!(f, "{} ({}): {}. {}", self.key, self.origin, self.wrong, self.mend)
        }
    }
}

impl std::error::Error for Problem {}

impl Settings {
    /// Reads and checks the settings, and converts them to their types.
    ///
    /// # Errors
    /// Returns all problems in the sources. The list is never empty.
    pub fn load(sources: Sources<'_>) -> Result<Loaded, Vec<Problem>> {
        load::load(&sources)
    }

    /// Returns the options for opening the database.
    pub fn database_options(&self) -> palisade_db::Options {
        let database = &self.database;
        palisade_db::Options {
            url: database.url.expose().to_owned(),
            max_connections: database.max_connections,
            statement_timeout: database.statement_timeout,
            schema: database.schema.as_ref().map(|schema| schema.as_str().to_owned()),
            migrate_url: database.migrate_url.as_ref().map(|url| url.expose().to_owned()),
            plaintext_networks: self.plaintext_networks(),
        }
    }

    /// Returns the networks in which the database server may be reached without TLS.
    fn plaintext_networks(&self) -> Vec<ipnet::IpNet> {
        self.database.plaintext_networks.iter().map(|plaintext| plaintext.network).collect()
    }

    /// Returns the URL of the database.
    pub fn database_url(&self) -> &DatabaseUrl {
        &self.database.url
    }

    /// Returns whether the server runs in production, where no essential setting may be missing.
    pub fn is_production(&self) -> bool {
        self.server.environment == Environment::Production
    }
}
