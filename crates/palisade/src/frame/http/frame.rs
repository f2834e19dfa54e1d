//! The outermost layer: what happens to every request before and after its handler.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tower::{Service, ServiceExt as _};

use super::answer::finish;
use super::client::{Scheme, TrustedProxies, client_ip, scheme};
use super::measured::Measured;
use super::serve::{Carrier, Connection, Refuse, Refused, Stopping};
use super::standing::Standing;
use super::{Arrival, REQUEST_ID};
use crate::app::App;
use crate::error::{Error, Kind};
use crate::id::{RequestId, RequestIds};
use crate::metrics::RouteMetrics;
use crate::trace::Trace;

/// The paths of probes, which arrive without a proxy's headers.
const PROBES: [&str; 2] = [LIVEZ, READYZ];
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";
/// Where certificate authorities look for challenges (RFC 8555, section 8.3), which this server doesn't serve. They
/// follow redirects, and a clear 404 names the cause.
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";
/// The methods that a probe may use.
const PROBE_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Advice for a proxy that doesn't state how the client sent its request.
const UNMARKED: &str = "A trusted proxy did not state whether the client used HTTPS. Configure it to set \
    X-Forwarded-Proto. nginx: proxy_set_header X-Forwarded-Proto $scheme; HAProxy: http-request \
    set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]. Caddy and Traefik set it by default. A proxy \
    that forwards only TCP can pass TLS through to this server, or state it with the PROXY protocol \
    (HAProxy: send-proxy-v2-ssl).";

/// The refusal of a request in plain text.
const PLAIN: &str = "This server accepts requests only over https://. Anything sent in plain text may have \
    been intercepted: treat passwords and tokens in it as compromised.";

/// The connection assumed for a request that didn't come through a listener.
const NOWHERE: Connection = {
    let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Connection { peer: unspecified, local: unspecified, tls: false, proxy: None }
};

/// The connection assumed for the server's own health check.
const ITSELF: Connection = {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    Connection { peer: loopback, local: loopback, tls: false, proxy: None }
};

/// The service that a listener serves.
#[derive(Clone)]
pub struct Frame(Arc<Inner>);

struct Inner {
    app: App,
    router: Router,
    trusted: TrustedProxies,
    ids: RequestIds,
    standing: Standing,
    /// `None` for listeners whose requests aren't counted.
    measured: Option<Measured>,
    entrance: Entrance,
}

/// What a listener requires of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entrance {
    /// Nothing: this is the operator's own network, or `server.public_url` doesn't use HTTPS.
    Open,
    /// That the client uses HTTPS.
    Https,
    /// This is a listener for plain HTTP, which only redirects.
    Plain,
}

impl Frame {
    /// Puts the frame around the routes of the public listener.
    pub fn new(app: App, router: Router) -> Self {
        let is_https = app.settings.server.public_url.is_https();
        let entrance = if is_https { Entrance::Https } else { Entrance::Open };
        Self::with(app, router, entrance, Some(Measured::new()))
    }

    /// Puts the frame around routes for the operator's own network, which have no public URL.
    pub fn internal(app: App, router: Router) -> Self {
        Self::with(app, router, Entrance::Open, None)
    }

    /// Redirects requests for pages to `server.public_url`, and refuses all others. It has no routes.
    pub fn redirecting(app: App) -> Self {
        Self::with(app, Router::new(), Entrance::Plain, None)
    }

    /// Returns whether the service responds to `GET /livez` with a success. The request needs no connection, so that
    /// clients that hold all connections of the listener don't make it fail.
    pub async fn is_alive(&self) -> bool {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(LIVEZ);
        request.extensions_mut().insert(Carrier::new(ITSELF, Stopping::default()));
        Arc::clone(&self.0).answer(request).await.status().is_success()
    }

    fn with(app: App, router: Router, entrance: Entrance, measured: Option<Measured>) -> Self {
        let trusted = TrustedProxies::new(app.settings.server.trusted_proxies.clone());
        let ids = RequestIds::new(&*app.random);
        let standing = Standing::new(&app.settings);
        Self(Arc::new(Inner { app, router, trusted, ids, standing, entrance, measured }))
    }
}

