//! The stored audit log: who did what, to which user or object, from where and when. Changes write its
//! [records](crate::record); this module chains and reads them.
//!
//! # Promises
//!
//! - `chain`, an HMAC-SHA256 under a key derived from the root key, authenticates the records and their order, so that
//!   an attacker who controls only the database can't rewrite the log undetected. The columns for queries repeat the
//!   record and are compared with it.
//! - The end of the chain is authenticated too (`audit_head`), and the chain continues only from there.
//! - An altered or forged row is shown as such, and doesn't prevent other rows from being read or chained.
//! - Destroying a person's key erases what the log contains about them. An event records the erasure, and the log still
//!   verifies. A key that is missing without such an event is reported.
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

/// A fault was found at the end of the log, or in records that are waiting to be chained.
pub const FAULT_FOUND: Event =
    Event { name: "audit.fault_found", summary: "The audit log was tampered with" };
/// A person's key was destroyed.
pub const PERSON_ERASED: Event = Event {
    name: "audit.person_erased",
    summary: "A person's data in the log was made unreadable",
};
/// The operator resumed the log after a fault.
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

/// Destroys a person's key: what the log contains about them can no longer be read, and the log still verifies. An
/// event records the erasure; without this event, the key would be reported as missing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn forget_person(change: &mut Change, person: UserId) -> Result<()> {
    change.run("delete from person_keys where user_id = $1", args![person]).await?;
    change.note(PERSON_ERASED.about(person));
    Ok(())
}

/// Creates the key under which a person's part of the log is sealed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn create_person_key(change: &mut Change, person: UserId) -> Result<()> {
    let wrapped = change.app().audit_keys.new_person_key(person);
    change
        .run("insert into person_keys (user_id, wrapped) values ($1, $2)", args![person, wrapped])
        .await?;
    Ok(())
}

/// The kind of tampering with the log, as far as it can be determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The record or the head differs from what was written.
    Edited,
    /// The record is missing, but later records exist, or it was deleted before it was chained.
    Deleted,
    /// The record doesn't belong there: it was never written, or it occurs a second time.
    Inserted,
    /// The record was written, but not at this position.
    Swapped,
    /// The record and all later records are missing, or the head is missing.
    Cut,
    /// Values of the chain were rewritten.
    Rehashed,
    /// An older head was restored.
    RolledBack,
    /// The key of the person concerned can't be opened, or is missing although no erasure is recorded.
    KeyMissing,
}

impl FaultKind {
    /// Returns the stable name of this kind.
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
