//! Deadlines of a connection, kept with one timer per connection rather than one per request.
//!
//! HTTP/1.1 has four phases: *opening* (the protocol is not known yet), *head* (a request's head is being received),
//! *waiting* (for the first byte of the next head) and *busy*. The parser requests a timer whenever it starts to wait
//! for a head and drops it when the head is complete, which marks the phases. The stream detects the first byte of a
//! head, and stuck writes. It also keeps the bytes of the head for later checks and replaces the parser's own
//! responses. HTTP/2 is busy from its preface on and is monitored with pings.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;
use super::refusing::{Head, automatic};

/// Length of the HTTP/2 connection preface (RFC 9113 section 3.4); after this many bytes, the protocol is known.
const PREFACE_BYTES: u64 = 24;

const OPENING: u64 = 0;
const HEAD: u64 = 1;
const WAITING: u64 = 2;
const BUSY: u64 = 3;
/// The number of bits that the phase takes in its word. The bits above contain the time when the phase began, in
/// milliseconds.
const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;
/// The maximum buffer capacity kept for the next head.
const KEPT_ROOM: usize = 4096;
/// How many more bytes from a refused peer are read, so that the peer can read the response.
const LINGER: usize = 8 * 1024 * 1024;
/// The value of `stuck` when no write is stuck.
const FLOWING: u64 = u64::MAX;

/// How long each phase may last.
pub(super) struct Patience {
    head: Duration,
    idle: Duration,
    write: Duration,
}

impl Patience {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { head: limits.header_timeout, idle: limits.idle_timeout, write: limits.write_timeout }
    }

    fn shortest(&self) -> Duration {
        self.head.min(self.idle).min(self.write)
    }
}

/// The state of a connection. All writers run in the connection's own task, so plain loads and stores are enough.
pub(super) struct Progress {
    opened: Instant,
    phase: AtomicU64,
    /// The number of bytes read in the opening phase.
    read: AtomicU64,
    /// When a write got stuck, in milliseconds after `opened`, or `FLOWING`.
    stuck: AtomicU64,
    /// The bytes read since the wait for a head began; empty for a head that arrived with the previous request.
    head: Mutex<Vec<u8>>,
    /// Whether the time for a head has passed, so that the peer must be informed.
    expired: AtomicBool,
    /// Whether the last response was a refusal, after which more bytes may arrive that nothing will read.
    refused: AtomicBool,
}

