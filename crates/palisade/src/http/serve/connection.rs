//! One connection: HTTP on a stream, its deadlines, and its end when the server stops.

use std::pin::pin;
use std::sync::Arc;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;
use tower::util::Oneshot;

use super::progress::{HeadTimer, Patience, Progress, Watched};
use super::{Connection, Ends, Front, Handler, Stopping};

impl Front {
    /// Speaks HTTP on `stream` until either side is done, a deadline passes, or the server stops.
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
        // The timer only tells when a head is waited for; `Progress` holds the deadline.
        builder
            .http1()
            .timer(HeadTimer::new(Arc::clone(&progress)))
            .header_read_timeout(self.limits.header_timeout);
        let connection = Connection { peer: ends.peer, local: ends.local, tls: self.tls.is_some() };
        let stopping = Stopping(Some(self.stopped.clone()));
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&progress)));
        let mut http =
            pin!(builder.serve_connection(stream, Requests { service, connection, stopping }));
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
                    None => return tracing::debug!(peer = %ends.peer, "a slow connection was cut"),
                },
                _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                    stopping = true;
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Hands a connection's requests to the service.
struct Requests<S> {
    service: S,
    connection: Connection,
    stopping: Stopping,
}

impl<S: Handler> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.connection);
        request.extensions_mut().insert(self.stopping.clone());
        self.service.clone().oneshot(request)
    }
}
