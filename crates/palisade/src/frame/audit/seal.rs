//! The chain: every record is given a position and a digest that covers all before it.
//!
//! Records are authenticated when they are written; a job puts them in order moments later, so that
//! writers on many connections don't wait for each other. Deleting, changing, moving or inserting a
//! record breaks the chain at its place. Until a record is chained, the process that wrote it remembers it and
//! misses it.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_db::{Args, Type, Value, args};
use uuid::Uuid;

use super::head::{Ending, Finding, Head, Watch};
use super::stored::{Read, is_authentic};
use super::verify::FaultKind;
use super::{Entry, FAULT_FOUND};
use crate::app::{Actor, App};
use crate::error::Result;

/// How often new records are put into the chain.
pub(super) const EVERY: Duration = Duration::from_millis(500);
/// How many records one statement gives their places.
const PLACED: usize = 60;
/// How many records one transaction puts into the chain: whole statements.
const FULL: usize = 480;
/// How many records one statement looks for.
const LOOKED_FOR: usize = 100;
/// How many missing records an event names.
const NAMED: usize = 20;

pub(super) async fn run(app: &App) -> Result<()> {
    while seal_pending(app).await? == FULL {}
    Ok(())
}

/// Puts records that have no position yet into the chain; answers how many. What is wrong with the end of the log
/// is told in the log of the server and by an event, once.
///
/// Two processes may try at once: one of them moves the head, and the other changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn seal_pending(app: &App) -> Result<usize> {
    let sealed = seal_batch(app).await;
    if matches!(sealed, Ok(FULL)) {
        return sealed;
    }
    // Also when the chain stands still: that is when records can be taken away.
    look_for(app, app.part::<Watch>().to_look_for()).await?;
    sealed
}

async fn seal_batch(app: &App) -> Result<usize> {
    let (watch, key) = (app.part::<Watch>(), app.audit_keys.chain());
    // Before the head is read: another task may see a higher one at any moment.
    let seen = watch.seen();
    let ending = Ending::read(&app.db, seen).await?;
    let (head, finding) = ending.judge(&key, seen);
    let told = watch.is_new(finding);
    if let Some(Finding { kind, says, position }) = finding.filter(|_| told) {
        tracing::error!(kind = kind.as_str(), position, "the audit log was tampered with: {says}");
        let place = position.map(|position| ("position", position.to_string()));
        tell(app, kind, says, place).await?;
    }
    watch.stands_still(head.is_none());
    let Some(head) = head else { return Ok(0) };
    match finding {
        Some(Finding { kind: FaultKind::RolledBack, .. }) => watch.accept(head),
        _ => watch.saw(head),
    }
    if ending.pending || told { chain(app, head).await } else { Ok(0) }
}

/// Id, record and MAC of a record that isn't chained yet.
type Waiting = (Read<Uuid>, Read<String>, Read<[u8; 32]>);

/// Chains what is pending after `head`, unless another process was faster.
async fn chain(app: &App, head: Head) -> Result<usize> {
    let key = app.audit_keys.chain();
    let mut tx = app.db.begin().await?;
    let rows: Vec<Waiting> = tx
        .all(
            "select id, record, mac from audit_events where position is null
             order by at, id limit $1",
            args![i64::try_from(FULL).unwrap_or(i64::MAX)],
        )
        .await?;
    let (mut end, mut places) = (head, Vec::with_capacity(rows.len()));
    for (id, record, mac) in &rows {
        if let (Some(id), Some(record), Some(mac)) = (id.0, &record.0, &mac.0)
            && is_authentic(&key, record, mac)
        {
            end = end.after(&key, record);
            places.push((id, end.chain));
        } else {
            // What was never written is left as it is, for `verify` to name.
            let id = id.0.unwrap_or_default();
            if app.part::<Watch>().shows_first(id) {
                tracing::error!(record = %id, "a record of the audit log is forged and is not chained");
            }
        }
    }
    if places.is_empty() || !head.advance(&mut tx, &key, end).await? {
        return Ok(0);
    }
    let mut before = head.position;
    for part in places.chunks(PLACED) {
        if tx.run(PLACE, placing(before, part)).await? != part.len() as u64 {
            // One of them has gone since it was read.
            return Ok(0);
        }
        before = before.saturating_add(i64::try_from(part.len()).unwrap_or(i64::MAX));
    }
    tx.commit().await?;
    app.part::<Watch>().saw(end);
    Ok(places.len())
}

