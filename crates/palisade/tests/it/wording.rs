//! The words of every text that a user, an operator or an auditor reads.

use std::path::{Path, PathBuf};

use palisade::settings::{environment_example, settings_markdown, template};
use palisade::testing::settings;
use palisade::{MODULES, credentials};
use palisade_crypto::random::SeededRandom;
use serde_json::Value;

/// Words that plain English does without.
const AVOIDED: [&str; 11] = [
    "whoever",
    "nobody",
    "somebody",
    "everybody",
    "oneself",
    "one's own",
    "answers with",
    "is over",
    "good no more",
    "mend",
    "whom",
];

/// Labels from which keys are derived: no person reads them, and another text would be another key.
const LABELS: [&str; 1] = ["palisade audit nobody v1"];

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a text from `AVOIDED`.
fn avoided(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let stands = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            !before.ends_with(is_word) && !after.starts_with(is_word)
        })
    };
    AVOIDED.into_iter().filter(|word| stands(word)).collect()
}

/// Whether a text says "address" of something that is neither an email address nor an IP address. Code is left out.
fn bare_address(text: &str) -> bool {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let prose: Vec<&str> =
        prose.split("{{").map(|part| part.rsplit("}}").next().unwrap()).collect();
    let prose = prose.join(" ").to_lowercase();
    let words: Vec<&str> = prose.split(|c: char| !c.is_alphanumeric()).collect();
    words.iter().enumerate().any(|(at, word)| {
        let before = at.checked_sub(1).map_or("", |at| words[at]);
        ["address", "addresses"].contains(word) && !["email", "ip"].contains(&before)
    })
}

/// Holds texts, each with where it stands, to plain English; lists every one that isn't.
fn hold<T: AsRef<str>>(texts: impl IntoIterator<Item = (String, T)>, addresses: bool) {
    let mut wrong = Vec::new();
    for (place, text) in texts {
        let text = text.as_ref();
        for word in avoided(text) {
            wrong.push(format!("{place}: {word:?} in: {text}"));
        }
        if addresses && bare_address(text) {
            wrong.push(format!("{place}: neither an email address nor an IP address: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every description, summary and title below a value.
fn descriptions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) if ["description", "summary", "title"].contains(&name.as_str()) => {
                        found.push(text.to_owned());
                    }
                    _ => descriptions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| descriptions(item, found)),
        _ => {}
    }
}

fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                found.push(path);
            }
        }
    }
    found
}

/// The string literals of a source file above its unit tests, each as it reads.
fn literals(source: &str) -> Vec<String> {
    let shipped = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut found, mut rest) = (Vec::new(), shipped);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let after = &rest[at + 1..];
        rest = if rest[at..].starts_with("//") {
            after.split_once('\n').map_or("", |(_, next)| next)
        } else if rest[at..].starts_with('"') {
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (text, next) = after.split_at(end.unwrap_or(after.len()));
            let lines = text.split("\\\n").map(str::trim_start);
            found.push(lines.collect::<String>());
            next.strip_prefix('"').unwrap_or(next)
        } else if rest[at..].starts_with("'\"'") {
            &after[2..]
        } else {
            after
        };
    }
    found
}

#[test]
fn the_description_of_the_api_is_plain_english() {
    let random = std::sync::Arc::new(SeededRandom::new(1));
    let clock = palisade::clock::Clock::system();
    let document = palisade::Builder::new(settings(&[]), clock, random).openapi();
    let mut texts = Vec::new();
    descriptions(&document, &mut texts);
    assert!(texts.len() > 500, "{}", texts.len());
    hold(texts.into_iter().map(|text| ("OpenAPI".to_owned(), text)), true);
}

#[test]
fn the_help_of_the_settings_is_plain_english() {
    let pages = [settings_markdown(), template(false), template(true), environment_example(true)];
    let lines = pages.iter().flat_map(|page| page.lines());
    hold(lines.map(|line| ("settings".to_owned(), line)), true);
}

#[test]
fn the_texts_of_the_modules_are_plain_english() {
    let mut texts: Vec<(String, &str)> = Vec::new();
    for module in MODULES {
        let mut add = |text: &'static str| texts.push((module.name.to_owned(), text));
        module.permissions.iter().for_each(|permission| add(permission.summary));
        module.limits.iter().for_each(|rule| add(rule.summary));
        module.events.iter().for_each(|event| add(event.summary));
        let forms = module.credentials.iter().flat_map(|kind| kind.forms);
        forms.for_each(|form| add(form.summary));
        for template in module.email_templates {
            add(template.text);
            add(template.html);
        }
    }
    let table = credentials::TABLE.iter().flat_map(|line| [line.summary, line.because]);
    texts.extend(table.map(|text| ("credentials".to_owned(), text)));
    assert!(texts.len() > 120, "{}", texts.len());
    hold(texts, true);
}

#[test]
fn the_pages_are_plain_english() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let pages = files(&source, &["html", "js", "txt"]);
    assert!(pages.len() > 40, "{}", pages.len());
    let mut lines = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        lines.extend(text.lines().map(|line| (page.display().to_string(), line.to_owned())));
    }
    hold(lines, false);
}

#[test]
fn every_error_and_log_line_is_plain_english() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut texts = Vec::new();
    for path in files(crates, &["rs"]) {
        let part = |name: &str| path.iter().any(|part| part == name);
        if part("src") && !part("tests") && !part("testing") && !path.ends_with("tests.rs") {
            let found = literals(&std::fs::read_to_string(&path).unwrap());
            texts.extend(found.into_iter().map(|text| (path.display().to_string(), text)));
        }
    }
    texts.retain(|(_, text)| !LABELS.contains(&text.as_str()));
    assert!(texts.len() > 2000, "{}", texts.len());
    hold(texts, false);
}

#[test]
fn the_check_of_words_sees_what_it_should() {
    assert_eq!(avoided("Somebody's word, and the waiting\ntime is over"), ["somebody", "is over"]);
    assert!(avoided("amended; a recommendation; is overdue").is_empty());
    assert!(bare_address("the address") && bare_address("An address"));
    assert!(!bare_address("an IP address, email addresses, `address` and {{ address }}"));
    assert_eq!(
        literals("f(\"a \\\n   b\", '\"', \"c\\\"\") // \"d\"\n+ \"e\""),
        ["a b", "c\\\"", "e"]
    );
}
