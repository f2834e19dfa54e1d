//! The chain: every record is given a position and a digest that covers all records before it.
//!
//! Records are authenticated when they are written; a job puts them in order moments later, so that writers on many
//! connections don't wait for each other. Deleting, changing, moving or inserting a record breaks the chain at that
//! point. Until a record is chained, the process that wrote it checks that it still exists and reports it if it is
//! missing. Before that process ends, it chains the pending records.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_db::{Type, Value, args};
use uuid::Uuid;

use super::head::{Ending, Finding, Head, Passed, Watch};
use super::stored::{Stored, Unlike, select_stored};
use super::{FAULT_FOUND, FaultKind};
use crate::app::{Actor, App};
use crate::error::{Error, Result};
use crate::id::EventId;
use crate::record::{self, Entry, PLACED, Unchained};

/// How often new records are put into the chain.
pub(super) const EVERY: Duration = Duration::from_millis(500);
/// The maximum number of records that one transaction adds to the chain: a multiple of what one statement places.
const FULL: usize = 480;
/// The maximum number of pages of `FULL` rows that one pass reads if some of the rows are forged.
const PAGES: usize = 10;
/// How long a process waits, before it exits, for its records to be chained.
const ENDING: Duration = Duration::from_secs(3);
/// How many records one statement looks for.
const LOOKED_FOR: usize = 100;
/// The maximum number of records that an event lists.
const NAMED: usize = 20;

pub(super) async fn run(app: &App) -> Result<()> {
    while seal_pending(app).await? == FULL {}
    Ok(())
}

/// Chains records that have no position yet. Returns how many were chained. Faults at the end of the log, and in
/// records that are not chained yet, are reported once, in the server's log and by an event.
///
/// Two processes may try at the same time: one of them advances the head, and the other changes nothing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn seal_pending(app: &App) -> Result<usize> {
    Ok(pass(app, Reporting::All).await?.placed)
}

/// Chains all records that have no position yet, before this process ends. Takes at most three seconds.
///
/// # Errors
/// Returns an error if the database fails, or if some records of this process could not be chained in that time.
pub async fn seal_all(app: &App) -> Result<()> {
    seal_before_the_end(app, Reporting::All).await
}

/// Like [`seal_all`], but only if some records that this process wrote are not chained yet. For commands: reporting
/// faults in other processes' records is left to servers.
///
/// # Errors
/// Fails like [`seal_all`].
pub async fn seal_written(app: &App) -> Result<()> {
    if !app.state::<Unchained>().is_empty() {
        seal_before_the_end(app, Reporting::Own).await?;
    }
    Ok(())
}

async fn seal_before_the_end(app: &App, reporting: Reporting) -> Result<()> {
    let watch = app.state::<Watch>();
    watch.look_on_from(Passed::default());
    let all = async {
        while pass(app, reporting).await?.leaves_some {}
        // The head is missing or wrong, so nothing can be chained, or a record of this process was altered.
        if !app.state::<Unchained>().is_empty() {
            return Err(Error::internal(
                "some records could not be chained; run `palisade audit verify`",
            ));
        }
        Ok(())
    };
    let late = |_| Err(Error::internal("some records were not chained in time"));
    let sealed = tokio::time::timeout(ENDING, all).await.unwrap_or_else(late);
    if sealed.is_err() {
        // Chaining is tried only once, so that the end of the process doesn't wait a second time.
        drop(app.state::<Unchained>().take());
    }
    sealed
}

/// The faults reported when they are found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reporting {
    All,
    /// Only missing records of this process, which no other process can detect.
    Own,
}

/// The result of one pass.
#[derive(Clone, Copy, Default)]
struct Pass {
    /// How many records it chained.
    placed: usize,
    /// Whether there may be more that can be chained.
    leaves_some: bool,
}

async fn pass(app: &App, reporting: Reporting) -> Result<Pass> {
    let sealed = seal_batch(app, reporting).await;
    if matches!(sealed, Ok(Pass { placed: FULL, .. })) {
        return sealed;
    }
    // Also when the chain stands still: that is when records can be taken away.
    let due = app.state::<Watch>().looks_for_written();
    let reported = due && look_for(app, app.state::<Unchained>().take()).await?;
    sealed.map(|pass| Pass { leaves_some: pass.leaves_some || reported, ..pass })
}

