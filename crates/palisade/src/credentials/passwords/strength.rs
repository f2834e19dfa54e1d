//! Estimates how hard a password is to guess, with a bounded amount of work for any input.
//!
//! The estimator's work grows with the square of the length, and with the number of combinations in which symbols can
//! be read as letters (`4` and `@` for a, `(`, `{`, `[` and `<` for c …): a text of 100 characters with all of these
//! symbols takes seconds. The estimator also fails on keyboard walks of more than 28 keys. It therefore receives only
//! sections:
//!
//! - For a text that repeats a unit, whole units from its beginning. A partial unit at the end would look like new
//!   text, but costs nothing for an attacker who tries repetitions.
//! - For any other text, sections of 28 characters. The last one ends where the text ends. Guessing the whole includes
//!   guessing each section, so the text is at least as strong as its strongest section.
//! - In a section that could be read in too many ways, the rarest symbols are taken literally. The others, and all
//!   digits, are still read as letters.
//!
//! A text that contains words specific to the person or the site must also be strong without them.
//!
//! `docs/decisions/0017` describes the alternatives tried.

use std::cmp::Reverse;

use zxcvbn::matching::patterns::MatchPattern;

use super::rules::{LONGEST, fold};

/// The maximum length of a section, in code points. The estimator's numbers overflow beyond it.
const STRETCH: usize = 28;
/// The maximum cost of a section: the number of ways to read it, times its length squared.
const BUDGET: usize = 20_000;
/// The maximum length of a user-specific word passed to the estimator, whose numbers overflow with longer ones.
const LONGEST_WORD: usize = 24;
/// What the estimator reads as letters: the symbols for each letter, and how often each of them counts. `1`, `|` and
/// `7` also stand for other letters, so each of them counts twice for one of these letters.
const READ_AS: [(&str, usize); 12] = [
    ("4@", 1),
    ("8", 1),
    ("({[<", 1),
    ("3", 1),
    ("69", 1),
    ("1!|", 1),
    ("1|7", 2),
    ("0", 1),
    ("$5", 1),
    ("+7", 1),
    ("%", 1),
    ("2", 1),
];
/// The symbols among them, with the rarest in passwords first, and the character that replaces each one when it is not
/// read as a letter. The replacements are in no word and on no keyboard, and are too far apart to form a sequence.
const RAREST_FIRST: [(char, char); 10] = [
    ('<', '\u{e000}'),
    ('[', '\u{e040}'),
    ('{', '\u{e080}'),
    ('|', '\u{e0c0}'),
    ('%', '\u{e100}'),
    ('+', '\u{e140}'),
    ('(', '\u{e180}'),
    ('!', '\u{e1c0}'),
    ('$', '\u{e200}'),
    ('@', '\u{e240}'),
];

/// The character that replaces a word specific to the person or the site when such words don't count.
const WORD: &str = "\u{e280}";

/// The reason why a password is too weak.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weak {
    /// It is an entry in a list of common or personal words.
    Listed,
    /// It takes too few guesses. Contains the estimator's reason, if there is one.
    Guessable(Option<String>),
}

/// Checks that a text has a strength of at least `enough` (0 to 4). `words` belong to the person or the site, and have
/// the form that [`fold`] returns. Takes at most a few milliseconds for any text.
pub(super) fn judge(text: &str, words: &[String], enough: u8) -> Result<(), Weak> {
    let short = words.iter().filter(|word| word.chars().count() <= LONGEST_WORD);
    let short: Vec<&str> = short.map(String::as_str).collect();
    judge_text(text, &short, enough)?;
    match without_words(text, words) {
        Some(rest) => judge_text(&rest, &[], enough),
        None => Ok(()),
    }
}

fn judge_text(text: &str, words: &[&str], enough: u8) -> Result<(), Weak> {
    let mut first = None;
    for stretch in stretches(text) {
        match judge_stretch(&stretch, words, enough) {
            Ok(()) => return Ok(()),
            Err(weak) => first = first.or(Some(weak)),
        }
    }
    Err(first.unwrap_or(Weak::Guessable(None)))
}

