//! Pages of the feed of endings, as signed statements.
//!
//! On PostgreSQL commits become visible out of the order of their numbers, so a number that was read is no proof
//! that those below it were. A [`Cursor`] therefore has two parts: up to `low` everything is certain, and `at` is
//! how far this pass has come. When a pass is through, the next one begins again from `low`, and shows what is
//! above it a second time; an ending that is applied twice is applied.

use std::fmt;
use std::str::FromStr;

use palisade_db::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::error::{Error, Result};
use crate::feed::Asked;
use crate::id::{ApiKeyId, SessionId};
use crate::settings::TokenFormat;
use crate::{api_keys, keys, sessions, tokens};

/// `typ` of a page: what was signed for one purpose serves no other (RFC 8725 section 3.11).
const TYPE: &str = "revocations+jwt";
/// How long a page is to be believed, in seconds.
const BELIEVED_FOR: i64 = 10;
/// How many endings stand on a page.
const PAGE: i64 = 500;

/// Where a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) low: i64,
    pub(super) at: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.low, self.at)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let (low, at) = text.split_once('.').ok_or(())?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten().ok_or(())
        };
        let (low, at) = (number(low)?, number(at)?);
        Ok(Cursor { low: low.min(at), at })
    }
}

/// Something that has ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ending {
    pub(super) sequence: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<ApiKeyId>,
    ended_at: Timestamp,
    /// Until when a token of it could be taken for good.
    until: Timestamp,
}

/// Which stream a page belongs to, and the how many-th of it it is, so that one that was dropped on the way is missed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place {
    pub(super) id: Uuid,
    pub(super) page: u64,
}

/// One page.
pub(super) struct Page {
    /// Where it begins.
    after: Cursor,
    pub(super) items: Vec<Ending>,
    /// Everything that was answered before is on this page or one before it, unless there are `more`.
    pub(super) time: Timestamp,
    highest: i64,
    pub(super) next: Cursor,
    pub(super) more: bool,
}

/// What has ended since `cursor` and could still be taken for alive.
///
/// # Errors
/// When the database doesn't answer.
pub(super) async fn read(app: &App, cursor: Cursor) -> Result<Page> {
    // Before anything is read: what was answered by now is in the table.
    let time = app.clock.now();
    let life = tokens::longest_life(app);
    let asked = Asked {
        from: cursor.at,
        not_before: time.minus(life),
        topics: [sessions::ENDED_NEWS, api_keys::ENDED_NEWS],
        limit: PAGE,
        now: time,
    };
    let since = app.feed.since(&app.db, asked).await?;
    let more = i64::try_from(since.rows.len()).unwrap_or(PAGE) == PAGE;
    let after = cursor;
    let cursor = if cursor.at > since.highest { Cursor::default() } else { cursor };
    // SECURITY: in the middle of a pass `low` stays: what was passed over since its beginning is looked for in the
    // next one (test: a_number_that_commits_late_is_on_a_later_page).
    let begins = cursor.low == cursor.at;
    let low = if begins { cursor.low.max(since.certain) } else { cursor.low };
    let at = since.rows.last().filter(|_| more).map_or(low, |row| row.0);
    let ending = |(sequence, topic, subject, ended_at): (i64, String, _, Timestamp)| {
        let session = topic == sessions::ENDED_NEWS;
        Ending {
            sequence,
            session_id: session.then_some(SessionId(subject)),
            api_key_id: (!session).then_some(ApiKeyId(subject)),
            ended_at,
            until: ended_at.plus(life),
        }
    };
    let items = since.rows.into_iter().map(ending).collect();
    let next = Cursor { low: low.min(at), at };
    Ok(Page { after, items, time, highest: since.highest, next, more })
}

impl Page {
    /// The page, signed with the key that signs JWTs.
    ///
    /// # Errors
    /// When the keys can't be read.
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
        if let Some(place) = stream {
            claims["stream"] = json!(place);
        }
        let key = keys::ring(app).await?.signing(app, TokenFormat::Jwt)?;
        key.sign_statement(TYPE, &claims).map_err(Error::internal)
    }
}
