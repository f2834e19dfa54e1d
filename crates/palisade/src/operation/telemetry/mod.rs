//! The export of metrics: `GET /metrics` on `server.admin_listen`.
//!
//! # Promises
//!
//! - Metrics are exported on `server.admin_listen` only. If that isn't a loopback IP address, a collector needs
//!   `telemetry.metrics_token`.
//! - An export doesn't access the database.

mod page;
mod process;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use palisade_crypto::secret::constant_time_eq;
use palisade_db::Backend;

use crate::access::{ANYONE, bearer};
use crate::app::App;
use crate::app::change::EVENTS;
use crate::error::{Error, Kind, Result, bad_token, not_signed_in};
use crate::http::describe::{Describe, Description};
use crate::http::{Routes, measured};
use crate::metrics::{Label, Metric};
use crate::module::Module;

pub use page::metrics_markdown;

/// The slice's table of contents. Its route is served by the admin listener only.
pub const MODULE: Module = Module {
    name: "telemetry",
    metrics: &[
        &measured::REQUESTS,
        &measured::DURATION,
        &measured::REFUSALS,
        &EVENTS,
        &DATABASE,
        &FEED_LAG,
        &BUILD,
        &LOG_LINES_DROPPED,
        &CERTIFICATE_EXPIRY,
        &CERTIFICATE_RELOADED,
        &process::CPU,
        &process::RESIDENT,
        &process::FILES,
        &process::FILES_LIMIT,
        &process::START,
        &process::THREADS,
    ],
    readings: &[measure, process::measure],
    ..Module::EMPTY
};

static DATABASE: Metric = Metric::gauge(
    "palisade_database_connections",
    &[Label::one_of("state", &["in_use", "idle", "limit"])],
    "Connections to the database, and how many there can be. On SQLite, those that read.",
);
static FEED_LAG: Metric = Metric::gauge(
    "palisade_feed_lag_seconds",
    &[],
    "The time since this process last read which sessions have ended, in seconds. Above 1, requests that need a \
     credential are refused.",
);
static BUILD: Metric = Metric::gauge(
    "palisade_build_info",
    &[
        Label::listed("version", "the version of Palisade"),
        Label::one_of("database", &["sqlite", "postgres"]),
    ],
    "Always 1. The labels describe the server.",
);

/// Set by the program that opens the certificate.
pub static CERTIFICATE_EXPIRY: Metric = Metric::gauge(
    "palisade_certificate_expiry_timestamp_seconds",
    &[],
    "When the certificate of server.listen expires, in seconds since 1970-01-01 00:00 UTC. Missing without TLS.",
);
/// Set by the program that opens the certificate.
pub static CERTIFICATE_RELOADED: Metric = Metric::gauge(
    "palisade_certificate_reload_succeeded",
    &[],
    "Whether the files of the certificate could be used when they were last read: 1 or 0. Missing without TLS.",
);
/// Set by the program that writes the log.
pub static LOG_LINES_DROPPED: Metric = Metric::counter(
    "palisade_log_lines_dropped",
    &[],
    "Lines of the log that were never written, because standard error was not read in time.",
);

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

fn measure(app: &App) {
    let connections = app.db.connections();
    for (state, count) in
        [("in_use", connections.in_use), ("idle", connections.idle), ("limit", connections.max)]
    {
        app.metrics.set(&DATABASE, count as f64, &[state]);
    }
    let lag = app.feed.lag(app.clock.monotonic());
    app.metrics.set(&FEED_LAG, lag.as_secs_f64(), &[]);
    let database = match app.db.backend() {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    app.metrics.set(&BUILD, 1.0, &[env!("CARGO_PKG_VERSION"), database]);
}

/// Returns the routes for the admin listener.
pub fn routes() -> Routes {
    Routes::root().get("/metrics", ANYONE, export).summary("Exports the metrics.")
}

/// The metrics, in the format that the collector accepts.
struct Exported {
    format: HeaderValue,
    text: String,
}

impl IntoResponse for Exported {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, self.format)], self.text).into_response()
    }
}

impl Describe for Exported {
    fn describe(_: &mut Description) {}
}

async fn export(State(app): State<App>, headers: HeaderMap) -> Result<Exported> {
    admit(&app, &headers)?;
    for read in &app.readings {
        read(&app);
    }
    let open = headers.get_all(ACCEPT).iter().any(|accepted| {
        accepted.to_str().is_ok_and(|accepted| accepted.contains("application/openmetrics-text"))
    });
    let (format, text) = if open {
        (OPEN_METRICS, app.metrics.open_metrics())
    } else {
        (PROMETHEUS, app.metrics.prometheus())
    };
    Ok(Exported { format, text: text.map_err(Error::internal)? })
}

/// Refuses a collector that may not read the metrics.
fn admit(app: &App, headers: &HeaderMap) -> Result<()> {
    let Some(token) = &app.settings.telemetry.metrics_token else {
        // SECURITY: the metrics reveal how the server is used and attacked (test: metrics_need_a_token_off_loopback).
        if app.settings.server.admin_listen.ip().is_loopback() {
            return Ok(());
        }
        return Err(Error::new(
            Kind::Denied,
            "metrics.no_token",
            "Metrics are exported without a token only if server.admin_listen is a loopback IP address. Set \
             telemetry.metrics_token.",
        ));
    };
    let given = bearer(headers)?.ok_or_else(not_signed_in)?;
    if constant_time_eq(given.as_bytes(), token.expose().as_bytes()) {
        Ok(())
    } else {
        Err(bad_token())
    }
}
