//! Writing a record: its form, its keys, and what is personal beside it.

use std::collections::BTreeMap;

use palisade_crypto::audit as digest;
use palisade_crypto::root::RootKey;
use palisade_crypto::seal::SealingKey;
use palisade_crypto::secret::SecretBytes;
use palisade_db::{Timestamp, Tx, args};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stored::Read;
use super::{Entry, head};
use crate::actor::Actor;
use crate::app::App;
use crate::change::Change;
use crate::error::{Error, Result};
use crate::id::{EventId, UserId};

/// The keys of the log, derived from the root key.
pub struct AuditKeys {
    chain: SecretBytes,
    persons: SealingKey,
    pub(super) unowned: SealingKey,
}

impl AuditKeys {
    /// Derives them.
    pub fn new(root: &RootKey) -> AuditKeys {
        AuditKeys {
            chain: root.derive_bytes("palisade audit chain v1"),
            persons: root.derive("palisade audit person keys v1"),
            unowned: root.derive("palisade audit nobody v1"),
        }
    }

    pub(super) fn chain(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.chain.expose());
        key
    }
}

/// Version 1 of a record. Field order is the sorted order of the keys, which is its canonical form.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) about: Option<Party>,
    pub(super) actor: Party,
    pub(super) at: i64,
    pub(super) details: BTreeMap<String, String>,
    pub(super) event: String,
    pub(super) id: EventId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) personal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) request: Option<String>,
    pub(super) v: u32,
}

impl Record {
    /// The person under whose key the personal part is sealed: who acted, else whom it is about.
    pub(super) fn person(&self) -> Option<UserId> {
        let about = self.about.as_ref().filter(|about| about.kind == "user");
        self.actor.id.or(about.and_then(|about| about.id)).map(UserId)
    }
}

/// A user or an object that an event concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// The credential with which the actor acted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<PartyCredential>,
    /// The id, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Uuid>,
    /// `user`, `session`, `key` …; for actors `anyone`, `user`, `operator`, `system`.
    pub kind: String,
}

/// The credential with which an actor acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartyCredential {
    /// The id of the session or API key.
    pub id: Uuid,
    /// `session`, `api_key`, or a kind that an application adds.
    pub kind: String,
}

/// Makes the key that a person's part of the log is sealed under.
///
/// # Errors
/// When the database fails.
pub async fn create_person_key(tx: &mut Change, person: UserId) -> Result<()> {
    let app = tx.app().clone();
    let mut key = [0; 32];
    app.random.fill(&mut key);
    let wrapped = app.audit_keys.persons.seal(&*app.random, person.0.as_bytes(), &key);
    tx.run("insert into person_keys (user_id, wrapped) values ($1, $2)", args![person, wrapped])
        .await?;
    Ok(())
}

/// Remembers records whose transaction was committed, until they are chained.
pub(crate) fn written(app: &App, records: Vec<EventId>) {
    app.part::<head::Watch>().wrote(records.into_iter().map(|record| record.0));
}

/// Writes one event into a transaction; answers its record.
pub(crate) async fn write(
    tx: &mut Tx,
    app: &App,
    actor: &Actor,
    at: Timestamp,
    entry: Entry,
) -> Result<EventId> {
    let id = EventId(crate::id::uuid_v7(at, &*app.random));
    let about_user = entry.about.filter(|(kind, _)| *kind == "user").map(|(_, id)| UserId(id));
    let person = actor.user.or(about_user);
    let personal = personal_fields(actor, &entry);
    let sealed = seal_personal(tx, app, person, id, &personal).await?;
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
    let mac = digest::record_mac(&app.audit_keys.chain(), text.as_bytes());
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
    if let Some(address) = actor.address {
        fields.insert("address", address.to_string());
    }
    if let Some(agent) = &actor.user_agent {
        fields.insert("user_agent", agent.clone());
    }
    fields
}

/// Seals what is personal under the key of the person, or under that for records about no user. A person whose key
/// was destroyed or can't be opened leaves nothing personal behind any more.
async fn seal_personal(
    tx: &mut Tx,
    app: &App,
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
    // (rig: tests/rigs/telling.py).
    let looked_up = person.unwrap_or(UserId(Uuid::nil()));
    let wrapped: Option<(Read<Vec<u8>>,)> =
        tx.maybe("select wrapped from person_keys where user_id = $1", args![looked_up]).await?;
    match (person, wrapped) {
        (None, _) => Ok(Some(app.audit_keys.unowned.seal(&*app.random, context, &text))),
        (Some(person), Some((Read(wrapped),))) => {
            let key =
                wrapped.and_then(|wrapped| person_key(&app.audit_keys, person, &wrapped).ok());
            if key.is_none() {
                // A row that was tampered with stops no other work; `verify` names it.
                tracing::error!(%person, "the key of a person can't be opened: an event lacks its personal part");
            }
            Ok(key.map(|key| key.seal(&*app.random, context, &text)))
        }
        (Some(_), None) => Ok(None),
    }
}

pub(super) fn person_key(keys: &AuditKeys, person: UserId, wrapped: &[u8]) -> Result<SealingKey> {
    let key = keys.persons.open(person.0.as_bytes(), wrapped).map_err(Error::internal)?;
    let mut bytes = [0; 32];
    if key.expose().len() != bytes.len() {
        return Err(Error::internal("the key of a person has the wrong length"));
    }
    bytes.copy_from_slice(key.expose());
    Ok(SealingKey::from_bytes(bytes))
}
