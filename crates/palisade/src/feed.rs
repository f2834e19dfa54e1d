//! What other processes must know, in the order of their commits.
//!
//! A change writes its news into the table `feed` in its own transaction. The process that made it
//! applies it before it answers; every other process (another node, the command line) reads the table
//! when the database wakes it and every 100 ms in any case.
//!
//! Promises: news is applied everywhere within 250 ms of its commit; **a process that could not read
//! the feed for one second says so** ([`Feed::is_current`]) and serves no remembered identity.
//!
//! Tables: `feed`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_db::{Db, Timestamp, Tx, args};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::Result;

/// How often the table is read when nothing wakes us.
pub const POLL: Duration = Duration::from_millis(100);
/// How old the last good read may be.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long news is kept for readers that were away.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 60);
/// After being away this long, a reader can't be sure that nothing was pruned, and forgets everything.
const LOST_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long a missing number is waited for: longer than any transaction may last.
const GAP_LASTS: Duration = Duration::from_secs(20);
const PAGE: i64 = 5_000;

/// One message: something of `topic` happened to `subject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// What happened, by a name that a slice declares: `sessions.ended`.
    pub topic: &'static str,
    /// To whom or what.
    pub subject: Uuid,
}

/// Where the reader stands. On PostgreSQL commits become visible out of the order of their numbers, so
/// numbers above `low` that were seen are kept, and reading starts again from `low` every time.
#[derive(Default)]
struct Window {
    low: i64,
    seen: BTreeSet<i64>,
    gap_since: Option<Duration>,
}

/// The reader's state.
pub struct Feed {
    /// This process, so that it doesn't hear its own news twice.
    origin: Uuid,
    window: Mutex<Window>,
    last_read_ms: AtomicU64,
}

/// Older numbers are all there or will never be: no transaction lasts so long, and no two clocks differ so much.
const CERTAIN_AFTER: Duration = Duration::from_secs(60);

/// Which news a reader outside asks for.
pub struct Asked {
    /// Behind this number.
    pub from: i64,
    /// Only what is younger.
    pub not_before: Timestamp,
    /// Of these topics.
    pub topics: [&'static str; 2],
    /// So many at most.
    pub limit: i64,
    /// The present time.
    pub now: Timestamp,
}

/// What a reader outside gets.
pub struct Since {
    /// Number, topic, subject and time of each, in the order of the numbers.
    pub rows: Vec<(i64, String, Uuid, Timestamp)>,
    /// The highest number there is.
    pub highest: i64,
    /// Up to here nothing will be added any more.
    pub certain: i64,
}

/// What one look at the table found.
pub struct Look {
    /// News not applied before, oldest first.
    pub news: Vec<(String, Uuid)>,
    /// Whether so much time passed that some news may have been pruned unseen.
    pub lost: bool,
}

impl Feed {
    /// A reader that has read nothing yet, and so is not current. `origin` is different for every
    /// process.
    pub fn new(origin: Uuid) -> Feed {
        Feed { origin, window: Mutex::default(), last_read_ms: AtomicU64::new(0) }
    }

    /// Writes news, in the transaction of the change that it tells of.
    pub(crate) async fn write(&self, tx: &mut Tx, news: &[News], at: Timestamp) -> Result<()> {
        for news in news {
            tx.run(
                "insert into feed (topic, subject, origin, at) values ($1, $2, $3, $4)",
                args![news.topic, news.subject, self.origin, at],
            )
            .await?;
        }
        if !news.is_empty() {
            tx.notify();
        }
        Ok(())
    }

    /// Whether the table was read within the last second.
    pub fn is_current(&self, now: Duration) -> bool {
        let last = self.last_read_ms.load(Ordering::Acquire);
        last != 0 && now.saturating_sub(Duration::from_millis(last)) <= STALE_AFTER
    }

    /// Starts a minute back: what was numbered earlier but commits later is still seen.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn start(&self, db: &Db, clock: &Clock) -> Result<()> {
        let before = clock.now().minus(Duration::from_secs(60));
        let (low,): (i64,) =
            db.one("select coalesce(max(seq), 0) from feed where at < $1", args![before]).await?;
        self.window().low = low;
        Ok(())
    }

