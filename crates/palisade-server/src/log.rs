//! The log: one line per event on standard error, as text for people or as JSON.
//!
//! Lines are gathered in memory and written every 50 ms by a thread of its own, so that a request
//! doesn't pay for a system call; a crash of the whole process may lose the last lines.

mod json;
mod pretty;

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade::clock::Clock;
use palisade::settings::{LogFormat, LogLevel, Settings};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;
use json::JsonLines;
use pretty::VisibleFields;

const WRITE_EVERY: Duration = Duration::from_millis(50);
/// With so much waiting, whoever logs waits for the writer.
const FULL: usize = 1024 * 1024;
/// Lines are gathered in pieces of this size. One buffer that grows to a megabyte is copied at each doubling,
/// and the allocator keeps the space of the smaller ones after a burst.
const PIECE: usize = 64 * 1024;

/// Lines that wait to be written.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// Whole lines; the last piece is being filled.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Waiting {
    fn add(&mut self, line: &[u8]) {
        self.bytes += line.len();
        match self.pieces.last_mut() {
            Some(piece) if piece.len() + line.len() <= PIECE => piece.extend_from_slice(line),
            _ => self.pieces.push(line.to_vec()),
        }
    }
}

/// Starts logging as the settings say.
pub(crate) fn start(settings: &Settings) -> Result<Log, Failure> {
    let log = Log::default();
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
    started.map_err(|error| Failure::failed(format!("the log can't be started: {error}")))?;
    let writer = log.clone();
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || {
            loop {
                std::thread::sleep(WRITE_EVERY);
                writer.flush();
            }
        })
        .map_err(|error| Failure::failed("no thread for the log").because(error))?;
    Ok(log)
}

impl Log {
    /// Writes what waits.
    pub(crate) fn flush(&self) {
        // The lock comes first, so that two who write keep the lines' order.
        let mut out = io::stderr().lock();
        let lines = std::mem::take(&mut *self.waiting());
        for piece in lines.pieces {
            // Where the log itself can't be written there is nowhere to say so.
            let _ = out.write_all(&piece);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let full = {
            let mut waiting = self.waiting();
            waiting.add(line);
            waiting.bytes > FULL
        };
        if full {
            Log::flush(self);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a subscriber writes.
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

    /// What is written when `log` runs.
    pub(super) fn written_by(log: impl FnOnce(Written)) -> String {
        let written = Written::default();
        log(written.clone());
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
