//! The head of the log: how many records the chain has and its last value, authenticated.
//!
//! The chain alone reveals records that are missing before another record, but not those that are missing at the end.
//! The head reveals those too: it advances in the transaction that adds to the chain, and the chain continues from the
//! head, not from the last existing record.
//!
//! An older head is as authentic as the newest. [`Watch`] stores the highest head that this process has read, so that a
//! head that goes back is detected while a process runs. Only a copy kept elsewhere reveals an older head that was
//! restored while no process was running.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_crypto::{audit as digest, secret};
use palisade_db::{DbError, FromRow, ReadDb, Row, Timestamp, Tx, args};
use uuid::Uuid;

use super::FaultKind;
use super::stored::Stored;
use crate::app::Change;
use crate::error::Result;
use crate::record::Read;

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of records, which is the position of the last record.
    pub(crate) position: i64,
    /// The last value of the chain.
    pub(crate) chain: [u8; 32],
}

impl Head {
    /// The head of an empty log.
    pub(crate) const START: Self = Self { position: 0, chain: [0; 32] };

    /// Returns the head after this record is added.
    pub(crate) fn after(self, key: &[u8; 32], record: &str) -> Self {
        let chain = digest::chain_digest(key, &self.chain, record.as_bytes());
        Self { position: self.position.saturating_add(1), chain }
    }

    fn mac(self, key: &[u8; 32]) -> [u8; 32] {
        digest::head_mac(key, self.position, &self.chain)
    }

    /// Advances the head. Returns false if the stored head has changed in the meantime.
    pub(super) async fn advance(self, tx: &mut Tx, key: &[u8; 32], to: Self) -> Result<bool> {
        // SECURITY: a process that chains from an older head changes nothing, so the chain never forks. The unique
        // index on the position prevents a fork too, as long as the index exists (test: two_processes_make_one_chain).
        let moved = tx
            .run(
                "update audit_head set position = $1, chain = $2, mac = $3
                 where one = 1 and position = $4 and chain = $5",
                args![to.position, to.chain, to.mac(key), self.position, self.chain],
            )
            .await?;
        Ok(moved == 1)
    }
}

/// Creates the head of an empty log, in the change that creates the database's first keys. An existing head is kept.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn create_head(change: &mut Change) -> Result<()> {
    let head = Head::START;
    let mac = head.mac(&change.app().audit_keys.chain());
    change
        .run(
            "insert into audit_head (one, position, chain, mac) values (1, $1, $2, $3)
             on conflict (one) do nothing",
            args![head.position, head.chain, mac],
        )
        .await?;
    Ok(())
}

/// Writes this head, replacing any stored head.
pub(super) async fn put(change: &mut Change, head: Head) -> Result<()> {
    let mac = head.mac(&change.app().audit_keys.chain());
    change
        .run(
            "insert into audit_head (one, position, chain, mac) values (1, $1, $2, $3)
             on conflict (one) do update
             set position = excluded.position, chain = excluded.chain, mac = excluded.mac",
            args![head.position, head.chain, mac],
        )
        .await?;
    Ok(())
}

/// A fault at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: FaultKind,
    pub(crate) detail: &'static str,
    pub(crate) position: Option<i64>,
}

impl Finding {
    fn new(kind: FaultKind, detail: &'static str, position: Option<i64>) -> Self {
        Self { kind, detail, position }
    }
}

/// The end of the log at one moment.
pub(crate) struct Ending {
    position: Read<Option<i64>>,
    chain: Read<Option<[u8; 32]>>,
    mac: Read<Option<[u8; 32]>>,
    /// The chain value of the record at the head's position.
    last: Read<Option<[u8; 32]>>,
    /// The chain value of the record at the position of the head that was seen before.
    at_seen: Read<Option<[u8; 32]>>,
    lowest: Read<Option<i64>>,
    highest: Read<Option<i64>>,
    /// Whether there are records that aren't chained yet.
    pub(super) pending: bool,
}