/// Returns the text with each word, spelled forwards or backwards, replaced by one character. Returns `None` if the
/// text contains none of the words.
///
/// SECURITY: the estimator counts the parts of a long email address as separately chosen words, and a section can cut a
/// word in two (test: a_word_of_the_person_adds_nothing_however_long).
fn without_words(text: &str, words: &[String]) -> Option<String> {
    let backwards = words.iter().map(|word| word.chars().rev().collect());
    let mut all: Vec<String> = words.iter().cloned().chain(backwards).collect();
    all.sort_by_key(|word| Reverse(word.len()));
    let folded = fold(text);
    let rest = all.iter().fold(folded.clone(), |rest, word| rest.replace(word.as_str(), WORD));
    // Folding can make a text longer. The part that is cut off here could only have made it stronger.
    (rest != folded).then(|| rest.chars().take(LONGEST).collect())
}

fn judge_stretch(stretch: &str, words: &[&str], enough: u8) -> Result<(), Weak> {
    let estimate = zxcvbn::zxcvbn(stretch, words);
    let length = stretch.chars().count();
    let listed = estimate.sequence().iter().any(|found| {
        let spans = found.token.chars().count() == length;
        spans && matches!(found.pattern, MatchPattern::Dictionary(_))
    });
    if listed {
        return Err(Weak::Listed);
    }
    if u8::from(estimate.score()) < enough {
        let warning = estimate.feedback().and_then(|feedback| feedback.warning());
        return Err(Weak::Guessable(warning.map(|warning| warning.to_string())));
    }
    Ok(())
}

/// Returns the sections of a text to judge.
fn stretches(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let length = chars.len();
    let repeats = |unit: &usize| chars.iter().skip(*unit).eq(chars.iter().take(length - unit));
    let found: Vec<&[char]> = match (1..=STRETCH.min(length / 2)).find(repeats) {
        Some(unit) => {
            let whole = STRETCH.min(length) / unit * unit;
            chars.chunks(whole).take(1).collect()
        }
        None => {
            let last = chars.rchunks(STRETCH).take(usize::from(!length.is_multiple_of(STRETCH)));
            chars.chunks_exact(STRETCH).chain(last).collect()
        }
    };
    found.into_iter().map(affordable).collect()
}

/// Returns the section with only as many symbols as can be read as letters within the budget.
fn affordable(stretch: &[char]) -> String {
    let mut stretch = stretch.to_vec();
    for (sign, stand_in) in RAREST_FIRST {
        if cost(&stretch) <= BUDGET {
            break;
        }
        for c in &mut stretch {
            *c = if *c == sign { stand_in } else { *c };
        }
    }
    stretch.into_iter().collect()
}

