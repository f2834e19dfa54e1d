//! The HTTP frame: everything that applies to every request and every response.
//!
//! Slices write route lines ([`Routes`]) and handlers of about five lines; size, time, headers, errors, request ids and
//! the log are handled here, once.
//!
//! The contract is `docs/http.md`.
//!
//! # Promises
//!
//! - Every response has the security headers and an `X-Request-Id`, errors and timeouts included.
//! - Every error is RFC 9457 `application/problem+json`, and no cause leaves the process.
//! - A refusal that depends on what another request wrote waits until that is on disk.

mod again;
mod answer;
mod bounds;
pub mod describe;
mod frame;
mod input;
mod openapi;
mod routes;
mod standing;

use axum::http::HeaderName;

pub use crate::arrival::{Arrival, counted, limit};
pub use crate::cookie::{CookieName, Found, HostCookie};
pub use crate::net::{client, serve};
pub use answer::{Accepted, Asset, Created, Elsewhere, Html, NoContent, Taken, Written};
pub use frame::Frame;
pub use input::{Body, Cursor, Form, Id, List, MaybeBody, Paging, Params, Segments};
pub use openapi::{About, openapi};
pub use routes::{Route, Routes};

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
