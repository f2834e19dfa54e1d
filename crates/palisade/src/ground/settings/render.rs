//! Renders the catalogue as text: the configuration file, `.env.example` and the reference page.

use super::catalogue::{CATALOGUE, Entry, Preset};
use super::source::variable;
use super::value::Shape;

/// Returns a commented `palisade.toml` with every setting.
///
/// If `production` is true, the settings that production requires are set, so that the file loads unchanged.
pub fn template(production: bool) -> String {
    let mut text = "# The configuration of Palisade. Each commented line with a key shows a \
                    default or an example;\n# remove the `#` to set it. `palisade config check` \
                    validates the settings.\n"
        .to_owned();
    let mut section = "";
    for entry in CATALOGUE {
        // A rule gets no table of its own, so its lines keep their meaning wherever they are moved within `[limits]`.
        let split =
            if is_of_rule(entry) { entry.key.split_once('.') } else { entry.key.rsplit_once('.') };
        let (of, name) = split.unwrap_or(("", entry.key));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{of}]\n"));
        }
        text.push_str(&comment(entry));
        let is_set = production && entry.in_production.is_some();
        let mark = if is_set { "" } else { "# " };
        let value = sample(entry, production);
        text.push_str(&format!("{mark}{name} = {}\n", in_toml(entry, &value)));
    }
    text
}

/// Returns a commented `.env.example` with the variable of every setting.
///
/// If `production` is true, the values are those of production.
pub fn environment_example(production: bool) -> String {
    let mut text = "# Palisade reads a file .env next to palisade.toml. It overrides palisade.toml, and \
                    the\n# environment overrides both. Each line shows a default or an example; remove \
                    the # to set it.\n# A variable whose name ends in _FILE contains the path of a \
                    file that holds the value:\n# \
                    PALISADE_DATABASE__URL_FILE=/run/secrets/database-url\n"
        .to_owned();
    let mut section = "";
    for entry in CATALOGUE {
        let (of, _) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        if of != section {
            section = of;
            text.push('\n');
        }
        text.push_str(&format!("# {}={}\n", variable(entry.key), sample(entry, production)));
    }
    text
}

/// Returns the reference page of all settings, in Markdown.
pub fn settings_markdown() -> String {
    let mut text = include_str!("settings.md").to_owned();
    let mut section = "";
    for entry in CATALOGUE {
        let (of, _) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        if of != section {
            section = of;
            text.push_str(&format!(
                "\n## `{of}`\n\n| setting | default | expected | meaning |\n|---|---|---|---|\n"
            ));
        }
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            entry.key,
            default_in_words(entry),
            expected(entry),
            entry.help
        ));
    }
    text
}

/// Returns whether the setting belongs to a limit rule.
fn is_of_rule(entry: &Entry) -> bool {
    matches!(entry.preset, Preset::OfRule(_))
}

/// Returns what is expected, with the bounds.
fn expected(entry: &Entry) -> String {
    match entry.bounds {
        Some((least, most)) => format!("{}; {least} to {most}", entry.expected),
        None => entry.expected.to_owned(),
    }
}

/// Describes the default in words.
fn default_in_words(entry: &Entry) -> String {
    match entry.preset {
        Preset::Fixed("") => "none".to_owned(),
        Preset::Fixed(text) => format!("`{text}`"),
        Preset::ByEnvironment { development, production } => {
            format!("`{development}` in development, `{production}` in production")
        }
        Preset::SameAs(other) => format!("the value of `{other}`"),
        Preset::HostOf(other) => format!("the host of `{other}`"),
        Preset::InDataDirectory { prefix, file } => {
            format!("`{prefix}{file}` in `data.directory`")
        }
        Preset::IfSet { key, then, otherwise } => {
            format!("`{then}` if `{key}` is set, otherwise `{otherwise}`")
        }
        Preset::OfRule(_) => "depends on the rule".to_owned(),
        Preset::Unset(_) => "not set".to_owned(),
    }
}

/// Returns a value to show in a template: the default, or an example.
fn sample(entry: &Entry, production: bool) -> String {
    if let Some(text) = entry.in_production.filter(|_| production) {
        return text.to_owned();
    }
    match entry.preset {
        Preset::Fixed(text) | Preset::OfRule(text) | Preset::Unset(text) => text.to_owned(),
        Preset::ByEnvironment { production: text, .. } if production => text.to_owned(),
        Preset::ByEnvironment { development, .. } => development.to_owned(),
        Preset::IfSet { otherwise, .. } => otherwise.to_owned(),
        Preset::SameAs(other) => {
            let other = CATALOGUE.iter().find(|entry| entry.key == other);
            other.map_or_else(String::new, |entry| sample(entry, production))
        }
        // The name that examples use.
        Preset::HostOf(_) => "Example".to_owned(),
        Preset::InDataDirectory { prefix, file } => format!("{prefix}./palisade-data/{file}"),
    }
}

/// Formats a value for the configuration file.
fn in_toml(entry: &Entry, value: &str) -> String {
    match entry.shape {
        Shape::Text => format!("\"{value}\""),
        Shape::Number | Shape::Flag => value.to_owned(),
        Shape::List | Shape::Tables if value.is_empty() => "[]".to_owned(),
        Shape::Tables => value.to_owned(),
        Shape::List => {
            let items: Vec<String> = value.split(',').map(|item| format!("\"{item}\"")).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// Formats the help and the default of a setting as comment lines.
fn comment(entry: &Entry) -> String {
    const WIDTH: usize = 96;
    let text = format!("{} Default: {}.", entry.help, default_in_words(entry));
    let mut lines = String::new();
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("\n{lines}{line}\n")
}
