//! The values from all sources, as text by key. The source with the highest precedence wins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::{CATALOGUE, Entry};
use super::load::refused_place;
use super::value::Shape;
use super::{LimitDefault, Origin, Problem, Sources};

/// The prefix of all environment variables of Palisade.
const VARIABLE_PREFIX: &str = "PALISADE_";

/// The suffix of a variable that contains the path of a file with the value.
const FILE_SUFFIX: &str = "_FILE";

/// A value as one source gives it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// All existing keys, including those of limit rules, each with its entry.
type Known = BTreeMap<String, &'static Entry>;

/// Reads all sources, in order of increasing precedence. A source that can't be read is recorded as a problem.
pub(super) fn gather(
    sources: &Sources<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Given> {
    let known = known(sources.limit_rules);
    let mut gathering = Gathering {
        known,
        given: BTreeMap::new(),
        named: BTreeSet::new(),
        read_file: sources.read_file,
        problems,
    };
    if let Some((path, text)) = &sources.file {
        gathering.file(path, text);
    }
    gathering.environment(&sources.environment);
    for (key, value) in &sources.flags {
        if gathering.known.contains_key(key) {
            gathering.accept(key, value.clone(), Origin::Flag);
        } else {
            gathering.unknown(key, Origin::Flag);
        }
    }
    gathering.given
}

/// Returns every key, with the names of the limit rules filled in.
fn known(limit_rules: &[LimitDefault]) -> Known {
    let mut known = Known::new();
    for entry in CATALOGUE {
        if entry.key.contains("NAME") {
            let of_rules = limit_rules.iter().map(|rule| entry.key.replace("NAME", rule.name));
            known.extend(of_rules.map(|key| (key, entry)));
        } else {
            known.insert(entry.key.to_owned(), entry);
        }
    }
    known
}

/// Returns the name of the environment variable for `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Formats `text` for a message: in backticks, without control characters, and truncated if it is long.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The sources read so far.
struct Gathering<'a> {
    known: Known,
    given: BTreeMap<String, Given>,
    /// The keys for which a variable was found, whether its value could be used or not.
    named: BTreeSet<String>,
    read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    problems: &'a mut Vec<Problem>,
}

impl Gathering<'_> {
    /// Accepts a value, unless it is not allowed in its source.
    fn accept(&mut self, key: &str, text: String, origin: Origin) {
        let given = Given { text, origin };
        match refused_place(key, &given) {
            Some((wrong, mend)) => self.problem(key, given.origin, wrong, mend),
            None => {
                self.given.insert(key.to_owned(), given);
            }
        }
    }

    fn problem(
        &mut self,
        key: &str,
        origin: Origin,
        wrong: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin,
            wrong: wrong.into(),
            mend: mend.into(),
        });
    }

    /// Refuses a key that does not exist and names the most similar one.
    fn unknown(&mut self, key: &str, origin: Origin) {
        let nearest = nearest(key, self.known.keys().map(String::as_str));
        self.problem(&shown_name(key), origin, "there is no such setting", meant(nearest));
    }

    /// Reads the environment variables. Palisade's own take precedence over `DATABASE_URL` and `SMTP_URL`.
    fn environment(&mut self, environment: &[(String, String)]) {
        let keys: BTreeMap<String, String> =
            self.known.keys().map(|key| (variable(key), key.clone())).collect();
        for (name, value) in environment {
            if !name.starts_with(VARIABLE_PREFIX) {
                continue;
            }
            let plain = name.strip_suffix(FILE_SUFFIX).and_then(|plain| keys.get(plain));
            match (keys.get(name), plain) {
                (Some(key), _) => self.variable(key, name, value),
                (None, Some(key)) => self.variable_file(key, name, value),
                (None, None) => {
                    let nearest = nearest(name, keys.keys().map(String::as_str));
                    let origin = Origin::Environment(shown_name(name));
                    let wrong = "there is no such setting";
                    self.problem(&shown_name(name), origin, wrong, meant(nearest));
                }
            }
        }
        for (key, common) in [("database.url", "DATABASE_URL"), ("mail.smtp_url", "SMTP_URL")] {
            let url = environment.iter().find(|(name, _)| name == common);
            if let (false, Some((name, value))) = (self.named.contains(key), url) {
                self.variable(key, name, value);
            }
        }
    }

    /// Takes the value of the variable `name`.
    fn variable(&mut self, key: &str, name: &str, value: &str) {
        let origin = Origin::Environment(name.to_owned());
        if !self.named.insert(key.to_owned()) {
            let wrong = "both the variable and its _FILE form are set";
            self.problem(key, origin, wrong, "Remove one of the two");
        } else if value.is_empty() {
            let wrong = "the variable is set, but empty";
            self.problem(key, origin, wrong, format!("Set {name} to a value, or remove it"));
        } else {
            self.accept(key, value.to_owned(), origin);
        }
    }

    /// Takes the value from the file that the variable `name` names.
    fn variable_file(&mut self, key: &str, name: &str, path: &str) {
        if path.is_empty() {
            return self.variable(key, name, path);
        }
        match (self.read_file)(Path::new(path)) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                if text.is_empty() {
                    let origin = Origin::Environment(name.to_owned());
                    self.named.insert(key.to_owned());
                    let wrong = format!("the file {} is empty", quoted(path));
                    self.problem(key, origin, wrong, "Write the value into it");
                } else {
                    self.variable(key, name, text);
                }
            }
            Err(error) => {
                let origin = Origin::Environment(name.to_owned());
                self.named.insert(key.to_owned());
                let wrong = format!("the file {} can't be read: {error}", quoted(path));
                self.problem(key, origin, wrong, "Name a file that this process can read");
            }
        }
    }

    /// Reads the configuration file.
    fn file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let place = Place { path, text };
        for error in &errors {
            // SECURITY: only the message is used, because the error's own display would repeat the line (test:
            // a_line_that_is_no_toml_is_refused_without_being_repeated).
            let origin = place.origin(error.span().map_or(0, |span| span.start));
            self.problem("", origin, error.message().trim_end_matches('.'), "Write it as TOML v1");
        }
        if errors.is_empty() {
            self.table("", table.get_ref(), &place);
        }
    }

    /// Takes every value below `prefix`.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>, place: &Place<'_>) {
        for (name, value) in table {
            let start = name.span().start;
            let key = join(prefix, name.get_ref());
            match (self.known.get(&key).copied(), value.get_ref()) {
                (Some(entry), _) => self.value(entry, &key, value, place.origin(start)),
                (None, DeValue::Table(inner)) if !inner.is_empty() => {
                    self.table(&key, inner, place);
                }
                (None, DeValue::Table(_)) if self.is_section(&key) => {}
                (None, _) if self.is_section(&key) => self.problem(
                    &key,
                    place.origin(start),
                    "this is a section, not a setting",
                    format!("Write [{key}] and its settings below"),
                ),
                (None, _) => self.unknown(&key, place.origin(start)),
            }
        }
    }

    /// Returns whether there are settings below `key`.
    fn is_section(&self, key: &str) -> bool {
        let below = format!("{key}.");
        key == "limits.rules" || self.known.keys().any(|known| known.starts_with(&below))
    }

    /// Takes one value of the file. A value that isn't of the TOML type that the setting requires is recorded as a
    /// problem.
    fn value(&mut self, entry: &Entry, key: &str, value: &Spanned<DeValue<'_>>, origin: Origin) {
        match text_of(entry.shape, value.get_ref()) {
            Ok(text) => self.accept(key, text, origin),
            Err(wrong) => {
                self.problem(key, origin, wrong, format!("Expected {}", written(entry)));
            }
        }
    }
}

