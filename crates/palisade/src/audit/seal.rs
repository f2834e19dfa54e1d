//! The chain: every record is given a position and a digest that covers all before it.
//!
//! Records are authenticated when they are written; a job puts them in order moments later, so that
//! writers on many connections don't wait for each other. Deleting, changing, moving or inserting a
//! record breaks the chain at its place; a record that was never chained is still covered by its MAC.

use std::time::Duration;

use palisade_crypto::{audit as digest, secret};
use palisade_db::{Db, DbErrorKind, Timestamp, args};
use uuid::Uuid;

use super::{AuditKeys, Record};
use crate::app::App;
use crate::error::Result;

/// How often new records are put into the chain.
pub(super) const EVERY: Duration = Duration::from_millis(500);
const BATCH: i64 = 500;
const START: [u8; 32] = [0; 32];

/// What is wrong with the log, at the first bad record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The position in the chain, or none for a record outside it.
    pub position: Option<i64>,
    /// The record.
    pub event: Option<Uuid>,
    /// What is wrong.
    pub says: &'static str,
}

pub(super) async fn run(app: &App) -> Result<()> {
    while seal_pending(app).await? == usize::try_from(BATCH).unwrap_or(usize::MAX) {}
    Ok(())
}

/// Puts records that have no position yet into the chain; answers how many.
///
/// Two processes may try at once: the position is unique, so one of them comes too late and changes
/// nothing.
///
/// # Errors
/// When the database fails.
pub async fn seal_pending(app: &App) -> Result<usize> {
    let pending: Option<(i64,)> =
        app.db.maybe("select 1 from audit_events where position is null limit 1", args![]).await?;
    if pending.is_none() {
        return Ok(0);
    }
    let mut tx = app.db.begin().await?;
    let head: Option<(i64, [u8; 32])> = tx
        .maybe(
            "select position, chain from audit_events where position is not null
             order by position desc limit 1",
            args![],
        )
        .await?;
    let (mut position, mut chain) = head.unwrap_or((0, START));
    let rows: Vec<(Uuid, String)> = tx
        .all(
            "select id, record from audit_events where position is null order by at, id limit $1",
            args![BATCH],
        )
        .await?;
    let key = app.audit_keys.chain();
    for (id, record) in &rows {
        position += 1;
        chain = digest::chain_digest(&key, &chain, record.as_bytes());
        let placed = tx
            .run(
                "update audit_events set position = $2, chain = $3
                 where id = $1 and position is null",
                args![*id, position, chain],
            )
            .await;
        match placed {
            Err(error) if error.kind() == DbErrorKind::Conflict => return Ok(0),
            placed => placed?,
        };
    }
    tx.commit().await?;
    Ok(rows.len())
}

/// Walks the whole log; answers how many records are good, or the first bad one.
///
/// # Errors
/// When the database fails.
pub async fn verify(db: &Db, keys: &AuditKeys) -> Result<std::result::Result<i64, Fault>> {
    let key = keys.chain();
    let (mut position, mut chain) = (0i64, START);
    loop {
        let rows: Vec<(i64, [u8; 32], Uuid)> = db
            .all(
                "select position, chain, id from audit_events where position > $1
                 order by position limit $2",
                args![position, BATCH],
            )
            .await?;
        if rows.is_empty() {
            break;
        }
        for (at, expected, id) in rows {
            let fault = |says| Fault { position: Some(at), event: Some(id), says };
            if at != position + 1 {
                return Ok(Err(fault("records before this one are missing")));
            }
            let row = content(db, id).await?;
            if let Some(says) = unlike(&key, id, &row) {
                return Ok(Err(fault(says)));
            }
            chain = digest::chain_digest(&key, &chain, row.2.as_bytes());
            if !secret::constant_time_eq(&chain, &expected) {
                return Ok(Err(fault("the chain is broken here")));
            }
            position = at;
        }
    }
    let fresh: Vec<(Uuid,)> = db
        .all("select id from audit_events where position is null order by at, id", args![])
        .await?;
    for (id,) in &fresh {
        // One that was chained in the meantime is as good as its neighbours.
        if let Some(says) = unlike(&key, *id, &content(db, *id).await?) {
            return Ok(Err(Fault { position: None, event: Some(*id), says }));
        }
    }
    Ok(Ok(position + i64::try_from(fresh.len()).unwrap_or(i64::MAX)))
}

type Content = (Timestamp, String, String, Option<Uuid>, Option<Uuid>, Option<Vec<u8>>, [u8; 32]);

async fn content(db: &Db, id: Uuid) -> Result<Content> {
    Ok(db
        .one(
            "select at, event, record, actor_id, about_id, personal, mac
             from audit_events where id = $1",
            args![id],
        )
        .await?)
}

/// Why a row isn't what was written, if it isn't: its MAC, or a column that differs from the record.
fn unlike(key: &[u8; 32], id: Uuid, row: &Content) -> Option<&'static str> {
    let (at, event, text, actor, about, personal, mac) = row;
    if !secret::constant_time_eq(&digest::record_mac(key, text.as_bytes()), mac) {
        return Some("the record was changed");
    }
    let Ok(record) = serde_json::from_str::<Record>(text) else {
        return Some("the record can't be read");
    };
    let same = record.id.0 == id
        && record.at == at.as_micros()
        && record.event == *event
        && record.actor.id == *actor
        && record.about.as_ref().and_then(|party| party.id) == *about;
    if !same {
        return Some("a column differs from the record");
    }
    match (record.personal, personal) {
        (Some(expected), Some(sealed)) if digest::content_digest(sealed) == expected => None,
        (None, None) => None,
        _ => Some("the personal part was changed"),
    }
}
