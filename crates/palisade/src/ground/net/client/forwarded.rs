//! The `Forwarded` header of RFC 7239 section 4.

/// One element: what one proxy reported about the hop before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// The `for` parameter, unquoted.
    pub(super) node: Option<String>,
    /// The `proto` parameter, unquoted.
    pub(super) proto: Option<String>,
}

/// Parses the elements of one header line, in order. Returns `None` if the line breaks the grammar or an element
/// contains `for` or `proto` twice. Other parameters are ignored.
pub(super) fn parse(line: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let mut hop = Hop::default();
    let mut rest = line.trim_start_matches(BLANK);
    loop {
        rest = pair(rest, &mut hop)?.trim_start_matches(BLANK);
        let mut following = rest.chars();
        match following.next() {
            None => break,
            Some(';') => {}
            Some(',') => hops.push(std::mem::take(&mut hop)),
            Some(_) => return None,
        }
        rest = following.as_str().trim_start_matches(BLANK);
    }
    hops.push(hop);
    Some(hops)
}

const BLANK: [char; 2] = [' ', '\t'];

/// Reads `name=value` into `hop` and returns what follows.
fn pair<'a>(text: &'a str, hop: &mut Hop) -> Option<&'a str> {
    let (name, text) = text.split_once('=')?;
    if name.is_empty() || !name.chars().all(is_token) {
        return None;
    }
    let (value, rest) = value(text)?;
    let place = match name.to_ascii_lowercase().as_str() {
        "for" => &mut hop.node,
        "proto" => &mut hop.proto,
        _ => return Some(rest),
    };
    match place.replace(value) {
        None => Some(rest),
        Some(_) => None,
    }
}

/// Reads a token or a quoted string and returns it with what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|letter| !is_token(letter)).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return (!token.is_empty()).then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

/// Returns whether the character is a `tchar` (RFC 9110 section 5.6.2).
fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter)
}
