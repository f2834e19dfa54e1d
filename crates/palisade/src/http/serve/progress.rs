//! Deadlines of a connection, kept with one timer per connection rather than one per request.
//!
//! HTTP/1.1 has four phases: *opening* (the protocol is not known yet), *head* (a request's head is
//! coming in), *waiting* (for the first byte of the next head) and *busy*. The parser asks for a
//! timer whenever it starts to wait for a head and drops it when the head is complete, which marks
//! the phases; the stream sees the first byte and writes that get stuck. HTTP/2 is busy from its
//! preface on; pings watch it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// Length of the HTTP/2 connection preface (RFC 9113 section 3.4); with so many bytes the protocol
/// is decided.
const PREFACE_BYTES: u64 = 24;

const OPENING: u64 = 0;
const HEAD: u64 = 1;
const WAITING: u64 = 2;
const BUSY: u64 = 3;
/// The phase is in the lowest bits of its word, its beginning in milliseconds above.
const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;
/// No write is stuck.
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

/// Where a connection is. All writers run in the connection's own task, so plain loads and stores
/// are enough.
pub(super) struct Progress {
    opened: Instant,
    phase: AtomicU64,
    /// Bytes read while opening.
    read: AtomicU64,
    /// Since when a write is stuck, in milliseconds after `opened`, or `FLOWING`.
    stuck: AtomicU64,
}

impl Progress {
    pub(super) fn new(opened: Instant) -> Self {
        Self {
            opened,
            phase: AtomicU64::new(OPENING),
            read: AtomicU64::new(0),
            stuck: AtomicU64::new(FLOWING),
        }
    }

    /// When to look again; `None` when a deadline has passed.
    ///
    /// No deadline that comes up after `now` can be nearer than the shortest patience, so looking
    /// that often finds each one on time.
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

    /// The parser begins to wait for a head.
    fn head_awaited(&self) {
        match self.phase() {
            OPENING => self.enter(HEAD, 0),
            _ => self.enter(WAITING, self.elapsed()),
        }
    }

    fn bytes_read(&self, count: usize) {
        match self.phase() {
            OPENING => {
                self.read.fetch_add(count as u64, Ordering::Relaxed);
            }
            WAITING => self.enter(HEAD, self.elapsed()),
            _ => {}
        }
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

/// Tells [`Progress`] when HTTP/1.1 waits for a head.
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

/// A head that is waited for; complete when dropped. Never wakes anybody: the connection's own
/// check does.
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

/// A stream that reports its progress.
pub(super) struct Watched<I> {
    stream: I,
    progress: Arc<Progress>,
}

impl<I> Watched<I> {
    pub(super) fn new(stream: I, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.progress.bytes_read(count);
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        self.progress.wrote(outcome)
    }
}
