//! Notices for other processes, numbered in the order in which they are written.
//!
//! A change writes its notices into the table `feed` in its own transaction. The process that made the change applies
//! them before it responds. Every other process (another node, the command line) reads the table when the database
//! wakes it, and every 100 ms in any case.
//!
//! A restored database, or a standby that took over before it had received every commit, assigns the same numbers
//! again. Each read therefore begins with the last row read before, which must still exist unchanged, and checks the
//! table's epoch ([`ReadDb::epoch`]). If either differs, [`FeedPoll::changed`] is set, and the process discards all its
//! caches.
//!
//! # Promises
//!
//! - Notices are applied everywhere within 250 ms of their commit.
//! - **A process that could not read the feed for one second is no longer current** ([`Feed::is_current`]) and uses no
//!   cached identity.
//! - **A process detects that the history of its database has changed.**
//!
//! Tables: `feed`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_db::{ReadDb, Timestamp, Tx, args};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::upkeep::Upkeep;

/// How often the table is read if nothing wakes the reader.
pub const POLL: Duration = Duration::from_millis(100);
/// How long a reader is still current after its last successful read.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long notices are kept for readers that could not read.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 60);
/// After not reading for this long, a reader can't be sure that nothing was pruned, and discards everything.
const LOST_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long to wait for a missing number: longer than any transaction may last.
const GAP_LASTS: Duration = Duration::from_secs(20);
/// The maximum number of times that a row is given a new number, if other processes advance the sequence at the same
/// time.
const TRIES: usize = 8;
const PAGE: i64 = 5_000;
const TABLE: &str = "feed";

/// A notice: what happened (`topic`) and the user or object to which it happened (`subject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened, as a name that a slice declares, such as `sessions.ended`.
    pub topic: &'static str,
    /// The user or object that it concerns.
    pub subject: Uuid,
    /// The generation of credentials before which all are refused, for a notice that external readers get.
    pub generation: Option<i64>,
}

/// A 64-bit hash of a row's origin, subject and time, which distinguishes the row from another with the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub u64);

impl Mark {
    /// Returns the mark of a row. When the database's history changes, the same process may write about the same
    /// subject under the same number again, but not at the same time.
    fn of(subject: Uuid, origin: Uuid, at: Timestamp) -> Self {
        let mixed = origin.as_u128().rotate_left(29) ^ subject.as_u128();
        let [.., a, b, c, d, e, f, g, h] = (mixed ^ (mixed >> 64)).to_be_bytes();
        let at = at.as_micros().cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ at)
    }
}

/// The position of the reader. On PostgreSQL, commits can become visible in a different order than their numbers, so
/// numbers above `low` that were already read are kept, and every read starts again from `low`.
#[derive(Default)]
struct Window {
    epoch: Option<String>,
    low: i64,
    /// The mark of the row `low`. `None` before the first row.
    low_mark: Option<Mark>,
    seen: BTreeMap<i64, Mark>,
    gap_since: Option<Duration>,
}

/// The reader's state.
pub struct Feed {
    /// The id of this process, so that it doesn't apply its own notices twice.
    origin: Uuid,
    window: Mutex<Window>,
    last_read_ms: AtomicU64,
}

/// The age after which a number is certain: all numbers older than this exist already or never will, because no
/// transaction lasts that long and no two clocks differ by that much.
const CERTAIN_AFTER: Duration = Duration::from_secs(60);

/// The suffix of the topics of endings, which are reported to external readers, like notices with a generation.
pub const ENDED: &str = ".ended";

/// The endings that an external reader requests.
pub struct Asked {
    /// Only endings after this number.
    pub from: i64,
    /// The mark that the row with that number had when it was read.
    pub mark: Mark,
    /// The number up to which the reader has seen every row.
    pub low: i64,
    /// Only endings after this time.
    pub not_before: Timestamp,
    /// The maximum number of endings.
    pub limit: i64,
    /// The current time.
    pub now: Timestamp,
}

/// The endings for an external reader.
pub struct Since {
    /// The endings, in the order of their numbers.
    pub rows: Vec<Told>,
    /// The highest number in the table.
    pub highest: i64,
    /// The row up to which no more rows will be added, if there is one.
    pub certain: Option<Place>,
    /// The row [`Asked::low`], if it still exists.
    pub low: Option<Place>,
    /// Whether the database still has the history that the reader has read. If not, `rows` begins with the oldest row.
    pub known: bool,
}

/// A row's number and mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub seq: i64,
    /// Its mark.
    pub mark: Mark,
}

/// One row for an external reader.
pub struct Told {
    /// Its number and mark.
    pub place: Place,
    /// What happened.
    pub topic: String,
    /// The user or object that it concerns.
    pub subject: Uuid,
    /// When it happened.
    pub at: Timestamp,
    /// If the credential has not ended: the generation of secrets before which all are refused.
    pub generation: Option<i64>,
}

