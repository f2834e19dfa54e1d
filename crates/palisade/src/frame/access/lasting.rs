//! Streamed responses, which end when the caller loses the right to them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts as RequestParts;

use super::{Access, entitled, prove};
use crate::app::App;
use crate::error::{Error, Result};

impl Access {
    /// Marks the response of the route as streamed. The handler takes an [`Admission`] and uses it to repeat the gate's
    /// checks while the stream is open.
    #[must_use]
    pub const fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }
}

/// The access rules of a [lasting](Access::lasting) route, kept for rechecks.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Access>);

/// A request that the gate admitted. Its handler rechecks it while the response is streamed, so that nothing is sent
/// that would be refused now.
pub struct Admission {
    gate: Gate,
    parts: RequestParts,
}

/// Marks a recheck, which doesn't count as a use of the credential.
#[derive(Clone, Copy)]
struct Again;

/// Returns whether this is a recheck of a request whose credential was verified earlier and whose response is still
/// being sent.
pub fn is_recheck(parts: &RequestParts) -> bool {
    parts.extensions.get::<Again>().is_some()
}

impl Admission {
    /// Returns the headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Repeats the checks of the gate. Refuses a credential that has ended, expired or been replaced, and a user who
    /// has lost the permission or must set up a second factor.
    ///
    /// # Errors
    /// Returns the error with which the gate would refuse the request now. Exhausted limits are not a reason to refuse.
    pub async fn recheck(&self, app: &App) -> Result<()> {
        let (_, identity) = prove(app, &self.parts).await?;
        entitled(app, &self.gate.0, &identity)
    }
}

impl FromRequestParts<App> for Admission {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut RequestParts, _: &App) -> Result<Self> {
        let gate = parts.extensions.get::<Gate>().cloned();
        let gate = gate.ok_or_else(|| Error::internal("the route line must be `lasting`"))?;
        let mut parts = parts.clone();
        parts.extensions.insert(Again);
        Ok(Self { gate, parts })
    }
}
