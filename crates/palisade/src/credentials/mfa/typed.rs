//! Codes as people type and copy them.

use unicode_normalization::UnicodeNormalization as _;

use crate::visible::is_unseen;

/// The zeros of the decimal digits that keyboards and number formats of other languages produce. Each is followed by the
/// digits from 1 to 9. Full-width digits become ASCII by normalization.
const ZEROS: [char; 19] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}',
    '\u{be6}', '\u{c66}', '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}',
    '\u{17e0}', '\u{1810}', '\u{1c50}',
];

/// Returns the characters of a code, without the spaces, dashes, line ends and invisible marks that apps and documents
/// add to it, in compatibility form (NFKC) and with ASCII digits.
pub(super) fn typed(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().filter(|c| !is_separator(*c)).map(|c| {
        let value = |zero: &char| u32::from(c).checked_sub(u32::from(*zero)).filter(|v| *v < 10);
        let digit = ZEROS.iter().find_map(value).and_then(|value| char::from_digit(value, 10));
        digit.unwrap_or(c)
    })
}

/// Returns whether a character only separates parts of a code.
fn is_separator(c: char) -> bool {
    let dash = matches!(
        c,
        '-' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{30fc}'
    );
    dash || c.is_whitespace() || is_unseen(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_same_in_every_form_in_which_it_is_typed() {
        for text in [
            "123456",
            "123 456",
            "123-456",
            " 123\u{a0}456\r\n",
            "\u{feff}123\u{2009}456\u{200b}",
            "12\u{2013}34\u{2014}56",
            "1\u{2011}2\u{2212}3\u{ad}4\u{fe63}5\u{ff0d}6",
            "\u{ff11}\u{ff12}\u{ff13}\u{3000}\u{ff14}\u{ff15}\u{ff16}",
            "\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}",
            "\u{6f1}\u{6f2}\u{6f3} \u{6f4}\u{6f5}\u{6f6}",
            "\u{967}\u{968}\u{969}\u{96a}\u{96b}\u{96c}",
        ] {
            assert_eq!(typed(text).collect::<String>(), "123456", "{text:?}");
        }
        for other in ["12345", "1234567", "123.456", "12345\u{663}x", "123,456", "½"] {
            assert_ne!(typed(other).collect::<String>(), "123456", "{other:?}");
        }
        assert_eq!(typed("Ab\u{2010}\u{ff43}d\n").collect::<String>(), "Abcd");
        for zero in ZEROS {
            assert_eq!(char::from_u32(u32::from(zero) + 9).map(char::is_numeric), Some(true));
            assert_eq!(typed(&zero.to_string()).collect::<String>(), "0");
        }
    }
}
