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

Settings, in order of precedence: flag (--set), environment (PALISADE_SECTION__KEY), .env,
palisade.toml, default.
Exit codes: 0 success, 1 failure or problem found, 2 wrong usage or invalid settings.")]
pub(crate) struct Cli {
    /// Read settings from this file instead of palisade.toml.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Override a setting for this run. Can be repeated. Secrets are not accepted here.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The text that replaces a given argument in a usage error.
const UNSAID: &str = "…";

impl Cli {
    /// Reads the command line. A usage error doesn't repeat the given arguments: one may be a misplaced password, and
    /// errors end up in logs.
    pub(crate) fn read(
        words: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(words).map_err(|mut error| {
            // SECURITY: (test: a_usage_error_does_not_repeat_what_was_given)
            use ContextKind::{InvalidArg, InvalidSubcommand, InvalidValue, Suggested};
            let unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
            let given: &[ContextKind] = if unknown {
                &[InvalidArg, InvalidSubcommand, InvalidValue]
            } else {
                // In all other errors, the argument is one that Palisade defines.
                &[InvalidSubcommand, InvalidValue]
            };
            for kind in given {
                // An empty value means that the value is missing. It stays.
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
    /// Run the server until SIGTERM, SIGINT (Ctrl-C) or SIGQUIT.
    ///
    /// Without any configuration, the server listens on loopback only and keeps an embedded SQLite database and
    /// generated keys in ./palisade-data.
    #[command(after_help = "Examples:
  palisade serve
  PALISADE_DATABASE__URL=postgres://palisade@localhost/palisade palisade serve")]
    Serve,
    /// Write palisade.toml, .env.example and a root key. Existing files are not overwritten.
    #[command(after_help = "Examples:\n  palisade init\n  palisade init --production")]
    Init {
        /// Write a configuration for production instead of development.
        #[arg(long)]
        production: bool,
    },
    /// Check or show the settings.
    #[command(after_help = "Examples:\n  palisade config check\n  palisade config show --json")]
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Print a one-time link for creating the first administrator. It is valid for 30 minutes.
    #[command(after_help = "Example:\n  palisade setup-link")]
    SetupLink,
    /// Manage users.
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
    /// List or rotate the keys.
    #[command(
        after_help = "Examples:\n  palisade key list\n  palisade key rotate\n  palisade key rotate --now"
    )]
    Key {
        #[command(subcommand)]
        action: KeyAction,
    },
    /// Verify the audit log, or reseal it after a fault.
    #[command(after_help = "Examples:\n  palisade audit verify\n  palisade audit reseal")]
    Audit {
        #[command(subcommand)]
        action: AuditAction,
    },
    /// Show or update the schema of the database.
    #[command(
        after_help = "Examples:\n  palisade migrate status\n  palisade migrate plan\n  palisade migrate up"
    )]
    Migrate {
        #[command(subcommand)]
        action: MigrateAction,
    },
    /// Print the OpenAPI 3.1 description of the API.
    #[command(after_help = "Example:\n  palisade openapi > openapi.json")]
    Openapi,
    /// Ask the server of this machine, on server.admin_listen, whether it is live and ready.
    ///
    /// For the health checks of containers.
    #[command(after_help = "Example:\n  palisade health")]
    Health,
    /// Print the version, and what the program was built with.
    #[command(after_help = "Examples:\n  palisade version\n  palisade version --json")]
    Version,
    /// Print the completion script for a shell.
    #[command(after_help = "Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions zsh > ~/.zfunc/_palisade")]
    Completions {
        /// The shell to generate the script for.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(
        after_help = "Examples:\n  palisade man | man -l -\n  palisade man --directory ~/.local/share/man/man1"
    )]
    Man {
        /// Write a manual page for each command to this directory instead of printing one.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum ConfigAction {
    /// Validate the settings and report every problem.
    Check,
    /// Show every effective value with its origin. Secrets are hidden.
    Show,
}

#[derive(Subcommand)]
pub(crate) enum UserAction {
    /// List all users, oldest first.
    List {
        /// List only users whose email address or name starts with this text.
        #[arg(long)]
        query: Option<String>,
    },
    /// Show one user.
    Show {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Create a user. The password is prompted for, or read from standard input.
    Create {
        /// The email address of the user.
        email: String,
        /// The name of the user.
        #[arg(long)]
        name: Option<String>,
        /// A role in addition to the role `user`. Can be repeated.
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
        /// Email the user a link to choose a password instead.
        #[arg(long)]
        invite: bool,
    },
    /// Disable a user: refuse sign-ins and API keys, and end all sessions.
    Disable {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Enable a disabled user, who can then sign in again.
    Enable {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Unlock a user and reset the counts of wrong passwords and codes.
    Unlock {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// End all sessions and revoke all API keys of a user, or of every user.
    RevokeSessions {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID", required_unless_present = "all")]
        user: Option<String>,
        /// Sign out every user and revoke every API key, including those of service accounts.
        #[arg(long, conflicts_with = "user")]
        all: bool,
        /// Skip the confirmation prompt.
        #[arg(long, requires = "all")]
        yes: bool,
    },
    /// Remove every second factor of a user and end all sessions.
    ResetMfa {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
    },
    /// Set a new password, end all sessions and revoke all API keys. The password is prompted for, or read from
    /// standard input.
    ResetPassword {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// Email the user a link to choose a password instead. The sessions end and the API keys are revoked when the
        /// link is used.
        #[arg(long)]
        invite: bool,
    },
    /// Permanently delete a user. The audit log keeps only the id of the user.
    Delete {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// Skip the confirmation prompt.
        #[arg(long)]
        yes: bool,
    },
    /// Grant a role to a user.
    GrantRole {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// The name of the role.
        role: String,
    },
    /// Revoke a role from a user.
    RevokeRole {
        /// The email address or id of the user.
        #[arg(value_name = "EMAIL_OR_ID")]
        user: String,
        /// The name of the role.
        role: String,
    },
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum KeyAction {
    /// List the keys, without their secrets.
    List,
    /// Replace the signing keys without a pause.
    ///
    /// The new keys are published immediately and sign after 15 minutes, when every service that verifies tokens can
    /// know them. Tokens signed with the old keys stay valid until they expire. If new keys are already waiting, the
    /// command changes nothing.
    Rotate {
        /// What the keys are used for.
        #[arg(value_enum, default_value_t = KeyPurpose::Signing)]
        purpose: KeyPurpose,
        /// After a compromise: use the new keys immediately, and refuse every token signed with another key.
        #[arg(long)]
        now: bool,
    },
}

/// What the keys to rotate are used for.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum KeyPurpose {
    /// They sign access tokens and the revocation feed.
    Signing,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum AuditAction {
    /// Verify the whole log. If a record is bad, print the first one and exit with code 1.
    Verify,
    /// Let the log continue after a fault that you have investigated.
    ///
    /// Creates a new head from the last existing record, and writes an event that describes the fault. Copy the
    /// database first: the copy is your evidence.
    Reseal,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum MigrateAction {
    /// Show which migrations are applied. Exit with code 1 if any are missing.
    Status,
    /// Show the SQL of the missing migrations. Change nothing.
    Plan,
    /// Apply the missing migrations.
    Up,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error message and the exit code of a run with these arguments.
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
            &["version", secret],
            &["--json", "--", secret],
            &[secret],
        ] {
            let (text, code) = refused(words);
            assert!(!text.contains("hunter2"), "{words:?}: {text}");
            assert!(text.contains("error: "), "{words:?}: {text}");
            assert_eq!(code, 2, "{words:?}");
        }
    }

    /// The help texts of a command and of all its subcommands.
    fn helps(command: &mut clap::Command, found: &mut Vec<String>) {
        found.push(command.render_long_help().to_string());
        found.push(command.render_help().to_string());
        command.get_subcommands_mut().for_each(|below| helps(below, found));
    }

    #[test]
    fn the_help_of_every_command_is_plain_english() {
        use clap::CommandFactory as _;
        let avoided = [
            "whoever",
            "nobody",
            "somebody",
            "everybody",
            "oneself",
            "one's",
            "mend",
            "whom",
            "good",
            "doesn't ask",
        ];
        let mut found = Vec::new();
        helps(&mut Cli::command(), &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for help in found {
            let text = help.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            let text = format!(" {} ", text.replace(['.', ',', ';', ':'], " "));
            for word in avoided {
                assert!(!text.contains(&format!(" {word} ")), "{word:?} in:\n{help}");
            }
            assert!(
                !text.replace("email address", "").contains("address"),
                "whose address?\n{help}"
            );
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
