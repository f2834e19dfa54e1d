//! One connection: HTTP on a stream, its deadlines, and its end when the server stops.

use std::pin::pin;
use std::sync::Arc;

use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderValue, Version};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::{Either, Ready, ready};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;
use tower::util::Oneshot;

use super::progress::{Answering, HeadTimer, Patience, Progress, Watched, Why};
use super::refusing::{Refused, judge, too_slow, written};
use super::{Carrier, Connection, Ends, Front, Handler, Stopping};

impl Front {
    /// Serves HTTP on `stream` until either side is done, a deadline passes, or the server stops.
    pub(super) async fn drive<I, S>(
        &self,
        stream: I,
        mut builder: auto::Builder<TokioExecutor>,
        ends: Ends,
        service: S,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Handler,
    {
        let patience = Patience::new(&self.limits);
        let progress = Arc::new(Progress::new(Instant::now()));
        // The timer only signals that the parser waits for a head; `Progress` holds the deadline.
        builder
            .http1()
            .timer(HeadTimer::new(Arc::clone(&progress)))
            .header_read_timeout(self.limits.header_timeout);
        let connection = ends.connection(self.tls.is_some());
        let stopping = Stopping(Some(self.stopped.clone()));
        let answering = answering(service.clone(), connection, Arc::clone(&progress));
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&progress), answering));
        let largest = usize::try_from(self.limits.max_header_bytes).unwrap_or(usize::MAX);
        let watch = Arc::clone(&progress);
        let carrier = Carrier::new(connection, stopping);
        let requests = Requests { service, carrier, progress: watch, largest };
        let mut http = pin!(builder.serve_connection(stream, requests));
        let mut check = pin!(sleep_until(
            progress.next_check(&patience, Instant::now()).unwrap_or_else(Instant::now)
        ));
        let mut stopped = self.stopped.clone();
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = %ends.peer, "a connection ended early");
                    }
                    return;
                }
                () = check.as_mut() => match progress.next_check(&patience, Instant::now()) {
                    Some(next) => check.as_mut().reset(next),
                    None => {
                        if progress.expire() {
                            // The stream answers when the parser next reads from it.
                            let _ = http.as_mut().now_or_never();
                        }
                        return tracing::debug!(peer = %ends.peer, "a slow connection was closed");
                    }
                },
                _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                    stopping = true;
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Creates a callback with which the service responds to heads that never become a request.
fn answering<S: Handler>(service: S, connection: Connection, progress: Arc<Progress>) -> Answering {
    Box::new(move |why| {
        progress.with_head(|head| {
            let error = match why {
                Why::Parser(status) => head.fault(status),
                Why::TooSlow => too_slow(),
            };
            let headers = HeaderMap::new();
            let refused = head.refused(error, &headers);
            let bodiless = refused.method == axum::http::Method::HEAD;
            written(service.refuse(&connection, refused), bodiless)
        })
    })
}

/// Hands a connection's requests to the service.
struct Requests<S> {
    service: S,
    carrier: Carrier,
    progress: Arc<Progress>,
    /// The maximum size of a header list, in bytes.
    largest: usize,
}

impl<S: Handler> Requests<S> {
    /// Returns the response if the request must not reach the service.
    fn refusal(&self, request: &Request<Incoming>) -> Option<Response> {
        let error = self.progress.with_head(|head| judge(request, head, self.largest)).err()?;
        let refused = Refused {
            error,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            headers: request.headers(),
        };
        let mut response = self.service.refuse(&self.carrier.connection(), refused);
        if request.version() != Version::HTTP_2 {
            // Where the request ends isn't certain, so nothing after it is read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            self.progress.refused();
        }
        Some(response)
    }
}

impl<S: Handler> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Either<Ready<Result<Response, Self::Error>>, Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(response) = self.refusal(&request) {
            return Either::Left(ready(Ok(response)));
        }
        request.extensions_mut().insert(self.carrier.clone());
        Either::Right(self.service.clone().oneshot(request))
    }
}
