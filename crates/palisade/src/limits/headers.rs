//! What the answer's headers say about a limit, after draft-ietf-httpapi-ratelimit-headers.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Decision;

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

impl Decision {
    /// The `RateLimit-Policy` field: the quota and its window in seconds, `"name";q=5;w=60`.
    #[must_use]
    pub fn policy_field(&self) -> String {
        format!("{};q={};w={}", Quoted(self.rule), self.limit, seconds(self.window))
    }

    /// The `RateLimit` field: what is left, and for how many seconds that holds, `"name";r=0;t=12`.
    ///
    /// With nothing left the time is that of `Retry-After`, so that the two never disagree.
    #[must_use]
    pub fn limit_field(&self) -> String {
        let time = if self.remaining == 0 { self.retry_after } else { self.reset_after };
        format!("{};r={};t={}", Quoted(self.rule), self.remaining, seconds(time))
    }

    /// The `Retry-After` field in seconds, rounded up, at least one (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        seconds(self.retry_after).max(1)
    }
}

/// Rounded up: a client that comes back after so long is not too early.
fn seconds(span: Duration) -> u64 {
    let whole = span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0));
    whole.min(LARGEST_INTEGER)
}

/// A structured-field string (RFC 9651 section 3.3.3). Only printable ASCII can stand in one.
struct Quoted(&'static str);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for letter in self.0.chars().filter(|letter| matches!(letter, ' '..='~')) {
            if matches!(letter, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(letter)?;
        }
        f.write_char('"')
    }
}
