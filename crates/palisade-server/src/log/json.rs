//! A log event as a line of JSON: the time, level and target, then the event's own fields.
//!
//! Every request writes such a line, so it is built in one pass, without the overhead of a general
//! formatter.

use std::fmt::{self, Debug};

use palisade::clock::Clock;
use palisade::visible::visible_json;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The usual length of the log line of a request, in bytes.
const USUAL_LENGTH: usize = 512;

/// A formatter that writes events as JSON, with the time of this clock.
pub(super) struct JsonLines(pub(super) Clock);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(Vec::with_capacity(USUAL_LENGTH));
        line.member("timestamp", &self.0.now());
        line.member("level", event.metadata().level().as_str());
        line.member("target", event.metadata().target());
        event.record(&mut line);
        line.0.extend_from_slice(b"}\n");
        let line = String::from_utf8(line.0).map_err(|_| fmt::Error)?;
        // SECURITY: (test: nothing_in_a_value_ends_the_line_or_adds_a_field)
        writer.write_str(&visible_json(line))
    }
}

/// A JSON object that isn't closed yet.
struct Line(Vec<u8>);

impl Line {
    fn member(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.json(name);
        self.0.push(b':');
        self.json(value);
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        // Numbers and text always have a JSON form, and a write to memory can't fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.member(field.name(), &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use palisade::visible::is_unseen;
    use palisade_db::Timestamp;
    use serde_json::{Value, json};

    use super::super::tests::written_by;
    use super::*;

    /// Returns what is written when `log` runs.
    fn written(log: impl FnOnce()) -> String {
        written_by(|writer| {
            let subscriber = tracing_subscriber::fmt()
                .event_format(JsonLines(Clock::by_hand(Timestamp::from_seconds(1_900_000_000))))
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, log);
        })
    }

    #[test]
    fn every_kind_of_value_is_written_as_what_it_is() {
        let none: Option<&str> = None;
        let line = written(|| {
            tracing::info!(target: "here", text = "a", shown = %"b", number = 3u16, yes = true, none, "said");
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            line,
            json!({
                "timestamp": "2030-03-17T17:46:40Z", "level": "INFO", "target": "here",
                "text": "a", "shown": "b", "number": 3, "yes": true, "message": "said",
            })
        );
    }

    #[test]
    fn nothing_in_a_value_ends_the_line_or_adds_a_field() {
        let text = "\",\"level\":\"ERROR\n\u{2028}\u{1b}[31m\u{202e}\u{2066}\u{7f}\u{9b}31m\u{feff}\u{e0041}";
        let lines = written(|| tracing::info!(text, shown = %text, "said {text}"));
        assert_eq!(lines.matches('\n').count(), 1);
        assert!(!lines.trim_end_matches('\n').contains(is_unseen), "{lines:?}");
        let line: Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["text"], text);
        assert_eq!(line["shown"], text);
    }
}