/// What one poll of the table found.
pub struct FeedPoll {
    /// The notices that were not applied before, oldest first.
    pub notices: Vec<(String, Uuid)>,
    /// Whether so much time has passed that some notices may have been pruned before they were read.
    pub lost: bool,
    /// Whether the table has a different history from the one read so far. If so, there are no notices; continue with
    /// [`Feed::start`] and discard all caches.
    pub changed: bool,
}

impl Feed {
    /// Creates a reader that has read nothing yet and so is not current. `origin` is different for every process.
    pub fn new(origin: Uuid) -> Self {
        Self { origin, window: Mutex::default(), last_read_ms: AtomicU64::new(0) }
    }

    /// Writes notices, in the transaction of the change that they announce.
    pub(crate) async fn write(&self, tx: &mut Tx, notices: &[Notice], at: Timestamp) -> Result<()> {
        for notice in notices {
            self.write_one(tx, notice, at).await?;
        }
        if !notices.is_empty() {
            tx.notify();
        }
        Ok(())
    }

    /// Writes one row, with a higher number than every other row.
    ///
    /// SECURITY: readers never read again below what they have already read, so a row with a lower number would reach
    /// no reader. Numbers are assigned in order, but a sequence can fall behind its table: a failover by logical
    /// replication leaves it at its initial value, and so does a restore of the rows alone. On SQLite this can't
    /// happen: a new number is always higher than that of every row (test:
    /// a_sign_out_is_heard_after_the_sequence_went_back).
    async fn write_one(&self, tx: &mut Tx, notice: &Notice, at: Timestamp) -> Result<()> {
        for _ in 0..TRIES {
            // What others have committed when a statement begins was numbered before it. SQLite's subquery sees the new
            // row, PostgreSQL's does not.
            let given: Option<(i64, bool)> = tx
                .maybe(
                    "insert into feed (topic, subject, origin, at, generation) values ($1, $2, $3, $4, $5)
                     on conflict (seq) do nothing
                     returning seq, seq >= coalesce((select max(seq) from feed), 0)",
                    args![notice.topic, notice.subject, self.origin, at, notice.generation],
                )
                .await?;
            match given {
                Some((_, true)) => return Ok(()),
                Some((seq, false)) => {
                    tx.run("delete from feed where seq = $1", args![seq]).await?;
                }
                None => {}
            }
            tracing::warn!(
                "the sequence of the table feed is behind its rows, for example after a failover \
                 by logical replication; advancing it"
            );
            // `setval` takes effect immediately and for every process, whatever becomes of this transaction. Two
            // concurrent calls may set the sequence back a little: the next number is checked again.
            let (_,): (i64,) = tx
                .one(
                    "select setval(name, greatest(nextval(name), (select max(seq) from feed)))
                     from (select pg_get_serial_sequence('feed', 'seq') as name) s",
                    args![],
                )
                .await?;
        }
        Err(Error::internal("the sequence of the table feed keeps going back"))
    }

    /// Returns whether the table was read within the last second.
    pub fn is_current(&self, now: Duration) -> bool {
        let last = self.last_read_ms.load(Ordering::Acquire);
        last != 0 && now.saturating_sub(Duration::from_millis(last)) <= STALE_AFTER
    }

    /// Returns the time since the table was last read. If it has not been read yet, this is the age of the clock.
    pub fn lag(&self, now: Duration) -> Duration {
        let last = self.last_read_ms.load(Ordering::Acquire);
        now.saturating_sub(Duration::from_millis(last))
    }

