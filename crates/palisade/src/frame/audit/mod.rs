//! The audit log: who did what, to which user or object, from where, when.
//!
//! Promises:
//! - An event is written in the transaction of the change that it tells of.
//! - Its form is lasting: `record` is canonical JSON (keys sorted, strings and integers only, RFC 8785)
//!   of version 1, authenticated by `mac` and then, in order, by `chain`, both HMAC-SHA256 under a key
//!   derived from the root key, so that the owner of the database alone can't rewrite it unseen. Every other
//!   column repeats the record and is compared with it.
//! - The end of the chain is authenticated too (`audit_head`), and the chain only ever goes on from there.
//! - A row that isn't what was written is shown as such, and keeps no other row from being read or chained.
//! - What is personal (address, user agent, e-mail) stands beside the record, sealed under a key of the
//!   person concerned; the record holds its SHA-256. Destroying that key erases the person, an event
//!   tells of it, and the log still verifies; a key that is gone without such an event is missed.
//!
//! Tables: `audit_events`, `audit_head`, `person_keys`.

mod head;
mod http;
mod list;
mod record;
mod reseal;
mod seal;
mod stored;
mod verify;

use std::collections::BTreeMap;

use palisade_db::args;
use uuid::Uuid;

use crate::change::Change;
use crate::error::Result;
use crate::id::UserId;
use crate::module::{Job, Module, Permission};

pub use head::create_head;
pub use list::{EventView, Filter, list};
pub use record::{AuditKeys, Party, PartyCredential, create_person_key};
pub(crate) use record::{write, written};
pub use reseal::reseal;
pub use seal::{seal_all, seal_pending, seal_written};
pub use verify::{Fault, FaultKind, verify};

/// May read the audit log.
pub const READ: Permission = Permission { name: "audit:read", says: "Read the audit log" };

/// Something is wrong with the end of the log, or with what waits to be chained.
pub const FAULT_FOUND: Event =
    Event { name: "audit.fault_found", says: "The audit log was tampered with" };
/// The key of a person was destroyed.
pub const PERSON_ERASED: Event =
    Event { name: "audit.person_erased", says: "A person's data in the log was made unreadable" };
/// The operator had the log go on after a fault.
pub const RESEALED: Event = Event {
    name: "audit.resealed",
    says: "The operator created a new head for the audit log after a fault",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "audit",
    routes: http::routes,
    permissions: &[READ],
    events: &[FAULT_FOUND, PERSON_ERASED, RESEALED],
    jobs: &[Job { name: "audit.chain", every: seal::EVERY, run: |app| Box::pin(seal::run(app)) }],
    tables: &["audit_events", "audit_head", "person_keys"],
    parts: |_, parts| {
        parts.put(head::Watch::default());
        Ok(())
    },
    ..Module::EMPTY
};

/// A kind of event: its stable name and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `area.what_happened`.
    pub name: &'static str,
    /// One sentence, for people.
    pub says: &'static str,
}

impl Event {
    /// The event, concerning no user in particular.
    pub fn entry(self) -> Entry {
        Entry { event: self.name, about: None, details: BTreeMap::new(), personal: BTreeMap::new() }
    }

    /// The event, about a user.
    pub fn about(self, user: UserId) -> Entry {
        self.entry().concerning("user", user.0)
    }
}

/// One event, ready to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    event: &'static str,
    about: Option<(&'static str, Uuid)>,
    details: BTreeMap<&'static str, String>,
    personal: BTreeMap<&'static str, String>,
}

impl Entry {
    /// The user or object that it concerns.
    #[must_use]
    pub fn concerning(mut self, kind: &'static str, id: Uuid) -> Entry {
        self.about = Some((kind, id));
        self
    }

    /// A detail that says nothing about a person.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Entry {
        self.details.insert(name, value.into());
        self
    }

    /// A detail that is erased with the person: an address, a name.
    #[must_use]
    pub fn personal(mut self, name: &'static str, value: impl Into<String>) -> Entry {
        self.personal.insert(name, value.into());
        self
    }
}

/// Destroys the key of a person: what the log holds of them can't be read any more, and still verifies. An event
/// tells of it; without one, the key is missed.
///
/// # Errors
/// When the database fails.
pub async fn forget_person(change: &mut Change, person: UserId) -> Result<()> {
    change.run("delete from person_keys where user_id = $1", args![person]).await?;
    change.note(PERSON_ERASED.about(person));
    Ok(())
}
