//! What a service manager is told: the protocol of systemd's `sd_notify(3)`, which Podman and others use too.
//!
//! The manager names its socket in `NOTIFY_SOCKET` and, if it expects a sign of life, the interval in `WATCHDOG_USEC`.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade::http::Frame;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How often the manager is asked for more time while the server starts.
const EXTENDS_EVERY: Duration = Duration::from_secs(10);
/// How much more time it is asked for.
const EXTENSION: Duration = Duration::from_secs(60);
/// The longest time that a stopping server needs after the requests in flight: the audit log is chained, and the
/// database is closed.
const AFTERWARDS: Duration = Duration::from_secs(15);
/// How long a message may wait until the manager's queue has room.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager that started this process, if there is one.
pub(crate) struct Manager {
    socket: Option<Arc<Socket>>,
    /// Ends when the manager is dropped.
    watchdog: JoinSet<()>,
    /// Whether the manager was told that the server is stopping. Nothing but signs of life may follow.
    stopping: AtomicBool,
}

impl Manager {
    /// Reads from the environment whether a service manager wants messages.
    pub(crate) fn from_environment() -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|name| match Socket::new(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET can't be used; the service manager is told nothing");
                None
            }
        });
        Self { socket, watchdog: JoinSet::new(), stopping: AtomicBool::new(false) }
    }

    /// Asks for more time, again and again, until the start is complete: a migration may take longer than the manager
    /// waits for a start.
    pub(crate) async fn while_starting<T>(&self, start: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            started = start => started,
            never = self.extend() => match never {},
        }
    }

    async fn extend(&self) -> Infallible {
        loop {
            sleep(EXTENDS_EVERY).await;
            self.tell(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
    }

    /// Reports that the server accepts requests. From here on, the manager gets a sign of life if it wants one, as long
    /// as `service` responds, also while the server is stopping.
    ///
    /// SECURITY: the health check uses no connection: a client that holds all connections of a listener must not make
    /// the manager restart the server (test: clients_that_hold_every_admin_connection_do_not_stop_the_signs_of_life).
    pub(crate) fn ready(&mut self, service: &Frame) {
        self.tell("READY=1");
        if let (Some(socket), Some(interval)) = (&self.socket, watchdog_interval()) {
            let (socket, service) = (Arc::clone(socket), service.clone());
            self.watchdog.spawn(async move {
                keep_alive(socket, interval, || service.is_alive()).await;
            });
        }
    }

    /// Reports that a reload has begun, and when. With `Type=notify-reload`, the manager waits for [`Self::reloaded`].
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell_unless_stopping(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Reports that the reload is complete, whether or not it changed anything.
    pub(crate) fn reloaded(&self) {
        self.tell_unless_stopping("READY=1");
    }

    fn tell_unless_stopping(&self, state: &str) {
        if !self.stopping.load(Ordering::Relaxed) {
            self.tell(state);
        }
    }

    /// Reports that the server is stopping, and how long that takes at most.
    pub(crate) fn stopping(&self, drain: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        let most = (drain + AFTERWARDS).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={most}"));
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            socket.send(state);
        }
    }
}

/// The manager's socket.
struct Socket {
    socket: UnixDatagram,
    manager: UnixAddr,
    failed: AtomicBool,
}

impl Socket {
    /// `name` is the path of a socket, or `@` and an abstract name.
    fn new(name: &str) -> io::Result<Self> {
        let manager = match name.strip_prefix('@') {
            Some(name) => abstract_address(name)?,
            None if name.starts_with('/') => UnixAddr::from_pathname(name)?,
            None => {
                return Err(io::Error::other(
                    "it is neither an absolute path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, manager, failed: AtomicBool::new(false) })
    }

    fn send(&self, state: &str) {
        let sent = self.socket.send_to_addr(state.as_bytes(), &self.manager);
        if let Err(error) = sent
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, state, "the service manager can't be told");
        }
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<UnixAddr> {
    <UnixAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<UnixAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The manager's variables aren't settings.
#[expect(
    clippy::disallowed_methods,
    reason = "a protocol between the service manager and the process"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the time after which the manager restarts a process that gives no sign of life, if it wants signs of this
/// process.
fn watchdog_interval() -> Option<Duration> {
    let micros = variable("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0)?;
    let own = |process: String| process.parse() == Ok(std::process::id());
    variable("WATCHDOG_PID").is_none_or(own).then(|| Duration::from_micros(micros))
}

/// Gives a sign of life three times per interval, as long as `is_alive` returns true within its third.
async fn keep_alive<F: Future<Output = bool>>(
    socket: Arc<Socket>,
    interval: Duration,
    is_alive: impl Fn() -> F,
) {
    // A check that takes a third of the interval and the pause before it leave time for a second attempt.
    let third = interval / 3;
    loop {
        if timeout(third, is_alive()).await.is_ok_and(|alive| alive) {
            socket.send("WATCHDOG=1");
        } else {
            tracing::warn!("the server does not respond to its own health check");
        }
        sleep(third).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(150);
    const LONG: Duration = Duration::from_millis(750);

    /// Returns whether the manager gets a sign of life.
    async fn signs<F: Future<Output = bool>>(is_alive: impl Fn() -> F) -> bool {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let socket = Arc::new(Socket::new(path.to_str().unwrap()).unwrap());
        let watchdog = timeout(LONG, keep_alive(socket, INTERVAL, is_alive));
        assert!(watchdog.await.is_err(), "the watchdog ended");
        manager.recv(&mut [0; 64]).is_ok()
    }

    #[tokio::test]
    async fn a_sign_of_life_needs_a_health_check_that_succeeds_in_time() {
        assert!(signs(|| ready(true)).await);
        assert!(!signs(|| ready(false)).await);
        assert!(!signs(pending).await);
    }
}
