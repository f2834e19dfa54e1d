//! Metrics: what a server counts and measures, for Prometheus and other collectors.
//!
//! A slice lists its [`Metric`]s in its `MODULE` and records them through [`Metrics`], by name and label values. Nothing
//! is stored outside this process.
//!
//! # Promises
//!
//! - **No personal data and a bounded number of series.** A label's value is text of the program, the path of a route
//!   with `{name}` for its variable segments, or a number of a status. It can't come from a request.
//! - **A metric that isn't listed in a module isn't exported**, and the list is what `docs/metrics.md` shows.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus_client::encoding::{
    EncodeLabel as _, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
    prometheus_text, text,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// The whole name. A counter's exported name has the suffix `_total` in addition.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it counts or measures, in one sentence, with its unit.
    pub help: &'static str,
}

/// The kinds of metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// A number that only increases while the process runs.
    Counter,
    /// A number that can go up and down.
    Gauge,
    /// The distribution of values, counted by these upper bounds.
    Histogram(&'static [f64]),
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, labels, help }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, labels, help }
    }

    /// Returns the name under which the metric is exported.
    pub fn exported_name(&self) -> String {
        match self.kind {
            MetricKind::Counter => format!("{}_total", self.name),
            MetricKind::Gauge | MetricKind::Histogram(_) => self.name.to_owned(),
        }
    }
}

impl Label {
    /// A label with these values.
    pub const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values: LabelValues::OneOf(values) }
    }

    /// A label whose values are listed elsewhere.
    pub const fn listed(name: &'static str, values: &'static str) -> Self {
        Self { name, values: LabelValues::Listed(values) }
    }
}

impl MetricKind {
    /// Returns the name of the kind in the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Debug)]
pub struct Label {
    /// The name.
    pub name: &'static str,
    /// Its values. Counters and histograms whose labels all list their values are exported from the start, as zeros.
    pub values: LabelValues,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// These.
    OneOf(&'static [&'static str]),
    /// Values of a list elsewhere, such as the error codes, which this text names.
    Listed(&'static str),
}

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelValue(Inner);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner {
    Text(&'static str),
    Route(Arc<str>),
    Status(u16),
}

impl From<&'static str> for LabelValue {
    fn from(text: &'static str) -> Self {
        Self(Inner::Text(text))
    }
}

impl EncodeLabelValue for LabelValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Text(text) => text.encode(encoder),
            Inner::Route(path) => path.as_ref().encode(encoder),
            Inner::Status(status) => status.encode(encoder),
        }
    }
}

/// The labels of one series, with their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LabelSet(Vec<(&'static str, LabelValue)>);

impl LabelSet {
    fn new(metric: &Metric, values: impl IntoIterator<Item = LabelValue>) -> Self {
        let pairs: Vec<_> =
            metric.labels.iter().zip(values).map(|(label, value)| (label.name, value)).collect();
        debug_assert_eq!(pairs.len(), metric.labels.len(), "labels of {}", metric.name);
        debug_assert!(
            metric.labels.iter().zip(&pairs).all(|(label, (_, value))| label.allows(value)),
            "labels of {}: {pairs:?}",
            metric.name
        );
        Self(pairs)
    }
}

impl Label {
    fn allows(&self, value: &LabelValue) -> bool {
        match (self.values, &value.0) {
            (LabelValues::OneOf(listed), Inner::Text(text)) => listed.contains(text),
            (LabelValues::OneOf(_), Inner::Route(_) | Inner::Status(_)) => false,
            (LabelValues::Listed(_), _) => true,
        }
    }
}