async fn seal_batch(app: &App, reporting: Reporting) -> Result<Pass> {
    let (watch, key) = (app.state::<Watch>(), app.audit_keys.chain());
    // Before the head is read: another task may see a higher one at any moment.
    let seen = watch.seen();
    let ending = Ending::read(&app.db, seen).await?;
    let (head, finding) = ending.judge(&key, seen);
    let reported = watch.is_new(finding) && reporting == Reporting::All;
    if let Some(Finding { kind, detail, position }) = finding.filter(|_| reported) {
        tracing::error!(
            kind = kind.as_str(),
            position,
            "the audit log was tampered with: {detail}"
        );
        let place = position.map(|position| ("position", position.to_string()));
        report(app, kind, detail, place).await?;
    }
    watch.stands_still(head.is_none());
    let Some(head) = head else { return Ok(Pass::default()) };
    match finding {
        Some(Finding { kind: FaultKind::RolledBack, .. }) => watch.accept(head),
        _ => watch.saw(head),
    }
    if !ending.pending && !reported {
        return Ok(Pass::default());
    }
    let waiting = Waiting::read(app, &key).await?;
    // The genuine records first, so that forged rows don't hold them up.
    let placed = chain(app, head, &waiting.genuine).await?;
    if let Some(placed) = placed {
        watch.look_on_from(waiting.passed);
        let reported = reporting == Reporting::All && report_forged(app, waiting.forged).await?;
        return Ok(Pass { placed, leaves_some: waiting.leaves_some || reported });
    }
    // Another process was faster.
    Ok(Pass { placed: 0, leaves_some: true })
}

/// Records that have no position yet.
#[derive(Default)]
struct Waiting {
    /// The ids and texts of the records to be chained next.
    genuine: Vec<(Uuid, String)>,
    /// Altered or forged rows that were read with them, which are left unchanged for `verify` to report.
    forged: Vec<(Uuid, Unlike)>,
    /// The progress of the scan after these rows.
    passed: Passed,
    /// Whether more rows follow.
    leaves_some: bool,
}

impl Waiting {
    /// Reads the records that a transaction chains, starting where the last scan ended. At the end, the scan restarts
    /// from the beginning.
    ///
    /// SECURITY: forged rows, however many, are skipped; a row is genuine if all its columns are (tests:
    /// forged_records_keep_no_other_from_being_chained, what_was_never_written_is_never_chained,
    /// a_copy_of_a_record_is_never_chained).
    async fn read(app: &App, key: &[u8; 32]) -> Result<Self> {
        let passed = app.state::<Watch>().passed();
        let mut waiting = Self { passed, leaves_some: true, ..Self::default() };
        for _ in 0..PAGES {
            let wanted = FULL.saturating_sub(waiting.genuine.len());
            let rows = page(app, waiting.passed, wanted).await?;
            waiting.passed = waiting.passed.over(&rows);
            let last = rows.len() < wanted;
            for row in rows {
                match (row.genuine(key), row.id.0, row.record.0) {
                    (Ok(_), Some(id), Some(record)) => waiting.genuine.push((id, record)),
                    (read, id, _) => {
                        let unlike = read.err().unwrap_or(Unlike::Record);
                        waiting.forged.push((id.unwrap_or_default(), unlike));
                    }
                }
            }
            if last {
                return Ok(Self { passed: Passed::default(), leaves_some: false, ..waiting });
            }
            if waiting.genuine.len() == FULL {
                break;
            }
        }
        Ok(waiting)
    }
}

/// Reads the next rows that have no position.
async fn page(app: &App, passed: Passed, rows: usize) -> Result<Vec<Stored>> {
    let (rows, beyond) = (i64::try_from(rows).unwrap_or(i64::MAX), passed.beyond);
    let page = match passed.after {
        None => {
            let sql = select_stored!(
                keyless "where e.position is null order by e.at, e.id limit $1 offset $2"
            );
            app.db.all(sql, args![rows, beyond]).await?
        }
        Some((at, id)) => {
            let sql = select_stored!(
                keyless "where e.position is null and (e.at, e.id) > ($1, $2)
                 order by e.at, e.id limit $3 offset $4"
            );
            app.db.all(sql, args![at, id, rows, beyond]).await?
        }
    };
    Ok(page)
}

