//! Routes that report on the server itself: `/livez`, `/readyz`, `/api/v1/whoami`, `/api/v1/limits`.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::{ANYONE, needs};
use crate::app::App;
use crate::http::client::Scheme;
use crate::http::describe::{Describe, Description};
use crate::http::{Arrival, List, Routes};
use crate::limits::{EffectiveRule, Key};
use crate::module::{Module, Permission};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "system",
    routes,
    permissions: &[READ],
    state: |_, state| {
        state.put(ReadOnly::default());
        Ok(())
    },
    ..Module::EMPTY
};

/// Whether the database accepted no writes when it was last checked.
#[derive(Default)]
struct ReadOnly(AtomicBool);

/// Allows seeing the configuration and the status of the server.
pub const READ: Permission = Permission {
    name: "system:read",
    summary: "See the configuration and the status of the server",
};

fn routes() -> Routes {
    health().and(
        Routes::at("")
            .get("/whoami", ANYONE, whoami)
            .summary("Shows how the server sees the caller's connection.")
            .get("/limits", needs(READ), limits)
            .summary("Lists the rate limits in force, by name."),
    )
}

/// Returns only the health routes, which the admin listener also serves.
pub fn health() -> Routes {
    Routes::root()
        .get("/livez", ANYONE, || async { "alive\n" })
        .summary("Reports whether the process is running.")
        .get("/readyz", ANYONE, ready)
        .summary("Reports whether the server is ready to serve requests.")
}

/// Whether the server's dependencies are available.
#[derive(Serialize, JsonSchema)]
struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    checks: Checks,
}

/// The result of each check: `up` or `down`.
#[derive(Serialize, JsonSchema)]
struct Checks {
    /// Also `down` while the database accepts no writes, for example because it is a standby, it is read-only, or its
    /// disk is full.
    database: &'static str,
    feed: &'static str,
    keys: &'static str,
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let status =
            if self.status == READY { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

impl Describe for Readiness {
    fn describe(handler: &mut Description) {
        handler.answers_json::<Self>(StatusCode::OK, "Every check is up.");
        handler
            .answers_json::<Self>(StatusCode::SERVICE_UNAVAILABLE, "At least one check is down.");
    }
}

const READY: &str = "ready";

async fn ready(State(app): State<App>) -> Readiness {
    let word = |good: bool| if good { "up" } else { "down" };
    let database = takes_writes(&app).await;
    let feed = app.feed.is_current(app.clock.monotonic());
    let keys = crate::keys::ring(&app).await.is_ok();
    let good = database && feed && keys;
    let checks = Checks { database: word(database), feed: word(feed), keys: word(keys) };
    Readiness { status: if good { READY } else { "not_ready" }, checks }
}

/// Returns whether the database responds and accepts writes. When it stops or resumes accepting writes, this is logged
/// once.
async fn takes_writes(app: &App) -> bool {
    let Ok(takes) = app.db.takes_writes().await else { return false };
    let told = &app.state::<ReadOnly>().0;
    if told.swap(!takes, Ordering::AcqRel) == takes {
        if takes {
            tracing::info!("the database accepts writes again");
        } else {
            tracing::error!(
                "the database accepts no writes: it is a standby or set to read-only, its disk is full or \
                 read-only, the role lacks a privilege, a synchronous standby is unavailable, or \
                 changes take longer than a second"
            );
        }
    }
    takes
}

/// The caller's connection as the server sees it.
#[derive(Serialize, JsonSchema)]
struct Whoami {
    /// The client's IP address.
    ip: String,
    /// Whether a trusted proxy supplied the IP address, in a header or with the PROXY protocol.
    forwarded: bool,
    scheme: &'static str,
    host: Option<String>,
    user_agent: Option<String>,
    request_id: String,
}

async fn whoami(Extension(arrival): Extension<Arrival>, headers: HeaderMap) -> Json<Whoami> {
    let text = |name: &str| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    Json(Whoami {
        ip: arrival.client.ip.to_string(),
        forwarded: arrival.client.forwarded,
        scheme: if arrival.scheme == Scheme::Https { "https" } else { "http" },
        host: text("host"),
        user_agent: text("user-agent"),
        request_id: arrival.request.to_string(),
    })
}

/// A rate limit.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Limit")]
struct LimitView {
    /// The name of the limit in `limits.rules` and in response headers.
    name: &'static str,
    /// The maximum number of requests in a burst.
    burst: u32,
    /// The number of seconds after which the whole burst is available again.
    per: u64,
    key: KeyView,
    /// Whether the limit is enforced.
    enabled: bool,
    /// The error message that a refused request gets.
    description: &'static str,
}

/// The key by which a limit counts requests.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum KeyView {
    /// The client's IP address; for IPv6 its /64 network.
    Ip,
    /// The account that acts or is acted on. For an email address without an account, it is the email address.
    Account,
    /// The API key of the request.
    #[serde(rename = "api_key")]
    ApiKey,
}

async fn limits(State(app): State<App>) -> Json<List<LimitView>> {
    let view = |rule: &EffectiveRule| LimitView {
        name: rule.rule.name,
        burst: rule.burst,
        per: rule.per.as_secs(),
        key: match rule.rule.key {
            Key::Ip => KeyView::Ip,
            Key::Account => KeyView::Account,
            Key::ApiKey => KeyView::ApiKey,
        },
        enabled: rule.enabled,
        description: rule.rule.summary,
    };
    let items = app.limiter.rules().iter().map(view).collect();
    Json(List { items, next_cursor: None })
}