impl FromRow for Ending {
    fn from_row(row: &mut Row<'_>) -> std::result::Result<Self, DbError> {
        Ok(Self {
            position: row.next()?,
            chain: row.next()?,
            mac: row.next()?,
            last: row.next()?,
            at_seen: row.next()?,
            lowest: row.next()?,
            highest: row.next()?,
            pending: row.next()?,
        })
    }
}

impl Ending {
    /// Reads the end of the log in one statement, so that the head and the records are from the same moment.
    pub(crate) async fn read(db: &ReadDb, seen: Option<Head>) -> Result<Self> {
        Ok(db
            .one(
                "select h.position, h.chain, h.mac,
                        (select e.chain from audit_events e where e.position = h.position limit 1),
                        (select e.chain from audit_events e where e.position = $1 limit 1),
                        (select min(e.position) from audit_events e),
                        (select max(e.position) from audit_events e),
                        exists (select 1 from audit_events e where e.position is null)
                 from (select 1 as one) only_row left join audit_head h on h.one = only_row.one",
                args![seen.map(|head| head.position)],
            )
            .await?)
    }

    /// Returns the head, if it exists and is authentic.
    pub(crate) fn head(&self, key: &[u8; 32]) -> std::result::Result<Head, Finding> {
        let (position, chain, mac) = match (&self.position.0, &self.chain.0, &self.mac.0) {
            (Some(None), Some(None), Some(None)) => {
                return Err(Finding::new(FaultKind::Cut, "the head of the log is missing", None));
            }
            (Some(Some(position)), Some(Some(chain)), Some(Some(mac))) => (*position, *chain, mac),
            _ => {
                let detail = "the head of the log can't be read";
                return Err(Finding::new(FaultKind::Edited, detail, None));
            }
        };
        let head = Head { position, chain };
        if secret::constant_time_eq(&head.mac(key), mac) {
            Ok(head)
        } else {
            let detail = "the head of the log does not match its MAC";
            Err(Finding::new(FaultKind::Edited, detail, None))
        }
    }

    /// Returns the highest position of a record, or the highest possible number if the position can't be read.
    pub(crate) fn highest(&self) -> i64 {
        match self.highest.0 {
            Some(highest) => highest.unwrap_or(0),
            None => i64::MAX,
        }
    }

    /// Returns whether records have positions that the chain can't have assigned: below its start, or above `end`.
    pub(crate) fn reaches_beyond(&self, end: i64) -> bool {
        self.highest() > end || self.lowest.value().is_some_and(|lowest| lowest < 1)
    }

    /// Returns the head to continue from, if there is one, and the fault that was found, if any.
    pub(super) fn judge(
        &self,
        key: &[u8; 32],
        seen: Option<Head>,
    ) -> (Option<Head>, Option<Finding>) {
        let head = match self.head(key) {
            Ok(head) => head,
            Err(finding) => return (None, Some(finding)),
        };
        let at = Some(head.position);
        // SECURITY: never chain again below a record that is chained
        // (test: records_are_never_chained_again_below_the_head).
        if self.highest() > head.position {
            let detail = "the log has records beyond its head";
            return (None, Some(Finding::new(FaultKind::RolledBack, detail, at)));
        }
        // SECURITY: (test: a_head_that_goes_back_is_told)
        if seen.is_some_and(|seen| self.went_back(head, seen)) {
            let detail = "the log went back to an earlier state while the server was running";
            return (Some(head), Some(Finding::new(FaultKind::RolledBack, detail, at)));
        }
        if head.position > 0 && self.last.value() != Some(head.chain) {
            let detail = "the last record of the log is missing or changed";
            return (Some(head), Some(Finding::new(FaultKind::Cut, detail, at)));
        }
        (Some(head), None)
    }

    fn went_back(&self, head: Head, seen: Head) -> bool {
        let forked = self.at_seen.value().is_some_and(|chain| chain != seen.chain);
        head.position < seen.position
            || (head.position == seen.position && head.chain != seen.chain)
            || (seen.position > 0 && forked)
    }
}

