//! Streamed responses, which end when the caller loses the right to them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts as RequestParts;

use super::{Access, entitled, prove};
use crate::app::App;
use crate::error::{Error, Result};

impl Access {
    /// For a streamed response: its handler takes an [`Admission`], and has the gate check it again while the stream is
    /// open.
    #[must_use]
    pub const fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }
}

/// The access rules of a [lasting](Access::lasting) route, for its gate.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Access>);

/// A request that the gate admitted, to be checked again while its response is streamed, so that nothing is sent that
/// would be refused now.
pub struct Admission {
    gate: Gate,
    parts: RequestParts,
}

/// Marks a recheck, which doesn't count as a use of the credential.
#[derive(Clone, Copy)]
struct Again;

/// Whether this is a recheck: the credential was verified before, and its request is still being answered.
pub fn is_recheck(parts: &RequestParts) -> bool {
    parts.extensions.get::<Again>().is_some()
}

impl Admission {
    /// The headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Repeats the checks of the gate. Refuses a credential that has ended, expired or been replaced, and a user who
    /// has lost the permission or must set up a second factor.
    ///
    /// # Errors
    /// The error with which the gate would refuse the request now. Exhausted limits are not a reason to refuse.
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
