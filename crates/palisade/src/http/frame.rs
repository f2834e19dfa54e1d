//! The outermost layer: what happens to every request before and after its handler.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tower::{Service, ServiceExt as _};

use super::Arrival;
use super::answer::finish;
use super::client::{Scheme, TrustedProxies, client_address, scheme};
use super::serve::Connection;
use crate::app::App;
use crate::error::{Error, Kind};
use crate::id::{RequestId, RequestIds};

/// Where a request comes from that no listener brought.
const NOWHERE: Connection = {
    let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Connection { peer: unspecified, local: unspecified, tls: false }
};

/// The service that a listener serves.
#[derive(Clone)]
pub struct Frame(Arc<Inner>);

struct Inner {
    app: App,
    router: Router,
    trusted: TrustedProxies,
    ids: RequestIds,
}

impl Frame {
    /// Puts the frame around the routes.
    pub fn new(app: App, router: Router) -> Frame {
        let trusted = TrustedProxies::new(app.settings.server.trusted_proxies.clone());
        let ids = RequestIds::new(&*app.random);
        Frame(Arc::new(Inner { app, router, trusted, ids }))
    }
}

impl Inner {
    fn arrival(&self, connection: &Connection, headers: &HeaderMap) -> Arrival {
        let peer = connection.peer.ip();
        let given = headers.get("x-request-id").filter(|_| self.trusted.contains(peer));
        let request = given
            .and_then(|value| value.to_str().ok())
            .and_then(|text| uuid::Uuid::try_parse(text).ok())
            .map_or_else(|| self.ids.next(self.app.clock.now()), RequestId);
        Arrival {
            request,
            client: client_address(peer, headers, &self.trusted),
            https: scheme(peer, connection.tls, headers, &self.trusted) == Scheme::Https,
        }
    }

    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Response {
        let began = self.app.clock.monotonic();
        let connection = request.extensions().get::<Connection>().copied().unwrap_or(NOWHERE);
        let arrival = self.arrival(&connection, request.headers());
        request.extensions_mut().insert(arrival);
        let line = Line {
            began,
            arrival,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
        };
        let mut response = self.handle(request).await;
        if !line.method.is_safe() && response.status().is_client_error() {
            self.settle(&mut response).await;
        }
        let error = finish(&mut response, &arrival);
        line.write(self.app.clock.monotonic(), response.status(), error.as_deref());
        response
    }

    /// Runs the handler, within its time; a panic in it becomes an internal error.
    async fn handle(&self, request: Request<Body>) -> Response {
        let limit = self.app.settings.server.request_timeout;
        let handler = AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind();
        match tokio::time::timeout(limit, handler).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_)) => Error::internal("a handler panicked").into_response(),
            Err(_) => Error::unavailable(
                "server.timeout",
                "The request took longer than the server allows.",
            )
            .into_response(),
        }
    }

    /// A refusal may rest on rows that another request wrote and that aren't on disk yet.
    async fn settle(&self, response: &mut Response) {
        if let Err(error) = self.app.db.settled().await {
            *response = Error::from(error).into_response();
        }
    }
}

impl<B> Service<Request<B>> for Frame
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).answer(request.map(Body::new)).map(Ok))
    }
}

/// What the log says of a request.
struct Line {
    began: Duration,
    arrival: Arrival,
    method: Method,
    path: String,
}

impl Line {
    /// One line per request; a failure of ours is told once, here, with its cause.
    fn write(&self, now: Duration, status: StatusCode, error: Option<&Error>) {
        let took = now.saturating_sub(self.began);
        tracing::info!(
            target: "palisade::request",
            request_id = %self.arrival.request,
            method = %self.method,
            path = self.path,
            status = status.as_u16(),
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            address = %self.arrival.client.address,
            code = error.map(Error::code),
        );
        let ours = |error: &&Error| matches!(error.kind(), Kind::Internal | Kind::Unavailable);
        if let Some(error) = error.filter(ours) {
            let cause = error.causes().unwrap_or_default();
            let request_id = self.arrival.request;
            tracing::error!(%request_id, code = error.code(), cause, "request failed");
        }
    }
}
