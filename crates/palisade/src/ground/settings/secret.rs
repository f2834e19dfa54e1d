//! Settings that are secret, or that may contain a secret, which is never displayed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::value::{Shape, Value};

/// Text that is never shown: neither by `Debug` nor in a message about settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The URL of a database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`.
///
/// `Display` and `Debug` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Returns the URL of the SQLite database in the file at `path`.
    pub fn sqlite(path: &Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// Returns the whole URL, including the password, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the URL contains a password.
    pub fn has_password(&self) -> bool {
        self.to_string() != self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, query) = match self.0.split_once("://") {
            // A password among the parameters, or one with a question mark: where it begins is not certain.
            Some((scheme, rest)) if has_at_sign_in_parameters(rest) => {
                return write!(f, "{scheme}://(hidden)");
            }
            Some((scheme, rest)) => hide_user_info(scheme, rest),
            None => (self.0.clone(), None),
        };
        f.write_str(&base)?;
        let Some(query) = query else { return Ok(()) };
        for (index, pair) in query.split('&').enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            // The driver decodes names too, and takes a client key as a path or as the key itself.
            let secret = form_urlencoded::parse(pair.as_bytes()).any(|(name, value)| {
                name.to_ascii_lowercase().contains("pass") || value.contains("PRIVATE KEY")
            });
            match pair.split_once('=') {
                Some((name, _)) if secret => write!(f, "{name}=(hidden)")?,
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

fn has_at_sign_in_parameters(rest: &str) -> bool {
    rest.split_once('?').is_some_and(|(_, parameters)| parameters.contains('@'))
}

/// Hides the password before the last `@`, even if the password itself contains `/`, `?` or `@`, and splits off the
/// parameters.
fn hide_user_info(scheme: &str, rest: &str) -> (String, Option<String>) {
    let (user_info, place) = match rest.rsplit_once('@') {
        Some((user_info, place)) => (Some(user_info), place),
        None => (None, rest),
    };
    let (place, query) = match place.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (place, None),
    };
    let base = match user_info.map(|user_info| user_info.split_once(':').ok_or(user_info)) {
        Some(Ok((user, _))) => format!("{scheme}://{user}:(hidden)@{place}"),
        Some(Err(user)) => format!("{scheme}://{user}@{place}"),
        None => format!("{scheme}://{place}"),
    };
    (base, query)
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for DatabaseUrl {
    const EXPECTED: &'static str =
        "a database URL, `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        let (scheme, rest) = text.split_once(':').unwrap_or(("", ""));
        // With the names of drivers, as in `postgresql+psycopg:`. Which of them are known is checked with the rest.
        let kind = scheme.split('+').next().unwrap_or_default();
        let is_known = match kind {
            "sqlite" | "jdbc" => !rest.is_empty(),
            "postgres" | "postgresql" => {
                rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty())
            }
            _ => false,
        };
        if is_known {
            Ok(Self(text))
        } else {
            Err("is not a database URL of a known kind".to_owned())
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where the root key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// The file that contains it.
    File(PathBuf),
    /// The key itself, in its text form.
    Text(Secret),
}

/// The prefix of a root key in its text form.
const ROOT_KEY_PREFIX: &str = "palisade-root-key-v1.";

/// The number of characters of 32 bytes in base64url without padding.
const ROOT_KEY_CHARACTERS: usize = 43;

/// Secrets that appear in examples and tutorials. The comparison ignores case, spaces, and the characters `-`, `_`,
/// `!`, `.`, `<` and `>`.
const PLACEHOLDERS: [&str; 15] = [
    "changeme",
    "changethis",
    "secret",
    "secretkey",
    "supersecret",
    "mysecret",
    "password",
    "default",
    "example",
    "placeholder",
    "replaceme",
    "todo",
    "test",
    "yoursecretkey",
    // The example of `telemetry.metrics_token`.
    "pastetheoutputofopensslrandhex32",
];

/// Returns whether `text` is a well-known secret.
fn is_placeholder(text: &str) -> bool {
    let plain: String = text
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | ' ' | '!' | '.' | '<' | '>'))
        .flat_map(char::to_lowercase)
        .collect();
    PLACEHOLDERS.contains(&plain.as_str())
}

impl Value for Secret {
    const EXPECTED: &'static str = "a random secret of at least 32 characters";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        if is_placeholder(&text) {
            return Err("is a well-known placeholder".to_owned());
        }
        // SECURITY: such a secret is compared without a limit on guesses (test: a_secret_is_long_and_no_placeholder).
        if text.len() < SHORTEST_SECRET {
            return Err(format!("is shorter than {SHORTEST_SECRET} characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("contains a space or a character that is not ASCII".to_owned());
        }
        Ok(Self(text))
    }

    fn show(&self) -> String {
        "(hidden)".to_owned()
    }
}

/// The minimum length of a secret, in characters.
const SHORTEST_SECRET: usize = 32;

impl Value for RootKey {
    const EXPECTED: &'static str = "the path of a root key file, with `/` or `.` in it; or, in \
         the environment only, a root key, which begins with `palisade-root-key-v1.`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let text = String::parse(text)?;
        let key = text.strip_prefix(ROOT_KEY_PREFIX);
        if is_placeholder(key.unwrap_or(&text)) {
            return Err("is a well-known placeholder".to_owned());
        }
        let Some(key) = key else {
            return if text.contains(['/', '.']) {
                Ok(Self::File(PathBuf::from(text)))
            } else {
                Err("is neither a path nor a root key".to_owned())
            };
        };
        if key.len() < ROOT_KEY_CHARACTERS {
            return Err("is a root key of fewer than 32 bytes".to_owned());
        }
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if key.len() > ROOT_KEY_CHARACTERS || !key.bytes().all(base64url) {
            return Err("is not a root key in its text form".to_owned());
        }
        Ok(Self::Text(Secret::new(text)))
    }

    fn show(&self) -> String {
        match self {
            Self::File(path) => path.show(),
            Self::Text(_) => "(hidden)".to_owned(),
        }
    }
}
