//! The log: one line per event on standard error, as text for people or as JSON.
//!
//! Lines are gathered in memory and written every 50 ms by a separate thread, so that a request doesn't pay for a
//! system call and never waits for the reader. A crash of the whole process may lose the last lines.

mod json;
mod lines;
mod pretty;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use palisade::clock::Clock;
use palisade::module::Module;
use palisade::settings::{LogFormat, LogLevel, LogLevels, Settings};
use palisade::telemetry::LOG_LINES_DROPPED;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;
use json::JsonLines;
pub(crate) use lines::Lines;
use pretty::VisibleFields;

/// The lines of this process.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Reports the lines that were lost.
pub(crate) const MODULE: Module = Module {
    name: "log",
    readings: &[|app| {
        if let Some(lines) = LINES.get() {
            app.metrics.set(&LOG_LINES_DROPPED, lines.dropped() as f64, &[]);
        }
    }],
    ..Module::EMPTY
};

/// Starts logging according to the settings.
pub(crate) fn start(settings: &Settings) -> Result<Lines, Failure> {
    let log = LINES.get_or_init(Lines::default).clone();
    let levels = settings.telemetry.log_level.clone();
    let most = most_verbose(&levels);
    let terminal = io::stderr().is_terminal();
    let base = tracing_subscriber::fmt()
        .fmt_fields(VisibleFields)
        .with_writer(log.clone())
        .with_max_level(most);
    // The decision for each place in the code that logs is made once.
    let wanted = filter_fn(move |event| is_logged(&levels, event)).with_max_level_hint(most);
    let started = match settings.telemetry.log_format {
        LogFormat::Pretty => base.with_ansi(terminal).finish().with(wanted).try_init(),
        LogFormat::Auto if terminal => base.finish().with(wanted).try_init(),
        LogFormat::Json | LogFormat::Auto => {
            base.event_format(JsonLines(Clock::system())).finish().with(wanted).try_init()
        }
    };
    started.map_err(|error| Failure::failed(format!("can't start the log: {error}")))?;
    let failed = |error| Failure::failed("can't start the log thread").because(error);
    // A separate handle, because the lock of the standard one would be held while a reader is stalled.
    let out = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    log.write_to(File::from(out)).map_err(failed)?;
    // The default hook writes directly to standard error, so a panic would wait for the reader.
    std::panic::set_hook(Box::new(note_panic));
    Ok(log)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn most_verbose(levels: &LogLevels) -> LevelFilter {
    let modules = levels.modules.iter().filter_map(|(_, level)| *level).map(filter_of);
    modules.fold(filter_of(levels.others), Ord::max)
}

fn is_logged(levels: &LogLevels, event: &Metadata<'_>) -> bool {
    levels.of(event.target()).is_some_and(|level| *event.level() <= filter_of(level))
}

fn note_panic(panic: &PanicHookInfo<'_>) {
    let detail = panic.payload_as_str().unwrap_or_default();
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, "panicked: {detail}");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The output of a subscriber.
    #[derive(Clone, Default)]
    pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn named_modules() {
        tracing::debug!(target: "palisade::here::deeper", "one");
        tracing::trace!(target: "palisade::here", "two");
        tracing::error!(target: "palisade::silent", "five");
    }

    fn other_modules() {
        tracing::warn!(target: "palisade::there", "three");
        tracing::info!(target: "palisade::there", "four");
    }

    #[test]
    fn a_module_is_logged_at_its_own_level() {
        let module = vec![("here".to_owned(), Some(LogLevel::Debug)), ("silent".to_owned(), None)];
        let levels = LogLevels { others: LogLevel::Warn, modules: module };
        assert_eq!(most_verbose(&levels), LevelFilter::DEBUG);
        let written = written_by(|writer| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(most_verbose(&levels))
                .with_writer(move || writer.clone())
                .finish()
                .with(filter_fn(move |event| is_logged(&levels, event)));
            tracing::subscriber::with_default(subscriber, || {
                named_modules();
                other_modules();
            });
        });
        let seen = ["one", "two", "three", "four", "five"].map(|word| written.contains(word));
        assert_eq!(seen, [true, false, true, false, false], "{written}");
    }

    /// Returns what is written when `log` runs.
    pub(super) fn written_by(log: impl FnOnce(Written)) -> String {
        let written = Written::default();
        log(written.clone());
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
