//! Verification of the whole log.
//!
//! The records are read page by page outside any transaction, so verifying a log of any length takes little memory and
//! blocks nothing. Records chained in the meantime have positions above the head with which the verification began, so
//! they are left to the next verification.

use std::collections::BTreeSet;

use palisade_crypto::secret;
use palisade_db::{ReadDb, args};
use uuid::Uuid;

use crate::audit_log::{Ending, FaultKind, Finding, Head, PERSON_ERASED, Stored, select_stored};
use crate::error::Result;
use crate::id::UserId;
use crate::record::{AuditKeys, Read, Record, person_key};

const PAGE: i64 = 500;
/// The maximum number of erased persons kept in memory.
const REMEMBERED: usize = 10_000;

/// The fault at the first bad record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The record's position in the chain, counted from 1. `None` for a record that isn't chained and for the head.
    pub index: Option<i64>,
    /// The id of the record, if the record exists.
    pub id: Option<Uuid>,
    /// A sentence that describes the fault.
    pub detail: String,
    /// The number of valid records before the fault.
    pub good: i64,
}

/// Verifies the whole log. Returns the number of valid records, or the first fault.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn verify(db: &ReadDb, keys: &AuditKeys) -> Result<std::result::Result<i64, Fault>> {
    let mut walk = Walk::new(db, keys);
    Ok(match walk.whole().await? {
        Some(fault) => Err(fault),
        None => Ok(walk.good),
    })
}

/// The first record whose chain value doesn't match. The records after it show what was done.
struct Misfit {
    index: i64,
    id: Option<Uuid>,
    values: u32,
}

struct Walk<'a> {
    db: &'a ReadDb,
    keys: &'a AuditKeys,
    key: [u8; 32],
    /// The end of the chain formed by the records checked so far.
    at: Head,
    good: i64,
    misfit: Option<Misfit>,
    erased: BTreeSet<UserId>,
}

