//! The command line, as `--help` shows it.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

/// A secure application backend: accounts, sign-in, sessions, tokens, an audit log.
#[derive(Parser)]
#[command(name = "palisade", version, max_term_width = 100)]
#[command(after_help = "Examples:
  palisade serve
  palisade init --production
  palisade --set server.listen=127.0.0.1:8080 serve
  palisade user create ann@example.com --role admin

Settings: flag (--set), then environment (PALISADE_SECTION__KEY), then palisade.toml, then default.
Exit codes: 0 success, 1 failed or found something wrong, 2 wrong usage or unusable settings.")]
pub(crate) struct Cli {
    /// The configuration file; without this, palisade.toml if it is there.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Sets one setting for this run; may be repeated. Secrets are refused here.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
    /// Prints JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Stands in a usage error for what was given.
const UNSAID: &str = "…";

impl Cli {
    /// Reads the command line. A usage error doesn't repeat what was given: a password may stand where none belongs, and
    /// errors end up in logs.
    pub(crate) fn read(
        words: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(words).map_err(|mut error| {
            // SECURITY: (test: a_usage_error_does_not_repeat_what_was_given)
            use ContextKind::{InvalidArg, InvalidSubcommand, InvalidValue, Suggested};
            let unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
            let given: &[ContextKind] = if unknown {
                &[InvalidArg, InvalidSubcommand, InvalidValue]
            } else {
                // Here the argument is one of ours.
                &[InvalidSubcommand, InvalidValue]
            };
            for kind in given {
                // Nothing in place of a value says that one is missing.
                if error
                    .get(*kind)
                    .is_some_and(|value| value != &ContextValue::String(String::new()))
                {
                    error.insert(*kind, ContextValue::String(UNSAID.to_owned()));
                }
            }
            error.remove(Suggested);
            error
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs the server until Ctrl-C or SIGTERM.
    ///
    /// Without any configuration: embedded SQLite and new keys in ./palisade-data, loopback only.
    #[command(after_help = "Examples:
  palisade serve
  PALISADE_DATABASE__URL=postgres://palisade@localhost/palisade palisade serve")]
    Serve,
    /// Writes palisade.toml, .env.example and a root key; overwrites nothing.
    #[command(after_help = "Examples:\n  palisade init\n  palisade init --production")]
    Init {
        /// A configuration for production instead of development.
        #[arg(long)]
        production: bool,
    },
    /// Checks or shows the settings.
    #[command(after_help = "Examples:\n  palisade config check\n  palisade config show --json")]
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Prints a one-time link, good for 30 minutes, that creates the first administrator.
    #[command(after_help = "Example:\n  palisade setup-link")]
    SetupLink,
    /// Administers users.
    #[command(after_help = "Examples:
  palisade user list
  palisade user create ann@example.com --name Ann --role admin
  palisade user create bob@example.com --invite --role editors
  palisade user disable ann@example.com
  printf '%s\\n' \"$NEW_PASSWORD\" | palisade user reset-password ann@example.com")]
    User {
        #[command(subcommand)]
        action: UserAction,
    },
    /// Lists or rotates the keys.
    #[command(after_help = "Examples:\n  palisade key list\n  palisade key rotate")]
    Key {
        #[command(subcommand)]
        action: KeyAction,
    },
    /// Looks after the audit log.
    #[command(after_help = "Examples:\n  palisade audit verify\n  palisade audit reseal")]
    Audit {
        #[command(subcommand)]
        action: AuditAction,
    },
    /// Shows or updates the database's schema.
    #[command(after_help = "Examples:\n  palisade migrate status\n  palisade migrate up")]
    Migrate {
        #[command(subcommand)]
        action: MigrateAction,
    },
    /// Prints the description of the API (OpenAPI 3.1).
    #[command(after_help = "Example:\n  palisade openapi > openapi.json")]
    Openapi,
    /// Prints the script that completes these commands in a shell.
    #[command(after_help = "Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions zsh > ~/.zfunc/_palisade")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page.
    #[command(
        after_help = "Examples:\n  palisade man | man -l -\n  palisade man --directory ~/.local/share/man/man1"
    )]
    Man {
        /// Writes a page for every command into this directory instead.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum ConfigAction {
    /// Says everything that is wrong with the settings, or that nothing is.
    Check,
    /// Every effective value with its origin; secrets hidden.
    Show,
}

#[derive(Subcommand)]
pub(crate) enum UserAction {
    /// Lists all users, oldest first.
    List {
        /// Only users whose address or name begins so.
        #[arg(long)]
        query: Option<String>,
    },
    /// Shows one user.
    Show {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Creates a user; the password is asked for, or read from standard input.
    Create {
        /// The address.
        email: String,
        /// What the person is called.
        #[arg(long)]
        name: Option<String>,
        /// A role beside the one that everybody has; may be repeated.
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
        /// Sends a link to choose a password with instead.
        #[arg(long)]
        invite: bool,
    },
    /// Refuses a user's sign-ins and ends all sessions.
    Disable {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Lets a disabled user sign in again.
    Enable {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Lifts every lock of a user and forgets all wrong passwords.
    Unlock {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Ends all sessions of a user, or of every user, and revokes the API keys.
    RevokeSessions {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID", required_unless_present = "all")]
        user: Option<String>,
        /// Signs every user out and revokes every API key, service accounts' too.
        #[arg(long, conflicts_with = "user")]
        all: bool,
        /// Doesn't ask before every user is signed out.
        #[arg(long, requires = "all")]
        yes: bool,
    },
    /// Removes every second factor of a user; ends all sessions.
    ResetMfa {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Sets a new password, asked for or read from standard input; ends all sessions.
    ResetPassword {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// Sends a link to choose a password with instead; the sessions end when it is used.
        #[arg(long)]
        invite: bool,
    },
    /// Deletes a user for good; in the audit log an id stands for them.
    Delete {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// Doesn't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Gives a user a role.
    GrantRole {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// The role.
        role: String,
    },
    /// Takes a role from a user.
    RevokeRole {
        /// Address or id.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// The role.
        role: String,
    },
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum KeyAction {
    /// Lists the keys, without their secrets.
    List,
    /// Replaces the signing keys; tokens signed by the old ones stay good until they expire.
    Rotate,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum AuditAction {
    /// Checks the whole log. Names the first bad record and exits with 1 if there is one.
    Verify,
    /// Lets the log continue after a fault that you have investigated.
    ///
    /// Makes a new head from the last existing record, and writes an event that describes the fault. Copy the
    /// database first: the copy is your evidence.
    Reseal,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum MigrateAction {
    /// Says which migrations are applied; exit code 1 if some are missing.
    Status,
    /// Applies what is missing.
    Up,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run with these words prints, and its exit code.
    fn refused(words: &[&str]) -> (String, i32) {
        let words = std::iter::once("palisade").chain(words.iter().copied());
        let error = Cli::read(words.map(Into::into)).err().unwrap();
        (error.render().to_string(), error.exit_code())
    }

    #[test]
    fn a_usage_error_does_not_repeat_what_was_given() {
        let secret = "tiger-hunter2";
        let flag = format!("--password={secret}");
        let dashes = format!("--{secret}");
        let short = format!("-{secret}");
        for words in [
            &["user", "create", "ann@example.com", secret][..],
            &["user", "create", "ann@example.com", "--password", secret],
            &["user", "create", "ann@example.com", &flag],
            &["user", "create", "ann@example.com", &dashes],
            &["user", "create", "ann@example.com", &short],
            &["user", "reset-password", "ann@example.com", secret],
            &["user", "delete", "ann@example.com", secret],
            &["user", "grant-role", "ann@example.com", "admin", secret],
            &["user", "list", secret],
            &["user", secret],
            &["serve", secret],
            &["init", secret],
            &["setup-link", secret],
            &["config", "show", secret],
            &["config", secret],
            &["key", "rotate", secret],
            &["audit", "verify", secret],
            &["migrate", "up", secret],
            &["completions", secret],
            &["man", secret],
            &["openapi", secret],
            &["--json", "--", secret],
            &[secret],
        ] {
            let (text, code) = refused(words);
            assert!(!text.contains("hunter2"), "{words:?}: {text}");
            assert!(text.contains("error: "), "{words:?}: {text}");
            assert_eq!(code, 2, "{words:?}");
        }
    }

    #[test]
    fn a_usage_error_says_what_is_missing_and_what_there_is() {
        let (text, _) = refused(&["user", "create"]);
        assert!(text.contains("<EMAIL>"), "{text}");
        let (text, _) = refused(&["user", "create", "ann@example.com", "--rol", "admin"]);
        assert!(text.contains("--role"), "{text}");
        let (text, _) = refused(&["completions", "cobol"]);
        assert!(text.contains("bash") && text.contains("zsh"), "{text}");
        let (text, _) = refused(&["user", "create", "ann@example.com", "--name"]);
        assert!(text.contains("--name <NAME>"), "{text}");
        let (text, code) = refused(&["--version"]);
        assert!(text.starts_with("palisade ") && code == 0, "{text}");
    }
}