    /// Starts reading one minute back, so that rows that were numbered earlier but committed later are still read.
    /// Starts again if the history of the database has changed.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn start(&self, db: &ReadDb, clock: &Clock) -> Result<()> {
        let before = clock.now().minus(Duration::from_secs(60));
        let epoch = db.epoch(TABLE).await?;
        let last: Option<(i64, Uuid, Uuid, Timestamp)> = db
            .maybe(
                "select seq, subject, origin, at from feed
                 where seq = (select max(seq) from feed where at < $1)",
                args![before],
            )
            .await?;
        let low = last.map_or(0, |row| row.0);
        let low_mark = last.map(|(_, subject, origin, at)| Mark::of(subject, origin, at));
        *self.window() = Window { epoch, low, low_mark, ..Window::default() };
        Ok(())
    }

    /// Reads new notices. The caller applies them, then calls [`Feed::read_at`].
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn poll(&self, db: &ReadDb, now: Duration) -> Result<FeedPoll> {
        let epoch = db.epoch(TABLE).await?;
        let rows = self.rows(db).await?;
        let mut notices = Vec::new();
        let changed = {
            let mut window = self.window();
            // SECURITY: (test: a_sign_out_is_heard_after_the_database_was_restored)
            let changed = !window.belongs_to(epoch.as_deref(), &rows);
            if !changed {
                window.take(rows, self.origin, &mut notices);
                window.close_gaps(now);
            }
            changed
        };
        let last = self.last_read_ms.load(Ordering::Acquire);
        let lost = last != 0 && now.saturating_sub(Duration::from_millis(last)) > LOST_AFTER;
        Ok(FeedPoll { notices, lost, changed })
    }

    /// Returns all rows from the last certain row on, including that row.
    async fn rows(&self, db: &ReadDb) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        let mut behind = self.window().low - 1;
        loop {
            let page: Vec<(i64, String, Uuid, Uuid, Timestamp)> = db
                .all(
                    "select seq, topic, subject, origin, at from feed where seq > $1
                     order by seq limit $2",
                    args![behind, PAGE],
                )
                .await?;
            let full = i64::try_from(page.len()).unwrap_or(PAGE) == PAGE;
            for (seq, topic, subject, origin, at) in page {
                behind = seq;
                let mark = Mark::of(subject, origin, at);
                all.push(Row { place: Place { seq, mark }, topic, subject, origin });
            }
            if !full {
                return Ok(all);
            }
        }
    }

    /// Records that everything committed before `began` has been applied.
    pub fn read_at(&self, began: Duration) {
        let ms = u64::try_from(began.as_millis()).unwrap_or(u64::MAX).max(1);
        self.last_read_ms.fetch_max(ms, Ordering::AcqRel);
    }

    /// Deletes notices that every reader has either read or missed (a reader that missed them must discard its caches),
    /// and that external readers no longer need (`needed`). The newest of these notices is kept: it is the position of
    /// readers that have read everything.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn prune(&self, upkeep: Upkeep<'_>, now: Timestamp, needed: Duration) -> Result<()> {
        let before = now.minus(needed.max(KEPT_FOR));
        let sql = "select max(seq) from feed where at < $1";
        let Some((Some(newest),)) = upkeep.maybe::<(Option<i64>,)>(sql, args![before]).await?
        else {
            return Ok(());
        };
        let sql = "delete from feed where seq in
             (select seq from feed where at < $1 and seq < $2 order by seq limit $3)";
        upkeep.in_batches(sql, args![before, newest]).await?;
        Ok(())
    }

    /// Returns endings for an external reader, which may request them again with its last `from` at any time.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn since(&self, db: &ReadDb, asked: Asked) -> Result<Since> {
        let before = asked.now.minus(CERTAIN_AFTER);
        // Before the rows: what is certain now is certain when they are read.
        let places: Vec<(i64, Uuid, Uuid, Timestamp)> = db
            .all(
                "select seq, subject, origin, at from feed
                 where seq in ($1, $2, (select max(seq) from feed),
                               (select max(seq) from feed where at < $3))
                 order by seq",
                args![asked.from, asked.low, before],
            )
            .await?;
        let place = |row: &(i64, Uuid, Uuid, Timestamp)| Place {
            seq: row.0,
            mark: Mark::of(row.1, row.2, row.3),
        };
        let at = |seq: i64| places.iter().find(|row| row.0 == seq).map(place);
        // SECURITY: numbers that were given again are another history
        // (test: a_reader_outside_is_told_that_its_place_is_unknown).
        let known = asked.from == 0 || at(asked.from).is_some_and(|row| row.mark == asked.mark);
        let from = if known { asked.from } else { 0 };
        let rows: Vec<(i64, String, Uuid, Uuid, Timestamp, Option<i64>)> = db
            .all(
                "select seq, topic, subject, origin, at, generation from feed
                 where seq > $1 and at > $2 and (topic like $3 or generation is not null)
                 order by seq limit $4",
                args![from, asked.not_before, format!("%{ENDED}"), asked.limit],
            )
            .await?;
        let told = |(seq, topic, subject, origin, at, generation)| {
            let place = Place { seq, mark: Mark::of(subject, origin, at) };
            Told { place, topic, subject, at, generation }
        };
        Ok(Since {
            rows: rows.into_iter().map(told).collect(),
            highest: places.last().map_or(0, |row| row.0),
            certain: places.iter().rev().find(|row| row.3 < before).map(place),
            low: at(asked.low),
            known,
        })
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Row {
    place: Place,
    topic: String,
    subject: Uuid,
    origin: Uuid,
}

impl Window {
    /// Returns whether this is the history read so far: it has the same epoch, and every row that must still exist.
    /// Rows above `low` are too recent to have been pruned.
    fn belongs_to(&self, epoch: Option<&str>, rows: &[Row]) -> bool {
        let found = |seq: i64| {
            let index = rows.binary_search_by_key(&seq, |row| row.place.seq).ok()?;
            rows.get(index).map(|row| row.place.mark)
        };
        self.epoch.as_deref() == epoch
            && self.low_mark.is_none_or(|mark| found(self.low) == Some(mark))
            && self.seen.iter().all(|(seq, mark)| found(*seq) == Some(*mark))
    }

