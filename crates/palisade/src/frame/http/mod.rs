//! The HTTP frame: everything that applies to every request and every response.
//!
//! Slices write route lines ([`Routes`]) and handlers of about five lines; size, time, headers, errors, request ids and
//! the log are handled here, once.
//!
//! The contract is documented in `docs/http.md`.
//!
//! # Promises
//!
//! - Every response has the security headers and an `X-Request-Id`, errors and timeouts included.
//! - Every error is an RFC 9457 `application/problem+json` document, and its cause is never sent to the client. On routes
//!   for OAuth clients, the same document is sent as `application/json`, with the members of RFC 6749 section 5.2.
//! - A refusal that depends on data that another request wrote is sent only once that data is on disk.

mod again;
mod answer;
mod bounds;
pub mod describe;
mod form;
mod frame;
mod input;
pub mod measured;
mod oauth;
mod openapi;
mod routes;
mod standing;
mod whole;

use axum::http::HeaderName;

pub use crate::arrival::{Arrival, counted, limit};
pub use crate::cookie::{CookieName, Found, HostCookie};
pub use crate::net::{client, serve};
pub use answer::{Accepted, Asset, Created, Elsewhere, Html, NoContent, Taken, Written};
pub use form::Form;
pub use frame::Frame;
pub use input::{Body, Cursor, Id, List, MaybeBody, Paging, Params, Segments};
pub use openapi::{About, openapi};
pub use routes::{Route, Routes};

/// The header that contains the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
