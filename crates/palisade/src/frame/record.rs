//! One record of the audit log: its form, its keys, its personal part, and how it is written.
//!
//! # Promises
//!
//! - An event is written in the transaction of the change that it records.
//! - The form of a record is stable: `record` is canonical JSON (keys sorted, strings and integers only, RFC 8785) of
//!   version 1, authenticated by `mac` under a key derived from the root key.
//! - A record's personal part (IP address, user agent, email address) is stored next to it, sealed under the key of the
//!   user who acted, or else of the user that the event is about, or under a key of the site if there is neither. The
//!   record contains the SHA-256 of the sealed part.
//!
//! Tables: `audit_events`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_crypto::audit as digest;
use palisade_crypto::random::Random;
use palisade_crypto::root::RootKey;
use palisade_crypto::seal::SealingKey;
use palisade_crypto::secret::SecretBytes;
use palisade_db::{Args, Cell, Column, DbError, Timestamp, Tx, Type, Value, args};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::id::{EventId, UserId};

/// A kind of event: its stable name and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `area.what_happened`.
    pub name: &'static str,
    /// A one-sentence description for people.
    pub summary: &'static str,
}

impl Event {
    /// Creates an entry for this event that concerns no particular user.
    pub fn entry(self) -> Entry {
        Entry { event: self.name, about: None, details: BTreeMap::new(), personal: BTreeMap::new() }
    }

    /// Creates an entry for this event about a user.
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
    /// Returns the name of the event.
    pub fn event(&self) -> &'static str {
        self.event
    }

    /// Sets the user or object that the event concerns.
    #[must_use]
    pub fn concerning(mut self, kind: &'static str, id: Uuid) -> Self {
        self.about = Some((kind, id));
        self
    }

    /// Adds a detail that doesn't identify a person.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.insert(name, value.into());
        self
    }

    /// Adds a detail to be erased when the person is erased, such as an IP address or a name.
    #[must_use]
    pub fn personal(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.personal.insert(name, value.into());
        self
    }
}

/// The keys of the log, derived from the root key.
pub struct AuditKeys {
    chain: SecretBytes,
    persons: SealingKey,
    pub(crate) unowned: SealingKey,
    random: Arc<dyn Random>,
}

impl AuditKeys {
    /// Derives the keys. Sealing takes its randomness from `random`.
    pub fn new(root: &RootKey, random: Arc<dyn Random>) -> Self {
        Self {
            chain: root.derive_bytes("palisade audit chain v1"),
            persons: root.derive("palisade audit person keys v1"),
            unowned: root.derive("palisade audit nobody v1"),
            random,
        }
    }

    pub(crate) fn chain(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.chain.expose());
        key
    }

    /// Creates a new, wrapped key for a person's part of the log.
    pub(crate) fn new_person_key(&self, person: UserId) -> Vec<u8> {
        let mut key = [0; 32];
        self.random.fill(&mut key);
        self.persons.seal(&*self.random, person.0.as_bytes(), &key)
    }
}

/// Version 1 of a record. The fields are in the sorted order of the keys, which is the canonical form.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) about: Option<Party>,
    pub(crate) actor: Party,
    pub(crate) at: i64,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) event: String,
    pub(crate) id: EventId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) personal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) request: Option<String>,
    pub(crate) v: u32,
}

impl Record {
    /// Returns the person under whose key the personal part is sealed: the actor, or else the user that the event is
    /// about.
    pub(crate) fn person(&self) -> Option<UserId> {
        let about = self.about.as_ref().filter(|about| about.kind == "user");
        self.actor.id.or(about.and_then(|about| about.id)).map(UserId)
    }
}

/// The actor of an event, or the user or object that it concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// The credential that the actor used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<PartyCredential>,
    /// The id, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Uuid>,
    /// The kind. For actors: `anyone`, `user`, `operator` or `system`. Otherwise: `user`, or a kind that an application
    /// adds.
    pub kind: String,
}

/// The credential that an actor used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartyCredential {
    /// The id of the session or API key.
    pub id: Uuid,
    /// The kind: `session`, `api_key`, or one that an application adds.
    pub kind: String,
}

