//! What commands print: text for people, or JSON with `--json`. Failures go to standard error.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use palisade::visible::{json, pretty_json, visible};
use serde::Serialize;

use crate::failure::Failure;

/// The output format of a command.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints a result: as JSON, or as the text that `people` returns.
    pub(crate) fn result<T: Serialize>(self, value: &T, people: impl FnOnce() -> String) {
        // Results always have a JSON form.
        let text =
            if self.json { pretty_json(value).unwrap_or_default() } else { lines(&people()) };
        line(&text);
    }

    /// Prints why a command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = if self.json {
            let error = serde_json::json!({
                "code": failure.code, "detail": failure.detail, "errors": failure.details,
            });
            json(&serde_json::json!({ "error": error })).unwrap_or_default()
        } else {
            let details = failure.details.iter().map(|detail| format!("\n  {}", lines(detail)));
            format!("palisade: {}{}", lines(&failure.detail), details.collect::<String>())
        };
        last_words(text);
    }
}

/// How long an exiting command waits for a stalled reader of standard error.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Writes to standard error from a separate thread, so that a stalled reader can't keep the process from exiting.
fn last_words(text: String) {
    let (done, written) = mpsc::channel();
    let write = move || {
        // If nothing reads standard error, the failure can't be reported.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(write).is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
}

/// Prints a line. If the reader has gone away, this is not an error.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Escapes characters that would control a terminal, in a text of several lines.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Formats rows as aligned columns under their names.
pub(crate) fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines: Vec<Vec<String>> = vec![names.iter().map(|name| (*name).to_owned()).collect()];
    lines
        .extend(rows.iter().map(|row| row.iter().map(|cell| visible(cell).into_owned()).collect()));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let shown = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_show() {
        let rows = [vec!["a\u{1b}[31m".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["name", "x"], &rows), "name         x\na\\u{1b}[31m  b");
        let rows = [vec!["a\nb\u{202e}c\u{9b}".to_owned()]];
        assert_eq!(table(&["name"], &rows), "name\na\\u{a}b\\u{202e}c\\u{9b}");
        assert_eq!(lines("a\nb\r\u{2066}"), "a\nb\\u{d}\\u{2066}");
        let value = serde_json::json!({ "name": "a\u{9b}31m\u{202e}" });
        let text = pretty_json(&value).unwrap();
        assert!(!text.contains(|c: char| c != '\n' && palisade::visible::is_unseen(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
