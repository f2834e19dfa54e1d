//! The error type of Palisade's operations: a kind, a stable code, a sentence for the caller and a private cause.
//!
//! The caller sees [`Error::detail`]. Only the operator sees the cause, which is logged once in the outermost layer
//! ([`crate::http`]) and never sent to a client. The wire form is RFC 9457 `application/problem+json`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::visible::excerpt;

/// The result of any operation that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The kind of a failure. One table maps each kind to a status and a title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request can't be read, for example because it is not JSON or has an invalid header.
    Malformed,
    /// The request can be read but breaks one or more rules, which `errors` lists.
    BadInput,
    /// The caller is not signed in, or the credential is no longer valid.
    NotSignedIn,
    /// The grant that an OAuth client presented is not valid (RFC 6749 section 5.2).
    BadGrant,
    /// The signed-in caller may not do this.
    Denied,
    /// The object does not exist, or the caller may not see it.
    NotFound,
    /// The route exists, but the method doesn't.
    WrongMethod,
    /// The client took too long to send its request.
    TooSlow,
    /// The current state does not allow the request.
    Conflict,
    /// The object existed and is permanently gone.
    Gone,
    /// The body is larger than allowed.
    TooLarge,
    /// The headers are larger than allowed.
    HeadersTooLarge,
    /// The URI is longer than allowed.
    UriTooLong,
    /// The request needs a feature of HTTP that isn't implemented.
    NotImplemented,
    /// The request uses a version of HTTP that isn't supported.
    WrongVersion,
    /// The body has a media type that isn't accepted.
    WrongMediaType,
    /// Too many requests.
    TooMany,
    /// An internal error.
    Internal,
    /// A dependency is unavailable or overloaded; trying again later may help.
    Unavailable,
}

impl Kind {
    /// Returns the HTTP status of this kind (RFC 9110 section 15).
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// Returns the `title` of this kind (RFC 9457 section 3.1.3).
    pub fn title(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "Malformed request"),
            Self::BadInput => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid input"),
            Self::NotSignedIn => (StatusCode::UNAUTHORIZED, "Not signed in"),
            Self::BadGrant => (StatusCode::BAD_REQUEST, "Invalid grant"),
            Self::Denied => (StatusCode::FORBIDDEN, "Not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "Request took too long"),
            Self::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Self::Gone => (StatusCode::GONE, "Gone"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Body too large"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large")
            }
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "URI too long"),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "Not implemented"),
            Self::WrongVersion => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP version not supported")
            }
            Self::WrongMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        }
    }
}

/// One rule that the input of a request breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct FieldError {
    /// Where the problem is: a JSON Pointer into the body (RFC 6901), or the name of a query
    /// parameter.
    #[schemars(example = &"/password")]
    pub pointer: String,
    /// The stable code of the rule, such as `password.too_short`.
    #[schemars(example = &"password.too_short")]
    pub code: &'static str,
    /// What is wrong and how to fix it.
    #[schemars(example = &"Use at least 15 characters.")]
    pub detail: String,
}

/// How many characters of a pointer are kept. None of Palisade's own pointers is longer.
const LONGEST_POINTER: usize = 128;
/// How many characters of a field error's detail are kept. The rest is cut off.
const LONGEST_DETAIL: usize = 600;
/// The maximum number of broken rules in a response.
const MOST_FIELDS: usize = 50;

impl FieldError {
    /// Creates an entry for a broken rule. External text in its pointer and its detail is truncated and escaped, so
    /// that the response is short and harmless, no matter what was sent.
    pub fn new(pointer: &str, code: &'static str, detail: impl AsRef<str>) -> Self {
        Self {
            pointer: excerpt(pointer, LONGEST_POINTER),
            code,
            detail: excerpt(detail.as_ref(), LONGEST_DETAIL),
        }
    }
}

/// An error returned to the caller.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    code: &'static str,
    detail: Cow<'static, str>,
    fields: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_after: Option<Duration>,
    extensions: BTreeMap<&'static str, serde_json::Value>,
    cause: Option<Cause>,
    may_be_repeated: bool,
    by_configuration: bool,
}

