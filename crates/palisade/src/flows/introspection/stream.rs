//! The revocation feed as a stream of events (WHATWG HTML, section 9.2).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

use super::pages::{Cursor, Place, read};
use super::{Seat, Streams};
use crate::access::Admission;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::serve::Stopping;
use crate::id::UserId;

/// How often the caller's right to the stream is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The number of checks without a new ending after which a page is sent anyway: every three seconds.
const HEARTBEAT: u8 = 3;
/// How long endings are gathered before a page is sent, because they come in bursts.
const GATHER: Duration = Duration::from_millis(50);

/// A client that follows the feed.
struct Follower {
    app: App,
    /// The request that the gate admitted.
    admission: Admission,
    cursor: Cursor,
    /// The place of the next page.
    place: Place,
    /// The numbers above the cursor's `low` that were already sent and needn't be sent again.
    sent: BTreeSet<i64>,
    endings: watch::Receiver<()>,
    stopping: Stopping,
    /// The number of checks since the last page.
    quiet: u8,
    _seat: Seat,
}

/// Opens a stream of the feed, from `cursor` on.
///
/// # Errors
/// Fails with `verifiers.too_many_streams`.
pub(super) fn open(
    app: &App,
    caller: UserId,
    admission: Admission,
    cursor: Cursor,
    stopping: Stopping,
) -> Result<Body> {
    let streams = app.state::<Streams>();
    let seat = streams.seat(caller).ok_or_else(|| {
        let detail = "Too many streams are open. Request pages instead, or try again later.";
        Error::unavailable("verifiers.too_many_streams", detail)
    })?;
    let follower = Follower {
        app: app.clone(),
        admission,
        cursor,
        place: Place { id: app.new_id(), page: 0 },
        sent: BTreeSet::new(),
        endings: streams.endings.subscribe(),
        stopping,
        quiet: HEARTBEAT,
        _seat: seat,
    };
    Ok(Body::from_stream(futures_util::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<Bytes, Infallible>(event), follower))
    })))
}

impl Follower {
    /// Returns the next event, or `None` when the stream has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.event().await {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => {
                    let cause = error.causes().unwrap_or_default();
                    tracing::debug!(code = error.code(), cause, "a stream of revocations ended");
                    return None;
                }
            }
            tokio::select! {
                biased;
                () = self.stopping.wait() => return None,
                changed = self.endings.changed() => {
                    changed.ok()?;
                    sleep(GATHER).await;
                    self.endings.mark_unchanged();
                    self.quiet = HEARTBEAT;
                }
                () = sleep(LOOK_EVERY) => self.quiet += 1,
            }
        }
    }

    /// Returns an event, if one is due.
    async fn event(&mut self) -> Result<Option<Bytes>> {
        // SECURITY: (tests: a_stream_ends_with_the_key_that_opened_it,
        // a_stream_ends_with_the_credential_that_opened_it)
        self.admission.recheck(&self.app).await?;
        if self.quiet < HEARTBEAT {
            return Ok(None);
        }
        let mut page = read(&self.app, self.cursor).await?;
        self.cursor = page.next;
        if page.restarted {
            // The numbers that were sent may now stand for other endings.
            self.sent.clear();
        }
        page.items.retain(|ending| self.sent.insert(ending.sequence));
        if !page.more {
            self.sent = self.sent.split_off(&(self.cursor.low + 1));
            self.quiet = 0;
        }
        // SECURITY: pages are numbered, so that an intermediary can't drop one unnoticed (test:
        // test_a_verifier_refuses_ended_sessions_and_a_withheld_feed).
        let signed = page.sign(&self.app, Some(self.place)).await?;
        self.place.page += 1;
        Ok(Some(format!("id: {}\nevent: revocations\ndata: {signed}\n\n", page.next).into()))
    }
}