    /// Adds the notices of rows that weren't read before and came from another process. The process that makes a change
    /// applies its notices itself.
    fn take(&mut self, rows: Vec<Row>, own: Uuid, notices: &mut Vec<(String, Uuid)>) {
        for row in rows {
            let Place { seq, mark } = row.place;
            if seq > self.low && self.seen.insert(seq, mark).is_none() && row.origin != own {
                notices.push((row.topic, row.subject));
            }
        }
    }

    /// Advances `low` past every number that is certain: its row was read, or has been missing for longer than any
    /// transaction may last.
    fn close_gaps(&mut self, now: Duration) {
        while let Some(mark) = self.seen.remove(&(self.low + 1)) {
            self.low += 1;
            self.low_mark = Some(mark);
            self.gap_since = None;
        }
        match (self.seen.first_key_value(), self.gap_since) {
            (None, _) => self.gap_since = None,
            (Some(_), None) => self.gap_since = Some(now),
            (Some((&next, _)), Some(since)) if now.saturating_sub(since) > GAP_LASTS => {
                self.low = next - 1;
                self.gap_since = None;
                self.close_gaps(now);
            }
            (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Uuid = Uuid::from_u128(9);

    fn row(seq: i64) -> Row {
        other(seq, u128::try_from(seq).unwrap())
    }

    fn other(seq: i64, subject: u128) -> Row {
        let (subject, origin) = (Uuid::from_u128(subject), Uuid::nil());
        let mark = Mark::of(subject, origin, Timestamp::from_seconds(0));
        Row { place: Place { seq, mark }, topic: "t".to_owned(), subject, origin }
    }

    fn window_at_three() -> Window {
        let mut window = Window::default();
        window.take(vec![row(1), row(2), row(3)], OWN, &mut Vec::new());
        window.close_gaps(Duration::from_secs(1));
        window
    }

    #[test]
    fn a_number_that_commits_late_is_still_seen_once() {
        let mut window = Window::default();
        let mut notices = Vec::new();
        window.take(vec![row(1), row(3)], OWN, &mut notices);
        window.close_gaps(Duration::from_secs(1));
        window.take(vec![row(2), row(3)], OWN, &mut notices);
        window.take(vec![Row { origin: OWN, ..row(4) }], OWN, &mut notices);
        window.close_gaps(Duration::from_secs(2));
        assert_eq!(notices.iter().map(|n| n.1.as_u128()).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(window.low, 4);
        assert!(window.seen.is_empty());
    }

    #[test]
    fn a_number_that_never_comes_is_given_up_after_the_longest_transaction() {
        let mut window = Window::default();
        window.take(vec![row(2), row(4)], OWN, &mut Vec::new());
        window.close_gaps(Duration::from_secs(1));
        window.close_gaps(Duration::from_secs(10));
        assert_eq!(window.low, 0);
        window.close_gaps(Duration::from_secs(22));
        assert_eq!(window.low, 2);
        window.close_gaps(Duration::from_secs(50));
        assert_eq!(window.low, 4);
    }

    #[test]
    fn another_history_is_told_by_the_last_row_that_was_read() {
        let window = window_at_three();
        assert!(window.belongs_to(None, &[row(3)]));
        assert!(window.belongs_to(None, &[row(3), row(4)]));
        // Numbers went back, and came back beyond where the reader stood.
        assert!(!window.belongs_to(None, &[]));
        assert!(!window.belongs_to(None, &[other(3, 77), row(4)]));
        assert!(!window.belongs_to(None, &[row(4)]));
        assert!(!window.belongs_to(Some("another"), &[row(3)]));
    }

    #[test]
    fn another_history_is_told_by_rows_behind_a_gap() {
        let mut window = window_at_three();
        window.take(vec![row(5)], OWN, &mut Vec::new());
        window.close_gaps(Duration::from_secs(1));
        assert_eq!(window.low, 3);
        assert!(window.belongs_to(None, &[row(3), row(5)]));
        assert!(window.belongs_to(None, &[row(3), row(4), row(5), row(6)]));
        assert!(!window.belongs_to(None, &[row(3)]));
        assert!(!window.belongs_to(None, &[row(3), other(5, 77)]));
    }

    #[test]
    fn the_same_change_made_at_another_time_is_another_row() {
        let (subject, origin) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mark = |micros| {
            let at = Timestamp::from_seconds(1_900_000_000).plus(Duration::from_micros(micros));
            Mark::of(subject, origin, at)
        };
        assert_ne!(mark(0), mark(1));
        assert_ne!(mark(0), Mark::of(origin, subject, Timestamp::from_seconds(1_900_000_000)));
    }
}
