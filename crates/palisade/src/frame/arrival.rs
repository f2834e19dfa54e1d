//! The arrival of a request, and the functions that count it against a limit.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::id::RequestId;
use crate::limits::{Decision, LimitKey, Rule};
use crate::net::client;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is known about a request before anything in it is trusted.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it arrived, on the monotonic clock.
    pub at: Duration,
    /// The request's id.
    pub request: RequestId,
    /// The client that sent it, with proxies taken into account.
    pub client: client::ClientIp,
    /// How the client sent it: over HTTPS, to this server or to a trusted proxy, or in plain text.
    pub scheme: client::Scheme,
}

/// Counts one use of `rule` by `key`.
///
/// # Errors
/// Fails with `request.too_many`. The response has the headers `Retry-After`, `RateLimit` and `RateLimit-Policy`.
pub fn limit(app: &App, rule: &'static Rule, key: LimitKey) -> Result<Decision> {
    limit_at(app, rule, key, app.clock.monotonic())
}

/// Like [`limit`], at a time that the caller has already read.
///
/// # Errors
/// Fails like [`limit`].
pub(crate) fn limit_at(
    app: &App,
    rule: &'static Rule,
    key: LimitKey,
    at: Duration,
) -> Result<Decision> {
    counted(app.limiter.check(rule, key, at), rule)
}

/// Refuses a request that a limit doesn't allow.
///
/// # Errors
/// Fails like [`limit`].
pub fn counted(decision: Decision, rule: &'static Rule) -> Result<Decision> {
    if decision.allowed {
        return Ok(decision);
    }
    let error = Error::new(Kind::TooMany, "request.too_many", rule.summary);
    let error = error.retry_after(decision.retry_after);
    let error = limit_headers(&decision)
        .into_iter()
        .fold(error, |error, (name, value)| error.header(name, value));
    Err(error)
}

/// Returns the response headers for an applied limit.
pub(crate) fn limit_headers(decision: &Decision) -> [(HeaderName, HeaderValue); 2] {
    let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    [(RATELIMIT, value(decision.limit_field())), (RATELIMIT_POLICY, value(decision.policy_field()))]
}
