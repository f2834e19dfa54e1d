//! Metrics, and what the log says about a request.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use palisade::metrics::{LabelValues, MetricKind};
use palisade::telemetry::metrics_markdown;
use palisade::testing::{Call, On, Plan, TestApp};
use serde_json::json;
use tower::ServiceExt as _;

palisade::on_both! {
    metrics_count_what_happens_and_name_nobody => |on| super::counted(on);
    metrics_need_a_token_off_loopback => |on| super::token(on);
    gauges_are_measured_by_jobs => |on| super::measured(on);
}

const TOKEN: &str = "5f3a1c9e7b2d4f608192a3b4c5d6e7f8091a2b3c4d5e6f70";

/// Sends a request to the admin listener. Returns the status, the type and the text of the response.
async fn admin(app: &TestApp, headers: &[(&str, &str)]) -> (StatusCode, String, String) {
    let mut request = Request::get("/metrics");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = app.builder.admin_service(&app.app).oneshot(request).await.unwrap();
    let status = response.status();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Returns the value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series} in {text}")).trim().parse().unwrap()
}

async fn counted(on: On) {
    let app = TestApp::on(on).await;
    let user = app.user("ann@example.com").await.to_string();
    let ann = app.token("ann@example.com").await;
    for _ in 0..3 {
        ann.get("/api/v1/users/me").await;
    }
    let wrong = json!({ "email": "ann@example.com", "password": "none of these words" });
    app.anyone().post("/api/v1/auth/login", wrong).await;
    app.anyone().get(&format!("/api/v1/users/{user}")).await;
    app.anyone().open(Call::new("BREW".parse().unwrap(), "/pot/ann@example.com")).await;
    let (status, kind, text) = admin(&app, &[]).await;
    assert_eq!((status, &*kind), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    let me = "method=\"GET\",route=\"/api/v1/users/me\"";
    let other = "method=\"other\",route=\"unmatched\",status=\"404\"";
    let one = "method=\"GET\",route=\"/api/v1/users/{id}\",status=\"401\"";
    for (series, expected) in [
        (format!("palisade_http_requests_total{{{me},status=\"200\"}}"), 3.0),
        (format!("palisade_http_requests_total{{{other}}}"), 1.0),
        (format!("palisade_http_requests_total{{{one}}}"), 1.0),
        (format!("palisade_http_request_duration_seconds_count{{{me}}}"), 3.0),
        ("palisade_sign_ins_total{method=\"pwd\",outcome=\"success\"}".to_owned(), 1.0),
        ("palisade_sign_ins_total{method=\"pwd\",outcome=\"failure\"}".to_owned(), 1.0),
        ("palisade_sign_ins_total{method=\"passkey\",outcome=\"failure\"}".to_owned(), 0.0),
        ("palisade_refusals_total{code=\"login.denied\"}".to_owned(), 1.0),
        ("palisade_audit_events_total{event=\"login.denied\"}".to_owned(), 1.0),
        ("palisade_hashes_total".to_owned(), 3.0),
        ("palisade_hash_queue_length".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &series), expected, "{series}");
    }
    assert!(value(&text, "palisade_feed_lag_seconds") <= 1.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_cpu_seconds_total") > 0.0);
    assert!(value(&text, "process_open_fds") > 3.0);
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
    assert!(value(&text, "palisade_database_connections{state=\"limit\"}") >= 1.0);
    for secret in ["ann@example.com", &user, "198.51.100.7", "BREW", "/pot"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let accept = [("accept", "application/openmetrics-text; version=1.0.0, text/plain;q=0.5")];
    let (_, kind, text) = admin(&app, &accept).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    // The public listener has no such route, and doesn't count the operator's requests.
    assert_eq!(
        app.anyone().open(Call::new("GET".parse().unwrap(), "/metrics")).await.status(),
        404
    );
    assert!(!text.contains("route=\"/metrics\""));
    app.stop().await;
}

async fn token(on: On) {
    let exposed = ("server.expose_development", "true");
    let settings = vec![exposed, ("server.admin_listen", "10.1.2.3:9000")];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let (status, _, text) = admin(&app, &[]).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        text.contains("metrics.no_token") && text.contains("telemetry.metrics_token"),
        "{text}"
    );
    assert!(!text.contains("palisade_"));
    for listen in ["10.1.2.3:9000", "127.0.0.1:9000"] {
        let settings =
            vec![exposed, ("server.admin_listen", listen), ("telemetry.metrics_token", TOKEN)];
        let app = app.second_with(settings).await;
        for header in ["", "Bearer ", "Bearer wrong", &format!("Basic {TOKEN}"), &TOKEN[1..]] {
            let (status, _, text) = admin(&app, &[("authorization", header)]).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{listen} {header}");
            assert!(!text.contains("palisade_") && !text.contains(TOKEN), "{text}");
        }
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(admin(&app, &[("authorization", &bearer)]).await.0, StatusCode::OK);
        app.stop().await;
    }
    app.stop().await;
}

async fn measured(on: On) {
    let app = TestApp::on(on).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let jobs = app.builder.modules().iter().flat_map(|module| module.jobs);
    let measuring: Vec<_> = jobs.filter(|job| job.name.ends_with(".measure")).collect();
    let measure = async || {
        for job in &measuring {
            (job.run)(&app.app).await.unwrap();
        }
        admin(&app, &[]).await.2
    };
    let text = measure().await;
    for (series, expected) in [
        ("palisade_sessions_active", 1.0),
        ("palisade_outbox_waiting", 0.0),
        ("palisade_outbox_oldest_seconds", 0.0),
        ("palisade_api_keys_active", 0.0),
        ("palisade_api_keys_expiring", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    let age = "palisade_key_age_seconds{purpose=\"signing\"}";
    assert!(value(&text, age) < 5.0);
    let body = json!({ "name": "ci", "permissions": [], "expires_in": 3600 });
    let made = ann.post("/api/v1/users/me/api-keys", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    app.advance(std::time::Duration::from_secs(5)).await;
    ann.act("/api/v1/auth/logout").await;
    let text = measure().await;
    for (series, expected) in [
        ("palisade_sessions_active", 0.0),
        ("palisade_api_keys_active", 1.0),
        ("palisade_api_keys_expiring", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, age) >= 5.0);
    app.stop().await;
}

/// The page is generated. If this fails, run the command that it prints.
#[tokio::test]
async fn every_metric_is_well_named_and_documented() {
    let app = TestApp::on(On::Sqlite).await;
    let mut names = BTreeSet::new();
    for metric in app.builder.metrics() {
        let name = metric.name;
        assert!(names.insert(name), "{name} is listed twice");
        assert!(name.starts_with("palisade_") || name.starts_with("process_"), "{name}");
        assert!(!name.ends_with("_total"), "{name}: the exporter adds it");
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
        if matches!(metric.kind, MetricKind::Histogram(_)) {
            assert!(name.ends_with("_seconds"), "{name}: the base unit of a duration");
        }
        for label in metric.labels {
            assert!(!matches!(label.name, "le" | "job" if name.starts_with("process_")), "{name}");
            if let LabelValues::OneOf(values) = label.values {
                assert!(!values.is_empty(), "{name}");
            }
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let made = metrics_markdown(app.builder.metrics());
    if std::fs::read_to_string(&page).unwrap_or_default() != made {
        let fresh = tempfile::Builder::new().suffix("-metrics.md").tempfile().unwrap();
        std::fs::write(fresh.path(), made).unwrap();
        let fresh = fresh.into_temp_path().keep().unwrap();
        panic!("docs/metrics.md is out of date: cp {} docs/metrics.md", fresh.display());
    }
    app.stop().await;
}

/// Every route at every usual status and every listed value together stay below what a collector handles easily.
#[tokio::test]
async fn the_number_of_series_is_bounded() {
    let app = TestApp::on(On::Sqlite).await;
    let routes = app.builder.routes().len();
    let duration = 11;
    // A route has about four statuses in practice.
    assert!(routes * (duration + 4) < 2000, "{routes} routes");
    app.stop().await;
}
