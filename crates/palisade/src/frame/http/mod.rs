//! The HTTP frame: everything that is true of every request and every answer.
//!
//! Slices write route lines ([`Routes`]) and handlers of about five lines; size, time, headers, errors,
//! request ids and the log are decided here, once.
//!
//! Promises (contract: `docs/http.md`):
//! - every answer has the security headers and an `X-Request-Id`, errors and timeouts included;
//! - every error is RFC 9457 `application/problem+json`, and no cause leaves the process;
//! - a refusal that rests on what another request wrote waits until that is on disk.

mod again;
mod answer;
mod bounds;
mod cookie;
pub mod describe;
mod frame;
mod input;
mod openapi;
mod routes;
mod standing;

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

pub use crate::net::{client, serve};
pub use answer::{Accepted, Asset, Created, Elsewhere, Html, NoContent, Taken, Written};
pub use cookie::{CookieName, Found, HostCookie};
pub use frame::Frame;
pub use input::{Body, Cursor, Form, Id, List, MaybeBody, Paging, Params, Segments};
pub use openapi::{About, openapi};
pub use routes::{Route, Routes};

use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::id::RequestId;
use crate::limits::{Decision, LimitKey, Rule};

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is known of a request before anything of it is believed.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// The request's id.
    pub request: RequestId,
    /// Where it came from, proxies taken into account.
    pub client: client::ClientAddress,
    /// How the client's request came: over HTTPS, to us or to a trusted proxy, or in plain text.
    pub scheme: client::Scheme,
}

/// Counts one use of `rule` by `key`.
///
/// # Errors
/// `request.too_many`, with `Retry-After`, `RateLimit` and `RateLimit-Policy`.
pub fn limit(app: &App, rule: &'static Rule, key: LimitKey) -> Result<Decision> {
    limit_at(app, rule, key, app.clock.monotonic())
}

/// As [`limit`], at a moment that was looked up before.
///
/// # Errors
/// As [`limit`].
pub(crate) fn limit_at(
    app: &App,
    rule: &'static Rule,
    key: LimitKey,
    at: Duration,
) -> Result<Decision> {
    counted(app.limiter.check(rule, key, at), rule)
}

/// Refuses what a limit doesn't let through.
///
/// # Errors
/// As [`limit`].
pub fn counted(decision: Decision, rule: &'static Rule) -> Result<Decision> {
    if decision.allowed {
        return Ok(decision);
    }
    let error = Error::new(Kind::TooMany, "request.too_many", rule.says);
    let error = error.retry_after(decision.retry_after);
    let error = limit_headers(&decision)
        .into_iter()
        .fold(error, |error, (name, value)| error.header(name, value));
    Err(error)
}

/// What an answer says of a limit that was applied.
fn limit_headers(decision: &Decision) -> [(HeaderName, HeaderValue); 2] {
    let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    [(RATELIMIT, value(decision.limit_field())), (RATELIMIT_POLICY, value(decision.policy_field()))]
}