    /// Reads what is new. The caller applies it, then calls [`Feed::read_at`].
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn look(&self, db: &Db, now: Duration) -> Result<Look> {
        let mut news = Vec::new();
        let mut from = self.window().low;
        loop {
            let rows: Vec<Row> = db
                .all(
                    "select seq, topic, subject, origin from feed where seq > $1
                     order by seq limit $2",
                    args![from, PAGE],
                )
                .await?;
            let full = i64::try_from(rows.len()).unwrap_or(PAGE) == PAGE;
            let Some(last) = rows.last().map(|row| row.0) else { break };
            from = last;
            self.window().take(rows, self.origin, &mut news);
            if !full {
                break;
            }
        }
        self.window().close_gaps(now);
        let last = self.last_read_ms.load(Ordering::Acquire);
        let lost = last != 0 && now.saturating_sub(Duration::from_millis(last)) > LOST_AFTER;
        Ok(Look { news, lost })
    }

    /// Notes that everything committed before `began` has been applied.
    pub fn read_at(&self, began: Duration) {
        let ms = u64::try_from(began.as_millis()).unwrap_or(u64::MAX).max(1);
        self.last_read_ms.fetch_max(ms, Ordering::AcqRel);
    }

    /// Deletes news that every reader has seen or must forget everything over, and that nobody outside needs
    /// for longer than `needed`.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn prune(&self, db: &Db, now: Timestamp, needed: Duration) -> Result<()> {
        let mut tx = db.begin().await?;
        tx.run("delete from feed where at < $1", args![now.minus(needed.max(KEPT_FOR))]).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Endings for readers outside, which come back with `from`, whenever they like.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn since(&self, db: &Db, asked: Asked) -> Result<Since> {
        // Before the rows: what is certain now is certain when they are read.
        let (highest, certain): (i64, i64) = db
            .one(
                "select (select coalesce(max(seq), 0) from feed),
                    (select coalesce(max(seq), 0) from feed where at < $1)",
                args![asked.now.minus(CERTAIN_AFTER)],
            )
            .await?;
        // A database that was restored counts again from lower down.
        let from = if asked.from > highest { 0 } else { asked.from };
        let rows: Vec<(i64, String, Uuid, Timestamp)> = db
            .all(
                "select seq, topic, subject, at from feed
                 where seq > $1 and at > $2 and (topic = $3 or topic = $4) order by seq limit $5",
                args![from, asked.not_before, asked.topics[0], asked.topics[1], asked.limit],
            )
            .await?;
        Ok(Since { rows, highest, certain })
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Row = (i64, String, Uuid, Uuid);

impl Window {
    /// Takes what wasn't seen before and came from another process: what this one did it applied
    /// before anybody heard of it.
    fn take(&mut self, rows: Vec<Row>, own: Uuid, news: &mut Vec<(String, Uuid)>) {
        for (seq, topic, subject, origin) in rows {
            if seq > self.low && self.seen.insert(seq) && origin != own {
                news.push((topic, subject));
            }
        }
    }

    /// Moves `low` over everything that is certain: seen, or missing for longer than any
    /// transaction may last.
    fn close_gaps(&mut self, now: Duration) {
        while self.seen.remove(&(self.low + 1)) {
            self.low += 1;
            self.gap_since = None;
        }
        match (self.seen.first(), self.gap_since) {
            (None, _) => self.gap_since = None,
            (Some(_), None) => self.gap_since = Some(now),
            (Some(&next), Some(since)) if now.saturating_sub(since) > GAP_LASTS => {
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
        (seq, "t".to_owned(), Uuid::from_u128(u128::try_from(seq).unwrap()), Uuid::nil())
    }

    #[test]
    fn a_number_that_commits_late_is_still_seen_once() {
        let mut window = Window::default();
        let mut news = Vec::new();
        window.take(vec![row(1), row(3)], OWN, &mut news);
        window.close_gaps(Duration::from_secs(1));
        window.take(vec![row(2), row(3)], OWN, &mut news);
        window.take(vec![(4, "t".to_owned(), Uuid::nil(), OWN)], OWN, &mut news);
        window.close_gaps(Duration::from_secs(2));
        assert_eq!(news.iter().map(|n| n.1.as_u128()).collect::<Vec<_>>(), [1, 3, 2]);
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
}
