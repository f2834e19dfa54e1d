//! Email addresses: which ones are accepted, and when two of them belong to the same account.
//!
//! Two forms are stored: the email address itself and its `key`, which is unique. The key consists of the case-folded
//! local part in compatibility form (NFKC) and the domain in its ASCII form (UTS 46).
//!
//! # Promises
//!
//! - Email addresses that differ only in case, in Unicode form or in invisible characters belong to the same account or
//!   are refused. Letters of different scripts that look alike are distinct.
//! - Mail is sent to the email address as its owner wrote it, with the domain in ASCII, and never to the key.

use unicode_normalization::UnicodeNormalization as _;

use crate::error::Broken;
use crate::visible::is_unseen;

/// The maximum length of an email address (RFC 5321 section 4.5.3.1.3), in bytes.
const LONGEST: usize = 254;
/// The maximum length of the input, in bytes. Unicode composition may shorten it to within the limit.
const MOST_BYTES: usize = 4 * LONGEST;
/// The maximum length of the local part (RFC 5321 section 4.5.3.1.1), in bytes.
const LONGEST_LOCAL: usize = 64;

/// Characters that Unicode classifies as letters but that are invisible: the fillers of Hangul syllables.
const UNSEEN_LETTERS: [char; 2] = ['\u{115f}', '\u{1160}'];
/// Marks without an appearance that [`is_unseen`] leaves out, because a text may contain them: the soft hyphen, the
/// grapheme joiner, and the two usual variation selectors.
const UNSEEN_MARKS: [char; 4] = ['\u{ad}', '\u{34f}', '\u{fe0e}', '\u{fe0f}'];

/// A valid email address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    written: String,
    key: String,
}

impl Email {
    /// Checks an email address.
    ///
    /// # Errors
    /// Fails with `email.invalid` and a detail that states the broken rule.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        let text = text.trim_matches(is_margin);
        // Checked before any work that grows with the length.
        if text.len() > MOST_BYTES {
            return broken("An email address can be at most 254 bytes long.");
        }
        let text: String = text.nfc().collect();
        if text.len() > LONGEST {
            return broken("An email address can be at most 254 bytes long.");
        }
        let Some((local, domain)) = text.rsplit_once('@') else {
            return broken("Write the email address as name@example.com.");
        };
        check_local(local)?;
        let ascii = ascii_domain(domain)?;
        let written = format!("{local}@{ascii}");
        // A domain grows when it is written in ASCII.
        if written.len() > LONGEST {
            return broken(
                "An email address can be at most 254 bytes long, with its domain in ASCII.",
            );
        }
        Ok(Self { key: format!("{}@{ascii}", fold(local)), written })
    }

    /// Returns the email address as it was written, with the domain in ASCII.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Returns the key of the email address, which is the same for all email addresses that belong to the same account.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Returns whether a character at either end of an email address is left out: white space and invisible marks, which come
/// along when an email address is copied. Control characters other than white space don't, and are refused.
pub(super) fn is_margin(c: char) -> bool {
    let unseen = |c: char| is_unseen(c) || UNSEEN_MARKS.contains(&c) || UNSEEN_LETTERS.contains(&c);
    c.is_whitespace() || (!c.is_control() && unseen(c))
}

fn broken<T>(detail: &str) -> Result<T, Broken> {
    Err(Broken::new("email.invalid", detail))
}

fn check_local(local: &str) -> Result<(), Broken> {
    if local.is_empty() || local.len() > LONGEST_LOCAL {
        return broken("The part before the @ must be 1 to 64 bytes long.");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return broken("Before the @, a dot must be between two other characters.");
    }
    let ascii = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let other = |c: char| c.is_alphanumeric() && !UNSEEN_LETTERS.contains(&c);
    if !local.chars().all(|c| if c.is_ascii() { ascii(c) } else { other(c) }) {
        return broken(
            "Before the @, use letters, digits, and characters such as . _ + and -. Spaces, quotes \
             and @ are not allowed.",
        );
    }
    // With a variant of a letter (full width, ligature, long s), an address could pass for another person's.
    if !local.nfkc().eq(local.chars()) {
        return broken(
            "Before the @, use plain characters, not variants like ligatures or full-width forms.",
        );
    }
    Ok(())
}

fn ascii_domain(domain: &str) -> Result<String, Broken> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let ascii = idna::AsciiDenyList::STD3;
    let ascii = idna::uts46::Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            ascii,
            idna::uts46::Hyphens::Check,
            idna::uts46::DnsLength::Verify,
        )
        .ok()
        .map(|domain| domain.to_ascii_lowercase());
    match ascii {
        Some(domain) if domain.contains('.') && !domain.ends_with(|c: char| c.is_ascii_digit()) => {
            Ok(domain)
        }
        _ => broken("The part after the @ must be a domain name, like example.com."),
    }
}

