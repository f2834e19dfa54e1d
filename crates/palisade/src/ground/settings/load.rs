//! Converts the text values from the sources to typed settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::catalogue::{CATALOGUE, Entry, LimitRule, Preset};
use super::smtp::SmtpUrl;
use super::source::{self, Given, variable};
use super::value::Value;
use super::{
    DatabaseUrl, Effective, LimitDefault, Loaded, Origin, Problem, RootKey, Settings, SiteName,
    Sources, WebOrigin, concerns, rules,
};

/// Reads all settings, then checks them together.
pub(super) fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let given = source::gather(sources, &mut problems);
    let failed = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut reader = Reader {
        given,
        limit_rules: sources.limit_rules,
        rule: None,
        problems,
        failed,
        effective: Vec::new(),
    };
    let settings = Settings::read(&mut reader);
    if let Some(settings) = &settings {
        rules::check(settings, &mut reader);
    }
    match settings {
        Some(settings) if reader.problems.is_empty() => {
            let concerns = concerns::find(&settings, &reader.effective);
            Ok(Loaded { settings, effective: reader.effective, concerns })
        }
        _ => Err(reader.problems),
    }
}

/// Reads the settings one by one and records the problems.
pub(super) struct Reader<'a> {
    given: BTreeMap<String, Given>,
    limit_rules: &'a [LimitDefault],
    /// The limit rule that is being read.
    rule: Option<LimitDefault>,
    problems: Vec<Problem>,
    /// The keys that already have a problem.
    failed: BTreeSet<String>,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    /// Returns the value of the setting whose key in the catalogue is `pattern`.
    ///
    /// A value that can't be used is recorded as a problem and replaced by its default, so that the rest can be
    /// checked. Returns `None` only if there is no default either.
    pub(super) fn read<T: Value>(&mut self, pattern: &str) -> Option<T> {
        let entry = CATALOGUE.iter().find(|entry| entry.key == pattern)?;
        let key = self.key(entry);
        let given = self.given.get(&key).cloned();
        let value = match &given {
            Some(given) => match parse::<T>(entry, &given.text) {
                Ok(value) => Some(value),
                Err(wrong) => {
                    self.refuse_value(entry, &key, given, &wrong);
                    self.default_value(entry, &key)
                }
            },
            None => self.default_value(entry, &key),
        }?;
        self.effective.push(Effective {
            key,
            value: value.show(),
            in_named_file: given.as_ref().is_some_and(|given| given.in_named_file),
            origin: given.map_or(Origin::Default, |given| given.origin),
            secret: entry.secret,
        });
        Some(value)
    }

    /// Returns the rules by name, each with its settings.
    pub(super) fn limit_rules(&mut self) -> Option<BTreeMap<&'static str, LimitRule>> {
        let mut rules = BTreeMap::new();
        for rule in self.limit_rules {
            self.rule = Some(*rule);
            let read = LimitRule::read(self);
            self.rule = None;
            rules.insert(rule.name, read?);
        }
        Some(rules)
    }

    /// Records that the settings `keys` can't be combined; the first is the one to change.
    ///
    /// Records nothing if one of them couldn't be read, because its default replaces it.
    pub(super) fn refuse(&mut self, keys: &[&str], wrong: impl Into<String>, mend: &str) {
        let Some(key) = keys.first() else { return };
        if keys.iter().any(|key| self.failed.contains(*key)) {
            return;
        }
        let origin = self.origin(key);
        self.problems.push(Problem {
            key: (*key).to_owned(),
            origin,
            wrong: wrong.into(),
            mend: mend.to_owned(),
        });
    }

    /// Returns where `key` was set.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.given.get(key).map_or(Origin::Default, |given| given.origin.clone())
    }

    /// Returns whether `key` was set, even if its value can't be used.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Returns the key of `entry` for the rule that is being read.
    fn key(&self, entry: &Entry) -> String {
        self.rule.map_or_else(|| entry.key.to_owned(), |rule| entry.key.replace("NAME", rule.name))
    }

    /// Reads the default of a setting like any other text.
    fn default_value<T: Value>(&mut self, entry: &Entry, key: &str) -> Option<T> {
        let Some(text) = self.default_text(entry) else { return T::absent() };
        match parse(entry, &text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let given = Given { text, origin: Origin::Default, in_named_file: false };
                self.refuse_value(entry, key, &given, &wrong);
                None
            }
        }
    }

    /// Returns the default of a setting as text, or `None` if there is none.
    fn default_text(&self, entry: &Entry) -> Option<String> {
        match entry.preset {
            Preset::Fixed(text) => Some(text.to_owned()),
            Preset::ByEnvironment { development, production } => {
                let chosen = if self.text("server.environment")? == "development" {
                    development
                } else {
                    production
                };
                Some(chosen.to_owned())
            }
            Preset::SameAs(other) => self.text(other),
            Preset::HostOf(other) => {
                let origin = WebOrigin::parse(&self.text(other)?).ok()?;
                let host = origin.host();
                // A host can be longer than a name. Its end says more than its beginning.
                let begin = host.len().saturating_sub(SiteName::LONGEST);
                host.get(begin..).map(str::to_owned)
            }
            Preset::InDataDirectory { prefix, file } => {
                let directory = PathBuf::from(self.text("data.directory")?);
                Some(format!("{prefix}{}", directory.join(file).display()))
            }
            Preset::IfSet { key, then, otherwise } => {
                Some(if self.is_given(key) { then } else { otherwise }.to_owned())
            }
            Preset::OfRule(_) => {
                let rule = self.rule?;
                Some(match entry.key.rsplit('.').next()? {
                    "burst" => rule.burst.show(),
                    "per" => rule.per.show(),
                    _ => "true".to_owned(),
                })
            }
            Preset::Unset(_) => None,
        }
    }

    /// Returns the text of the setting whose key in the catalogue is `key`: the value read, or else the given one, or
    /// else the default.
    fn text(&self, key: &str) -> Option<String> {
        if let Some(read) = self.effective.iter().find(|effective| effective.key == key) {
            return Some(read.value.clone());
        }
        let entry = CATALOGUE.iter().find(|entry| entry.key == key)?;
        match self.given.get(key) {
            Some(given) => Some(given.text.clone()),
            None => self.default_text(entry),
        }
    }

    /// Records a value that can't be used.
    fn refuse_value(&mut self, entry: &Entry, key: &str, given: &Given, wrong: &str) {
        let wrong = if entry.secret {
            format!("the value {wrong}")
        } else {
            format!("{} {wrong}", source::quoted(&given.text))
        };
        let mend = match entry.bounds {
            Some((least, most)) => {
                format!("Expected {}, from {least} to {most}", entry.expected)
            }
            None => format!("Expected {}", entry.expected),
        };
        self.failed.insert(key.to_owned());
        self.problems.push(Problem {
            key: key.to_owned(),
            origin: given.origin.clone(),
            wrong,
            mend,
        });
    }
}

