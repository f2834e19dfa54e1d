//! What every part of a running Palisade stands on.
//!
//! [`App`] holds the database, the clock, randomness, the settings and the root key, and hands out
//! [`Change`]: a write transaction that knows who acts.
//!
//! The files of this folder know each other: an app hands out changes, a change applies its news to the app, and what
//! ends in a change is listed in the app. Nothing else of the frame is part of that circle.

mod answers;
pub mod change;
pub mod ending;
mod hold;
mod proof;

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_crypto::random::Random;
use palisade_crypto::root::RootKey;
use palisade_db::Db;
use uuid::Uuid;

use crate::clock::Clock;
use crate::feed::Feed;
use crate::id::uuid_v7;
use crate::limits::Limiter;
use crate::record::AuditKeys;
use crate::settings::Settings;

pub use crate::actor::{Actor, ActorKind, Presented};
pub use answers::{Answers, EmailIsReserved, Rights};
pub use change::Change;
pub use ending::{Act, End, Ending, Fate, Kind};
pub use hold::Hold;
pub use proof::Strength;
pub(crate) use proof::fresh_enough;

/// A running Palisade. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Ground>);

/// What [`App`] is made of.
pub struct Ground {
    /// The database.
    pub db: Db,
    /// What time it is.
    pub clock: Clock,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The key that everything else is derived from or wrapped under.
    pub root: RootKey,
    /// Keys of the audit log.
    pub audit_keys: AuditKeys,
    /// News between processes.
    pub feed: Feed,
    /// Rate limits.
    pub limiter: Limiter,
    /// How credentials end, by kind.
    pub endings: Vec<Ending>,
    /// What slices answer about their own tables.
    pub answers: Vec<Answers>,
    /// What to do with news, by topic.
    pub subscriptions: Vec<Subscription>,
    /// State that belongs to one slice, by its type.
    pub parts: Parts,
}

/// What a slice does when it hears of something.
#[derive(Clone, Copy)]
pub struct Subscription {
    /// The topic of the news.
    pub topic: &'static str,
    /// Applies one message; must be quick and may be called twice with the same.
    pub apply: fn(&App, Uuid),
    /// Forgets everything that this topic could have overthrown.
    pub forget_all: fn(&App),
}

/// State of slices, by type: how a slice keeps a cache without the ground knowing of it.
#[derive(Default)]
pub struct Parts(BTreeMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Parts {
    /// Adds the state of a slice.
    pub fn put<T: Any + Send + Sync>(&mut self, part: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(part));
    }
}

impl std::ops::Deref for App {
    type Target = Ground;
    fn deref(&self) -> &Ground {
        &self.0
    }
}

impl App {
    /// Starts from its parts; see [`crate::Builder`].
    pub fn new(ground: Ground) -> App {
        App(Arc::new(ground))
    }

    /// The state that a slice put there when the app was built.
    ///
    /// # Panics
    /// If the slice isn't part of this app, which is a mistake in its `MODULE`.
    #[expect(clippy::panic, reason = "a slice that asks for a state it never declared")]
    pub fn part<T: Any + Send + Sync>(&self) -> &T {
        let part = self.parts.0.get(&TypeId::of::<T>()).and_then(|part| part.downcast_ref());
        match part {
            Some(part) => part,
            None => panic!("no module declares {}", std::any::type_name::<T>()),
        }
    }

    /// A new version 7 UUID.
    pub fn new_id(&self) -> Uuid {
        uuid_v7(self.clock.now(), &*self.random)
    }

    /// Applies news to what this process remembers.
    pub fn hear(&self, topic: &str, subject: Uuid) {
        for subscription in &self.subscriptions {
            if subscription.topic == topic {
                (subscription.apply)(self, subject);
            }
        }
    }

    /// Forgets everything that news could have overthrown.
    pub fn forget_all(&self) {
        for subscription in &self.subscriptions {
            (subscription.forget_all)(self);
        }
    }
}
