//! Text from outside where people or terminals read it: cut, and without what isn't seen but obeyed.
//!
//! Promises:
//! - What is shown holds no control character and none that changes the direction or the joins of a line: nobody can end
//!   a log line, steer a terminal, or let a name read as another.
//! - What an error repeats is short, whatever came.

use std::borrow::Cow;
use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Whether a character isn't seen where it stands: a control, one that changes the direction or the joins of a line, or
/// a mark without a width. The pattern of [`crate::shape::Label`] says the same.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with everything unseen written as `\u{…}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unseen(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The beginning of a text, made visible: at most so many of its characters, and `…` where some are missing.
pub fn excerpt(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => visible(text).into_owned(),
        Some((end, _)) => format!("{}…", visible(text.get(..end).unwrap_or_default())),
    }
}

/// Writes a value as JSON with everything unseen escaped: what is read back is the same, what is shown is seen.
///
/// # Errors
/// When it has no JSON form, or can't be written.
pub fn write_json(
    out: impl io::Write,
    value: &(impl Serialize + ?Sized),
) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(CompactFormatter)))
}

/// The same on several lines, for people.
///
/// # Errors
/// When it has no JSON form, or can't be written.
pub fn write_pretty_json(
    out: impl io::Write,
    value: &(impl Serialize + ?Sized),
) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(PrettyFormatter::new())))
}

/// A formatter of JSON that escapes what isn't seen.
struct Escaping<F>(F);

/// Hands everything but the text to the formatter inside.
macro_rules! as_inside {
    ($($method:ident($($argument:ident: $type:ty),*);)+) => {$(
        fn $method<W: io::Write + ?Sized>(&mut self, out: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$method(out $(, $argument)*)
        }
    )+};
}

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Most text is plain, and each request has a line in the log.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return out.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unseen) {
            let (seen, unseen) = rest.split_at(at);
            out.write_all(seen.as_bytes())?;
            let mut following = unseen.chars();
            for unit in following.next().unwrap_or_default().encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = following.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    as_inside! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSEEN: &str =
        "\0\t\n\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200b}\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}";

    #[test]
    fn nothing_unseen_is_shown_and_json_reads_back_the_same() {
        for c in UNSEEN.chars() {
            let text = format!("a{c}b é 語 😀 \"");
            assert!(!visible(&text).contains(is_unseen), "{}", c.escape_unicode());
            assert!(visible(&text).contains(&c.escape_unicode().to_string()));
            let mut compact = Vec::new();
            write_json(&mut compact, &serde_json::json!({ "x": [text, 1.5, null], "y": {} }))
                .unwrap();
            let compact = String::from_utf8(compact).unwrap();
            assert!(!compact.contains(is_unseen), "{compact:?}");
            let back: serde_json::Value = serde_json::from_str(&compact).unwrap();
            assert_eq!(back["x"][0], text);
            let mut pretty = Vec::new();
            write_pretty_json(&mut pretty, &back).unwrap();
            let pretty = String::from_utf8(pretty).unwrap();
            assert!(!pretty.contains(|c| c != '\n' && is_unseen(c)), "{pretty:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).unwrap(), back);
        }
        assert!(matches!(visible("é 語 😀"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_excerpt_is_short_whatever_the_text() {
        assert_eq!(excerpt("name", 10), "name");
        assert_eq!(excerpt("ééééé", 3), "ééé…");
        assert_eq!(excerpt("a\u{202e}b", 10), "a\\u{202e}b");
        assert!(excerpt(&"\u{202e}".repeat(1_000_000), 64).len() < 64 * 8 + 4);
    }
}
