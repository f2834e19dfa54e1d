//! The page about the metrics, `docs/metrics.md`.

use crate::metrics::{LabelValues, Metric, MetricKind};

/// Returns the page: what a reader needs to know, and a table of these metrics.
pub fn metrics_markdown(metrics: impl Iterator<Item = &'static Metric>) -> String {
    let mut metrics: Vec<_> = metrics.collect();
    metrics.sort_by_key(|metric| metric.exported_name());
    let mut text = include_str!("metrics.md").to_owned();
    text.push_str("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| match label.values {
                LabelValues::OneOf(values) => {
                    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                    format!("`{}`: {}", label.name, values.join(", "))
                }
                LabelValues::Listed(values) => format!("`{}`: {values}", label.name),
            })
            .collect();
        let bounds = match metric.kind {
            MetricKind::Histogram(bounds) => {
                let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
                format!(" Upper bounds: {}.", bounds.join(", "))
            }
            MetricKind::Counter | MetricKind::Gauge => String::new(),
        };
        let (name, kind) = (metric.exported_name(), metric.kind.as_str());
        let row =
            format!("| `{name}` | {kind} | {} | {}{bounds} |\n", labels.join("; "), metric.help);
        text.push_str(&row);
    }
    text
}