/// Returns an upper bound on the work for a section.
fn cost(stretch: &[char]) -> usize {
    let ways = READ_AS.iter().map(|(signs, count)| {
        let there = signs.chars().filter(|sign| stretch.contains(sign)).count();
        (there * count).max(1)
    });
    ways.product::<usize>() * stretch.len() * stretch.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every symbol read as a letter, and a word.
    const ALL_SIGNS: &str = "qwertyuiop4@8({[<369&!1|0$5+7%2\"*5";

    fn reaches_the_estimator_within_bounds(text: &str) {
        let seen = stretches(text);
        assert!(seen.len() <= 1 + text.chars().count() / STRETCH, "{text}: {seen:?}");
        for stretch in seen {
            let chars: Vec<char> = stretch.chars().collect();
            assert!(chars.len() <= STRETCH && cost(&chars) <= BUDGET, "{text}: {stretch}");
        }
    }

    #[test]
    fn what_reaches_the_estimator_is_bounded() {
        let long = |unit: &str| unit.chars().cycle().take(128).collect::<String>();
        for unit in [ALL_SIGNS, "4", "qa", "11.11.91", "0123456789", "a4@8b3e1l!i7to0s$5z2g69%+"] {
            reaches_the_estimator_within_bounds(&long(unit));
            reaches_the_estimator_within_bounds(unit);
        }
    }

    proptest! {
        #[test]
        fn nothing_dearer_reaches_the_estimator(text in "[a-e0-9@(\\{\\[<!|$+%. é]{1,128}") {
            reaches_the_estimator_within_bounds(&text);
        }
    }

    #[test]
    fn the_count_of_readings_is_never_too_low() {
        // The number of readings that the estimator enumerates for a text with every symbol.
        let signs: Vec<char> = ALL_SIGNS.chars().collect();
        let squared = signs.len() * signs.len();
        assert!(cost(&signs) / squared >= 2 * 4 * 2 * 25 * 2, "{}", cost(&signs) / squared);
        let digits: Vec<char> = "0123456789".repeat(3).chars().take(STRETCH).collect();
        assert!(cost(&digits) <= BUDGET, "digits are always read");
    }

    #[test]
    fn walks_and_words_that_the_estimator_cannot_count_are_judged() {
        for walk in ["qa", "14", "1q", "0.", "aq"] {
            // Only a panic would fail the test.
            let _ = judge(&walk.repeat(60), &[], 3);
            let _ = judge(&format!("x{}y", walk.repeat(40)), &[], 3);
        }
        let name = "aAbB4".repeat(30);
        let _ = judge(&format!("my{name}"), &[name.to_lowercase()], 3);
    }

    #[test]
    fn a_long_text_is_as_strong_as_its_strongest_stretch() {
        let weak = |text: &str| judge(text, &[], 3).is_err();
        assert!(weak(&"a".repeat(128)));
        for strong in ["five green kettles whistle", "x7!kq2@mVw9#zP4t"] {
            for text in [
                format!("{}{strong}", "a".repeat(100)),
                format!("{strong}{}", "a".repeat(100)),
                format!("{}{strong}{}", "a".repeat(50), "b".repeat(50)),
                strong.to_owned(),
            ] {
                assert!(!weak(&text), "{text}");
            }
        }
    }

    #[test]
    fn a_word_of_the_person_adds_nothing_however_long() {
        for local in ["ann", "john.smith", "christopher.mont", "christopher.montgomery"] {
            let email = format!("{local}@example.com");
            let backwards: String = email.chars().rev().collect();
            let parts = ["christopher", "montgomery", "john", "smith", "example", "com"];
            let mut words: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            words.push(email.clone());
            for own in [email.clone(), email.to_uppercase(), backwards] {
                for added in ["a", "ab", "xyz"] {
                    for text in [format!("{own}{added}"), format!("{added}{own}")] {
                        assert!(judge(&text, &words, 3).is_err(), "{text}");
                    }
                }
                let text = format!("{own} five green kettles");
                assert_eq!(judge(&text, &words, 3), Ok(()), "{text}");
            }
        }
        // A common password doesn't become stronger when a word is removed from it.
        assert!(judge("password123", &["ssw".to_owned()], 3).is_err());
    }

    #[test]
    fn a_text_without_its_words_is_no_longer_than_a_password() {
        let ligatures = "\u{fdfa}".repeat(128);
        let rest = without_words(&format!("ann{ligatures}"), &["ann".to_owned()]).unwrap();
        assert_eq!(rest.chars().count(), LONGEST);
        assert_eq!(without_words("five green kettles", &["ann".to_owned()]), None);
    }

    #[test]
    fn a_repeated_unit_is_no_stronger_for_a_part_of_it_at_the_end() {
        for unit in ["sunshine12", "x7!kq2", "password", "qwertyuiop", "abc"] {
            for length in 15..=128 {
                let text: String = unit.chars().cycle().take(length.max(2 * unit.len())).collect();
                assert!(judge(&text, &[], 3).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn common_words_in_signs_are_found_also_where_not_all_signs_are_read() {
        for weak in ["P@$$w0rd", "p4ssw0rd!", "P@$$w0rd1234567890", "s3cr3t$3cret"] {
            assert!(judge(weak, &[], 3).is_err(), "{weak}");
        }
        let own = ["wintermorning".to_owned()];
        assert_eq!(judge("w1nterm0rn1ng", &own, 3), Err(Weak::Listed));
    }
}