impl EncodeLabelSet for LabelSet {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for pair in &self.0 {
            pair.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// A number that only increases, in the unit of its metric.
type Total = Counter<f64, AtomicU64>;
type Level = Gauge<f64, AtomicU64>;

/// Creates histograms with the upper bounds of a metric.
#[derive(Clone, Copy, Debug)]
struct Bounds(&'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Clone)]
enum Series {
    Counter(Family<LabelSet, Total>),
    Gauge(Family<LabelSet, Level>),
    Histogram(Family<LabelSet, Histogram, Bounds>),
}

/// The metrics of a server, with their current values.
pub struct Metrics {
    registry: Registry,
    series: HashMap<&'static str, Series, RandomState>,
}

impl Metrics {
    /// Creates the metrics of these lists. The first of two with the same name counts.
    pub fn new(listed: impl IntoIterator<Item = &'static Metric>) -> Self {
        let mut metrics = Self { registry: Registry::default(), series: HashMap::default() };
        for metric in listed {
            metrics.register(metric);
        }
        metrics
    }

    fn register(&mut self, metric: &'static Metric) {
        if self.series.contains_key(metric.name) {
            return;
        }
        // The encoder adds the full stop.
        let help = metric.help.trim_end_matches('.');
        let registry = &mut self.registry;
        let series = match metric.kind {
            MetricKind::Counter => {
                let family = Family::<LabelSet, Total>::default();
                registry.register(metric.name, help, family.clone());
                for labels in known(metric) {
                    drop(family.get_or_create(&labels));
                }
                Series::Counter(family)
            }
            MetricKind::Gauge => {
                let family = Family::<LabelSet, Level>::default();
                registry.register(metric.name, help, family.clone());
                Series::Gauge(family)
            }
            MetricKind::Histogram(bounds) => {
                let family = Family::new_with_constructor(Bounds(bounds));
                registry.register(metric.name, help, family.clone());
                for labels in known(metric) {
                    drop(family.get_or_create(&labels));
                }
                Series::Histogram(family)
            }
        };
        self.series.insert(metric.name, series);
    }

    fn series(&self, metric: &'static Metric) -> Option<&Series> {
        let series = self.series.get(metric.name);
        debug_assert!(series.is_some(), "no module lists the metric {}", metric.name);
        series
    }

    /// Counts one event. Does nothing if no module of this server lists the metric.
    pub fn count(&self, metric: &'static Metric, values: &[&'static str]) {
        self.add(metric, 1.0, values);
    }

    /// Adds to a counter.
    pub fn add(&self, metric: &'static Metric, amount: f64, values: &[&'static str]) {
        if let Some(Series::Counter(family)) = self.series(metric) {
            family.get_or_create(&labels(metric, values)).inc_by(amount);
        }
    }

    /// Sets a gauge, or a counter that is kept elsewhere.
    pub fn set(&self, metric: &'static Metric, value: f64, values: &[&'static str]) {
        let labels = labels(metric, values);
        match self.series(metric) {
            Some(Series::Gauge(family)) => {
                family.get_or_create(&labels).set(value);
            }
            Some(Series::Counter(family)) => {
                let bits = value.to_bits();
                family.get_or_create(&labels).inner().store(bits, Ordering::Relaxed);
            }
            Some(Series::Histogram(_)) | None => {}
        }
    }

    /// Removes all series of a gauge, for values that are no longer known.
    pub fn clear(&self, metric: &'static Metric) {
        if let Some(Series::Gauge(family)) = self.series(metric) {
            family.clear();
        }
    }

    /// Adds one value, in the unit of the metric, to a histogram.
    pub fn observe(&self, metric: &'static Metric, value: f64, values: &[&'static str]) {
        if let Some(Series::Histogram(family)) = self.series(metric) {
            family.get_or_create(&labels(metric, values)).observe(value);
        }
    }

    /// Returns all metrics in the Prometheus text format (version 0.0.4).
    ///
    /// # Errors
    /// Returns an error if a metric can't be encoded, which is a bug.
    pub fn prometheus(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Returns all metrics in the OpenMetrics text format (version 1.0.0).
    ///
    /// # Errors
    /// Returns an error if a metric can't be encoded, which is a bug.
    pub fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels(metric: &'static Metric, values: &[&'static str]) -> LabelSet {
    LabelSet::new(metric, values.iter().map(|value| LabelValue::from(*value)))
}

/// Returns every combination of the values of the labels, if the metric lists them all.
fn known(metric: &'static Metric) -> Vec<LabelSet> {
    let mut sets = vec![Vec::new()];
    for label in metric.labels {
        let LabelValues::OneOf(values) = label.values else { return Vec::new() };
        sets = sets
            .iter()
            .flat_map(|set| values.iter().map(move |value| [&set[..], &[*value]].concat()))
            .collect();
    }
    sets.iter().map(|values| labels(metric, values)).collect()
}

/// The statuses whose counters a route keeps at hand. Others are looked up.
const USUAL: [u16; 12] = [200, 201, 204, 303, 304, 400, 401, 403, 404, 409, 422, 429];

/// The metrics of one route, resolved once instead of for every request.
pub struct RouteMetrics {
    method: &'static str,
    path: Arc<str>,
    usual: [OnceLock<Total>; USUAL.len()],
    duration: OnceLock<Histogram>,
}

impl RouteMetrics {
    /// Creates the metrics of a route: its method, and its path with `{name}` for a variable segment.
    pub fn new(method: &'static str, path: &str) -> Self {
        let usual = [const { OnceLock::new() }; USUAL.len()];
        Self { method, path: path.into(), usual, duration: OnceLock::new() }
    }

