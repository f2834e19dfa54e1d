//! What people read names only what exists, in the words that the project uses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use palisade::MODULES;
use palisade::settings::settings_markdown;

use crate::catalogues::{shipped, sources};
use palisade::testing::settings as settings_of;

/// Endings of file names, which look like the last part of a name.
const FILES: [&str; 8] = ["rs", "md", "py", "toml", "lock", "html", "txt", "json"];

/// Words of the project's old dialect.
const OLD_WORDS: [&str; 10] = [
    "whoever",
    "nobody",
    "somebody",
    "one's own",
    "oneself",
    "whom",
    "mend",
    "answers with",
    "is over",
    "good no more",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents that describe what is, with their paths.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(Into::into).into();
    paths.push("examples/verifier/README.md".into());
    for folder in ["docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            if name.extension().is_some_and(|extension| extension == "md") {
                paths.push(Path::new(folder).join(name));
            }
        }
    }
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The text without its examples in programming languages, in which dots are no part of a name.
fn without_programs(text: &str) -> String {
    let mut kept = String::new();
    let mut program = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            program = matches!(language, "python" | "js" | "rust");
        } else if !program {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The settings, and the sections that they stand in.
fn settings() -> BTreeSet<String> {
    let page = settings_markdown();
    let keys = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut found = BTreeSet::new();
    for key in keys {
        found.insert(key.to_owned());
        let sections = key.match_indices('.').skip(1).map(|(at, _)| key[..at].to_owned());
        found.extend(sections);
    }
    found
}

/// `area.name`, of two parts or more.
fn is_dotted(word: &str) -> bool {
    let part = |part: &str| {
        part == "NAME"
            || !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    word.contains('.')
        && word.split('.').all(part)
        && !word.rsplit('.').next().is_some_and(|last| FILES.contains(&last))
}

/// `area:verb`.
fn is_permission(word: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase());
    word.split_once(':').is_some_and(|(area, verb)| part(area) && part(verb))
}

/// The words of a text that may be names, without the full stop of a sentence.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.:/-".contains(c)))
        .map(|word| word.trim_matches(['.', ':']))
}

#[test]
fn every_event_code_setting_and_permission_that_a_document_names_exists() {
    let settings = settings();
    let permissions: BTreeSet<&str> =
        MODULES.iter().flat_map(|module| module.permissions).map(|one| one.name).collect();
    // Events, codes, jobs and topics: each stands as it is in the sources.
    let sources = sources();
    let shipping = sources.iter().filter(|(path, _)| !path.ends_with("tests.rs"));
    let code: String = shipping.map(|(_, text)| shipped(text)).collect();
    let pair = |word: &&str| is_dotted(word) && word.matches('.').count() == 1;
    let literals: BTreeSet<&str> = code.split('"').filter(pair).collect();

    let area = |name: &str| name.split(['.', ':']).next().unwrap().to_owned();
    let areas: BTreeSet<String> = settings
        .iter()
        .map(|name| area(name))
        .chain(literals.iter().map(|name| area(name)))
        .collect();
    let permission_areas: BTreeSet<String> = permissions.iter().map(|name| area(name)).collect();
    let mut named = 0;
    let mut unknown = Vec::new();
    let mut name = |path: &str, word: &str, exists: bool| {
        named += 1;
        if !exists {
            unknown.push(format!("{path}: {word}"));
        }
    };
    for (path, text) in documents() {
        for word in words(&without_programs(&text)) {
            if is_dotted(word) && areas.contains(&area(word)) {
                name(&path, word, settings.contains(word) || literals.contains(word));
            }
            if is_permission(word) && permission_areas.contains(&area(word)) {
                name(&path, word, permissions.contains(word));
            }
            let variable = word.strip_prefix("PALISADE_").filter(|name| name.contains("__"));
            if let Some(variable) = variable.filter(|variable| *variable != "SECTION__KEY") {
                let setting = variable.strip_suffix("_FILE").unwrap_or(variable);
                let key = setting.replace("__", ".").to_ascii_lowercase();
                name(&path, word, settings.contains(&key));
            }
        }
    }
    assert!(unknown.is_empty(), "documents name what doesn't exist: {unknown:#?}");
    assert!(named > 400, "{named}");
}

/// Whether a path as a document writes it is one of this route: `/api/v1` may be left out.
fn is_of(route: &str, path: &str) -> bool {
    [path.to_owned(), format!("/api/v1{path}")].iter().any(|path| {
        let (parts, wanted) = (route.split('/'), path.split('/'));
        parts.clone().count() == wanted.clone().count()
            && parts.zip(wanted).all(|(part, wanted)| part == wanted || part.starts_with('{'))
    })
}

#[test]
fn every_route_that_a_document_names_exists() {
    let random = std::sync::Arc::new(palisade_crypto::random::SeededRandom::new(1));
    let settings = settings_of(&[("compat.login_form", "true")]);
    let clock = palisade::clock::Clock::system();
    let mut routes = palisade::Builder::new(settings, clock, random).routes();
    routes.extend(palisade::telemetry::routes().into_list());
    let exists = |method: &str, path: &str| {
        routes.iter().any(|route| route.method.as_str() == method && is_of(&route.path, path))
    };
    assert!(exists("GET", "/users/me") && !exists("GET", "/users/you/all"));
    let mut named = 0;
    let mut unknown = Vec::new();
    for (document, text) in documents() {
        let text = without_programs(&text).replace('\n', " ");
        for code in text.split('`').skip(1).step_by(2) {
            let Some((method, path)) = code.split_once(" /") else { continue };
            if !matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE") {
                continue;
            }
            let path = format!("/{}", path.split([' ', '?']).next().unwrap());
            named += 1;
            if !exists(method, &path) {
                unknown.push(format!("{document}: {method} {path}"));
            }
        }
    }
    assert!(unknown.is_empty(), "documents name what doesn't exist: {unknown:#?}");
    assert!(named > 100, "{named}");
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    words.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut links = 0;
    for (document, text) in documents() {
        let folder = root().join(&document).parent().unwrap().to_owned();
        for after in without_programs(&text).split("](").skip(1) {
            let link = after.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            assert!(target.exists(), "{document} links to {link}");
            let headings = || {
                let text = std::fs::read_to_string(&target).unwrap();
                let lines: Vec<String> =
                    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                lines
            };
            let found = place.is_empty() || headings().iter().any(|heading| heading == place);
            assert!(found, "{document} links to {link}");
            links += 1;
        }
    }
    assert!(links > 60, "{links}");
}

/// Whether `phrase` stands in this line as words of their own, and not within a name or a path.
fn has_words(line: &str, phrase: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
    line.match_indices(phrase).any(|(at, _)| {
        !line[..at].ends_with(inside) && !line[at + phrase.len()..].starts_with(inside)
    })
}

#[test]
fn documents_are_in_plain_english() {
    assert!(has_words("What is over, is over.", "is over"));
    assert!(!has_words("It is overloaded; see who-may-act-on-whom.md.", "is over"));
    let changes = ("CHANGELOG.md".to_owned(), read(Path::new("CHANGELOG.md")));
    for (path, text) in documents().into_iter().chain([changes]) {
        // Written by the catalogue of settings.
        if path == "docs/settings.md" {
            continue;
        }
        for line in text.lines() {
            // Written by the modules.
            let event = path == "docs/audit.md"
                && MODULES
                    .iter()
                    .flat_map(|module| module.events)
                    .any(|event| line.starts_with(&format!("| `{}` |", event.name)));
            for word in OLD_WORDS {
                assert!(event || !has_words(line, word), "{path}: {word}: {line}");
            }
        }
    }
}