impl Progress {
    pub(super) fn new(opened: Instant) -> Self {
        Self {
            opened,
            phase: AtomicU64::new(OPENING),
            read: AtomicU64::new(0),
            stuck: AtomicU64::new(FLOWING),
            head: Mutex::new(Vec::new()),
            expired: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    /// Passes the bytes of the last head to `look`.
    pub(super) fn with_head<T>(&self, look: impl FnOnce(Head<'_>) -> T) -> T {
        look(Head(&self.head.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Ends the wait for a head that has begun. Returns `false` if there is no wait to end.
    pub(super) fn expire(&self) -> bool {
        let begun = self.phase() == HEAD
            && self.stuck.load(Ordering::Relaxed) == FLOWING
            && !self.refused.load(Ordering::Relaxed)
            && self.with_head(|head| !head.0.is_empty());
        self.expired.store(begun, Ordering::Relaxed);
        begun
    }

    /// Records that the current response is the last one, and that the request may not have been read to its end.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Returns when to check again, or `None` if a deadline has passed.
    ///
    /// No deadline set after `now` can be nearer than the shortest one of `patience`, so checking that often finds each
    /// one on time.
    pub(super) fn next_check(&self, patience: &Patience, now: Instant) -> Option<Instant> {
        let word = self.phase.load(Ordering::Relaxed);
        let since = word >> PHASE_BITS;
        let phase_ends = match word & PHASE_MASK {
            OPENING if self.read.load(Ordering::Relaxed) < PREFACE_BYTES => {
                Some((0, patience.head))
            }
            HEAD => Some((since, patience.head)),
            WAITING => Some((since, patience.idle)),
            _ => None,
        };
        let stuck = self.stuck.load(Ordering::Relaxed);
        let write_ends = (stuck != FLOWING).then_some((stuck, patience.write));
        let latest = now + patience.shortest();
        let ends = [phase_ends, write_ends].into_iter().flatten();
        let next = ends
            .map(|(since, span)| self.opened + Duration::from_millis(since) + span)
            .fold(latest, Instant::min);
        (next > now).then_some(next)
    }

    fn enter(&self, phase: u64, since: u64) {
        self.phase.store(since << PHASE_BITS | phase, Ordering::Relaxed);
    }

    fn phase(&self) -> u64 {
        self.phase.load(Ordering::Relaxed) & PHASE_MASK
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> PHASE_BITS)
    }

    /// Records that the parser begins to wait for a head.
    fn head_awaited(&self) {
        match self.phase() {
            OPENING => self.enter(HEAD, 0),
            _ => {
                self.forget_head();
                self.enter(WAITING, self.elapsed());
            }
        }
    }

    fn bytes_read(&self, bytes: &[u8]) {
        match self.phase() {
            OPENING => {
                if self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed) < PREFACE_BYTES {
                    self.keep(bytes);
                } else {
                    self.forget_head();
                }
            }
            WAITING => {
                self.enter(HEAD, self.elapsed());
                self.keep(bytes);
            }
            HEAD => self.keep(bytes),
            _ => {}
        }
    }

    /// Keeps the bytes of a head read so far. The parser's own buffer limits their number.
    fn keep(&self, bytes: &[u8]) {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    fn forget_head(&self) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.clear();
        head.shrink_to(KEPT_ROOM);
    }

    fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        let stuck = self.stuck.load(Ordering::Relaxed) != FLOWING;
        match (outcome.is_pending(), stuck) {
            (true, false) => self.stuck.store(self.elapsed(), Ordering::Relaxed),
            (false, true) => self.stuck.store(FLOWING, Ordering::Relaxed),
            _ => {}
        }
        outcome
    }
}

/// A timer that notifies [`Progress`] when HTTP/1.1 waits for a head.
pub(super) struct HeadTimer(Arc<Progress>);

impl HeadTimer {
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        Self(progress)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.head_awaited();
        Box::pin(AwaitedHead(Arc::clone(&self.0)))
    }

    fn sleep_until(&self, _: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }
}

/// A head that the parser waits for. When this value is dropped, the head is complete. The value never wakes the task:
/// the connection's own check does that.
struct AwaitedHead(Arc<Progress>);

impl Future for AwaitedHead {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for AwaitedHead {}

impl Drop for AwaitedHead {
    fn drop(&mut self) {
        self.0.enter(BUSY, 0);
    }
}

/// Why the listener itself responds.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// The parser refused the head with this status.
    Parser(u16),
    /// The head took too long.
    TooSlow,
}

/// A function that creates the response to the most recently read head.
pub(super) type Answering = Box<dyn Fn(Why) -> Bytes + Send>;

/// A stream that reports its progress and replaces the parser's own responses.
pub(super) struct Watched<I> {
    stream: I,
    progress: Arc<Progress>,
    answering: Answering,
    /// The response that is being written in place of the parser's own.
    instead: Option<Bytes>,
    lingered: usize,
}

impl<I> Watched<I> {
    pub(super) fn new(stream: I, progress: Arc<Progress>, answering: Answering) -> Self {
        Self { stream, progress, answering, instead: None, lingered: 0 }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Watched<I> {
    /// Informs a peer that the time for its head has passed. One attempt is enough: the response is short enough for
    /// the buffer, and a peer that also reads slowly doesn't have to get it.
    fn give_up(&mut self, cx: &mut Context<'_>) -> io::Error {
        let answer = (self.answering)(Why::TooSlow);
        if Pin::new(&mut self.stream).poll_write(cx, &answer).is_ready() {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        io::ErrorKind::TimedOut.into()
    }

    /// Returns how much of `bytes` may be written unchanged. A response of the parser's own is replaced.
    fn own(&mut self, bytes: &[u8]) -> usize {
        if self.instead.is_some() || !matches!(self.progress.phase(), HEAD | WAITING) {
            return bytes.len();
        }
        // SECURITY: the parser's answers have none of the headers that every answer must have
        // (test: what_the_listener_refuses_looks_like_any_other_refusal).
        match automatic(bytes) {
            Some((0, status)) => {
                self.progress.refused();
                self.instead = Some((self.answering)(Why::Parser(status)));
                bytes.len()
            }
            Some((at, _)) => at,
            None => bytes.len(),
        }
    }

    fn write_own(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.own(bytes);
        let Some(instead) = &mut self.instead else {
            return Pin::new(&mut self.stream).poll_write(cx, bytes.get(..own).unwrap_or(bytes));
        };
        while instead.has_remaining() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => instead.advance(count),
            }
        }
        self.instead = None;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Keeps reading after a refusal. Closing the connection with unread bytes would reset it, and the peer would lose
    /// the response (RFC 9112 section 9.6).
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8 * 1024];
        while self.lingered < LINGER {
            let mut buffer = ReadBuf::new(&mut scratch);
            let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if outcome.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.lingered += buffer.filled().len();
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.expired.load(Ordering::Relaxed) {
            return Poll::Ready(Err(self.give_up(cx)));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.progress.bytes_read(bytes);
        }
        outcome
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.write_own(cx, bytes);
        self.progress.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.phase() != BUSY
            && let Some(first) = slices.iter().find(|slice| !slice.is_empty())
        {
            return self.poll_write(cx, first);
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress.wrote(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        let outcome = self.progress.wrote(outcome);
        ready!(outcome)?;
        if self.progress.refused.load(Ordering::Relaxed) {
            if self.progress.phase() == BUSY {
                // From now on, the peer has as much time as for a head.
                self.progress.enter(HEAD, self.progress.elapsed());
            }
            ready!(self.linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