impl Walk<'_> {
    fn new<'a>(db: &'a ReadDb, keys: &'a AuditKeys) -> Walk<'a> {
        let key = keys.chain();
        Walk { db, keys, key, at: Head::START, good: 0, misfit: None, erased: BTreeSet::new() }
    }

    async fn whole(&mut self) -> Result<Option<Fault>> {
        let ending = Ending::read(self.db, None).await?;
        let head = ending.head(&self.key);
        // SECURITY: the end of the log is where the head says, not where the records end
        // (test: the_end_of_the_log_can_not_be_cut_off).
        let end = head.map_or(ending.highest(), |head| head.position);
        if let Some(fault) = self.chained(end, ending.highest()).await? {
            return Ok(Some(self.settled(fault)));
        }
        if let Some(fault) = self.ended(head) {
            return Ok(Some(fault));
        }
        if ending.reaches_beyond(end)
            && let Some(fault) = self.beyond(end).await?
        {
            return Ok(Some(fault));
        }
        if let Err(Finding { kind, detail, .. }) = head {
            return Ok(Some(self.fault(kind, None, None, detail)));
        }
        self.pending().await
    }

    /// Verifies the chain up to position `end`.
    async fn chained(&mut self, end: i64, highest: i64) -> Result<Option<Fault>> {
        while self.at.position < end {
            let to = end.min(self.at.position.saturating_add(PAGE));
            let rows: Vec<Stored> = self
                .db
                .all(
                    select_stored!(
                        "where e.position > $1 and e.position <= $2
                         order by e.position, e.id limit 1000"
                    ),
                    args![self.at.position, to],
                )
                .await?;
            for row in &rows {
                if let Some(fault) = self.step(row).await? {
                    return Ok(Some(fault));
                }
            }
            if self.at.position < to {
                let index = Some(self.at.position + 1);
                return Ok(Some(if highest > self.at.position {
                    self.fault(FaultKind::Deleted, index, None, "a record is missing")
                } else {
                    let detail = "the records from here to the end are missing";
                    self.fault(FaultKind::Cut, index, None, detail)
                }));
            }
        }
        Ok(None)
    }

    /// Verifies the next record of the chain.
    async fn step(&mut self, row: &Stored) -> Result<Option<Fault>> {
        let expected = self.at.position + 1;
        let (index, id) = (Some(expected), row.id.0);
        match row.position.value() {
            Some(position) if position == expected => {}
            Some(position) if position > expected => {
                return Ok(Some(self.fault(
                    FaultKind::Deleted,
                    index,
                    None,
                    "a record is missing",
                )));
            }
            Some(position) => {
                let detail = "two records have the same position";
                return Ok(Some(self.fault(FaultKind::Inserted, Some(position), id, detail)));
            }
            None => {
                let detail = "the column `position` can't be read";
                return Ok(Some(self.fault(FaultKind::Edited, index, id, detail)));
            }
        }
        if let Some(fault) = self.content(row, index).await? {
            return Ok(Some(fault));
        }
        self.at = self.at.after(&self.key, row.record.0.as_deref().unwrap_or_default());
        let fits =
            row.chain.value().is_some_and(|chain| secret::constant_time_eq(&chain, &self.at.chain));
        Ok(match (&mut self.misfit, fits) {
            (None, true) => {
                self.good += 1;
                None
            }
            (None, false) => {
                self.misfit = Some(Misfit { index: expected, id, values: 1 });
                None
            }
            (Some(misfit), false) => {
                misfit.values = misfit.values.saturating_add(1);
                None
            }
            // All records are in their places, so only chain values were changed.
            (Some(_), true) => self.values_written(),
        })
    }

    /// Checks that a row is what was written and exists only once, and that its personal data can still be read or was
    /// erased.
    async fn content(&mut self, row: &Stored, index: Option<i64>) -> Result<Option<Fault>> {
        match row.genuine(&self.key) {
            Ok(record) => self.person(row, &record, index).await,
            Err(unlike) => {
                Ok(Some(self.fault(unlike.kind(index.is_some()), index, row.id.0, unlike)))
            }
        }
    }

    async fn person(
        &mut self,
        row: &Stored,
        record: &Record,
        index: Option<i64>,
    ) -> Result<Option<Fault>> {
        let id = row.id.0;
        if let Some(person) = record.person() {
            let detail = match &row.wrapped {
                Read(Some(Some(wrapped))) => person_key(self.keys, person, wrapped)
                    .is_err()
                    .then_some("the key of the person concerned can't be opened"),
                // SECURITY: (test: a_key_of_a_person_is_missed_unless_its_erasure_is_recorded)
                Read(Some(None)) if self.is_erased(person).await? => None,
                _ => Some("the key of the person concerned is missing, but no erasure is recorded"),
            };
            if let Some(detail) = detail {
                return Ok(Some(self.fault(FaultKind::KeyMissing, index, id, detail)));
            }
        }
        if record.event == PERSON_ERASED.name {
            let about = record.about.as_ref().and_then(|about| about.id);
            let (keys,): (i64,) = self
                .db
                .one("select count(*) from person_keys where user_id = $1", args![about])
                .await?;
            if keys > 0 {
                let detail =
                    "the key of the person whose erasure this record reports has reappeared";
                return Ok(Some(self.fault(FaultKind::Inserted, index, id, detail)));
            }
        }
        Ok(None)
    }

    /// Returns whether a record states that this person was erased. Whether that record is genuine is checked at its
    /// own position.
    async fn is_erased(&mut self, person: UserId) -> Result<bool> {
        if self.erased.contains(&person) {
            return Ok(true);
        }
        let record: Option<(Uuid,)> = self
            .db
            .maybe(
                "select id from audit_events where about_id = $1 and event = $2
                 order by at desc, id desc limit 1",
                args![person, PERSON_ERASED.name],
            )
            .await?;
        if record.is_some() && self.erased.len() < REMEMBERED {
            self.erased.insert(person);
        }
        Ok(record.is_some())
    }

    /// Compares the end of the chain with the head of the log. The result also explains an earlier chain value that
    /// didn't match.
    fn ended(&mut self, head: std::result::Result<Head, Finding>) -> Option<Fault> {
        let head = head.ok()?;
        let same = secret::constant_time_eq(&self.at.chain, &head.chain);
        match (&self.misfit, same) {
            (None, true) => None,
            (Some(_), true) => self.values_written(),
            (Some(misfit), false) => {
                let (index, id) = (Some(misfit.index), misfit.id);
                Some(self.fault(FaultKind::Swapped, index, id, OUT_OF_ORDER))
            }
            (None, false) => {
                let detail = "the head of the log belongs to another chain";
                Some(self.fault(FaultKind::RolledBack, None, None, detail))
            }
        }
    }

    fn values_written(&self) -> Option<Fault> {
        let misfit = self.misfit.as_ref()?;
        let (kind, detail) = if misfit.values == 1 {
            (FaultKind::Edited, "the column `chain` was changed")
        } else {
            (FaultKind::Rehashed, "chain values were rewritten from here on")
        };
        Some(self.fault(kind, Some(misfit.index), misfit.id, detail))
    }

    /// Returns the fault at the first bad record, which may be an earlier one whose chain value didn't match.
    fn settled(&self, fault: Fault) -> Fault {
        let Some(misfit) = &self.misfit else { return fault };
        if fault.index == Some(misfit.index) || fault.kind == FaultKind::Rehashed {
            return fault;
        }
        let (index, id) = (Some(misfit.index), misfit.id);
        if fault.kind == FaultKind::Cut {
            // Records were deleted and the later ones renumbered, so as many positions are missing at the end.
            let detail = "a record is missing before this one";
            self.fault(FaultKind::Deleted, index, id, detail)
        } else {
            self.fault(FaultKind::Swapped, index, id, OUT_OF_ORDER)
        }
    }

    /// Finds a record whose position is outside the chain.
    async fn beyond(&mut self, end: i64) -> Result<Option<Fault>> {
        let row: Option<Stored> = self
            .db
            .maybe(
                select_stored!(
                    "where e.position > $1 or e.position < 1 order by e.position limit 1"
                ),
                args![end],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let index = row.position.value();
        let next = self.at.after(&self.key, row.record.0.as_deref().unwrap_or_default());
        let goes_on = index == Some(next.position) && row.chain.value() == Some(next.chain);
        Ok(Some(if goes_on {
            let detail = "the head of the log is older than its records";
            self.fault(FaultKind::RolledBack, index, row.id.0, detail)
        } else {
            let detail = "the record has a position that the chain does not have";
            self.fault(FaultKind::Inserted, index, row.id.0, detail)
        }))
    }

    /// Verifies the records that aren't chained yet.
    async fn pending(&mut self) -> Result<Option<Fault>> {
        let mut after: Option<Uuid> = None;
        loop {
            let rows: Vec<Stored> = self
                .db
                .all(
                    select_stored!(
                        "where e.position is null and ($1 is null or e.id > $1)
                         order by e.id limit $2"
                    ),
                    args![after, PAGE],
                )
                .await?;
            let Some(last) = rows.last() else { return Ok(None) };
            after = last.id.0;
            for row in &rows {
                if !matches!(row.chain, Read(Some(None))) {
                    let detail = "a record that is not chained has a chain value";
                    return Ok(Some(self.fault(FaultKind::Edited, None, row.id.0, detail)));
                }
                if let Some(fault) = self.content(row, None).await? {
                    return Ok(Some(fault));
                }
                self.good += 1;
            }
        }
    }

    fn fault(
        &self,
        kind: FaultKind,
        index: Option<i64>,
        id: Option<Uuid>,
        detail: impl ToString,
    ) -> Fault {
        Fault { kind, index, id, detail: detail.to_string(), good: self.good }
    }
}

const OUT_OF_ORDER: &str = "the records from here on are not in the order of the chain";
