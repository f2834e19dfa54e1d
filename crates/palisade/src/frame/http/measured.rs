//! The metrics of requests.

use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::error::Error;
use crate::metrics::{Label, LabelValues, Metric, MetricKind, Metrics, RouteMetrics};
use crate::trace::Trace;

const METHOD: Label = Label {
    name: "method",
    values: LabelValues::Listed("`GET`, `POST`, `PUT`, `PATCH`, `DELETE` or `other`"),
};
const ROUTE: Label = Label {
    name: "route",
    values: LabelValues::Listed(
        "the path of the route, such as `/api/v1/users/{id}`, or `unmatched` if there is no such route",
    ),
};

/// Requests to the public listener.
pub static REQUESTS: Metric = Metric {
    name: "palisade_http_requests",
    kind: MetricKind::Counter,
    labels: &[
        METHOD,
        ROUTE,
        Label { name: "status", values: LabelValues::Listed("the status code of the response") },
    ],
    help: "Requests to server.listen, refused ones included.",
};

/// The time until their responses.
pub static DURATION: Metric = Metric {
    name: "palisade_http_request_duration_seconds",
    kind: MetricKind::Histogram(&[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0]),
    labels: &[METHOD, ROUTE],
    help: "The time from the headers of a request to those of its response.",
};

/// Errors in responses.
pub static REFUSALS: Metric = Metric {
    name: "palisade_refusals",
    kind: MetricKind::Counter,
    labels: &[Label { name: "code", values: LabelValues::Listed("an error code of docs/http.md") }],
    help: "Responses with an error, by its code.",
};

/// The name of the route of requests that match none.
const UNMATCHED: &str = "unmatched";
const OTHER: &str = "other";

/// Returns the label of a method.
pub(super) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => OTHER,
    }
}

/// Counts the requests of a listener.
pub(super) struct Measured {
    unmatched: [RouteMetrics; 6],
}

impl Measured {
    pub(super) fn new() -> Self {
        let of = |method| RouteMetrics::new(method, UNMATCHED);
        Self { unmatched: ["GET", "POST", "PUT", "PATCH", "DELETE", OTHER].map(of) }
    }

    pub(super) fn record(
        &self,
        metrics: &Metrics,
        (method, trace): (&Method, &Trace),
        (status, error): (StatusCode, Option<&Error>),
        took: Duration,
    ) {
        let method = method_name(method);
        let unmatched = || self.unmatched.iter().find(|route| route.method() == method);
        if let Some(route) = trace.route().or_else(unmatched) {
            route.record(metrics, (&REQUESTS, &DURATION), status.as_u16(), took);
        }
        if let Some(error) = error {
            metrics.count(&REFUSALS, &[error.code()]);
        }
    }
}
