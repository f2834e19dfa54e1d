//! The fields of an event as text for people: one line, whatever it contains.
//!
//! # Promises
//!
//! - No value can end the line, control the terminal or change the direction of the text.

use std::fmt::{self, Debug};

use palisade::visible::visible;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};

/// A formatter that writes the message without a name, and other fields as `name=value`.
pub(super) struct VisibleFields;

impl<'w> FormatFields<'w> for VisibleFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, written: Ok(()) };
        fields.record(&mut line);
        line.written
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        // SECURITY: (test: nothing_in_a_value_steers_a_terminal)
        let value = visible(value);
        match name {
            "message" => self.writer.write_str(&value),
            // Field names are italic on a terminal.
            _ if self.writer.has_ansi_escapes() => {
                write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m={value}")
            }
            _ => write!(self.writer, "{name}={value}"),
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.written.is_ok() {
            self.written = self.write(field.name(), &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade::visible::is_unseen;

    use super::super::tests::written_by;
    use super::*;

    fn written(ansi: bool, log: impl FnOnce()) -> String {
        written_by(|writer| {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(ansi)
                .fmt_fields(VisibleFields)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, log);
        })
    }

    #[test]
    fn nothing_in_a_value_steers_a_terminal() {
        let text = "a\n\r\u{1b}[2J\u{9b}31m\u{202e}b\u{2066}\u{200b}\u{7f}";
        let log = || tracing::info!(text, shown = %text, debug = ?text, "said {text}");
        let line = written(false, log);
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_unseen), "{line:?}");
        for part in ["said a\\u{a}", "text=\"a\\n", "shown=a\\u{a}", "\\u{202e}b", "\\u{9b}31m"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        // On a terminal, the only escape sequences are those of the line's own colors.
        let coloured = written(true, log);
        let escapes = coloured.matches('\u{1b}').count();
        assert!(escapes > 0 && escapes == coloured.matches("\u{1b}[").count());
        assert!(!coloured.contains("\u{1b}[2J") && !coloured.contains('\u{9b}'), "{coloured:?}");
        assert_eq!(coloured.matches('\n').count(), 1);
    }

    #[test]
    fn fields_are_written_with_their_names() {
        let line = written(false, || tracing::info!(number = 3, yes = true, text = "x y", "said"));
        assert!(line.ends_with("said number=3 yes=true text=\"x y\"\n"), "{line}");
    }
}
