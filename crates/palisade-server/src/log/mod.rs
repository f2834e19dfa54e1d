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

use palisade::clock::Clock;
use palisade::settings::{LogFormat, LogLevel, Settings};
use tracing::level_filters::LevelFilter;

use crate::failure::Failure;
use json::JsonLines;
pub(crate) use lines::Lines;
use pretty::VisibleFields;

/// Starts logging according to the settings.
pub(crate) fn start(settings: &Settings) -> Result<Lines, Failure> {
    let log = Lines::default();
    let level = match settings.telemetry.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let terminal = io::stderr().is_terminal();
    let base = tracing_subscriber::fmt()
        .fmt_fields(VisibleFields)
        .with_writer(log.clone())
        .with_max_level(level);
    let started = match settings.telemetry.log_format {
        LogFormat::Pretty => base.with_ansi(terminal).try_init(),
        LogFormat::Auto if terminal => base.try_init(),
        LogFormat::Json | LogFormat::Auto => {
            base.event_format(JsonLines(Clock::system())).try_init()
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

    /// Returns what is written when `log` runs.
    pub(super) fn written_by(log: impl FnOnce(Written)) -> String {
        let written = Written::default();
        log(written.clone());
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
