//! The failure of a command, with its exit code.

use palisade::error::{Error, FieldError};
use palisade::settings::Problem;
use palisade_db::DbError;

/// The exit code for wrong usage or invalid settings.
pub(crate) const WRONG_USAGE: u8 = 2;
/// The exit code of a command that failed or found a problem.
pub(crate) const FAILED: u8 = 1;

/// A failed command.
pub(crate) struct Failure {
    pub(crate) exit_code: u8,
    /// A stable code of the form `area.reason`.
    pub(crate) code: String,
    /// What went wrong and what to do.
    pub(crate) detail: String,
    /// One line per violated rule or cause.
    pub(crate) details: Vec<String>,
}

impl Failure {
    /// Creates a failure for a command that failed.
    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self {
            exit_code: FAILED,
            code: "command.failed".into(),
            detail: detail.into(),
            details: vec![],
        }
    }

    /// Creates a failure for a command that was used incorrectly.
    pub(crate) fn usage(detail: impl Into<String>) -> Self {
        Self { exit_code: WRONG_USAGE, code: "command.usage".into(), ..Self::failed(detail) }
    }

    /// Creates a failure for invalid settings.
    pub(crate) fn invalid_settings() -> Self {
        Self { code: "settings.invalid".into(), ..Self::usage("the settings are invalid") }
    }

    /// Adds the cause.
    pub(crate) fn because(mut self, cause: impl std::error::Error) -> Self {
        self.details.push(cause.to_string());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let field = |field: &FieldError| {
            let name = field.pointer.trim_start_matches('/');
            format!("{name}: {}", field.detail)
        };
        let mut details: Vec<String> = error.fields().iter().map(field).collect();
        details.extend(error.causes());
        Self {
            exit_code: FAILED,
            code: error.code().to_owned(),
            detail: error.detail().to_owned(),
            details,
        }
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        // The operator reads this failure and may see every cause.
        let mut cause: &dyn std::error::Error = &error;
        let mut details = Vec::new();
        while let Some(next) = cause.source() {
            details.push(next.to_string());
            cause = next;
        }
        Self { details, code: "database.failed".into(), ..Self::failed(error.to_string()) }
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        let details = problems.iter().map(ToString::to_string).collect();
        Self { details, ..Self::invalid_settings() }
    }
}
