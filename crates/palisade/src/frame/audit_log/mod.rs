//! The audit log as it is kept: who did what, to which user or object, from where, when. The changes write its
//! [records](crate::record); here they are chained, and read.
//!
//! # Promises
//!
//! - Records are authenticated, in order, by `chain`, HMAC-SHA256 under a key derived from the root key, so that the
//!   owner of the database alone can't rewrite the log unseen. Every other column repeats the record and is compared
//!   with it.
//! - The end of the chain is authenticated too (`audit_head`), and the chain only ever goes on from there.
//! - A row that isn't what was written is shown as such, and keeps no other row from being read or chained.
//! - Destroying the key of a person erases what the log holds of them, an event tells of it, and the log still
//!   verifies; a key that is gone without such an event is missed.
//!
//! Tables: `audit_head`, `person_keys`.

mod head;
mod list;
mod reseal;
mod seal;
mod stored;

use palisade_db::{Migration, Sql, args};

use crate::app::Change;
use crate::error::Result;
use crate::id::UserId;
use crate::module::{Job, Module};
use crate::record::{Event, Unchained};

pub use head::create_head;
pub(crate) use head::{Ending, Finding, Head};
pub use list::{EventView, Filter, list};
pub use reseal::reseal;
pub use seal::{seal_all, seal_pending, seal_written};
pub(crate) use stored::{Stored, select_stored};

/// Something is wrong with the end of the log, or with what waits to be chained.
pub const FAULT_FOUND: Event =
    Event { name: "audit.fault_found", summary: "The audit log was tampered with" };
/// The key of a person was destroyed.
pub const PERSON_ERASED: Event = Event {
    name: "audit.person_erased",
    summary: "A person's data in the log was made unreadable",
};
/// The operator had the log go on after a fault.
pub const RESEALED: Event = Event {
    name: "audit.resealed",
    summary: "The operator created a new head for the audit log after a fault",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "audit_log",
    events: &[FAULT_FOUND, PERSON_ERASED, RESEALED],
    jobs: &[Job { name: "audit.chain", every: seal::EVERY, run: |app| Box::pin(seal::run(app)) }],
    // The records themselves are written by `record`, with every change.
    migrations: &[Migration {
        module: "audit_log",
        number: 1,
        name: "audit_log",
        sql: Sql::Both(include_str!("../../../migrations/audit_log/0001_audit_log.sql")),
    }],
    tables: &["audit_head", "person_keys"],
    state: |_, state| {
        state.put(head::Watch::default());
        state.put(Unchained::default());
        Ok(())
    },
    ..Module::EMPTY
};

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

/// Makes the key that a person's part of the log is sealed under.
///
/// # Errors
/// When the database fails.
pub async fn create_person_key(change: &mut Change, person: UserId) -> Result<()> {
    let wrapped = change.app().audit_keys.new_person_key(person);
    change
        .run("insert into person_keys (user_id, wrapped) values ($1, $2)", args![person, wrapped])
        .await?;
    Ok(())
}

/// What was done to a record, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It isn't what was written.
    Edited,
    /// It is missing, and later ones are there.
    Deleted,
    /// It doesn't belong there: it was never written, or stands there a second time.
    Inserted,
    /// It was written, and not in this place.
    Swapped,
    /// It is missing, and so is all that came after it.
    Cut,
    /// Values of the chain were written anew.
    Rehashed,
    /// An older head was put back.
    RolledBack,
    /// The key of the person concerned is gone, and no record tells of an erasure.
    KeyMissing,
}

impl FaultKind {
    /// Its name, which is lasting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Swapped => "swapped",
            Self::Cut => "cut",
            Self::Rehashed => "rehashed",
            Self::RolledBack => "rolled_back",
            Self::KeyMissing => "key_missing",
        }
    }
}
