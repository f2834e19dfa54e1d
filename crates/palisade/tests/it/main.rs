//! One binary for all tests through the front door, so that it is linked once.

#![expect(unreachable_pub, reason = "a test binary has no outside to be reached from")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]
#![expect(
    clippy::cognitive_complexity,
    clippy::string_slice,
    reason = "a journey is read from top to bottom, and cuts text that it knows"
)]

mod administering;
mod auditing;
mod bad_input;
mod bounds;
mod catalogues;
mod cors;
mod described;
mod documents;
mod duplicates;
mod ending_table;
mod endings;
mod every_route;
mod everyone;
mod factor_gaps;
mod factors;
mod faults;
mod flows;
mod granting;
mod journeys;
mod keys;
mod limiting;
mod lockout;
mod modules;
mod moving;
mod newer;
mod outliving;
mod owning;
mod pages;
mod passkeys;
mod racing;
mod recovering;
mod refreshing;
mod replaced;
mod restoring;
mod rights;
mod signing_in;
mod tampering;
mod toy_credential;
mod transport;
mod typed_secrets;
mod verifying;
mod wording;
