//! The sources of settings: flags, the environment, `.env` and the configuration file.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use palisade::MODULES;
use palisade::files;
use palisade::settings::{
    Concern, Effective, LimitDefault, Loaded, Origin, Problem, Settings, Severity, Sources,
    is_variable,
};

use crate::cli::Cli;
use crate::failure::{Failure, WRONG_USAGE};

const DEFAULT_FILE: &str = "palisade.toml";
/// The file next to the configuration file with more environment variables.
const ENVIRONMENT_FILE: &str = ".env";
/// The access that users who are neither the owner nor in the group have to a file.
const OTHERS: u32 = 0o007;

/// Reads the settings from all their sources.
pub(crate) fn settings(cli: &Cli) -> Result<Loaded, Failure> {
    let path = path(cli);
    settings_with(cli, file("the configuration file", path, cli.config.is_none())?)
}

/// Reads the settings, with this configuration file instead of the one on the disk.
pub(crate) fn settings_with(cli: &Cli, file: Option<(PathBuf, String)>) -> Result<Loaded, Failure> {
    let rules: Vec<LimitDefault> = MODULES
        .iter()
        .flat_map(|module| module.limits)
        .map(|rule| LimitDefault { name: rule.name, burst: rule.burst, per: rule.per })
        .collect();
    let sources = Sources {
        flags: flags(&cli.set)?,
        environment: environment()?,
        environment_file: environment_file(path(cli))?,
        file,
        limit_rules: &rules,
        ..Sources::default()
    };
    let mut loaded = Settings::load(sources)?;
    loaded.concerns.extend(loaded.effective.iter().filter_map(open_to_others));
    Ok(loaded)
}

/// Returns the path of the configuration file.
pub(crate) fn path(cli: &Cli) -> &Path {
    cli.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
}

fn flags(set: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        // SECURITY: the argument may be a secret without its key (test: what_set_is_given_is_not_repeated).
        let pair = text.split_once('=');
        let (key, value) = pair.ok_or_else(|| Failure::usage("--set needs KEY=VALUE"))?;
        Ok((key.trim().to_owned(), value.to_owned()))
    };
    set.iter().map(pair).collect()
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn environment() -> Result<Vec<(String, String)>, Failure> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        is_variable(&name).then_some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(Failure::usage(format!("the environment variable {name} is not UTF-8"))),
    })
    .collect()
}

/// Returns the directory in which systemd puts the credentials of this service.
#[expect(clippy::disallowed_methods, reason = "the environment is read only in this file")]
pub(crate) fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads the `.env` next to the configuration file at `config`, if there is one.
fn environment_file(config: &Path) -> Result<Option<(PathBuf, String)>, Failure> {
    let path = config.with_file_name(ENVIRONMENT_FILE);
    // A directory of this name is something else, such as a virtual environment of Python.
    if path.is_dir() { Ok(None) } else { file("the environment file", &path, true) }
}

fn file(what: &str, path: &Path, optional: bool) -> Result<Option<(PathBuf, String)>, Failure> {
    match files::read_text(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == ErrorKind::NotFound && optional => Ok(None),
        Err(error) => {
            let detail = format!("{what} {} can't be read", path.display());
            Err(Failure { exit_code: WRONG_USAGE, ..Failure::failed(detail) }.because(error))
        }
    }
}

/// Returns the concern about a file that contains a secret and that other users can read.
fn open_to_others(found: &Effective) -> Option<Concern> {
    let (Origin::File { path, .. } | Origin::EnvironmentFile { path, .. }) = &found.origin else {
        return None;
    };
    // Only a value with a secret is shown with a part hidden.
    if !found.secret || !found.value.contains("(hidden)") {
        return None;
    }
    let mode = std::fs::metadata(path).ok()?.mode();
    (mode & OTHERS != 0).then(|| Concern {
        severity: Severity::Warning,
        problem: Problem {
            key: found.key.clone(),
            origin: found.origin.clone(),
            wrong: format!(
                "this is a secret in a file that other users can read (mode {:04o})",
                mode & 0o7777
            ),
            mend: format!("Run: chmod 600 {}", path.display()),
        },
    })
}