/// Folds the case of a text. Texts that are the same in upper case become the same, such as ı and i, or ß and ss.
pub(super) fn fold(text: &str) -> String {
    let mut folded = text.to_owned();
    // SECURITY: folding is repeated until nothing changes, because ẞ becomes ß first and only then ss. Two addresses
    // that fold to the same text only after different numbers of steps would otherwise be two accounts (test:
    // folding_again_changes_nothing_and_all_forms_fold_alike_in_all_of_unicode).
    loop {
        let again = fold_once(&folded);
        if again == folded {
            return folded;
        }
        folded = again;
    }
}

fn fold_once(text: &str) -> String {
    // Decomposed first: ᾳ with an accent becomes Αι, and the accent belongs to the first letter. Converted to lower
    // case before upper case: ẞ becomes ß, which becomes SS.
    let lower: String = text.nfkd().flat_map(char::to_lowercase).collect();
    let upper: String = lower.chars().flat_map(char::to_uppercase).collect();
    let lower: String = upper.chars().flat_map(char::to_lowercase).collect();
    // The dotted capital I leaves a combining dot behind.
    lower.nfkc().filter(|c| *c != '\u{307}').collect()
}

/// Returns the form of a name used to search for a person. It is truncated, because some characters expand to 18
/// characters, for which an index has no room.
pub(super) fn name_key(name: &str) -> String {
    fold(name).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_that_collide_share_a_key_or_are_refused() {
        let key = |text: &str| Email::parse(text).map(|email| email.key().to_owned());
        let ann = key("ann@example.com").unwrap();
        for same in ["ANN@example.com", " Ann@EXAMPLE.com ", "ann@example.com."] {
            assert_eq!(key(same).unwrap(), ann, "{same}");
        }
        assert_eq!(key("mike@example.com"), key("m\u{131}ke@example.com"));
        assert_eq!(key("kim@example.com"), key("\u{212a}im@example.com"));
        for same in ["stra\u{df}e", "stra\u{1e9e}e", "STRA\u{1e9e}E", "STRASSE"] {
            assert_eq!(key(&format!("{same}@example.com")), key("strasse@example.com"), "{same}");
        }
        assert_eq!(key("caf\u{e9}@example.com"), key("cafe\u{301}@example.com"));
        assert_eq!(key("a@b\u{fc}cher.example"), key("a@xn--bcher-kva.example"));
        for refused in [
            "ann\u{ff20}example.com",
            "\u{ff41}nn@example.com",
            "o\u{fb03}ce@example.com",
            "ann@example.com@evil.example",
            "ann\u{200b}@example.com",
            "ann\u{115f}@example.com",
            "ann\u{1160}@example.com",
            "ann\u{3164}@example.com",
            "ann\u{ad}@example.com",
            "an n@example.com",
            "\"ann\"@example.com",
            "ann@localhost",
            "ann@127.0.0.1",
            "ann@[127.0.0.1]",
            ".ann@example.com",
            "an..n@example.com",
            "ann.@example.com",
            "@example.com",
            "ann@",
            "ann",
            "",
            "ann\r\nBcc: eve@example.com",
            "ann@exa mple.com",
            "ann@example.com\0",
            "\u{1b}ann@example.com",
            "ann@example.com\u{9b}",
            "a\u{202e}nn@example.com",
            "ann @example.com",
            "ann\n@example.com",
            "ann@ example.com",
        ] {
            assert!(key(refused).is_err(), "{refused:?} -> {:?}", key(refused));
        }
        assert!(key(&format!("{}@example.com", "a".repeat(65))).is_err());
        assert!(key(&format!("a@{}.com", "a".repeat(260))).is_err());
        // 200 bytes as it is written, 269 in ASCII.
        let grows = format!("{}@{}example", "a".repeat(60), "\u{1e0}\u{732}.".repeat(24));
        assert!(grows.len() < 254);
        assert!(key(&grows).is_err(), "{:?}", key(&grows));
    }

    #[test]
    fn what_surrounds_an_email_is_left_out() {
        let ann = Email::parse("ann@example.com").unwrap();
        for margin in [
            " ",
            "\n",
            "\r\n",
            "\t",
            "\u{b}",
            "\u{c}",
            "\u{85}",
            "\u{a0}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{180e}",
            "\u{200b}",
            "\u{200d}",
            "\u{200e}",
            "\u{202a}",
            "\u{202c}",
            "\u{2028}",
            "\u{2060}",
            "\u{2069}",
            "\u{3000}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{feff} \u{200b}\r\n",
        ] {
            for text in [
                format!("{margin}ann@example.com"),
                format!("ann@example.com{margin}"),
                format!("{margin}ann@example.com{margin}"),
            ] {
                assert_eq!(Email::parse(&text), Ok(ann.clone()), "{text:?}");
            }
        }
    }

    /// Forms in which a text may be written that are the same to people and mail systems.
    fn forms(text: &str) -> Vec<String> {
        let lower = text.chars().flat_map(char::to_lowercase).collect();
        vec![text.to_lowercase(), lower, text.nfc().collect(), text.nfd().collect()]
    }

    /// The forms of a local part: also compatibility forms and upper case, which would be different names in a domain
    /// (ß and ss).
    fn local_forms(text: &str) -> Vec<String> {
        // The case is changed in the decomposed text, so that no accent moves to another letter.
        let upper = text.nfd().collect::<String>().to_uppercase();
        let compatible = vec![text.nfkc().collect(), text.nfkd().collect(), upper.to_lowercase()];
        [forms(text), compatible, forms(&upper), vec![upper]].concat()
    }

    /// Every scalar value. Those that fold to another text or combine with others also appear among other characters.
    fn all_of_unicode() -> impl Iterator<Item = String> {
        ('\0'..=char::MAX).flat_map(|c| {
            let alone = c.to_string();
            let joins = unicode_normalization::char::canonical_combining_class(c) > 0;
            if local_forms(&alone).iter().all(|form| *form == alone) && !joins {
                return vec![alone];
            }
            vec![
                format!("{c}\u{307}\u{301}"),
                format!("i\u{307}{c}s\u{323}"),
                format!("\u{3b1}{c}\u{345}"),
                alone,
            ]
        })
    }

    #[test]
    fn folding_again_changes_nothing_and_all_forms_fold_alike_in_all_of_unicode() {
        let mut folded_to_other = 0;
        for text in all_of_unicode() {
            let folded = fold(&text);
            assert_eq!(fold_once(&folded), folded, "{}", text.escape_unicode());
            folded_to_other += usize::from(folded != text);
            for form in local_forms(&text).into_iter().filter(|form| *form != text) {
                let of_form = fold(&form);
                assert_eq!(of_form, folded, "{} {}", text.escape_unicode(), form.escape_unicode());
            }
        }
        assert!(folded_to_other > 10_000, "{folded_to_other}");
    }

    #[test]
    fn an_email_with_any_character_is_refused_or_is_the_same_in_every_form() {
        for c in '\0'..=char::MAX {
            let (local, domain) = (format!("x{c}y"), format!("a{c}b.example"));
            let locals = local_forms(&local).into_iter().map(|form| format!("{form}@example.com"));
            one_account(&format!("{local}@example.com"), locals);
            let domains = forms(&domain).into_iter().map(|form| format!("x@{form}"));
            one_account(&format!("x@{domain}"), domains);
        }
    }

    /// Asserts that each form is refused or has the same key as `text`, and that folding the key changes nothing.
    fn one_account(text: &str, forms: impl Iterator<Item = String>) {
        let Ok(email) = Email::parse(text) else { return };
        let again = Email::parse(email.as_str()).map(|again| again.key().to_owned());
        assert_eq!(again.as_deref(), Ok(email.key()), "{}", text.escape_unicode());
        let (local, domain) = email.key().rsplit_once('@').unwrap();
        assert_eq!(fold(local), local, "{}", text.escape_unicode());
        assert_eq!(ascii_domain(domain).as_deref(), Ok(domain), "{}", text.escape_unicode());
        for form in forms.filter(|form| form != text) {
            let Ok(other) = Email::parse(&form) else { continue };
            assert_eq!(other.key(), email.key(), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn a_name_of_characters_that_grow_has_a_short_key() {
        let name = "\u{fdfa}".repeat(200);
        assert_eq!(name_key(&name).chars().count(), 200);
        assert!(name_key("Ann \u{1e9e}") == "ann ss");
    }

    proptest::proptest! {
        #[test]
        fn a_key_is_the_key_of_itself(text in "\\PC{0,20}@[a-z\\u{e0}-\\u{ff}]{1,10}\\.example") {
            if let Ok(email) = Email::parse(&text) {
                let again = Email::parse(email.as_str()).expect("an accepted email is accepted again");
                proptest::prop_assert_eq!(again.key(), email.key());
            }
        }
    }
}
