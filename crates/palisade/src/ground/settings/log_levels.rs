//! The levels of the log: one for everything, and others for single modules.

use std::fmt;

use super::value::{Shape, Value};
use super::words::LogLevel;

/// What is logged, such as `info,mail=debug,request=off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels {
    /// The least severe level that is logged for all other modules.
    pub others: LogLevel,
    /// The least severe level of single modules, in the order in which they were given. `None` means that nothing of the
    /// module is logged.
    pub modules: Vec<(String, Option<LogLevel>)>,
}

impl LogLevels {
    /// Returns the least severe level that is logged for code with this target, such as `palisade::people::mail::smtp`,
    /// or `None` if nothing is. Of two modules in the target, the later one counts.
    pub fn of(&self, target: &str) -> Option<LogLevel> {
        let named = |part: &str| self.modules.iter().rfind(|(name, _)| name == part);
        let found = target.rsplit("::").find_map(named);
        found.map_or(Some(self.others), |(_, level)| *level)
    }
}

impl Value for LogLevels {
    const EXPECTED: &'static str = "`error`, `warn`, `info`, `debug` or `trace`, and optionally levels of single \
         modules, as in `info,mail=debug,request=off`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let others = LogLevel::parse(parts.next().unwrap_or_default())?;
        let modules = parts.map(module).collect::<Result<_, _>>()?;
        Ok(Self { others, modules })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn module(text: &str) -> Result<(String, Option<LogLevel>), String> {
    let Some((name, level)) = text.split_once('=') else {
        return Err("has more than one level for all modules".to_owned());
    };
    let (name, level) = (name.trim(), level.trim());
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        return Err(
            "names a module in which there are other characters than a to z and `_`".to_owned()
        );
    }
    let level = if level == OFF { None } else { Some(LogLevel::parse(level)?) };
    Ok((name.to_owned(), level))
}

const OFF: &str = "off";

impl fmt::Display for LogLevels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.others.show())?;
        for (name, level) in &self.modules {
            let level = level.as_ref().map_or(OFF.to_owned(), LogLevel::show);
            write!(formatter, ",{name}={level}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_its_own_level() {
        let levels = LogLevels::parse("info, mail=debug,request=off , smtp=error").unwrap();
        for (target, level) in [
            ("palisade::people::mail::outbox", Some(LogLevel::Debug)),
            ("palisade::people::mail::smtp", Some(LogLevel::Error)),
            ("palisade::request", None),
            ("palisade::mailbox", Some(LogLevel::Info)),
            ("", Some(LogLevel::Info)),
        ] {
            assert_eq!(levels.of(target), level, "{target}");
        }
        assert_eq!(levels.show(), "info,mail=debug,request=off,smtp=error");
        assert_eq!(LogLevels::parse(&levels.show()), Ok(levels));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "loud", "info,", "info,debug", "info,mail", "info,mail=loud", "info,=warn"]
        {
            assert!(LogLevels::parse(text).is_err(), "{text}");
        }
        assert!(LogLevels::parse("mail=debug").is_err() && LogLevels::parse("off").is_err());
    }
}
