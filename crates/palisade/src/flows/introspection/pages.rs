//! Pages of the revocation feed, as signed statements.
//!
//! On PostgreSQL, commits don't always become visible in the order of their numbers, so reading a number doesn't prove
//! that all lower ones were visible. A [`Cursor`] therefore has two parts: every number up to `low` is certain to have
//! been read, and `at` is the position that the current pass has reached. When a pass is complete, the next one begins
//! again from `low` and repeats everything above it. Applying an ending twice is harmless.
//!
//! A cursor also carries the [`Mark`] of the row `at`. A restored database assigns the same numbers again. The mark
//! then doesn't match, and the page states that it starts over.

use std::fmt;
use std::str::FromStr;

use palisade_db::Timestamp;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::credential::CredentialKind;
use crate::error::{Error, Result};
use crate::feed::{Asked, Mark, Told};
use crate::settings::TokenFormat;
use crate::{keys, sessions, tokens};

/// The `typ` of a page, which prevents a statement signed for one purpose from serving another (RFC 8725 section 3.11).
const TYPE: &str = "revocations+jwt";
/// How long a page is valid, in seconds.
const BELIEVED_FOR: i64 = 10;
/// The maximum number of endings on a page.
const PAGE: i64 = 500;

/// The position of a reader in the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) low: i64,
    pub(super) at: i64,
    /// The mark of the row `at`.
    mark: Mark,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            0 => f.write_str("0.0"),
            at => write!(f, "{}.{at}.{:016x}", self.low, self.mark.0),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten().ok_or(())
        };
        let mut parts = text.split('.');
        let (low, at) = (parts.next().ok_or(())?, parts.next().ok_or(())?);
        let (low, at) = (number(low)?, number(at)?);
        // A cursor without a mark is from an earlier version, and is known only if it points to the beginning.
        let mark = match parts.next() {
            None => 0,
            Some(text) if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u64::from_str_radix(text, 16).map_err(drop)?
            }
            Some(_) => return Err(()),
        };
        if parts.next().is_some() {
            return Err(());
        }
        Ok(Self { low: low.min(at), at, mark: Mark(mark) })
    }
}

/// A credential that has ended, or whose earlier access tokens are refused.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) sequence: i64,
    kind: &'static CredentialKind,
    id: Uuid,
    at: Timestamp,
    /// The generation (`gen`) before which tokens are refused. `None` if the credential has ended.
    generation: Option<i64>,
    /// The time at which all access tokens issued before the ending have expired.
    until: Timestamp,
}

impl Serialize for Item {
    /// Serializes the item. The id is in a field named after the kind, such as `session_id`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut item = serializer.serialize_map(Some(4))?;
        item.serialize_entry("sequence", &self.sequence)?;
        item.serialize_entry(&format!("{}_id", self.kind.name), &self.id)?;
        match self.generation {
            None => item.serialize_entry("ended_at", &self.at)?,
            Some(generation) => item.serialize_entry("generation", &generation)?,
        }
        item.serialize_entry("until", &self.until)?;
        item.end()
    }
}

/// The stream that a page belongs to, and the page's number in it, so that the reader can detect a lost page.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place {
    pub(super) id: Uuid,
    pub(super) page: u64,
}

/// A page of the feed.
pub(super) struct Page {
    /// The position after which the page begins.
    after: Cursor,
    pub(super) items: Vec<Item>,
    /// Every ending confirmed before this time is on this page or an earlier one, unless `more` is set.
    pub(super) time: Timestamp,
    highest: i64,
    pub(super) next: Cursor,
    pub(super) more: bool,
    /// Whether the given cursor is unknown, in which case this page begins with the oldest ending.
    pub(super) restarted: bool,
}

/// Returns the credentials that have ended since `cursor` and that a verifier could still consider active.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) async fn read(app: &App, cursor: Cursor) -> Result<Page> {
    // Taken before anything is read: every ending confirmed before this time is in the table.
    let time = app.clock.now();
    let life = tokens::longest_life(app);
    let asked = Asked {
        from: cursor.at,
        mark: cursor.mark,
        low: cursor.low,
        not_before: time.minus(life),
        limit: PAGE,
        now: time,
    };
    let since = app.feed.since(&app.db, asked).await?;
    let more = i64::try_from(since.rows.len()).unwrap_or(PAGE) == PAGE;
    let (after, restarted) = (cursor, !since.known);
    let cursor = if since.known { cursor } else { Cursor::default() };
    let from_before = since.low.filter(|low| low.seq == cursor.low);
    // SECURITY: `low` stays the same during a pass: the next pass finds rows that became visible behind this one (test:
    // a_number_that_commits_late_is_on_a_later_page).
    let begins = cursor.low == cursor.at;
    let ahead = since.certain.filter(|certain| begins && certain.seq > cursor.low);
    let low = ahead.or(from_before);
    let at = since.rows.last().filter(|_| more).map(|row| row.place).or(low);
    let ended = |row: Told| {
        let kind = match row.generation {
            None => app.credentials.of_topic(&row.topic)?,
            Some(_) => &sessions::KIND,
        };
        Some(Item {
            sequence: row.place.seq,
            kind,
            id: row.subject,
            at: row.at,
            generation: row.generation,
            until: row.at.plus(life),
        })
    };
    let items = since.rows.into_iter().filter_map(ended).collect();
    let next = at.map_or_else(Cursor::default, |at| Cursor {
        low: low.map_or(0, |low| low.seq).min(at.seq),
        at: at.seq,
        mark: at.mark,
    });
    Ok(Page { after, items, time, highest: since.highest, next, more, restarted })
}

impl Page {
    /// Signs the page with the key that signs JWTs.
    ///
    /// # Errors
    /// Returns an error if the keys can't be read.
    pub(super) async fn sign(&self, app: &App, stream: Option<Place>) -> Result<String> {
        let issued = self.time.as_seconds();
        let mut claims = json!({
            "iss": app.settings.tokens.issuer,
            "iat": issued,
            "exp": issued + BELIEVED_FOR,
            "head": { "time": self.time, "sequence": self.highest },
            "after": self.after.to_string(),
            "items": self.items,
            "next": self.next.to_string(),
            "more": self.more,
        });
        if self.restarted {
            claims["restarted"] = json!(true);
        }
        if let Some(place) = stream {
            claims["stream"] = json!(place);
        }
        let key = keys::ring(app).await?.signing(app, TokenFormat::Jwt)?;
        key.sign_statement(TYPE, &claims).map_err(Error::internal)
    }
}
