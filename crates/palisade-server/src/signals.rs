//! The signals that the server receives.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Handlers for the signals that would otherwise end the process immediately. They stay installed until it ends.
pub(crate) struct Signals {
    stop: [Signal; 3],
    hangup: Signal,
    without_effect: [(&'static str, Signal); 2],
}

impl Signals {
    /// Installs the handlers. From here on, no signal but SIGKILL ends the process before it has stopped.
    pub(crate) fn install() -> Result<Self, Failure> {
        let handle = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed("signals can't be received").because(error))
        };
        Ok(Self {
            stop: [
                handle(SignalKind::terminate())?,
                handle(SignalKind::interrupt())?,
                handle(SignalKind::quit())?,
            ],
            hangup: handle(SignalKind::hangup())?,
            // A process manager or a hook that announces a rotated log sends these to servers of any kind.
            without_effect: [
                ("SIGUSR1", handle(SignalKind::user_defined1())?),
                ("SIGUSR2", handle(SignalKind::user_defined2())?),
            ],
        })
    }

    /// Waits for a signal that stops the server: SIGTERM, SIGINT (Ctrl-C) or SIGQUIT. Calls `reload` for each SIGHUP.
    pub(crate) async fn stopped(&mut self, mut reload: impl FnMut()) {
        poll_fn(|cx| {
            for (signal, received) in &mut self.without_effect {
                while received.poll_recv(cx).is_ready() {
                    tracing::info!(
                        signal,
                        "the signal has no effect: SIGHUP reloads the certificate, and settings are read when \
                         the server starts"
                    );
                }
            }
            while self.hangup.poll_recv(cx).is_ready() {
                reload();
            }
            let told = self.stop.iter_mut().any(|received| received.poll_recv(cx).is_ready());
            if told { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
