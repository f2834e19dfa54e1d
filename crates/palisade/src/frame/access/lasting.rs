//! Responses that are streamed, and end with the caller's right to them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts as RequestParts;

use super::{Access, entitled, prove};
use crate::app::App;
use crate::error::{Error, Result};

impl Access {
    /// For a response that is streamed: its handler takes an [`Admission`], and lets the gate check it again while the
    /// stream is open.
    #[must_use]
    pub const fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }
}

/// What the line of a [lasting](Access::lasting) route says, for its gate.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Access>);

/// A request that the gate admitted, to be checked again while its response is streamed: what would be refused now
/// must not be sent.
pub struct Admission {
    gate: Gate,
    parts: RequestParts,
}

/// The credential isn't used, only looked at again.
#[derive(Clone, Copy)]
struct Again;

/// Whether a credential was proved before, and its request is still being answered.
pub fn is_recheck(parts: &RequestParts) -> bool {
    parts.extensions.get::<Again>().is_some()
}

impl Admission {
    /// The headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Checks all that the gate checked: a credential that ended, expired or was replaced, a user who lost the permission
    /// or must set up a second factor.
    ///
    /// # Errors
    /// As the gate would refuse the request now; exhausted limits are not a reason.
    pub async fn recheck(&self, app: &App) -> Result<()> {
        let (_, identity) = prove(app, &self.parts).await?;
        entitled(app, &self.gate.0, &identity)
    }
}

impl FromRequestParts<App> for Admission {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut RequestParts, _: &App) -> Result<Self> {
        let gate = parts.extensions.get::<Gate>().cloned();
        let gate = gate.ok_or_else(|| Error::internal("the route's line must be `lasting`"))?;
        let mut parts = parts.clone();
        parts.extensions.insert(Again);
        Ok(Self { gate, parts })
    }
}