impl Inner {
    fn arrival(&self, connection: &Connection, headers: &HeaderMap) -> Arrival {
        let at = self.app.clock.monotonic();
        let peer = connection.peer.ip();
        let given = headers.get(REQUEST_ID).filter(|_| self.trusted.contains(peer));
        let request = given
            .and_then(|value| value.to_str().ok())
            .and_then(|text| uuid::Uuid::try_parse(text).ok())
            .map_or_else(|| self.ids.next(self.app.clock.now()), RequestId);
        Arrival {
            at,
            request,
            client: client_ip(connection, headers, &self.trusted),
            scheme: scheme(connection, headers, &self.trusted),
        }
    }

    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Response {
        let connection = request.extensions().get().map_or(NOWHERE, Carrier::connection);
        let arrival = self.arrival(&connection, request.headers());
        request.extensions_mut().insert(arrival);
        let line = Line {
            arrival,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            trace: Trace::default(),
        };
        let mut response = match (self.without_https(&arrival, &request), probed(&request)) {
            (Some(refused), _) => refused,
            (None, Some(path)) => self.probe(path, request, &line.trace).await,
            (None, None) => self.handle(request, &line.trace).await,
        };
        let changes = !line.method.is_safe() && self.entrance != Entrance::Plain;
        if changes && response.status().is_client_error() {
            line.trace.of(self.settle(&mut response)).await;
        }
        self.end(&line, &mut response);
        response
    }

    /// Adds what every response has, writes the log line and counts the request.
    fn end(&self, line: &Line, response: &mut Response) {
        let error = finish(response, &line.arrival, &self.standing);
        let took = self.app.clock.monotonic().saturating_sub(line.arrival.at);
        let (status, error) = (response.status(), error.as_deref());
        if let Some(measured) = &self.measured {
            measured.record(&self.app.metrics, (&line.method, &line.trace), (status, error), took);
        }
        line.write(took, status, error);
    }

    /// Returns the redirect or refusal for a request that a trusted proxy sent without proof that the client used
    /// HTTPS, if this listener requires HTTPS. Returns `None` for health probes and for any other request.
    fn without_https(&self, arrival: &Arrival, request: &Request<Body>) -> Option<Response> {
        // SECURITY: before anything else of the request is used
        // (test: plain_http_behind_a_trusted_proxy_is_redirected_or_refused).
        match self.entrance {
            Entrance::Open => return None,
            Entrance::Plain => return Some(self.redirect(request)),
            Entrance::Https => {}
        }
        if PROBES.contains(&request.uri().path()) || probed(request).is_some() {
            return None;
        }
        let detail = match arrival.scheme {
            // A load balancer's own probe.
            Scheme::Unmarked
                if *request.method() == Method::HEAD && request.uri().path() == "/" =>
            {
                return None;
            }
            Scheme::Https | Scheme::Http => return None,
            Scheme::MarkedHttp => return Some(self.redirect(request)),
            // A redirect would come back the same way and loop.
            Scheme::Unmarked => UNMARKED,
            Scheme::Contradictory => {
                "The headers from the proxies in front of this server do not show whether the client \
                 used HTTPS: they contradict each other or are invalid. Configure the outermost proxy \
                 to set X-Forwarded-Proto and the others to pass it on, and remove Forwarded if it \
                 isn't used. A proxy that passes TLS through must not state the TLS status with the PROXY \
                 protocol (HAProxy: send-proxy-v2, not send-proxy-v2-ssl)."
            }
        };
        Some(https_required(detail))
    }

