//! The response headers of a rate limit, as defined in draft-ietf-httpapi-ratelimit-headers.

use std::fmt::Write as _;
use std::time::Duration;

use super::Decision;

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

impl Decision {
    /// Returns the `RateLimit-Policy` field: the quota and its window in seconds, `"name";q=5;w=60`.
    #[must_use]
    pub fn policy_field(&self) -> String {
        field(self.rule, [('q', self.limit.into()), ('w', seconds(self.window))])
    }

    /// Returns the `RateLimit` field: the remaining quota and for how many seconds it applies, `"name";r=0;t=12`.
    ///
    /// If nothing is left, the time is the same as in `Retry-After`, so the two never disagree.
    #[must_use]
    pub fn limit_field(&self) -> String {
        let time = if self.remaining == 0 { self.retry_after } else { self.reset_after };
        field(self.rule, [('r', self.remaining.into()), ('t', seconds(time))])
    }

    /// Returns the `Retry-After` field in seconds, rounded up and at least one (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        seconds(self.retry_after).max(1)
    }
}

/// Returns a time in whole seconds, rounded up so that a client that waits that long is not too early.
fn seconds(span: Duration) -> u64 {
    let whole = span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0));
    whole.min(LARGEST_INTEGER)
}

/// Builds a string with parameters (RFC 9651 sections 3.1.2 and 3.3.3), which can contain only printable ASCII. The
/// response to every request with an API key has two of these, so the text is built directly.
fn field(name: &str, parameters: [(char, u64); 2]) -> String {
    let mut out = String::with_capacity(64);
    out.push('"');
    for letter in name.chars().filter(|letter| matches!(letter, ' '..='~')) {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    for (parameter, value) in parameters {
        out.extend([';', parameter, '=']);
        // Writing to a string can't fail.
        let _ = write!(out, "{value}");
    }
    out
}
