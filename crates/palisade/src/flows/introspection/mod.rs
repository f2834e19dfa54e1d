//! Routes for other services that receive Palisade's tokens: introspection (RFC 7662) and revocation (RFC 7009) of
//! tokens, a signed revocation feed for services that verify tokens themselves, and the metadata with which OAuth clients
//! find these routes (RFC 8414).
//!
//! # Promises
//!
//! - A token is reported as active only while this server would accept a request with it.
//! - The feed includes every ending and every new generation confirmed before the time that its newest page states. Each page is signed and
//!   states its time of creation, so that a verifier can detect when it no longer receives the feed.
//!
//! The feed's rows belong to [`crate::feed`].

mod http;
mod metadata;
mod pages;
mod stream;
mod token;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::app::{App, State, Subscription};
use crate::feed::ENDED;
use crate::id::UserId;
use crate::module::{Module, Permission};

/// Allows introspecting and revoking tokens, and reading the revocation feed.
pub const INTROSPECT: Permission = Permission {
    name: "tokens:introspect",
    summary: "Introspect and revoke tokens, and follow the revocation feed",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "introspection",
    routes: http::routes,
    permissions: &[INTROSPECT],
    subscriptions: &[
        Subscription { topic: ENDED, apply: |app, _| wake(app), forget_all: wake },
        Subscription { topic: ".generation", apply: |app, _| wake(app), forget_all: wake },
    ],
    state: |_, state: &mut State| {
        let (endings, _) = watch::channel(());
        state.put(Streams { endings, seats: Arc::default() });
        Ok(())
    },
    ..Module::EMPTY
};

/// The maximum number of streams of the feed that are open at the same time.
const MOST_STREAMS: usize = 64;

/// The maximum number of open streams per user, so that no one takes them all.
const MOST_OF_ONE: usize = 8;

/// The state that the streams share.
struct Streams {
    /// Notifies the streams when a credential has ended.
    endings: watch::Sender<()>,
    /// The user of each open stream.
    seats: Arc<Mutex<Vec<UserId>>>,
}

/// A place for one stream, released when it is dropped.
struct Seat {
    seats: Arc<Mutex<Vec<UserId>>>,
    user: UserId,
}

impl Streams {
    /// Returns a place for one more stream of a user, if there is one.
    fn seat(&self, user: UserId) -> Option<Seat> {
        let mut taken = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        // SECURITY: (test: nobody_takes_all_streams)
        let own = taken.iter().filter(|other| **other == user).count();
        if taken.len() >= MOST_STREAMS || own >= MOST_OF_ONE {
            return None;
        }
        taken.push(user);
        Some(Seat { seats: Arc::clone(&self.seats), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = taken.iter().position(|user| *user == self.user) {
            taken.swap_remove(place);
        }
    }
}

fn wake(app: &App) {
    app.state::<Streams>().endings.send_replace(());
}
