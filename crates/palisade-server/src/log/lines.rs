//! The buffer between code that logs and standard error.
//!
//! SECURITY: code that logs never waits for the reader. A stalled collector would otherwise block every request,
//! `/livez` and the end of the process. Lines that don't fit are dropped and counted, and the count is logged when the
//! reader resumes (test: a_reader_that_stands_still_stops_nobody).

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered before they are written.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// The maximum number of bytes waiting to be written.
const FULL: usize = 1024 * 1024;
/// The size of the pieces in which lines are gathered, in bytes. A single buffer that grows to a megabyte would be
/// copied at each doubling, and the allocator would keep the space of the smaller buffers after a burst.
const PIECE: usize = 64 * 1024;
/// How long an exiting process waits for a stalled reader.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Lines waiting to be written.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Signals that a caller waits until everything is written.
    asked: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Pieces of whole lines; the last piece is still being filled.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    /// The number of lines since the start that were never written.
    dropped: u64,
    /// The number of requested flushes, and how many of them are complete.
    asked: u64,
    done: u64,
}

impl Waiting {
    fn add(&mut self, line: &[u8]) {
        if self.bytes + line.len() > FULL {
            self.dropped += 1;
            return;
        }
        self.bytes += line.len();
        match self.pieces.last_mut() {
            Some(piece) if piece.len() + line.len() <= PIECE => piece.extend_from_slice(line),
            _ => self.pieces.push(line.to_vec()),
        }
    }
}

impl Lines {
    /// Starts the thread that writes the lines to `out`.
    pub(crate) fn write_to(&self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let lines = self.clone();
        let run = move || {
            let mut told = 0;
            loop {
                lines.turn(&mut out, &mut told);
            }
        };
        std::thread::Builder::new().name("log".into()).spawn(run).map(drop)
    }

    /// Returns how many lines were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting().dropped
    }

    /// Waits until everything logged so far is written, but for at most `LAST_WORDS`.
    pub(crate) fn flush(&self) {
        let mut waiting = self.waiting();
        waiting.asked += 1;
        let mine = waiting.asked;
        self.0.asked.notify_one();
        let unwritten = |waiting: &mut Waiting| waiting.done < mine;
        drop(self.0.written.wait_timeout_while(waiting, LAST_WORDS, unwritten));
    }

    /// Writes the lines that have gathered. No lock is held during the write.
    fn turn(&self, out: &mut impl Write, told: &mut u64) {
        let (pieces, asked) = {
            let quiet = |waiting: &mut Waiting| waiting.asked == waiting.done;
            let waited = self.0.asked.wait_timeout_while(self.waiting(), WRITE_EVERY, quiet);
            let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
            waiting.bytes = 0;
            (std::mem::take(&mut waiting.pieces), waiting.asked)
        };
        let mut read = false;
        for piece in pieces {
            match write_whole(out, &piece) {
                Ok(()) => read = true,
                // The reader is gone or its disk is full. This can't be logged, only counted.
                Err(_) => self.waiting().dropped += count_lines(&piece),
            }
        }
        let dropped = self.dropped();
        if read && dropped > *told {
            let lines = dropped - *told;
            *told = dropped;
            tracing::error!(lines, "log lines were dropped: standard error was not read in time");
            // The next turn writes this line too before it completes the flush.
            return;
        }
        self.waiting().done = asked;
        self.0.written.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_lines(piece: &[u8]) -> u64 {
    piece.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Writes a whole piece, even if another process that shares standard error has made it non-blocking.
fn write_whole(out: &mut impl Write, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match out.write(piece) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => piece = piece.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(WRITE_EVERY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting().add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A writer that accepts bytes only when the other end receives them.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, Receiver<Vec<u8>>) {
        let (send, receive) = sync_channel(0);
        let lines = Lines::default();
        lines.write_to(Slow(send)).unwrap();
        (lines, receive)
    }

    #[test]
    fn a_reader_that_stands_still_stops_nobody() {
        let (lines, reader) = slow();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..4_000 {
            lines.clone().write_all(&line).unwrap();
        }
        // At most twice the limit is kept: the waiting lines, and those that the writer holds.
        assert!(lines.dropped() >= 1_900, "{}", lines.dropped());
        assert!(lines.waiting().bytes <= FULL);
        // The last flush has a time limit too.
        lines.flush();
        let written = 4_000 - lines.dropped();
        let mut read = 0;
        while read < written {
            read += count_lines(&reader.recv().unwrap());
        }
        assert_eq!(read, written);
    }

    #[test]
    fn what_was_logged_is_written_before_the_end() {
        let (lines, reader) = slow();
        let reading = std::thread::spawn(move || reader.recv().unwrap());
        lines.clone().write_all(b"last words\n").unwrap();
        lines.flush();
        assert_eq!(reading.join().unwrap(), b"last words\n");
    }

    #[test]
    fn lines_without_a_reader_are_counted() {
        let (lines, reader) = slow();
        drop(reader);
        lines.clone().write_all(b"a\nb\n").unwrap();
        lines.flush();
        assert_eq!(lines.dropped(), 2);
    }
}
