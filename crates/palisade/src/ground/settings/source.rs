//! The values from all sources, as text by key. The source with the highest precedence wins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::{CATALOGUE, Entry};
use super::dotenv;
use super::load::refused_place;
use super::passed_over::is_passed_over;
use super::value::Shape;
use super::{LimitDefault, Origin, Problem, Sources};

/// The prefix of all environment variables of Palisade.
const VARIABLE_PREFIX: &str = "PALISADE_";

/// The suffix of a variable that contains the path of a file with the value.
const FILE_SUFFIX: &str = "_FILE";

/// The variables with common names that are also read, and their keys. They rank below Palisade's own.
const COMMON: [(&str, &str); 2] = [("database.url", "DATABASE_URL"), ("mail.smtp_url", "SMTP_URL")];

/// Returns whether the environment variable `name` is read: one that begins with `PALISADE_`, `DATABASE_URL`,
/// `SMTP_URL`, and these two with the suffix `_FILE`.
pub fn is_variable(name: &str) -> bool {
    let plain = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
    name.starts_with(VARIABLE_PREFIX) || COMMON.iter().any(|(_, common)| *common == plain)
}

/// A value as one source gives it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
    /// Whether `text` is the content of a file that the origin names.
    pub(super) in_named_file: bool,
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
    if let Some((path, text)) = &sources.environment_file {
        gathering.environment_file(path, text);
    }
    let variable = |(name, value): &(String, String)| Variable {
        name: name.clone(),
        value: value.clone(),
        origin: Origin::Environment(shown_name(name)),
    };
    gathering.environment(&sources.environment.iter().map(variable).collect::<Vec<_>>());
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

/// An environment variable.
struct Variable {
    name: String,
    value: String,
    origin: Origin,
}

/// The sources read so far.
struct Gathering<'a> {
    known: Known,
    given: BTreeMap<String, Given>,
    /// The keys for which the environment that is being read has a variable, whether its value could be used or not.
    named: BTreeSet<String>,
    read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    problems: &'a mut Vec<Problem>,
}

impl Gathering<'_> {
    /// Accepts a value, unless it is not allowed in its source.
    fn accept(&mut self, key: &str, text: String, origin: Origin) {
        let given = Given { text, origin, in_named_file: false };
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

    /// Reads a `.env` file.
    fn environment_file(&mut self, path: &Path, text: &str) {
        let origin = |line| Origin::EnvironmentFile { path: path.to_owned(), line };
        let variables = match dotenv::parse(text, is_variable) {
            Ok(variables) => variables,
            Err(wrong) => {
                return self.problem("", origin(wrong.line), wrong.wrong, wrong.mend);
            }
        };
        let mut read: Vec<Variable> = Vec::new();
        for dotenv::Variable { line, name, value } in variables {
            if let Some(first) = read.iter().find(|first| first.name == name) {
                let wrong = format!("the variable is already set in {}", first.origin);
                self.problem(&shown_name(&name), origin(line), wrong, "Remove one of the two");
            } else {
                read.push(Variable { name, value, origin: origin(line) });
            }
        }
        self.environment(&read);
    }

    /// Reads environment variables. An empty variable counts as not set. Palisade's own take precedence over
    /// `DATABASE_URL` and `SMTP_URL`.
    fn environment(&mut self, variables: &[Variable]) {
        self.named.clear();
        let keys: BTreeMap<String, String> =
            self.known.keys().map(|key| (variable(key), key.clone())).collect();
        let set: Vec<&Variable> =
            variables.iter().filter(|found| !found.value.is_empty()).collect();
        for found in set.iter().filter(|found| found.name.starts_with(VARIABLE_PREFIX)) {
            let plain = found.name.strip_suffix(FILE_SUFFIX).and_then(|plain| keys.get(plain));
            match (keys.get(&found.name), plain) {
                (Some(key), _) => self.variable(key, found, &found.value),
                (None, Some(key)) => self.variable_file(key, found),
                (None, None) if is_passed_over(&found.name, &found.value) => {}
                (None, None) => {
                    let nearest = nearest(&found.name, keys.keys().map(String::as_str));
                    let (name, origin) = (shown_name(&found.name), found.origin.clone());
                    self.problem(&name, origin, "there is no such setting", meant(nearest));
                }
            }
        }
        for (key, common) in COMMON {
            if self.named.contains(key) {
                continue;
            }
            for found in &set {
                if found.name == common {
                    self.variable(key, found, &found.value);
                } else if found.name.strip_suffix(FILE_SUFFIX) == Some(common) {
                    self.variable_file(key, found);
                }
            }
        }
    }

    /// Takes the value of a variable.
    fn variable(&mut self, key: &str, found: &Variable, value: &str) {
        if self.named.insert(key.to_owned()) {
            self.accept(key, value.to_owned(), found.origin.clone());
        } else {
            let wrong = "both the variable and its _FILE form are set";
            self.problem(key, found.origin.clone(), wrong, "Remove one of the two");
        }
    }

    /// Takes the value from the file that a variable names, without white space at its end: editors and other programs
    /// add it.
    fn variable_file(&mut self, key: &str, found: &Variable) {
        let path = &found.value;
        let refused = match (self.read_file)(Path::new(path)) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
                if !text.is_empty() {
                    self.variable(key, found, text);
                    if let Some(given) = self.given.get_mut(key) {
                        given.in_named_file = true;
                    }
                    return;
                }
                (format!("the file {} is empty", quoted(path)), "Write the value into it")
            }
            Err(error) => (
                format!("the file {} can't be read: {error}", quoted(path)),
                "Name a file with the value, in UTF-8, that this process can read",
            ),
        };
        self.named.insert(key.to_owned());
        self.problem(key, found.origin.clone(), refused.0, refused.1);
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
