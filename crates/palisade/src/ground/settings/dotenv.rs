//! Reads a `.env` file.
//!
//! A line is `NAME=VALUE`, optionally after `export`. A value in single quotes is taken as it is. In double quotes, `\n`,
//! `\r`, `\t`, `\"`, `\$` and `\\` are escapes. Both kinds of quotes may span lines. A value without quotes ends at the end
//! of the line or before ` #`. Nothing is substituted: `$NAME` is just text.

/// One variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// The line that it begins on, counted from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) wrong: &'static str,
    pub(super) mend: &'static str,
}

const NOT_CLOSED: (&str, &str) =
    ("the quotes of the value are not closed", "Close them, or remove the first one");
const AFTER_QUOTES: (&str, &str) = (
    "there is text after the closing quotes",
    "Put the whole value in quotes; if it contains quotes, use the other kind around it",
);
const NO_VALUE: (&str, &str) = ("the variable has no value", "Write NAME=VALUE");
const NO_VARIABLE: (&str, &str) =
    ("this is not a variable", "Write NAME=VALUE, or begin a comment with #");

/// Reads the variables for which `wanted` returns true. Others are skipped, but have to be well formed, because a quote
/// that isn't closed could hide the lines after it.
pub(super) fn parse(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Variable>, Wrong> {
    let mut variables = Vec::new();
    let mut reading = Reading { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    while !reading.rest.is_empty() {
        let line = reading.line;
        let wrong = |(wrong, mend)| Wrong { line, wrong, mend };
        let Some((name, assigned)) = reading.name().map_err(wrong)? else { continue };
        let value = if assigned { Some(reading.value().map_err(wrong)?) } else { None };
        if wanted(&name) {
            let value = value.ok_or_else(|| wrong(NO_VALUE))?;
            variables.push(Variable { line, name, value });
        }
    }
    Ok(variables)
}

/// What is left of the file.
struct Reading<'a> {
    rest: &'a str,
    /// The number of the line that `rest` begins on.
    line: usize,
}

impl<'a> Reading<'a> {
    /// Takes the beginning of `rest`.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn rest_of_line(&self) -> &'a str {
        self.rest.split_inclusive('\n').next().unwrap_or_default()
    }

    /// Takes the name that the line begins with, and `=` if it follows. Skips a line without a variable.
    fn name(&mut self) -> Result<Option<(String, bool)>, (&'static str, &'static str)> {
        let line = self.rest_of_line();
        let plain = line.trim();
        if plain.is_empty() || plain.starts_with('#') {
            self.take(line.len());
            return Ok(None);
        }
        let end = line.find('=');
        let before = end.and_then(|end| line.get(..end)).unwrap_or(line).trim();
        let exported = before.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let name = exported.unwrap_or(before).trim();
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(named) {
            return Err(NO_VARIABLE);
        }
        self.take(end.map_or(line.len(), |end| end + 1));
        Ok(Some((name.to_owned(), end.is_some())))
    }

    /// Takes a value and the rest of its line.
    fn value(&mut self) -> Result<String, (&'static str, &'static str)> {
        let line = self.rest_of_line();
        let plain = line.trim_start_matches([' ', '\t']);
        let quote = plain.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let Some(quote) = quote else {
            self.take(line.len());
            let comment = line.match_indices('#').map(|(at, _)| at).find(|at| {
                line.get(..*at).is_some_and(|before| before.ends_with(char::is_whitespace))
            });
            let value = comment.and_then(|at| line.get(..at)).unwrap_or(line);
            return Ok(value.trim().to_owned());
        };
        self.take(line.len() - plain.len() + 1);
        let value = self.quoted(quote).ok_or(NOT_CLOSED)?;
        let line = self.rest_of_line();
        let after = self.take(line.len()).trim();
        if after.is_empty() || after.starts_with('#') { Ok(value) } else { Err(AFTER_QUOTES) }
    }

    /// Takes a quoted value and its closing quote, or returns `None` if there is none.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut value = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.take(at + 1);
                return Some(value);
            }
            if letter != '\\' || quote == '\'' {
                value.push(letter);
                continue;
            }
            match letters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                plain @ ('"' | '$' | '\\') => value.push(plain),
                other => value.extend(['\\', other]),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(usize, String, String)> {
        let all = parse(text, |_| true).unwrap();
        all.into_iter().map(|found| (found.line, found.name, found.value)).collect()
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        for (line, value) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("  export\tA = b \r", "b"),
            ("A=", ""),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A= # comment", ""),
            ("A=b c", "b c"),
            ("A=b=c", "b=c"),
            ("A='b # $c \\n'", "b # $c \\n"),
            ("A=\"b # $c \\$d \\\"e\\\" \\\\ \\x\" # comment", "b # $c $d \"e\" \\ \\x"),
            ("A=\"\"", ""),
            ("A=it's", "it's"),
            ("A=${B}", "${B}"),
            ("A='b\nc'", "b\nc"),
            ("A=\"b\\nc\"", "b\nc"),
        ] {
            assert_eq!(values(line), [(1, "A".to_owned(), value.to_owned())], "{line}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_quotes() {
        let text = "\u{feff}# comment\n\nA='1\n2'\r\nexport EXPORTED=3\nB=4";
        let lines: Vec<_> = values(text).into_iter().map(|(line, name, _)| (line, name)).collect();
        let expected = [(3, "A"), (5, "EXPORTED"), (6, "B")];
        assert_eq!(lines, expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn a_line_that_is_no_variable_is_refused_and_others_variables_are_skipped() {
        let wrong = |text: &str| parse(text, |name| name == "A").unwrap_err();
        for (text, line, (said, _)) in [
            ("A", 1, NO_VALUE),
            ("\nexport A", 2, NO_VALUE),
            ("B=1\nA b=c", 2, NO_VARIABLE),
            ("=c", 1, NO_VARIABLE),
            ("A='b", 1, NOT_CLOSED),
            ("A=\"b\\", 1, NOT_CLOSED),
            ("A=\"b\\\"", 1, NOT_CLOSED),
            ("A='b'c", 1, AFTER_QUOTES),
            ("B='tis\nA='b'", 1, AFTER_QUOTES),
        ] {
            let found = wrong(text);
            assert_eq!((found.line, found.wrong), (line, said), "{text}");
        }
        let text = "B\nexport C\nD=\"many\nlines\"\nA=b";
        let found = parse(text, |name| name == "A").unwrap();
        assert_eq!((found.len(), found.first().map(|found| found.line)), (1, Some(5)));
    }
}
