//! A row of the log as it is stored, and the check that it is unaltered.
//!
//! An attacker who controls the database may have written anything to it, so no value is trusted: a value that can't be
//! read is a fault of its row, and never makes the read fail.

use palisade_crypto::{audit as digest, secret};
use palisade_db::{DbError, FromRow, Row, Timestamp};
use uuid::Uuid;

use super::FaultKind;
use crate::record::{Read, Record};

/// The start of every statement that reads whole rows: each column of `audit_events`, the key of the person
/// concerned, and how many rows have this id.
macro_rules! select_stored {
    ($rest:literal) => {
        select_stored!(
            "k.wrapped",
            "left join person_keys k on k.user_id = e.person_id ",
            $rest
        )
    };
    // The same without the key.
    (keyless $rest:literal) => {
        select_stored!("null", "", $rest)
    };
    ($wrapped:literal, $join:literal, $rest:literal) => {
        concat!(
            "select e.id, e.at, e.event, e.actor_kind, e.actor_id, e.about_kind, e.about_id, e.person_id,
                    e.record, e.personal, e.mac, e.position, e.chain, ",
            $wrapped,
            ", (select count(*) from audit_events o where o.id = e.id)
             from audit_events e ",
            $join,
            $rest
        )
    };
}
pub(crate) use select_stored;

/// One row.
pub(crate) struct Stored {
    pub(crate) id: Read<Uuid>,
    pub(crate) at: Read<Timestamp>,
    pub(crate) event: Read<String>,
    pub(crate) actor_kind: Read<String>,
    pub(crate) actor_id: Read<Option<Uuid>>,
    pub(crate) about_kind: Read<Option<String>>,
    pub(crate) about_id: Read<Option<Uuid>>,
    pub(crate) person_id: Read<Option<Uuid>>,
    pub(crate) record: Read<String>,
    pub(crate) personal: Read<Option<Vec<u8>>>,
    pub(crate) mac: Read<[u8; 32]>,
    pub(crate) position: Read<Option<i64>>,
    pub(crate) chain: Read<Option<[u8; 32]>>,
    /// The wrapped key of the person concerned.
    pub(crate) wrapped: Read<Option<Vec<u8>>>,
    /// How many rows have its id.
    pub(crate) copies: i64,
}

impl FromRow for Stored {
    fn from_row(row: &mut Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.next()?,
            at: row.next()?,
            event: row.next()?,
            actor_kind: row.next()?,
            actor_id: row.next()?,
            about_kind: row.next()?,
            about_id: row.next()?,
            person_id: row.next()?,
            record: row.next()?,
            personal: row.next()?,
            mac: row.next()?,
            position: row.next()?,
            chain: row.next()?,
            wrapped: row.next()?,
            copies: row.next()?,
        })
    }
}

/// The reason why a row doesn't match what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unlike {
    /// Other rows have its id.
    Copied,
    /// Its MAC doesn't match its record: this text was never written, or was changed.
    Record,
    /// This column differs from the record.
    Column(&'static str),
}

impl std::fmt::Display for Unlike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copied => f.write_str("the record exists more than once"),
            Self::Record => f.write_str("the record does not match its MAC"),
            Self::Column(name) => write!(f, "the column `{name}` differs from the record"),
        }
    }
}

impl Unlike {
    /// Returns the kind of tampering with the row.
    pub(crate) fn kind(&self, chained: bool) -> FaultKind {
        match self {
            Self::Copied => FaultKind::Inserted,
            // A row that isn't chained may have been inserted: made up, or copied under another id.
            Self::Record | Self::Column("id") if !chained => FaultKind::Inserted,
            Self::Record | Self::Column(_) => FaultKind::Edited,
        }
    }
}

/// Returns whether the record was written under this key.
fn is_authentic(key: &[u8; 32], record: &str, mac: &[u8; 32]) -> bool {
    secret::constant_time_eq(&digest::record_mac(key, record.as_bytes()), mac)
}

impl Stored {
    /// Returns the record, if the row is unaltered and exists only once.
    pub(crate) fn genuine(&self, key: &[u8; 32]) -> Result<Record, Unlike> {
        if self.copies > 1 {
            return Err(Unlike::Copied);
        }
        self.record(key)
    }

    /// Returns the record, if the row is unaltered. Its place in the chain is not checked.
    pub(crate) fn record(&self, key: &[u8; 32]) -> Result<Record, Unlike> {
        let text = self.record.0.as_deref().ok_or(Unlike::Record)?;
        let mac = self.mac.0.as_ref().ok_or(Unlike::Record)?;
        if !is_authentic(key, text, mac) {
            return Err(Unlike::Record);
        }
        let record: Record = serde_json::from_str(text).map_err(|_| Unlike::Record)?;
        // SECURITY: every column is compared, except `record` and `mac` themselves and the place in the chain (test:
        // an_edit_of_any_column_is_found).
        let about = record.about.as_ref();
        let same = [
            ("id", self.id.is(&record.id.0)),
            ("at", self.at.is(&Timestamp::from_micros(record.at))),
            ("event", self.event.is(&record.event)),
            ("actor_kind", self.actor_kind.is(&record.actor.kind)),
            ("actor_id", self.actor_id.is(&record.actor.id)),
            ("about_kind", self.about_kind.is(&about.map(|party| party.kind.clone()))),
            ("about_id", self.about_id.is(&about.and_then(|party| party.id))),
            ("person_id", self.person_id.is(&record.person().map(|person| person.0))),
            ("personal", self.personal_is(record.personal.as_deref())),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((column, _)) => Err(Unlike::Column(column)),
            None => Ok(record),
        }
    }

    fn personal_is(&self, expected: Option<&str>) -> bool {
        match (&self.personal.0, expected) {
            (Some(Some(sealed)), Some(expected)) => digest::content_digest(sealed) == expected,
            (Some(None), None) => true,
            _ => false,
        }
    }
}
