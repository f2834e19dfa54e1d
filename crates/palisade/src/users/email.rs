//! E-mail addresses: what is accepted, and when two of them are the same account.
//!
//! Promise: addresses that a person or a mail system could take for each other are one account or are
//! refused, and mail goes only to the address as its owner wrote it. Two forms are kept: the address
//! itself and its `key`, which is unique: the local part in compatibility form (NFKC) and without case,
//! the domain in its ASCII form (UTS 46).

use unicode_normalization::UnicodeNormalization as _;

use crate::error::Broken;

/// The longest address (RFC 5321 section 4.5.3.1.3), in bytes.
const LONGEST: usize = 254;
/// The longest local part (RFC 5321 section 4.5.3.1.1), in bytes.
const LONGEST_LOCAL: usize = 64;

/// An address that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    address: String,
    key: String,
}

impl Email {
    /// Checks an address.
    ///
    /// # Errors
    /// `email.invalid`, with the rule that it breaks.
    pub fn parse(text: &str) -> Result<Email, Broken> {
        let text: String = text.trim_matches(' ').nfc().collect();
        if text.len() > LONGEST {
            return broken("An address has at most 254 bytes.");
        }
        let Some((local, domain)) = text.rsplit_once('@') else {
            return broken("Write an address as name@example.com.");
        };
        check_local(local)?;
        let ascii = ascii_domain(domain)?;
        let address = format!("{local}@{ascii}");
        // A domain grows when it is written in ASCII.
        if address.len() > LONGEST {
            return broken("An address has at most 254 bytes, its domain written in ASCII.");
        }
        Ok(Email { key: format!("{}@{ascii}", fold(local)), address })
    }

    /// The address, as it was written; the domain in ASCII.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What two addresses have in common when they are the same account.
    pub fn key(&self) -> &str {
        &self.key
    }
}

fn broken<T>(says: &str) -> Result<T, Broken> {
    Err(Broken::new("email.invalid", says))
}

fn check_local(local: &str) -> Result<(), Broken> {
    if local.is_empty() || local.len() > LONGEST_LOCAL {
        return broken("The part before the @ has 1 to 64 bytes.");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return broken("A dot before the @ stands between two other characters.");
    }
    let ascii = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if !local.chars().all(|c| if c.is_ascii() { ascii(c) } else { c.is_alphanumeric() }) {
        return broken(
            "Before the @ stand letters, digits and . _ + - and the like; no spaces, quotes or @.",
        );
    }
    // A letter that only looks different (full width, ligature, long s) could be another's address.
    if !local.nfkc().eq(local.chars()) {
        return broken("Write the part before the @ in its plain characters.");
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
        _ => broken("The part after the @ is a domain name, like example.com."),
    }
}

/// Without case, in the way that also joins what only differs in upper case (ı and i, ß and ss).
pub(super) fn fold(local: &str) -> String {
    let upper: String = local.nfkc().flat_map(char::to_uppercase).collect();
    let lower: String = upper.chars().flat_map(char::to_lowercase).collect();
    // The dotted capital I leaves a combining dot behind.
    lower.nfkc().filter(|c| *c != '\u{307}').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_collide_share_a_key_or_are_refused() {
        let key = |text: &str| Email::parse(text).map(|email| email.key().to_owned());
        let ann = key("ann@example.com").unwrap();
        for same in ["ANN@example.com", " Ann@EXAMPLE.com ", "ann@example.com."] {
            assert_eq!(key(same).unwrap(), ann, "{same}");
        }
        assert_eq!(key("mike@example.com"), key("m\u{131}ke@example.com"));
        assert_eq!(key("kim@example.com"), key("\u{212a}im@example.com"));
        assert_eq!(key("stra\u{df}e@example.com"), key("strasse@example.com"));
        assert_eq!(key("caf\u{e9}@example.com"), key("cafe\u{301}@example.com"));
        assert_eq!(key("a@b\u{fc}cher.example"), key("a@xn--bcher-kva.example"));
        for refused in [
            "ann\u{ff20}example.com",
            "\u{ff41}nn@example.com",
            "o\u{fb03}ce@example.com",
            "ann@example.com@evil.example",
            "ann\u{200b}@example.com",
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

    proptest::proptest! {
        #[test]
        fn a_key_is_the_key_of_itself(text in "\\PC{0,20}@[a-z\\u{e0}-\\u{ff}]{1,10}\\.example") {
            if let Ok(email) = Email::parse(&text) {
                let again = Email::parse(email.address()).expect("an accepted address is accepted again");
                proptest::prop_assert_eq!(again.key(), email.key());
            }
        }
    }
}