    /// Redirects a request for a page to the public URL, and refuses any other.
    fn redirect(&self, request: &Request<Body>) -> Response {
        if request.uri().path().starts_with(ACME_CHALLENGE) {
            return Error::not_found().into_response();
        }
        match self.same_by_https(request) {
            Some(location) => {
                (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response()
            }
            None => https_required(PLAIN),
        }
    }

    /// Returns the location of the same page under the public URL, if the request is for a page.
    ///
    /// SECURITY: the host is that of the settings, whatever the request names
    /// (test: plain_http_is_redirected_to_the_public_url).
    fn same_by_https(&self, request: &Request<Body>) -> Option<HeaderValue> {
        let page = matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.uri().path().starts_with("/api/");
        let path = request.uri().path_and_query()?.as_str();
        let public_url = &self.app.settings.server.public_url;
        let location = || HeaderValue::from_str(&format!("{public_url}{path}")).ok();
        (page && path.starts_with('/')).then(location).flatten()
    }

    /// Responds to a probe by `OPTIONS` as to the same probe by `GET`, with 204 if that succeeds.
    async fn probe(
        &self,
        path: &'static str,
        mut request: Request<Body>,
        trace: &Trace,
    ) -> Response {
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::from_static(path);
        let mut response = self.handle(request, trace).await;
        if response.status().is_success() {
            response = StatusCode::NO_CONTENT.into_response();
        }
        response.headers_mut().insert(ALLOW, PROBE_METHODS);
        response
    }

    /// Runs the handler within its time limit. A panic in the handler becomes an internal error.
    async fn handle(&self, request: Request<Body>, trace: &Trace) -> Response {
        let limit = self.app.settings.server.request_timeout;
        let handler = AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind();
        match tokio::time::timeout(limit, trace.of(handler)).await {
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

    /// Waits until rows that another request wrote are on disk, because a refusal may depend on them.
    async fn settle(&self, response: &mut Response) {
        if let Err(error) = self.app.db.settled().await {
            *response = Error::from(error).into_response();
        }
    }
}

fn https_required(detail: &'static str) -> Response {
    Error::new(Kind::Denied, "http.https_required", detail).into_response()
}

/// Returns the path of the health endpoint that a request by `OPTIONS` probes. HAProxy (`option httpchk`) probes with
/// this method unless it is told otherwise, and with the URI `/`.
fn probed<B>(request: &Request<B>) -> Option<&'static str> {
    if *request.method() != Method::OPTIONS
        || request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    match request.uri().path() {
        "/" | "*" | LIVEZ => Some(LIVEZ),
        READYZ => Some(READYZ),
        _ => None,
    }
}

/// A request that the listener refuses gets the same headers, problem document and log line as any other.
impl Refuse for Frame {
    fn refuse(&self, connection: &Connection, refused: Refused<'_>) -> Response {
        let inner = &self.0;
        let arrival = inner.arrival(connection, refused.headers);
        let trace = Trace::default();
        let line = Line { arrival, method: refused.method, path: refused.path, trace };
        let mut response = refused.error.into_response();
        inner.end(&line, &mut response);
        response
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

/// The contents of a request's log line.
struct Line {
    arrival: Arrival,
    method: Method,
    path: String,
    trace: Trace,
}

impl Line {
    /// Writes one line per request, and for a failure of this server a second line with its cause.
    fn write(&self, took: Duration, status: StatusCode, error: Option<&Error>) {
        let caller = self.trace.caller();
        // Zero means that there was nothing to wait for.
        let waited = |part: Duration| Some(micros(part)).filter(|micros| *micros > 0);
        tracing::info!(
            target: "palisade::request",
            request_id = %self.arrival.request,
            method = %self.method,
            path = self.path,
            route = self.trace.route().map(RouteMetrics::path),
            status = status.as_u16(),
            micros = micros(took),
            admission_micros = waited(self.trace.admission()),
            database_micros = waited(self.trace.database()),
            hashing_micros = waited(self.trace.hashing()),
            ip = %self.arrival.client.ip,
            user_id = caller.map(|caller| tracing::field::display(caller.user)),
            credential = caller.map(|caller| caller.kind),
            credential_id = caller.map(|caller| tracing::field::display(caller.credential)),
            code = error.map(Error::code),
        );
        // Anyone can request an email from a server without mail; that must not look like a fault (test:
        // without_mail_a_request_that_needs_it_is_no_error_in_the_log).
        if let Some(error) = error.filter(|error| error.is_failure()) {
            let cause = error.causes().unwrap_or_default();
            let request_id = self.arrival.request;
            tracing::error!(%request_id, code = error.code(), cause, "request failed");
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