/// Writes one event in a transaction and returns the id of its record.
pub(crate) async fn write(
    tx: &mut Tx,
    keys: &AuditKeys,
    actor: &Actor,
    at: Timestamp,
    entry: Entry,
) -> Result<EventId> {
    let id = EventId(crate::id::uuid_v7(at, &*keys.random));
    let about_user = entry.about.filter(|(kind, _)| *kind == "user").map(|(_, id)| UserId(id));
    let person = actor.user.or(about_user);
    let personal = personal_fields(actor, &entry);
    let sealed = seal_personal(tx, keys, person, id, &personal).await?;
    let record = Record {
        about: entry.about.map(|(kind, id)| Party {
            id: Some(id),
            kind: kind.to_owned(),
            ..Party::default()
        }),
        actor: Party {
            credential: actor.credential.map(|credential| PartyCredential {
                id: credential.id,
                kind: credential.kind.name.to_owned(),
            }),
            id: actor.user.map(|user| user.0),
            kind: actor.kind.as_str().to_owned(),
        },
        at: at.as_micros(),
        details: entry.details.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        event: entry.event.to_owned(),
        id,
        personal: sealed.as_deref().map(digest::content_digest),
        request: actor.request.map(|request| request.to_string()),
        v: 1,
    };
    let text = serde_json::to_string(&record).map_err(Error::internal)?;
    let mac = digest::record_mac(&keys.chain(), text.as_bytes());
    tx.run(
        "insert into audit_events
         (id, at, event, actor_kind, actor_id, about_kind, about_id, person_id, record, personal, mac)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        args![
            id,
            at,
            entry.event,
            actor.kind.as_str(),
            actor.user.map(|user| user.0),
            entry.about.map(|(kind, _)| kind),
            entry.about.map(|(_, id)| id),
            person.map(|user| user.0),
            text,
            sealed,
            mac
        ],
    )
    .await?;
    Ok(id)
}

fn personal_fields(actor: &Actor, entry: &Entry) -> BTreeMap<&'static str, String> {
    let mut fields = entry.personal.clone();
    if let Some(ip) = actor.ip {
        fields.insert("ip", ip.to_string());
    }
    if let Some(agent) = &actor.user_agent {
        fields.insert("user_agent", agent.clone());
    }
    fields
}

/// Seals the personal part under the person's key, or under the key for records that concern no user. If a person's key
/// was destroyed or can't be opened, nothing personal is stored.
async fn seal_personal(
    tx: &mut Tx,
    keys: &AuditKeys,
    person: Option<UserId>,
    event: EventId,
    fields: &BTreeMap<&'static str, String>,
) -> Result<Option<Vec<u8>>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_vec(fields).map_err(Error::internal)?;
    let context = event.0.as_bytes();
    // SECURITY: a key is also looked up where there is no user: else a refusal takes longer where there is an account
    // (test: test_time_tells_nobody_who_has_an_account).
    let looked_up = person.unwrap_or(UserId(Uuid::nil()));
    let wrapped: Option<(Read<Vec<u8>>,)> =
        tx.maybe("select wrapped from person_keys where user_id = $1", args![looked_up]).await?;
    match (person, wrapped) {
        (None, _) => Ok(Some(keys.unowned.seal(&*keys.random, context, &text))),
        (Some(person), Some((Read(wrapped),))) => {
            let key = wrapped.and_then(|wrapped| person_key(keys, person, &wrapped).ok());
            if key.is_none() {
                // A row that was tampered with stops no other work; `verify` names it.
                tracing::error!(
                    %person,
                    "a person's key can't be opened; the event is stored without its personal part"
                );
            }
            Ok(key.map(|key| key.seal(&*keys.random, context, &text)))
        }
        (Some(_), None) => Ok(None),
    }
}

pub(crate) fn person_key(keys: &AuditKeys, person: UserId, wrapped: &[u8]) -> Result<SealingKey> {
    let key = keys.persons.open(person.0.as_bytes(), wrapped).map_err(Error::internal)?;
    let mut bytes = [0; 32];
    if key.expose().len() != bytes.len() {
        return Err(Error::internal("a person's key has the wrong length"));
    }
    bytes.copy_from_slice(key.expose());
    Ok(SealingKey::from_bytes(bytes))
}

/// A stored value, or `None` if it can't be read.
pub(crate) struct Read<T>(pub(crate) Option<T>);