/// The progress of the scan of pending records, in the order of `(at, id)`. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// The last row whose place in that order can be read.
    pub(super) after: Option<(Timestamp, Uuid)>,
    /// How many rows after it were scanned.
    pub(super) beyond: i64,
}

impl Passed {
    /// Returns the progress after these rows have been scanned.
    pub(super) fn over(self, rows: &[Stored]) -> Self {
        let place = |(beyond, row): (i64, &Stored)| {
            row.at.0.zip(row.id.0).map(|place| Self { after: Some(place), beyond })
        };
        let all = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let beyond = self.beyond.saturating_add(all);
        (0..).zip(rows.iter().rev()).find_map(place).unwrap_or(Self { beyond, ..self })
    }
}

/// The state that this process keeps about the log.
#[derive(Default)]
pub(super) struct Watch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    seen: Option<Head>,
    reported: Option<Finding>,
    /// Records that failed verification and were reported when they were read.
    shown: BTreeSet<Uuid>,
    /// Altered or forged rows that were reported when they were about to be chained.
    forged: BTreeSet<Uuid>,
    /// The progress of the scan of pending records.
    passed: Passed,
    /// The number of consecutive passes that found no head to chain from.
    still: usize,
}

/// The maximum number of reported records kept in memory.
const REMEMBERED: usize = 10_000;
/// While the chain can't continue, only one in this many passes looks for missing records: one every half minute.
const PASSES_STILL: usize = 60;

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the highest head read so far.
    pub(super) fn seen(&self) -> Option<Head> {
        self.lock().seen
    }

    /// Stores a head, unless a higher one is already stored.
    pub(super) fn saw(&self, head: Head) {
        let mut watched = self.lock();
        if watched.seen.is_none_or(|seen| seen.position < head.position) {
            watched.seen = Some(head);
        }
    }

    /// Accepts a head that went back, once this has been reported.
    pub(super) fn accept(&self, head: Head) {
        self.lock().seen = Some(head);
    }

    /// Returns whether this finding has not been reported yet, and stores it as reported.
    pub(super) fn is_new(&self, finding: Option<Finding>) -> bool {
        let mut watched = self.lock();
        let new = finding.is_some() && watched.reported != finding;
        watched.reported = finding;
        new
    }

    /// Returns whether the failed verification of this record has not been reported yet, and stores it as reported.
    pub(super) fn shows_first(&self, id: Uuid) -> bool {
        let mut watched = self.lock();
        watched.shown.len() < REMEMBERED && watched.shown.insert(id)
    }

    /// Returns those of these rows that have not been reported as forged yet.
    pub(super) fn untold(&self, rows: impl IntoIterator<Item = Uuid>) -> BTreeSet<Uuid> {
        let watched = self.lock();
        if watched.forged.len() >= REMEMBERED {
            return BTreeSet::new();
        }
        rows.into_iter().filter(|id| !watched.forged.contains(id)).collect()
    }

    /// Records that these rows were reported as forged.
    pub(super) fn told_of(&self, rows: BTreeSet<Uuid>) {
        self.lock().forged.extend(rows);
    }

    /// Returns the position from which the scan for records to chain continues.
    pub(super) fn passed(&self) -> Passed {
        self.lock().passed
    }

    /// Stores the position from which the scan for records to chain continues.
    pub(super) fn look_on_from(&self, passed: Passed) {
        self.lock().passed = passed;
    }

    /// Records whether this pass found no head to chain from.
    pub(super) fn stands_still(&self, still: bool) {
        let mut watched = self.lock();
        watched.still = if still { watched.still.saturating_add(1) } else { 0 };
    }

    /// Returns whether to look now for records committed but not yet seen in the chain. While the chain can't continue,
    /// most passes skip this: the fault has been reported and lasts until someone acts, and the number of records only
    /// grows.
    pub(super) fn looks_for_written(&self) -> bool {
        let watched = self.lock();
        watched.still == 0 || watched.still % PASSES_STILL == 1
    }
}
