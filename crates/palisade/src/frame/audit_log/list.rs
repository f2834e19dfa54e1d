//! Lists the events of the log, newest first.
//!
//! An altered or forged row is shown and marked; it never prevents other rows from being read.

use std::collections::BTreeMap;

use palisade_db::{Timestamp, args};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::head::Watch;
use super::stored::{Stored, select_stored};
use crate::app::App;
use crate::error::Result;
use crate::id::{EventId, UserId};
use crate::record::{AuditKeys, Party, Record, person_key};
use crate::shape;

/// One event of the audit log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditEvent")]
pub struct EventView {
    /// The id of the event.
    pub id: EventId,
    /// When it happened.
    #[schemars(with = "shape::DateTime")]
    pub at: Timestamp,
    /// The name of the event, such as `login.signed_in`.
    pub event: String,
    /// Who acted.
    pub actor: Party,
    /// The user or object that the event concerns.
    pub about: Option<Party>,
    /// The id of the request that caused the event.
    pub request_id: Option<String>,
    /// Details that identify no person.
    pub details: BTreeMap<String, String>,
    /// Personal details, such as the IP address and the user agent. Empty if the person has been erased, if the record
    /// was altered, or, in a user's own activity, if another user acted.
    pub personal: BTreeMap<String, String>,
    /// Whether the record is unaltered. If false, don't rely on it; the personal details are left
    /// out.
    pub verified: bool,
}

/// The criteria for the events to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only events caused by this actor.
    pub actor: Option<Uuid>,
    /// Only events about this user or object.
    pub about: Option<Uuid>,
    /// Only events that this person caused or that concern them.
    pub person: Option<Uuid>,
    /// Only events with this name.
    pub event: Option<String>,
    /// Only events at or after this time.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
    /// Only events older than this one.
    pub before: Option<(Timestamp, Uuid)>,
}

/// The times that can be formatted (years 1 to 9999); events at other times can't be listed.
const WRITABLE: (Timestamp, Timestamp) =
    (Timestamp::from_seconds(-62_135_596_800), Timestamp::from_micros(253_402_300_799_999_999));

/// Lists events, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App, filter: Filter, limit: i64) -> Result<Vec<EventView>> {
    let (before_at, before_id) = filter.before.unzip();
    let rows: Vec<Stored> = app
        .db
        .all(
            select_stored!(
                "where ($1 is null or e.actor_id = $1)
                   and ($2 is null or e.about_id = $2)
                   and ($3 is null or e.actor_id = $3 or e.about_id = $3)
                   and ($4 is null or e.event = $4)
                   and e.at >= $5 and e.at < $6
                   and ($7 is null or (e.at, e.id) < ($7, $8))
                 order by e.at desc, e.id desc limit $9"
            ),
            args![
                filter.actor,
                filter.about,
                filter.person,
                filter.event,
                filter.since.unwrap_or(WRITABLE.0),
                filter.until.unwrap_or(WRITABLE.1),
                before_at,
                before_id,
                limit
            ],
        )
        .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let (event, fault) = view(&app.audit_keys, row);
        if let Some(fault) = fault {
            report(app, row, &fault);
        }
        let Some(mut event) = event else { continue };
        // Users who view their own activity must not learn an administrator's IP address.
        if filter.person.is_some() && row.person_id.value() != filter.person {
            event.personal.clear();
        }
        events.push(event);
    }
    Ok(events)
}

/// Logs that a record failed verification, the first time it is read.
fn report(app: &App, row: &Stored, fault: &str) {
    let id = row.id.0.unwrap_or_default();
    if app.state::<Watch>().shows_first(id) {
        tracing::error!(record = %id, "a record of the audit log failed verification: {fault}");
    }
}

/// Returns the event to show for a row, and what is wrong with the row. A row without a readable time can't be placed
/// in the list.
fn view(keys: &AuditKeys, row: &Stored) -> (Option<EventView>, Option<String>) {
    let (record, fault) = match row.record(&keys.chain()) {
        Ok(record) => (Some(record), None),
        Err(unlike) => {
            let text = row.record.0.as_deref().unwrap_or_default();
            (serde_json::from_str::<Record>(text).ok(), Some(unlike.to_string()))
        }
    };
    let (personal, fault) = match fault {
        None => match personal(keys, row) {
            Ok(personal) => (personal, None),
            Err(detail) => (BTreeMap::new(), Some(detail.to_owned())),
        },
        fault => (BTreeMap::new(), fault),
    };
    let Some(at) = row.at.0 else { return (None, fault) };
    let record = record.unwrap_or_else(|| from_columns(row, at));
    let event = EventView {
        id: row.id.0.map_or(record.id, EventId),
        at,
        event: record.event,
        actor: record.actor,
        about: record.about,
        request_id: record.request,
        details: record.details,
        personal,
        verified: fault.is_none(),
    };
    (Some(event), fault)
}

/// Builds a record from the columns, for a row whose record can't be read.
fn from_columns(row: &Stored, at: Timestamp) -> Record {
    let about = row.about_kind.value().map(|kind| Party {
        id: row.about_id.value(),
        kind,
        ..Party::default()
    });
    Record {
        about,
        actor: Party {
            id: row.actor_id.value(),
            kind: row.actor_kind.0.clone().unwrap_or_default(),
            ..Party::default()
        },
        at: at.as_micros(),
        details: BTreeMap::new(),
        event: row.event.0.clone().unwrap_or_default(),
        id: EventId(row.id.0.unwrap_or_default()),
        personal: None,
        request: None,
        v: 0,
    }
}

/// Returns the personal part of an unaltered row, which is empty if the person was erased.
fn personal(keys: &AuditKeys, row: &Stored) -> Result<BTreeMap<String, String>, &'static str> {
    let (Some(id), Some(sealed)) = (row.id.0, row.personal.value()) else {
        return Ok(BTreeMap::new());
    };
    let key = match (row.person_id.value(), row.wrapped.value()) {
        (None, _) => None,
        (Some(_), None) => return Ok(BTreeMap::new()),
        (Some(person), Some(wrapped)) => {
            let key = person_key(keys, UserId(person), &wrapped);
            Some(key.map_err(|_| "the key of the person concerned can't be opened")?)
        }
    };
    let text = key
        .as_ref()
        .unwrap_or(&keys.unowned)
        .open(id.as_bytes(), &sealed)
        .map_err(|_| "the personal part can't be opened")?;
    serde_json::from_slice(text.expose()).map_err(|_| "the personal part can't be read")
}
