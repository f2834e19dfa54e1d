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
mod authenticators;
mod bad_input;
mod bounds;
mod catalogues;
mod challenges;
mod changes;
mod compat;
mod cors;
mod deletion;
mod described;
mod documents;
mod duplicates;
mod email_change;
mod ending_table;
mod endings;
mod every_route;
mod everyone;
mod export;
mod factors;
mod faults;
mod flows;
mod granting;
mod invitations;
mod journeys;
mod keys;
mod limiting;
mod links;
mod lockout;
mod login_refusals;
mod lost_answers;
mod mailing;
mod mfa;
mod mfa_changes;
mod modules;
mod new_devices;
mod newer;
mod oauth_clients;
mod pages;
mod passkeys;
mod passwords;
mod racing;
mod reauthentication;
mod recovering;
mod refreshing;
mod registration;
mod replaced;
mod restoring;
mod rights;
mod sign_out;
mod signing_in;
mod signing_keys;
mod site_name;
mod tampering;
mod telemetry;
mod token_claims;
mod token_rights;
mod toy_credential;
mod transport;
mod typed_secrets;
mod verifying;
mod what_clients_send;
mod wording;
