//! The foundation of every part of a running Palisade.
//!
//! [`App`] holds the database, the clock, randomness, the settings and the root key, and starts each [`Change`], a
//! write transaction attributed to an actor.
//!
//! The files of this folder depend on each other: an app hands out changes, a change applies its notices to the app,
//! and the app lists what a change can end. Nothing else in the frame is part of that cycle.

mod answers;
pub mod change;
mod credentials;
pub mod ending;
mod hold;
mod proof;

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_crypto::random::Random;
use palisade_crypto::root::RootKey;
use palisade_db::{Db, ReadDb};
use uuid::Uuid;

use crate::clock::Clock;
use crate::feed::Feed;
use crate::id::uuid_v7;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::record::AuditKeys;
use crate::settings::Settings;
use crate::upkeep::Upkeep;

pub use crate::actor::{Actor, ActorKind};
pub use answers::{Answers, EmailIsReserved, LinkRecipient, Outdate, Rights, Whose};
pub use change::Change;
pub(crate) use credentials::session_needed;
pub use credentials::{
    AccountState, CredentialForm, CredentialList, CredentialMethods, FindAccount, Identity,
    Introspect, IsAlive, LiveCredential, Locate, Prove, Revoke,
};
pub use ending::{Act, End, Ending, EndsWith, Fate, FindOwners, Kind, OwnKind};
pub use hold::Hold;
pub use proof::AuthLevel;
pub(crate) use proof::fresh_enough;

/// A running Palisade. Cheap to clone.
///
/// Code that has an `App` can read the database. It can write through a [`Change`], which commits with an audit event,
/// or through [`App::upkeep`].
///
/// ```
/// # use palisade_db::args;
/// async fn forget_old(app: &palisade::App) -> palisade::error::Result<u64> {
///     let sql = "delete from notes where id in (select id from notes where expires_at < $1 limit $2)";
///     app.upkeep("expired notes are deleted").in_batches(sql, args![app.clock.now()]).await
/// }
/// ```
///
/// ```compile_fail
/// # use palisade_db::args;
/// async fn forget_old(app: &palisade::App) -> palisade::error::Result<u64> {
///     Ok(app.db.begin().await?.run("delete from notes", args![]).await?)
/// }
/// ```
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    inner: Inner,
    /// Only for [`Change`] and [`Upkeep`].
    writer: Db,
}

/// The contents of an [`App`].
pub struct Inner {
    /// The database, for reading.
    pub db: ReadDb,
    /// The clock.
    pub clock: Clock,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The root key: all other keys are derived from it or sealed under it.
    pub root: RootKey,
    /// Keys of the audit log.
    pub audit_keys: AuditKeys,
    /// Notices between processes.
    pub feed: Feed,
    /// Rate limits.
    pub limiter: Limiter,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Functions that set metrics from the state of this process, called before each export.
    pub readings: Vec<fn(&App)>,
    /// The kinds of credential, with their methods.
    pub credentials: CredentialList,
    /// How a change looks up the account that it depends on.
    pub find_account: FindAccount,
    /// How credentials end, in the order in which they end.
    pub endings: Vec<Ending>,
    /// The functions through which slices answer questions about their own tables.
    pub answers: Vec<Answers>,
    /// How notices are handled, by topic.
    pub subscriptions: Vec<Subscription>,
    /// State that belongs to one slice, by its type.
    pub state: State,
}

/// How a slice handles a notice.
#[derive(Clone, Copy)]
pub struct Subscription {
    /// The topic of the notices. A topic that begins with a dot, such as `.ended`, matches every topic with that
    /// suffix.
    pub topic: &'static str,
    /// Applies one notice. Must be quick, and may be called twice with the same notice.
    pub apply: fn(&App, Uuid),
    /// Discards all cached data that a notice of this topic could have invalidated.
    pub forget_all: fn(&App),
}

impl Subscription {
    fn is_about(&self, topic: &str) -> bool {
        self.topic == topic || (self.topic.starts_with('.') && topic.ends_with(self.topic))
    }
}

/// State of slices, by type. Lets a slice keep a cache whose type the frame doesn't depend on.
#[derive(Default)]
pub struct State(BTreeMap<TypeId, Box<dyn Any + Send + Sync>>);

impl State {
    /// Adds the state of a slice.
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0.inner
    }
}

impl App {
    /// Creates an app with these contents; see [`crate::Builder`].
    pub fn new(inner: Inner, writer: Db) -> Self {
        Self(Arc::new(Shared { inner, writer }))
    }

    /// Permits writes outside a change, for this reason. Use it only for writes that have no effect for users and are
    /// not events. All other writes require a [`Change`].
    pub fn upkeep(&self, reason: &'static str) -> Upkeep<'_> {
        Upkeep::new(&self.0.writer, reason)
    }

    /// Returns the state that a slice added when the app was built.
    ///
    /// # Panics
    /// Panics if the slice isn't part of this app, which is a mistake in its `MODULE`.
    #[expect(clippy::panic, reason = "a slice requested a state that it never declared")]
    pub fn state<T: Any + Send + Sync>(&self) -> &T {
        let found = self.state.0.get(&TypeId::of::<T>()).and_then(|state| state.downcast_ref());
        match found {
            Some(found) => found,
            None => panic!("no module declares {}", std::any::type_name::<T>()),
        }
    }

    /// Creates a version 7 UUID.
    pub fn new_id(&self) -> Uuid {
        uuid_v7(self.clock.now(), &*self.random)
    }

    /// Applies a notice to the caches of this process.
    pub fn apply(&self, topic: &str, subject: Uuid) {
        for subscription in &self.subscriptions {
            if subscription.is_about(topic) {
                (subscription.apply)(self, subject);
            }
        }
    }

    /// Discards all cached data that a notice could have invalidated.
    pub fn forget_all(&self) {
        for subscription in &self.subscriptions {
            (subscription.forget_all)(self);
        }
    }
}
