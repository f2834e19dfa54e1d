//! For other services that verify our tokens: what a token is worth now (RFC 7662), its revocation (RFC 7009), and
//! a signed feed of what has ended, for those that verify without asking.
//!
//! Promises:
//! - A token is called active only while a request with it would be let in here.
//! - The feed leaves out no ending that was answered before the time it names. Each page is signed and says when
//!   it was made, so that whoever is cut off from the feed notices.
//!
//! Tables: none; the feed's rows belong to [`crate::feed`].

mod http;
mod pages;
mod stream;
mod worth;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::app::{App, Parts, Subscription};
use crate::module::{Module, Permission};
use crate::{api_keys, sessions};

/// May ask what a token is worth, revoke it, and read the feed of endings.
pub const INTROSPECT: Permission = Permission {
    name: "tokens:introspect",
    says: "Ask what a token is worth, revoke it, and follow what has ended",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "verifiers",
    routes: http::routes,
    permissions: &[INTROSPECT],
    subscriptions: &[
        Subscription { topic: sessions::ENDED_NEWS, apply: |app, _| wake(app), forget_all: wake },
        Subscription { topic: api_keys::ENDED_NEWS, apply: |app, _| wake(app), forget_all: wake },
    ],
    parts: |_, parts: &mut Parts| {
        let (news, _) = watch::channel(());
        parts.put(Streams { news, seats: Arc::new(Semaphore::new(MOST_STREAMS)) });
        Ok(())
    },
    ..Module::EMPTY
};

/// How many streams of the feed are open at once.
const MOST_STREAMS: usize = 64;

/// What the streams share.
struct Streams {
    /// Changes when something has ended.
    news: watch::Sender<()>,
    seats: Arc<Semaphore>,
}

fn wake(app: &App) {
    app.part::<Streams>().news.send_replace(());
}
