//! Digests for looking up passwords in a list of known passwords. They do not protect the passwords.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// Returns the first five bytes of the SHA-256 of a text.
#[must_use]
pub fn short(text: &str) -> [u8; 5] {
    let mut short = [0; 5];
    short
        .iter_mut()
        .zip(digest(&SHA256, text.as_bytes()).as_ref())
        .for_each(|(to, from)| *to = *from);
    short
}

/// Returns the SHA-1 of a text, by which public breach corpora are sorted.
#[must_use]
pub fn sha1(text: &str) -> [u8; 20] {
    let mut sha1 = [0; 20];
    let made = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    sha1.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
    sha1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_are_those_of_fips_180() {
        // The examples of FIPS 180-4 for "abc".
        assert_eq!(short("abc"), [0xba, 0x78, 0x16, 0xbf, 0x8f]);
        assert_eq!(sha1("abc")[..5], [0xa9, 0x99, 0x3e, 0x36, 0x47]);
    }
}
