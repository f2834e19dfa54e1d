//! Runs a request again if the database aborted its change, or if it conflicted with another change to the same rows.
//!
//! This is safe as long as no part of the request is committed, which [`Committed`] records. What the handler read from
//! the request is kept for that long.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as _;
use palisade_crypto::random::Random;

use super::Arrival;
use crate::access::Committed;
use crate::app::App;
use crate::error::Error;

/// The maximum number of times that a request is run.
const TRIES: u32 = 4;
/// The maximum pause before the second try. It doubles with each further try.
const PAUSE: Duration = Duration::from_millis(20);

/// The body of a request, once its handler has read it.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Option<Bytes>>>);

impl Kept {
    /// Stores the body.
    pub(super) fn put(&self, body: &Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body.clone());
    }

    fn get(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Calls the handler of a request that may change something. Calls it again, a few times at most, if a concurrent
/// change made it fail and nothing was committed.
pub(super) async fn call<H, T>(handler: H, mut parts: Parts, body: Body, app: App) -> Response
where
    H: Handler<T, App>,
    T: 'static,
{
    let (kept, committed) = (Kept::default(), Committed::default());
    if body.is_end_stream() {
        kept.put(&Bytes::new());
    }
    parts.extensions.insert(kept.clone());
    parts.extensions.insert(committed.clone());
    let first = Request::from_parts(parts.clone(), body);
    let mut response = handler.clone().call(first, app.clone()).await;
    for tried in 1..TRIES {
        if !may_be_repeated(&response) || committed.0.load(Ordering::Acquire) {
            break;
        }
        let Some(body) = kept.get() else { break };
        let request_id = parts.extensions.get::<Arrival>().map(|arrival| arrival.request.0);
        tracing::info!(?request_id, tried, "the request conflicted with another and is retried");
        tokio::time::sleep(pause(&*app.random, tried)).await;
        let request = Request::from_parts(parts.clone(), Body::from(body));
        response = handler.clone().call(request, app.clone()).await;
    }
    response
}

fn may_be_repeated(response: &Response) -> bool {
    response.extensions().get::<Arc<Error>>().is_some_and(|error| error.may_be_repeated())
}

/// Returns a random fraction of the maximum pause, so that two conflicting requests don't conflict again.
fn pause(random: &dyn Random, tried: u32) -> Duration {
    let mut byte = [0];
    random.fill(&mut byte);
    PAUSE * 2_u32.saturating_pow(tried - 1) * (u32::from(byte[0]) + 1) / 256
}