/// Reads `text` as the type of `entry` and checks its bounds.
fn parse<T: Value>(entry: &Entry, text: &str) -> Result<T, String> {
    let value = T::parse(text)?;
    let Some((least, most)) = entry.bounds else { return Ok(value) };
    let least_size = T::parse(least)?.size();
    let most_size = T::parse(most)?.size();
    if value.size() < least_size {
        Err(format!("is less than {least}"))
    } else if value.size() > most_size {
        Err(format!("is more than {most}"))
    } else {
        Ok(value)
    }
}

/// Returns what is wrong and how to fix it, or `None` if the value is allowed in the source that it comes from.
pub(super) fn refused_place(key: &str, given: &Given) -> Option<(&'static str, String)> {
    let by_environment =
        matches!(given.origin, Origin::Environment(_) | Origin::EnvironmentFile { .. });
    match key {
        "keys.root_key" if !by_environment => {
            matches!(RootKey::parse(&given.text), Ok(RootKey::Text(_))).then(|| {
                (
                    "a root key is accepted from the environment only",
                    "Write the key into a file and set this to its path, or set \
                     PALISADE_KEYS__ROOT_KEY"
                        .into(),
                )
            })
        }
        // SECURITY: (test: a_password_on_the_command_line_is_refused)
        "database.url" | "database.migrate_url" | "mail.smtp_url"
            if given.origin == Origin::Flag =>
        {
            let database = DatabaseUrl::parse(&given.text).is_ok_and(|url| url.has_password());
            let mail = SmtpUrl::parse(&given.text).is_ok_and(|url| url.login().is_some());
            (database || mail).then(|| {
                let variable = variable(key);
                (
                    "a password is not accepted on the command line, where other users can read it",
                    format!("Set {variable} or {variable}_FILE"),
                )
            })
        }
        _ => None,
    }
}