    /// Returns the label of its method.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Counts a request and its duration. The labels of `requests` are method, route and status, those of `duration`
    /// method and route.
    pub fn record(
        &self,
        metrics: &Metrics,
        (requests, duration): (&'static Metric, &'static Metric),
        status: u16,
        took: Duration,
    ) {
        let counter = || {
            let values = self.labels().chain([LabelValue(Inner::Status(status))]);
            match metrics.series(requests) {
                Some(Series::Counter(family)) => {
                    family.get_or_create_owned(&LabelSet::new(requests, values))
                }
                _ => Total::default(),
            }
        };
        match USUAL.iter().position(|usual| *usual == status).and_then(|at| self.usual.get(at)) {
            Some(kept) => kept.get_or_init(counter).inc(),
            None => counter().inc(),
        };
        let histogram = || match metrics.series(duration) {
            Some(Series::Histogram(family)) => {
                family.get_or_create_owned(&LabelSet::new(duration, self.labels()))
            }
            _ => Histogram::new([]),
        };
        self.duration.get_or_init(histogram).observe(took.as_secs_f64());
    }

    fn labels(&self) -> impl Iterator<Item = LabelValue> {
        [LabelValue::from(self.method), LabelValue(Inner::Route(Arc::clone(&self.path)))]
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SIGN_INS: Metric = Metric {
        name: "toy_sign_ins",
        kind: MetricKind::Counter,
        labels: &[Label { name: "outcome", values: LabelValues::OneOf(&["success", "failure"]) }],
        help: "Sign-ins.",
    };
    static REFUSALS: Metric = Metric {
        name: "toy_refusals",
        kind: MetricKind::Counter,
        labels: &[Label { name: "code", values: LabelValues::Listed("the error codes") }],
        help: "Refusals.",
    };
    static QUEUE: Metric =
        Metric { name: "toy_queue", kind: MetricKind::Gauge, labels: &[], help: "Waiting." };
    static REQUESTS: Metric = Metric {
        name: "toy_requests",
        kind: MetricKind::Counter,
        labels: &[
            Label { name: "method", values: LabelValues::Listed("the methods") },
            Label { name: "route", values: LabelValues::Listed("the routes") },
            Label { name: "status", values: LabelValues::Listed("the statuses") },
        ],
        help: "Requests.",
    };
    static DURATION: Metric = Metric {
        name: "toy_duration_seconds",
        kind: MetricKind::Histogram(&[0.1, 1.0]),
        labels: &[
            Label { name: "method", values: LabelValues::Listed("the methods") },
            Label { name: "route", values: LabelValues::Listed("the routes") },
        ],
        help: "Durations.",
    };

    fn metrics() -> Metrics {
        Metrics::new([&SIGN_INS, &REFUSALS, &QUEUE, &REQUESTS, &DURATION])
    }

    #[test]
    fn listed_values_are_exported_from_the_start_and_others_when_they_occur() {
        let metrics = metrics();
        metrics.count(&SIGN_INS, &["failure"]);
        metrics.count(&REFUSALS, &["access.denied"]);
        metrics.set(&QUEUE, 3.0, &[]);
        let text = metrics.prometheus().unwrap();
        let expected = "# HELP toy_sign_ins_total Sign-ins.\n# TYPE toy_sign_ins_total counter\n";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "toy_sign_ins_total{outcome=\"success\"} 0.0\n",
            "toy_sign_ins_total{outcome=\"failure\"} 1.0\n",
            "toy_refusals_total{code=\"access.denied\"} 1.0\n",
            "toy_queue 3.0\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(metrics.open_metrics().unwrap().ends_with("# EOF\n"));
    }

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = metrics();
        let route = RouteMetrics::new("GET", "/users/{id}");
        for (status, millis) in [(200, 50), (200, 500), (418, 2000)] {
            route.record(&metrics, (&REQUESTS, &DURATION), status, Duration::from_millis(millis));
        }
        let text = metrics.prometheus().unwrap();
        let labels = "method=\"GET\",route=\"/users/{id}\"";
        for line in [
            format!("toy_requests_total{{{labels},status=\"200\"}} 2.0\n"),
            format!("toy_requests_total{{{labels},status=\"418\"}} 1.0\n"),
            format!("toy_duration_seconds_bucket{{{labels},le=\"0.1\"}} 1\n"),
            format!("toy_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 3\n"),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
    }

    #[test]
    fn a_counter_that_is_kept_elsewhere_is_set_and_a_gauge_can_be_cleared() {
        let metrics = metrics();
        metrics.set(&SIGN_INS, 7.5, &["success"]);
        metrics.set(&QUEUE, 1.0, &[]);
        metrics.clear(&QUEUE);
        let text = metrics.prometheus().unwrap();
        assert!(text.contains("toy_sign_ins_total{outcome=\"success\"} 7.5\n"), "{text}");
        assert!(!text.contains("toy_queue 1"), "{text}");
    }
}
