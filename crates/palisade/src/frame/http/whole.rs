//! Integers that a program wrote as floating-point numbers: `2592000.0` and `1e3` in JSON are integers (RFC 8259 section
//! 6 has one type of number).

use std::borrow::Cow;

/// The length of the largest integer that a field can hold, in digits.
const LONGEST: usize = 20;

/// Returns a JSON text in which every whole number is written as an integer. The text must be valid JSON. A number with
/// a fraction, and one that no integer type can hold, stay as they are, so that the field that reads them refuses them.
pub(super) fn whole_numbers(json: &str) -> Cow<'_, str> {
    let mut written = String::new();
    // How much of the text is in `written`.
    let mut copied = 0;
    let mut rest = json.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'"' => skip_string(&mut rest),
            b'-' | b'0'..=b'9' => {
                let number = json.get(at..).unwrap_or_default();
                let end = number.bytes().position(|byte| !is_part(byte)).unwrap_or(number.len());
                let number = number.get(..end).unwrap_or_default();
                if end > 1 {
                    rest.nth(end - 2);
                }
                if let Some(integer) = integer(number) {
                    written.push_str(json.get(copied..at).unwrap_or_default());
                    written.push_str(&integer);
                    copied = at + end;
                }
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    written.push_str(json.get(copied..).unwrap_or_default());
    Cow::Owned(written)
}

fn skip_string(rest: &mut impl Iterator<Item = (usize, u8)>) {
    while let Some((_, byte)) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(rest.next()),
            _ => {}
        }
    }
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')
}

/// Returns a number with a point or an exponent as an integer, computed from its digits, so that nothing is rounded.
fn integer(number: &str) -> Option<String> {
    if !number.contains(['.', 'e', 'E']) {
        return None;
    }
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (digits, exponent) = match number.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    // The number of digits before the point.
    let leading = digits.len() - significant.len();
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
    let length = usize::try_from(point - i64::try_from(leading).ok()?).ok()?;
    let significant = significant.trim_end_matches('0');
    if length > LONGEST || significant.len() > length {
        return None;
    }
    Some(format!("{sign}{significant:0<length$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_integers_and_no_other_number_changes() {
        for (number, written) in [
            ("2592000.0", "2592000"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("1.50e1", "15"),
            ("1500e-2", "15"),
            ("0.1e1", "1"),
            ("0.00", "0"),
            ("-0.0", "0"),
            ("0e999999999", "0"),
            ("-12.000", "-12"),
            ("100.0", "100"),
            ("9007199254740993.0", "9007199254740993"),
            ("18446744073709551615.0", "18446744073709551615"),
            ("1e19", "10000000000000000000"),
        ] {
            assert_eq!(whole_numbers(number), written, "{number}");
        }
        for same in [
            "1.5",
            "15e-1",
            "1e20",
            "1e400",
            "1e-400",
            "1e99999999999",
            "1e-99999999999",
            "0.5",
            "9007199254740993.5",
            "1000",
            "-1",
            "0",
            "-0",
        ] {
            assert!(matches!(whole_numbers(same), Cow::Borrowed(text) if text == same), "{same}");
        }
    }

    #[test]
    fn only_numbers_change() {
        for (json, written) in [
            (r#"{"a":1.0,"b":[2.0, 3.5],"c":{"d":4e0}}"#, r#"{"a":1,"b":[2, 3.5],"c":{"d":4}}"#),
            (r#"{"1.0":"1.0","b\"2.0":"\\","c":3.0 }"#, r#"{"1.0":"1.0","b\"2.0":"\\","c":3 }"#),
            (r#"{"é":"é 1.0\\\"2.0","n":1.0}"#, r#"{"é":"é 1.0\\\"2.0","n":1}"#),
            ("[true,false,null,1.0]", "[true,false,null,1]"),
        ] {
            assert_eq!(whole_numbers(json), written);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_changes(
            number in "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
            text in ".*",
        ) {
            let json = format!("[{number},{}]", serde_json::Value::from(text));
            let read = |json: &str| serde_json::from_str::<(f64, String)>(json).ok();
            let (before, after) = (read(&json), read(&whole_numbers(&json)));
            proptest::prop_assert_eq!(before, after);
        }
    }
}
