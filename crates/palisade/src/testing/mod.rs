//! Helpers for tests of Palisade and of applications that use it, behind the feature `testing`.
//!
//! [`TestApp`] is a complete Palisade app on a fresh database, with a clock that the test controls. A [`Client`] sends
//! requests to it from outside, as programs and browsers do, and every response is checked against the API's
//! description. [`phone`] and [`passkey`] are second factors, and [`mailbox`] reads the emails that would have been
//! sent.
//!
//! An application enables the feature in its dev-dependencies, and lists its own modules in a [`Plan`]:
//!
//! ```toml
//! [dev-dependencies]
//! palisade = { version = "0.1", features = ["testing"] }
//! ```
//!
//! Everything here panics if a result is unexpected, so that the test fails.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and this module only serves them"
)]

mod app;
mod client;
mod description;
pub mod mailbox;
pub mod passkey;
pub mod phone;
mod recounting;

pub use app::{On, PASSWORD, Plan, TestApp, settings, unlimited};
pub use client::{Answer, Call, Client, claims, patch, place, put};
pub use description::Description;
pub use recounting::recount;

/// Declares tests that run on both databases, each with its own app: for each name, a module with the tests `sqlite`
/// and `postgres`, which call the function with an [`On`](crate::testing::On).
///
/// The test's crate needs tokio with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! on_both {
    ($($name:ident => $test:expr;)+) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let test: fn(_) -> _ = $test;
                test($crate::testing::On::Sqlite).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let test: fn(_) -> _ = $test;
                test($crate::testing::On::Postgres).await;
            }
        }
    )+};
}