/// Gives records their places, in order, after position `$1`. The plus keeps SQLite from walking the index of all
/// records that wait, once for each statement, where it should look up the sixty by their ids.
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
    // Places that no record is for: an id of null is none.
    for _ in part.len()..PLACED {
        values.extend([Value::Null(Type::Id), Value::Null(Type::Bytes)]);
    }
    values.into()
}

/// Looks for records that this process has committed, until they are chained.
///
/// SECURITY: else a record that is deleted before it is chained leaves no gap
/// (test: a_record_deleted_before_it_is_chained_is_missed).
async fn look_for(app: &App, written: Vec<Uuid>) -> Result<()> {
    let watch = app.part::<Watch>();
    let mut missing = Vec::new();
    for part in written.chunks(LOOKED_FOR) {
        let mut ids: Vec<Value> = part.iter().map(|id| Value::from(*id)).collect();
        ids.resize(LOOKED_FOR, Value::Null(Type::Id));
        let found: Result<Vec<(Uuid, bool)>, _> = app.db.all(FIND, ids.into()).await;
        let Ok(found) = found else {
            watch.wrote(part.iter().copied());
            continue;
        };
        let found: BTreeMap<Uuid, bool> = found.into_iter().collect();
        watch.wrote(found.iter().filter(|(_, chained)| !**chained).map(|(id, _)| *id));
        missing.extend(part.iter().filter(|id| !found.contains_key(*id)));
    }
    let Some(first) = missing.first() else { return Ok(()) };
    let records = missing.len();
    tracing::error!(records, record = %first, "records of the audit log were deleted before they were chained");
    let says = "records were deleted before they were chained";
    let named: Vec<String> = missing.iter().take(NAMED).map(Uuid::to_string).collect();
    let place = ("records", named.join(" "));
    tell(app, FaultKind::Deleted, says, Some(place)).await
}

/// Which of these records are there, and whether they are chained.
const FIND: &str = "select e.id, e.position is not null from (values
                ($1), ($2), ($3), ($4), ($5), ($6), ($7), ($8), ($9), ($10), ($11), ($12), ($13),
                ($14), ($15), ($16), ($17), ($18), ($19), ($20), ($21), ($22), ($23), ($24), ($25),
                ($26), ($27), ($28), ($29), ($30), ($31), ($32), ($33), ($34), ($35), ($36), ($37),
                ($38), ($39), ($40), ($41), ($42), ($43), ($44), ($45), ($46), ($47), ($48), ($49),
                ($50), ($51), ($52), ($53), ($54), ($55), ($56), ($57), ($58), ($59), ($60), ($61),
                ($62), ($63), ($64), ($65), ($66), ($67), ($68), ($69), ($70), ($71), ($72), ($73),
                ($74), ($75), ($76), ($77), ($78), ($79), ($80), ($81), ($82), ($83), ($84), ($85),
                ($86), ($87), ($88), ($89), ($90), ($91), ($92), ($93), ($94), ($95), ($96), ($97),
                ($98), ($99), ($100)
     ) as written join audit_events e on e.id = written.column1";

/// Writes the event of a fault.
async fn tell(
    app: &App,
    kind: FaultKind,
    says: &str,
    place: Option<(&'static str, String)>,
) -> Result<()> {
    let mut entry: Entry = FAULT_FOUND.entry().detail("kind", kind.as_str()).detail("says", says);
    if let Some((name, value)) = place {
        entry = entry.detail(name, value);
    }
    app.change(&Actor::system()).await?.commit(entry).await
}