/// A configuration file, used to find line numbers.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn origin(&self, byte: usize) -> Origin {
        let line = self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1;
        Origin::File { path: self.path.to_owned(), line }
    }
}

/// Returns the key `name` below `prefix`. A quoted name with a dot stays one name, which matches no key.
fn join(prefix: &str, name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let name = if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.escape_debug())
    };
    if prefix.is_empty() { name } else { format!("{prefix}.{name}") }
}

/// Returns a value of the file as text, or an error if it doesn't have the type that `shape` requires.
fn text_of(shape: Shape, value: &DeValue<'_>) -> Result<String, String> {
    match (shape, value) {
        (Shape::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Shape::Number, DeValue::Integer(number)) => {
            u64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| "the number is negative or too large".to_owned())
        }
        (Shape::Flag, DeValue::Boolean(flag)) => Ok(flag.to_string()),
        (Shape::List, DeValue::Array(items)) => {
            let items: Result<Vec<&str>, String> =
                items.iter().enumerate().map(|(index, item)| item_of(index, item)).collect();
            items.map(|items| items.join(","))
        }
        (Shape::Tables, DeValue::Array(items)) => {
            let items: Result<Vec<_>, String> =
                items.iter().enumerate().map(|(index, item)| table_of(index, item)).collect();
            items.map(|items| serde_json::Value::from(items).to_string())
        }
        (_, other) => Err(format!("the value is of type {}", other.type_str())),
    }
}

/// Reads one item of a list of tables, whose values are all text.
fn table_of(index: usize, item: &Spanned<DeValue<'_>>) -> Result<serde_json::Value, String> {
    let number = index + 1;
    let DeValue::Table(table) = item.get_ref() else {
        return Err(format!("item {number} is of type {}", item.get_ref().type_str()));
    };
    let pair = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| match value.get_ref() {
        DeValue::String(text) => {
            Ok((AsRef::<str>::as_ref(name.get_ref()).to_owned(), text.as_ref().into()))
        }
        other => Err(format!("item {number} contains a value of type {}", other.type_str())),
    };
    table.iter().map(pair).collect::<Result<serde_json::Map<_, _>, _>>().map(Into::into)
}

/// Reads one item of a list.
fn item_of<'a>(index: usize, item: &'a Spanned<DeValue<'_>>) -> Result<&'a str, String> {
    let number = index + 1;
    match item.get_ref() {
        DeValue::String(text) if text.contains(',') => {
            Err(format!("item {number} contains a comma; put each item in its own quotes"))
        }
        DeValue::String(text) if text.trim().is_empty() => Err(format!("item {number} is empty")),
        DeValue::String(text) => Ok(text),
        other => Err(format!("item {number} is of type {}", other.type_str())),
    }
}

/// Returns how a value of `entry` is written in the file.
fn written(entry: &Entry) -> String {
    match entry.shape {
        Shape::Text => format!("{}, in quotes", entry.expected),
        Shape::Number => "a whole number, without quotes".to_owned(),
        Shape::Flag => "true or false, without quotes".to_owned(),
        Shape::List => format!("{}, in brackets, each in quotes", entry.expected),
        Shape::Tables => format!("{}, in brackets, each in braces", entry.expected),
    }
}

/// Formats an external name for a message, without control characters.
fn shown_name(name: &str) -> String {
    quoted(name).trim_matches('`').to_owned()
}

/// Returns the known name that is most similar to `name`.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The time for a comparison grows with the product of both lengths. No known name is this long.
    const MOST: usize = 200;
    let name: String = name.chars().take(MOST).collect();
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(&name, other);
    known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

/// Returns the advice that names the most similar known name.
fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "Remove it".to_owned(),
        |nearest| format!("The most similar setting is {nearest}. Use it, or remove this one"),
    )
}
