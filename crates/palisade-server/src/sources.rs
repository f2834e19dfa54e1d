//! The sources of settings: flags, the environment, `.env` and the configuration file.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use palisade::MODULES;
use palisade::files::{self, Process};
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
    let env = EnvironmentFile::read(path(cli))?;
    let sources = Sources {
        flags: flags(&cli.set)?,
        environment: environment()?,
        environment_file: env.as_ref().map(|env| (env.path.clone(), env.text.clone())),
        file,
        limit_rules: &rules,
        ..Sources::default()
    };
    let mut loaded = Settings::load(sources)?;
    if let Some(env) = env {
        env.require_private(&loaded.effective)?;
    }
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
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Returns who this process is to the file system.
pub(crate) fn this_process() -> Result<Process, Failure> {
    let process = Process::current().map_err(|error| {
        Failure::failed("the groups of this process can't be determined").because(error)
    })?;
    Ok(Process { credentials: credentials(), ..process })
}

/// The `.env` next to the configuration file.
struct EnvironmentFile {
    path: PathBuf,
    file: File,
    text: String,
}

impl EnvironmentFile {
    /// Reads the file next to the configuration file at `config`, if there is one.
    ///
    /// SECURITY: who can change the file chooses the root key and the mail server (test:
    /// an_env_file_that_others_can_change_or_whose_secrets_they_can_read_is_refused).
    fn read(config: &Path) -> Result<Option<Self>, Failure> {
        let path = config.with_file_name(ENVIRONMENT_FILE);
        // A directory of this name is something else, such as a virtual environment of Python.
        if path.is_dir() {
            return Ok(None);
        }
        let failed = |what: &str, error: io::Error| {
            unusable(format!("the environment file {} {what}", path.display()), error)
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("can't be read", error)),
        };
        let safe = this_process()?.require_unchangeable(&path, &file);
        safe.map_err(|error| failed("can't be used", error))?;
        let text = files::text_of(&file).map_err(|error| failed("can't be read", error))?;
        Ok(Some(Self { path, file, text }))
    }

    /// Refuses the file if a secret in it is in effect and another user can read the file.
    ///
    /// SECURITY: the root key in a `.env` is as secret as in a file of its own (test:
    /// an_env_file_that_others_can_change_or_whose_secrets_they_can_read_is_refused).
    fn require_private(&self, effective: &[Effective]) -> Result<(), Failure> {
        let here = |found: &&Effective| {
            matches!(found.origin, Origin::EnvironmentFile { .. }) && contains_secret(found)
        };
        let Some(secret) = effective.iter().find(here) else { return Ok(()) };
        this_process()?.require_private(&self.path, &self.file).map_err(|error| {
            let detail = format!(
                "the environment file {} can't be used, because it contains a secret ({})",
                self.path.display(),
                secret.key
            );
            unusable(detail, error)
        })
    }
}

fn file(what: &str, path: &Path, optional: bool) -> Result<Option<(PathBuf, String)>, Failure> {
    match files::read_text(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == ErrorKind::NotFound && optional => Ok(None),
        Err(error) => Err(unusable(format!("{what} {} can't be read", path.display()), error)),
    }
}

fn unusable(detail: String, error: io::Error) -> Failure {
    Failure { exit_code: WRONG_USAGE, ..Failure::failed(detail) }.because(error)
}

/// Returns whether the place where the value was set contains a secret.
fn contains_secret(found: &Effective) -> bool {
    // Only a value with a secret is shown with a part hidden.
    found.secret && !found.in_named_file && found.value.contains("(hidden)")
}

/// Returns the concern about a configuration file that contains a secret and that other users can read.
fn open_to_others(found: &Effective) -> Option<Concern> {
    let Origin::File { path, .. } = &found.origin else { return None };
    if !contains_secret(found) {
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
