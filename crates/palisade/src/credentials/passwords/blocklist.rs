//! Passwords that can't be chosen: common passwords, and those in a file that the operator provides.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use palisade_crypto::known;

use super::rules::fold;
use crate::files;

/// The 100,000 most common passwords, and further long ones. `common/make.py` creates the file, and `docs/passwords.md`
/// describes the source.
static COMMON: &[u8] = include_bytes!("common/common.bin");
/// The size of an entry of [`COMMON`], in bytes.
const ENTRY: usize = 5;
/// The number of hexadecimal digits of a SHA-1 hash.
const DIGITS: usize = 40;
/// The maximum length of a line in a file of hashes: the digits, a colon, a count and the line ending.
const LONGEST_LINE: usize = 64;

/// The lists of refused passwords.
#[derive(Clone, Debug, Default)]
pub struct Blocklist {
    words: HashSet<String>,
    hashes: Option<PathBuf>,
}

impl Blocklist {
    /// Opens the list of common passwords and, if there is one, the operator's file. The file contains one password per
    /// line, or lines in the form `SHA1:COUNT`, sorted by hash, as in public breach corpora. A file of hashes is
    /// searched on disk, regardless of its size.
    ///
    /// # Errors
    /// Returns an error if the file can't be read, or its first two hashes are out of order.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        Self::read(path).map_err(|error| naming(path, &error))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut lines = BufReader::new(File::open(path)?).lines();
        let first = match lines.next().transpose() {
            // Reading it as a text tells what is wrong with it.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            first => first?.unwrap_or_default(),
        };
        if first.strip_prefix('\u{feff}').is_some_and(|first| hash_of(first).is_some()) {
            let detail = "a file of hashes can't begin with a byte order mark; save it without one";
            return Err(io::Error::other(detail));
        }
        let Some(first) = hash_of(&first) else {
            let text = files::read_text(path)?;
            let words = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(fold);
            return Ok(Self { words: words.collect(), hashes: None });
        };
        let second = lines.next().transpose()?.unwrap_or_default();
        if hash_of(&second).is_some_and(|second| second < first) {
            return Err(io::Error::other("the hashes are not in order"));
        }
        Ok(Self { words: HashSet::new(), hashes: Some(path.to_owned()) })
    }

    /// Returns whether a password is in one of the lists.
    ///
    /// # Errors
    /// Returns an error if the file of hashes can't be read.
    pub fn holds(&self, password: &str) -> io::Result<bool> {
        let folded = fold(password);
        if is_common(&folded) || self.words.contains(&folded) {
            return Ok(true);
        }
        match &self.hashes {
            // The hashes are of passwords exactly as they were written, so the password is not folded.
            Some(path) => File::open(path)
                .and_then(|mut file| find(&mut file, known::sha1(password)))
                .map_err(|error| naming(path, &error)),
            None => Ok(false),
        }
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn is_common(folded: &str) -> bool {
    let wanted = known::short(folded);
    let (mut from, mut to) = (0, COMMON.len() / ENTRY);
    while from < to {
        let middle = from.midpoint(to);
        let entry = COMMON.get(middle * ENTRY..(middle + 1) * ENTRY).unwrap_or_default();
        match entry.cmp(wanted.as_slice()) {
            std::cmp::Ordering::Less => from = middle + 1,
            std::cmp::Ordering::Greater => to = middle,
            std::cmp::Ordering::Equal => return true,
        }
    }
    false
}

/// Returns the hash that a line begins with, if there is one.
fn hash_of(line: &str) -> Option<[u8; 20]> {
    let (digits, rest) = line.trim_end().split_at_checked(DIGITS)?;
    if !(rest.is_empty() || rest.starts_with(':')) {
        return None;
    }
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Searches a sorted file for a hash by repeatedly halving the range of bytes in which its line may begin.
fn find(file: &mut File, wanted: [u8; 20]) -> io::Result<bool> {
    let (mut from, mut to) = (0, file.metadata()?.len());
    while from < to {
        let middle = from.midpoint(to);
        let Some((begins, hash)) = line_at_or_after(file, middle)? else {
            to = middle;
            continue;
        };
        if begins >= to {
            to = middle;
            continue;
        }
        match hash.cmp(&wanted) {
            std::cmp::Ordering::Equal => return Ok(true),
            std::cmp::Ordering::Less => from = begins + 1,
            std::cmp::Ordering::Greater => to = middle,
        }
    }
    Ok(false)
}

/// Returns the position and the hash of the first line that begins at or after this byte, or `None` after the last
/// line.
fn line_at_or_after(file: &mut File, at: u64) -> io::Result<Option<(u64, [u8; 20])>> {
    let start = at.saturating_sub(1);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::with_capacity(2 * LONGEST_LINE);
    file.take(2 * LONGEST_LINE as u64).read_to_end(&mut bytes)?;
    let skipped = if at == 0 {
        0
    } else {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => return Ok(None),
        }
    };
    let rest = bytes.get(skipped..).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let hash = std::str::from_utf8(line).ok().and_then(hash_of);
    match hash {
        Some(hash) => Ok(Some((start + skipped as u64, hash))),
        None if line.is_empty() => Ok(None),
        None => Err(io::Error::other("a line is not a SHA-1 hash in hexadecimal digits")),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn common_passwords_are_found_and_others_are_not() {
        let list = Blocklist::default();
        for common in ["123456", "password", "PassWord", "qwertyuiop", "1234567890123456"] {
            assert!(list.holds(common).unwrap(), "{common}");
        }
        for other in ["seven purple teapots orbit", "five green kettles whistle", ""] {
            assert!(!list.holds(other).unwrap(), "{other}");
        }
        assert!(COMMON.len() / ENTRY > 100_000);
        assert!(COMMON.chunks(ENTRY).is_sorted());
    }

    fn file_of(words: &[String], end: &str) -> tempfile::NamedTempFile {
        let mut hashes: Vec<[u8; 20]> = words.iter().map(|word| known::sha1(word)).collect();
        hashes.sort_unstable();
        let mut text = String::new();
        for (number, hash) in hashes.iter().enumerate() {
            for byte in hash {
                write!(text, "{byte:02X}").unwrap();
            }
            write!(text, ":{}{end}", number * 37).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn every_hash_of_a_sorted_file_is_found_and_no_other() {
        for end in ["\n", "\r\n"] {
            for count in [1, 2, 3, 7, 1000] {
                let words: Vec<String> =
                    (0..count).map(|number| format!("word {number}")).collect();
                let file = file_of(&words, end);
                let list = Blocklist::open(Some(file.path())).unwrap();
                for word in &words {
                    assert!(list.holds(word).unwrap(), "{word} of {count}");
                    assert!(!list.holds(&format!("{word} not")).unwrap(), "{word} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_file_of_words_is_compared_without_case_and_a_bad_one_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Our Own Word\n\n  another one \n").unwrap();
        let list = Blocklist::open(Some(file.path())).unwrap();
        assert!(list.holds("our own word").unwrap() && list.holds("ANOTHER ONE").unwrap());
        let unsorted = format!("{}:1\n{}:2\n", "F".repeat(40), "0".repeat(40));
        std::fs::write(file.path(), unsorted).unwrap();
        assert!(Blocklist::open(Some(file.path())).is_err());
        assert!(Blocklist::open(Some(Path::new("/nowhere"))).is_err());
    }
}