impl<T: Column> Column for Read<T> {
    const TYPE: Type = T::TYPE;

    fn from_cell(cell: Cell<'_>) -> std::result::Result<Self, DbError> {
        Ok(Self(T::from_cell(cell).ok()))
    }
}

impl<T: PartialEq> Read<T> {
    pub(crate) fn is(&self, expected: &T) -> bool {
        self.0.as_ref() == Some(expected)
    }
}

impl<T: Clone> Read<Option<T>> {
    /// Returns the value, or `None` if there is none or it can't be read.
    pub(crate) fn value(&self) -> Option<T> {
        self.0.clone().flatten()
    }
}

/// The number of records that one statement places in the chain.
pub(crate) const PLACED: usize = 60;

/// Places records in the chain consecutively, after position `before`, with their chain values. Returns how many of
/// them were found.
pub(crate) async fn place(tx: &mut Tx, before: i64, part: &[(Uuid, [u8; 32])]) -> Result<u64> {
    Ok(tx.run(PLACE, placing(before, part)).await?)
}

/// Places records in order after position `$1`. Because of the plus sign, SQLite looks up the sixty records by their
/// ids instead of scanning the index of all pending records in each statement.
const PLACE: &str = "update audit_events set position = $1 + place.column1, chain = place.column3
     from (values
                (1, $2, $3), (2, $4, $5), (3, $6, $7), (4, $8, $9), (5, $10, $11), (6, $12, $13),
                (7, $14, $15), (8, $16, $17), (9, $18, $19), (10, $20, $21), (11, $22, $23),
                (12, $24, $25), (13, $26, $27), (14, $28, $29), (15, $30, $31), (16, $32, $33),
                (17, $34, $35), (18, $36, $37), (19, $38, $39), (20, $40, $41), (21, $42, $43),
                (22, $44, $45), (23, $46, $47), (24, $48, $49), (25, $50, $51), (26, $52, $53),
                (27, $54, $55), (28, $56, $57), (29, $58, $59), (30, $60, $61), (31, $62, $63),
                (32, $64, $65), (33, $66, $67), (34, $68, $69), (35, $70, $71), (36, $72, $73),
                (37, $74, $75), (38, $76, $77), (39, $78, $79), (40, $80, $81), (41, $82, $83),
                (42, $84, $85), (43, $86, $87), (44, $88, $89), (45, $90, $91), (46, $92, $93),
                (47, $94, $95), (48, $96, $97), (49, $98, $99), (50, $100, $101), (51, $102, $103),
                (52, $104, $105), (53, $106, $107), (54, $108, $109), (55, $110, $111),
                (56, $112, $113), (57, $114, $115), (58, $116, $117), (59, $118, $119),
                (60, $120, $121)
     ) as place
     where audit_events.id = place.column2 and +audit_events.position is null";

fn placing(before: i64, part: &[(Uuid, [u8; 32])]) -> Args {
    let mut values = vec![Value::from(before)];
    for (id, chain) in part {
        values.extend([Value::from(*id), Value::from(*chain)]);
    }
    // The remaining places: an id of null matches no record.
    for _ in part.len()..PLACED {
        values.extend([Value::Null(Type::Id), Value::Null(Type::Bytes)]);
    }
    values.into()
}

/// The records that this process has committed but not yet found in the chain.
#[derive(Default)]
pub struct Unchained(Mutex<HashSet<Uuid>>);

/// The maximum number of records to store while the chain can't be extended.
const REMEMBERED: usize = 10_000;

impl Unchained {
    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds committed records.
    pub(crate) fn wrote(&self, records: impl IntoIterator<Item = EventId>) {
        let mut written = self.lock();
        let room = REMEMBERED.saturating_sub(written.len());
        written.extend(records.into_iter().take(room).map(|record| record.0));
    }

    /// Removes records that are now in the chain.
    pub(crate) fn chained<'a>(&self, records: impl IntoIterator<Item = &'a Uuid>) {
        let mut written = self.lock();
        for record in records {
            written.remove(record);
        }
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Removes and returns the records, oldest first.
    pub(crate) fn take(&self) -> Vec<Uuid> {
        let mut records: Vec<Uuid> = std::mem::take(&mut *self.lock()).into_iter().collect();
        records.sort_unstable();
        records
    }
}