impl Error {
    /// Creates an error of `kind` with its stable `code` (`area.reason`) and a sentence for the caller.
    pub fn new(kind: Kind, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            code,
            detail: detail.into(),
            fields: Vec::new(),
            headers: Vec::new(),
            retry_after: None,
            extensions: BTreeMap::new(),
            cause: None,
            may_be_repeated: false,
            by_configuration: false,
        }))
    }

    /// Creates an unexpected error. The caller gets a sentence and a request id; the cause goes to the log.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::new(Kind::Internal, "server.internal", "An internal error occurred.").because(cause)
    }

    /// Creates an error for an unavailable dependency. The caller is asked to try again after a second.
    pub fn unavailable(code: &'static str, detail: &'static str) -> Self {
        Self::new(Kind::Unavailable, code, detail).retry_after(Duration::from_secs(1))
    }

    /// Creates the error for something that this server doesn't offer because of its settings. Trying again doesn't help,
    /// and nothing has failed.
    pub fn off(code: &'static str, detail: &'static str) -> Self {
        let mut error = Self::new(Kind::Unavailable, code, detail);
        error.0.by_configuration = true;
        error
    }

    /// Creates the error for an object that does not exist or that the caller may not see. The response is the same in
    /// both cases.
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "request.not_found", "Not found.")
    }

    /// Creates an error for input that breaks the rules in `fields`.
    pub fn bad_input(fields: Vec<FieldError>) -> Self {
        let mut error =
            Self::new(Kind::BadInput, "request.invalid", "The request is invalid. See errors.");
        error.0.fields = fields;
        // More broken rules help no one, and a small request must not cause a large response.
        error.0.fields.truncate(MOST_FIELDS);
        error
    }

    /// Creates an error for one broken rule at `pointer`.
    pub fn bad_field(pointer: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Self::bad_input(vec![FieldError::new(pointer, code, detail.into())])
    }

    /// Adds the private cause, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds a `Retry-After` header (RFC 9110 section 10.2.3), rounded up to whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds a member to the problem document (RFC 9457 section 3.2).
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.0.extensions.insert(name, value.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns whether something failed in this server or in what it depends on, which the operator must know.
    pub fn is_failure(&self) -> bool {
        matches!(self.kind(), Kind::Internal | Kind::Unavailable) && !self.0.by_configuration
    }

    /// Returns the stable code, `area.reason`.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Returns the sentence for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns the broken rules, if the error is about input.
    pub fn fields(&self) -> &[FieldError] {
        &self.0.fields
    }

    /// Returns the additional members of the problem document.
    pub fn extensions(&self) -> &BTreeMap<&'static str, serde_json::Value> {
        &self.0.extensions
    }

    /// Returns the headers that the response carries in addition to the usual ones.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// Returns how long the caller must wait before trying again, in whole seconds.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(|d| d.as_secs() + u64::from(d.subsec_nanos() > 0)).map(|s| s.max(1))
    }

    /// Returns whether the request failed without effect because of a concurrent change to the same rows, so that an
    /// immediate retry may succeed.
    pub fn may_be_repeated(&self) -> bool {
        self.0.may_be_repeated
    }

    /// Returns the private cause and its underlying causes, outermost first.
    pub fn causes(&self) -> Option<String> {
        let mut cause: &dyn std::error::Error = self.0.cause.as_deref()?;
        let mut text = cause.to_string();
        while let Some(next) = cause.source() {
            cause = next;
            let line = cause.to_string();
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
        }
        Some(text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("detail", &self.0.detail)
            .field("fields", &self.0.fields)
            .field("cause", &self.causes())
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        for field in &self.0.fields {
            write!(f, " {}: {}", field.pointer, field.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

impl From<palisade_db::DbError> for Error {
    fn from(error: palisade_db::DbError) -> Self {
        use palisade_db::DbErrorKind as Db;
        let kind = error.kind();
        let mut told = match kind {
            Db::Unavailable | Db::BrokenOff | Db::Timeout | Db::OutcomeUnknown => {
                Self::unavailable(
                    "server.database_unavailable",
                    "The database is not responding. Try again later.",
                )
                .because(error)
            }
            // Concurrent changes that no statement handles itself.
            Db::Conflict | Db::Foreign => Self::new(
                Kind::Conflict,
                "request.conflict",
                "Another request changed the same resource at the same time. Try again.",
            )
            .because(error),
            _ => Self::internal(error),
        };
        told.0.may_be_repeated = matches!(kind, Db::BrokenOff | Db::Conflict | Db::Foreign);
        told
    }
}

/// A collection of broken rules, so that one response can report all of them.
#[derive(Debug, Default)]
pub struct Rules(Vec<FieldError>);

impl Rules {
    /// Creates an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the valid value, or records the broken rule at `pointer`.
    pub fn check<T>(&mut self, pointer: &str, value: std::result::Result<T, Broken>) -> Option<T> {
        value
            .map_err(|broken| {
                self.0.push(FieldError::new(pointer, broken.code, broken.detail));
            })
            .ok()
    }

    /// Returns the values, or an error with all broken rules.
    ///
    /// # Errors
    /// Fails with `request.invalid` if any rule was broken.
    pub fn all<T>(self, values: Option<T>) -> Result<T> {
        match values {
            Some(values) if self.0.is_empty() => Ok(values),
            _ => Err(Error::bad_input(self.0)),
        }
    }
}

/// A rule that a value breaks. The code that reads the request supplies the position of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The stable code of the rule.
    pub code: &'static str,
    /// What is wrong and how to fix it.
    pub detail: String,
}

impl Broken {
    /// Creates the broken rule `code` with the reason in `detail`.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// Converts the broken rule to an error about the input at `pointer`.
    pub fn at(self, pointer: &str) -> Error {
        Error::bad_field(pointer, self.code, self.detail)
    }
}

/// Returns the error for a caller who is not signed in: the request has no credential (RFC 6750 section 3).
pub fn not_signed_in() -> Error {
    Error::new(Kind::NotSignedIn, "access.not_signed_in", "Sign in first.")
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Returns the error for a credential that is not valid: ended, expired, forged or of the wrong kind (RFC 6750 section
/// 3.1).
pub fn bad_token() -> Error {
    Error::new(
        Kind::NotSignedIn,
        "access.invalid_token",
        "The credential is not valid. For example, it has expired, was revoked or replaced, or was not \
         issued by this server.",
    )
    .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// Returns the error for a signed-in caller who may not do this.
pub fn denied() -> Error {
    Error::new(Kind::Denied, "access.denied", "You are not allowed to do this.")
}
