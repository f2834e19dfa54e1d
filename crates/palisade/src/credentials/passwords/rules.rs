//! The rules for passwords (NIST SP 800-63B-4 section 3.1.1.2).
//!
//! A password is accepted or refused by its length, by a blocklist, and by an estimate of how hard it is to guess.
//! There are no composition rules. Every refusal states which rule was broken and how to fix it.

use palisade_crypto::secret::SecretString;
use unicode_normalization::UnicodeNormalization as _;

use super::Blocklist;
use super::strength::{self, Weak};
use crate::error::Broken;

/// The maximum number of Unicode code points. NIST requires that at least 64 are accepted.
pub const LONGEST: usize = 128;
/// The maximum number of bytes, before and after normalization.
const MOST_BYTES: usize = 512;
/// Words that are too easy to guess on any site that uses Palisade.
const OUR_WORDS: [&str; 2] = ["palisade", "password"];

/// The password rules in effect.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The minimum number of code points.
    pub min_length: usize,
    /// The lowest accepted score of the strength estimate, 0 to 4.
    pub min_strength: u8,
    /// Passwords that are always refused.
    pub blocklist: Blocklist,
    /// The words of the site's name.
    pub site: Vec<String>,
}

/// Returns a password in the form in which it is hashed: normalized to NFC and otherwise unchanged. Returns `None` if
/// it is too long.
pub(super) fn normalized(password: &SecretString) -> Option<SecretString> {
    let text = password.expose();
    if text.len() > MOST_BYTES {
        return None;
    }
    let normal: String = text.nfc().collect();
    (normal.chars().count() <= LONGEST && normal.len() <= MOST_BYTES).then(|| normal.into())
}

/// Returns a text in the form in which passwords are compared with the blocklist: NFKC, in lower case.
pub(super) fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).collect()
}

impl Rules {
    /// Checks a new password by the rules that need no more than its characters, and returns it as it is hashed.
    ///
    /// # Errors
    /// Returns the first rule that the password breaks.
    pub fn check_form(&self, password: &SecretString) -> Result<SecretString, Broken> {
        let Some(normal) = normalized(password) else {
            let detail = "Use at most 128 characters (512 bytes).";
            return Err(Broken::new("password.too_long", detail));
        };
        if normal.expose().chars().count() < self.min_length {
            let detail = format!(
                "Use at least {} characters. A phrase of several words works well.",
                self.min_length
            );
            return Err(Broken::new("password.too_short", detail));
        }
        if normal.expose().contains('\0') {
            let detail = "A password can't contain a NUL character.";
            return Err(Broken::new("password.invalid", detail));
        }
        Ok(normal)
    }

    /// Checks a new password. `context` contains words that belong to the person: email address, name. Takes up to a
    /// few milliseconds of CPU time.
    ///
    /// # Errors
    /// Returns the first rule that the password breaks.
    pub fn check(&self, password: &SecretString, context: &[&str]) -> Result<SecretString, Broken> {
        let normal = self.check_form(password)?;
        let text = normal.expose();
        let site = self.site.iter().map(String::as_str);
        let words = context_words(&context.iter().copied().chain(site).collect::<Vec<_>>());
        if is_context(text, &words) {
            return Err(blocklisted());
        }
        self.estimate(text, &words)?;
        Ok(normal)
    }

    fn estimate(&self, text: &str, words: &[String]) -> Result<(), Broken> {
        strength::judge(text, words, self.min_strength).map_err(|weak| match weak {
            Weak::Listed => blocklisted(),
            Weak::Guessable(hint) => {
                let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
                let detail = "This password is too easy to guess. Add a few unrelated words.";
                Broken::new("password.too_weak", format!("{detail}{hint}"))
            }
        })
    }
}

pub(super) fn blocklisted() -> Broken {
    let detail = "This password, or a very similar one, is on a list of refused passwords, or \
                consists of words of this site, your name or your email address. Choose a \
                different password.";
    Broken::new("password.blocklisted", detail)
}

fn context_words(context: &[&str]) -> Vec<String> {
    let own = OUR_WORDS.iter().map(|word| (*word).to_owned());
    let parts = context.iter().flat_map(|text| {
        let whole = std::iter::once(fold(text));
        whole.chain(text.split(|c: char| !c.is_alphanumeric()).map(fold).collect::<Vec<_>>())
    });
    own.chain(parts).filter(|word| word.chars().count() >= 3).collect()
}

/// Returns whether a password consists only of words of the site or the person, digits and symbols.
fn is_context(text: &str, words: &[String]) -> bool {
    let mut rest = fold(text);
    let mut sorted: Vec<&String> = words.iter().collect();
    sorted.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for word in sorted {
        rest = rest.replace(word.as_str(), " ");
    }
    !rest.chars().any(char::is_alphabetic) && rest.contains(' ') && !text.chars().all(|c| c == ' ')
}
