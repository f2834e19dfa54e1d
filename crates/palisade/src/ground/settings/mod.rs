//! The settings of the server: read from every source, checked, typed.
//!
//! A setting comes from a flag, else from the environment, else from `palisade.toml`, else from its
//! default. [`Settings::load`] reads nothing by itself: the caller hands over what it found, so that
//! the same input always gives the same settings.
//!
//! # Promises
//!
//! - A mistake never becomes a default. An unknown key, an empty variable, a value that can't be read or lies outside
//!   its bounds prevents the start.
//! - All problems are reported at once; each names the setting, where it was set and what to do.
//! - No secret is repeated in a problem, by `Debug`, or in what is shown.
//! - Settings that are essential in production can't be left out there, and a development server can't be reached from
//!   other machines.
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
mod load;
mod origin;
mod render;
mod rules;
mod secret;
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

pub use catalogue::{
    Cors, Data, Database, Hsts, Keys, LimitRule, Limits, Lockout, Mail, Passwords, Reference,
    Registration, Server, Sessions, Settings, Telemetry, Tls, Tokens,
};
pub use origin::{CorsOrigin, ReportUrl, WebOrigin};
pub use render::{environment_example, settings_markdown, template};
pub use secret::{DatabaseUrl, RootKey, Secret};
pub use smtp::{Mailbox, SmtpUrl};
pub use words::{
    AdminMfa, Attestation, EmailVerification, Environment, LogFormat, LogLevel, Migrate, Paseto,
    PasswordAlgorithm, PasswordCost, RegistrationMode, TokenAlgorithm, TokenFormat,
};

/// Everything that settings may come from.
pub struct Sources<'a> {
    /// Keys such as `server.listen` with their values; of two values for one key, the later one counts.
    pub flags: Vec<(String, String)>,
    /// The environment. Variables that begin with `PALISADE_` are read, and `DATABASE_URL` and `SMTP_URL`. The caller
    /// leaves out variables that begin with `PALISADE_` but are not settings.
    pub environment: Vec<(String, String)>,
    /// The path of the configuration file, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The limit rules that exist, with their defaults.
    pub limit_rules: &'a [LimitDefault],
    /// How a file that a variable ending in `_FILE` names is read.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Default for Sources<'_> {
    /// No source at all; `_FILE` reads from the file system.
    fn default() -> Self {
        Self {
            flags: Vec::new(),
            environment: Vec::new(),
            file: None,
            limit_rules: &[],
            read_file: &|path| std::fs::read_to_string(path),
        }
    }
}

/// A limit rule with its default values.
#[derive(Clone, Copy, Debug)]
pub struct LimitDefault {
    /// The name in `limits.rules.NAME`: lower-case letters, digits and `_`.
    pub name: &'static str,
    /// How many attempts are allowed at once.
    pub burst: u32,
    /// The time in which the whole burst becomes available again.
    pub per: Duration,
}

/// Settings that were read without a problem.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every value with its origin, in the order of the reference page.
    pub effective: Vec<Effective>,
}

/// The value of one setting that is in effect.
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
        /// The line, from 1.
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
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(variable) => write!(f, "environment, {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A problem that prevents the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the unknown name, or empty if the file can't be read at all.
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
    /// Reads, checks and types the settings.
    ///
    /// # Errors
    /// All problems in the sources. The list is never empty.
    pub fn load(sources: Sources<'_>) -> Result<Loaded, Vec<Problem>> {
        load::load(&sources)
    }

    /// The URL of the database that is used.
    pub fn database_url(&self) -> &DatabaseUrl {
        &self.database.url
    }

    /// Whether the server is in real use, where nothing essential may be missing.
    pub fn is_production(&self) -> bool {
        self.server.environment == Environment::Production
    }
}
