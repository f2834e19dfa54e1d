//! External text that people or terminals read: with invisible and control characters escaped, and truncated where an
//! error repeats it.
//!
//! # Promises
//!
//! - The result contains no control character (except the line breaks of [`pretty_json`]) and no character that changes
//!   the direction of text or how characters join. So external text can't end a log line, control a terminal, or hide
//!   the difference between two names in invisible characters.
//! - The part of the input that an error repeats is short.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use unicode_normalization::UnicodeNormalization as _;

/// Returns whether a character is invisible: a control, one that changes the direction of text or how characters join,
/// or a mark without width. The pattern of [`crate::shape::Label`] excludes the same characters, except for the tag
/// characters (U+E0000 to U+E007F).
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns the text with every invisible character written as `\u{…}`.
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

/// The maximum length of a [`label`], in characters.
const LONGEST_LABEL: usize = 200;

/// Returns the form of a text in which it can be shown as the name of something: one line without invisible characters,
/// its words separated by one space, and cut to 200 characters.
///
/// This is for texts that programs make up, such as the name of a device. A person who enters a name can correct it, so
/// such a name is checked instead.
pub fn label(text: &str) -> String {
    // Most are short and plain, and each request has a User-Agent.
    let plain = |byte: u8| matches!(byte, b' '..=b'~');
    if text.len() <= LONGEST_LABEL
        && text.bytes().all(plain)
        && text.trim_ascii().len() == text.len()
        && !text.contains("  ")
    {
        return text.to_owned();
    }
    let mut label = String::new();
    let parts = text.split(|c: char| c.is_whitespace() || c.is_control());
    for word in parts.filter(|word| !word.chars().all(is_unseen)) {
        if !label.is_empty() {
            label.push(' ');
        }
        // Composition shortens a text, but no more than this.
        label.extend(word.chars().filter(|c| !is_unseen(*c)).take(4 * LONGEST_LABEL));
        if label.len() > 16 * LONGEST_LABEL {
            break;
        }
    }
    let label: String = label.nfc().take(LONGEST_LABEL).collect();
    label.trim_end().to_owned()
}

/// Returns the beginning of a text, with invisible characters escaped: at most `most` of its characters, followed by
/// `…` if some are missing.
pub fn excerpt(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => visible(text).into_owned(),
        Some((end, _)) => format!("{}…", visible(text.get(..end).unwrap_or_default())),
    }
}

/// Returns a value as JSON with every invisible character escaped. Parsing it returns the same value.
///
/// # Errors
/// Returns an error if the value has no JSON form.
pub fn json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string(value).map(visible_json)
}

/// Like `json`, but on several lines, for people to read.
///
/// # Errors
/// Returns an error if the value has no JSON form.
pub fn pretty_json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(visible_json)
}

/// Returns JSON text with every invisible character escaped. Outside strings, JSON contains only ASCII, and its only
/// invisible characters are line breaks. Within strings, controls below U+0020 are already escaped (RFC 8259 section
/// 7).
pub fn visible_json(text: String) -> String {
    // Most text is plain ASCII, and each request writes a log line. Without an early exit, the compiler can make this
    // loop check many bytes at a time.
    if !text.bytes().fold(false, |unseen, byte| unseen | (byte >= 0x7f)) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c == '\n' || !is_unseen(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` never fails.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
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
            let compact = json(&serde_json::json!({ "x": [text, 1.5, null], "y": {} })).unwrap();
            assert!(!compact.contains(is_unseen), "{compact:?}");
            let back: serde_json::Value = serde_json::from_str(&compact).unwrap();
            assert_eq!(back["x"][0], text);
            let pretty = pretty_json(&back).unwrap();
            assert!(!pretty.contains(|c| c != '\n' && is_unseen(c)), "{pretty:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).unwrap(), back);
        }
        assert!(matches!(visible("é 語 😀"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_label_is_one_short_line_whatever_the_text() {
        for same in ["", "x", "Mozilla/5.0 (X11; Linux x86_64)", "Büro", "語 😀"] {
            assert_eq!(label(same), same);
        }
        let plain = "x".repeat(200);
        assert_eq!(label(&plain), plain);
        for long in ["x".repeat(201), format!(" {plain}"), format!("{plain}\n"), "x".repeat(9999)] {
            assert_eq!(label(&long), plain);
        }
        // Cut between characters, and never after a space.
        assert_eq!(label(&"é".repeat(300)), "é".repeat(200));
        assert_eq!(label(&format!("{} x", "é".repeat(199))), "é".repeat(199));
        for (text, one_line) in [
            ("a\r\nb", "a b"),
            ("  a \t  b\u{a0}\u{3000}c ", "a b c"),
            ("\u{feff}a\u{200b}b", "ab"),
            ("a\0b\u{1b}[2J\u{85}c\u{2028}d", "a b [2J c d"),
            ("a\u{202e}b \u{2066}", "ab"),
            ("cafe\u{301}", "café"),
            ("\u{200b} \n\u{feff}", ""),
        ] {
            assert_eq!(label(text), one_line, "{text:?}");
        }
        for c in UNSEEN.chars() {
            assert!(!label(&format!("a{c}b")).contains(is_unseen), "{}", c.escape_unicode());
        }
        // The composed text is as long as it may be.
        assert_eq!(label(&"e\u{301}".repeat(1000)), "é".repeat(200));
        assert_eq!(label(&"\u{200b}\n".repeat(500_000)), "");
    }

    #[test]
    fn an_excerpt_is_short_whatever_the_text() {
        assert_eq!(excerpt("name", 10), "name");
        assert_eq!(excerpt("ééééé", 3), "ééé…");
        assert_eq!(excerpt("a\u{202e}b", 10), "a\\u{202e}b");
        assert!(excerpt(&"\u{202e}".repeat(1_000_000), 64).len() < 64 * 8 + 4);
    }
}