/// Reports altered or forged pending rows, the first time they are read. Returns whether any were reported.
async fn report_forged(app: &App, forged: Vec<(Uuid, Unlike)>) -> Result<bool> {
    let untold = app.state::<Watch>().untold(forged.iter().map(|(id, _)| *id));
    let Some((id, unlike)) = forged.into_iter().find(|(id, _)| untold.contains(id)) else {
        return Ok(false);
    };
    let records = untold.len();
    tracing::error!(
        records,
        record = %id,
        "records of the audit log were forged or changed and are not chained; the first: {unlike}"
    );
    let detail = "records are forged or were changed before they were chained";
    let place = ("records", named(&untold));
    report(app, unlike.kind(false), detail, Some(place)).await?;
    app.state::<Watch>().told_of(untold);
    Ok(true)
}

/// Returns the ids of the first of these records, for an event.
fn named<'a>(records: impl IntoIterator<Item = &'a Uuid>) -> String {
    let named: Vec<String> = records.into_iter().take(NAMED).map(Uuid::to_string).collect();
    named.join(" ")
}

/// Chains these records after `head`. Returns how many were chained, or `None` if another process was faster.
async fn chain(app: &App, head: Head, records: &[(Uuid, String)]) -> Result<Option<usize>> {
    if records.is_empty() {
        return Ok(Some(0));
    }
    let key = app.audit_keys.chain();
    let mut tx =
        app.upkeep("records are put into the chain, which changes no record").begin().await?;
    let (mut end, mut places) = (head, Vec::with_capacity(records.len()));
    for (id, record) in records {
        end = end.after(&key, record);
        places.push((*id, end.chain));
    }
    if !head.advance(&mut tx, &key, end).await? {
        return Ok(None);
    }
    let mut before = head.position;
    for part in places.chunks(PLACED) {
        if record::place(&mut tx, before, part).await? != part.len() as u64 {
            // One of them has gone since it was read.
            return Ok(None);
        }
        before = before.saturating_add(i64::try_from(part.len()).unwrap_or(i64::MAX));
    }
    tx.commit().await?;
    app.state::<Watch>().saw(end);
    app.state::<Unchained>().chained(places.iter().map(|(id, _)| id));
    Ok(Some(places.len()))
}

/// Checks that the records committed by this process still exist, until they are chained. Returns whether it reported
/// any as missing.
///
/// SECURITY: otherwise, a record deleted before it is chained leaves no gap (test:
/// a_record_deleted_before_it_is_chained_is_missed).
async fn look_for(app: &App, written: Vec<Uuid>) -> Result<bool> {
    let unchained = app.state::<Unchained>();
    let mut missing = Vec::new();
    for part in written.chunks(LOOKED_FOR) {
        let mut ids: Vec<Value> = part.iter().map(|id| Value::from(*id)).collect();
        ids.resize(LOOKED_FOR, Value::Null(Type::Id));
        let found: Result<Vec<(Uuid, bool)>, _> = app.db.all(FIND, ids.into()).await;
        let Ok(found) = found else {
            unchained.wrote(part.iter().copied().map(EventId));
            continue;
        };
        let found: BTreeMap<Uuid, bool> = found.into_iter().collect();
        unchained.wrote(found.iter().filter(|(_, chained)| !**chained).map(|(id, _)| EventId(*id)));
        missing.extend(part.iter().filter(|id| !found.contains_key(*id)));
    }
    let Some(first) = missing.first() else { return Ok(false) };
    let records = missing.len();
    tracing::error!(records, record = %first, "records of the audit log were deleted before they were chained");
    let detail = "records were deleted before they were chained";
    report(app, FaultKind::Deleted, detail, Some(("records", named(&missing)))).await?;
    Ok(true)
}

/// Selects which of these records exist, and whether they are chained.
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

/// Writes the event that reports a fault.
async fn report(
    app: &App,
    kind: FaultKind,
    detail: &str,
    place: Option<(&'static str, String)>,
) -> Result<()> {
    let mut entry: Entry =
        FAULT_FOUND.entry().detail("kind", kind.as_str()).detail("detail", detail);
    if let Some((name, value)) = place {
        entry = entry.detail(name, value);
    }
    app.change(&Actor::system()).await?.commit(entry).await
}
