//! Generations of access tokens: what makes the earlier tokens of a session outdated.
//!
//! Access tokens can contain claims about the user (`tokens.claims`). When one of them changes, the session gets the
//! next generation in the same change. This server then refuses the earlier tokens, and so do verifiers that follow the
//! revocation feed; the client refreshes. A role can have any number of holders: their sessions are marked in the change
//! and get the next generation in batches, the first one in the same change.

use palisade_db::args;

use super::{GENERATION_TOPIC, Transport};
use crate::app::{Actor, App, Change, Whose};
use crate::error::Result;
use crate::id::{SessionId, UserId};
use crate::tokens;

/// The number of sessions that get their next generation in one change.
const BATCH: i64 = 500;

/// Makes the access tokens of these users outdated.
pub(super) async fn outdate(change: &mut Change, whose: Whose<'_>) -> Result<()> {
    match whose {
        Whose::User(user) => of_user(change, user).await,
        Whose::Role(role) => {
            mark(change, role).await?;
            next_batch(change).await.map(drop)
        }
    }
}

async fn of_user(change: &mut Change, user: UserId) -> Result<()> {
    let outdated: Vec<(SessionId, i64)> = change
        .all(
            "update sessions set generation = generation + 1, outdated_at = null
             where user_id = $1 and transport = $2 and ended_at is null returning id, generation",
            args![user, Transport::Token.as_str()],
        )
        .await?;
    publish(change, outdated);
    Ok(())
}

/// Marks the sessions of all holders of a role that may have a valid access token. A session that was not refreshed for
/// longer has none.
async fn mark(change: &mut Change, role: &str) -> Result<()> {
    let now = change.now();
    let issued_after = now.minus(tokens::longest_life(change.app()));
    change
        .run(
            "update sessions set outdated_at = $4
             where transport = $2 and ended_at is null and last_used_at > $3
                and user_id in (select user_id from user_roles where role = $1)",
            args![role, Transport::Token.as_str(), issued_after, now],
        )
        .await?;
    Ok(())
}

/// Gives marked sessions their next generation. Returns how many there were.
async fn next_batch(change: &mut Change) -> Result<usize> {
    let outdated: Vec<(SessionId, i64)> = change
        .all(
            "update sessions set generation = generation + 1, outdated_at = null
             where outdated_at is not null
                and id in (select id from sessions where outdated_at is not null order by id limit $1)
             returning id, generation",
            args![BATCH],
        )
        .await?;
    let count = outdated.len();
    publish(change, outdated);
    Ok(count)
}

fn publish(change: &mut Change, outdated: Vec<(SessionId, i64)>) {
    for (id, generation) in outdated {
        change.publish_generation(GENERATION_TOPIC, id.0, generation);
    }
}

/// Gives the remaining marked sessions their next generation, in batches.
pub(super) async fn continue_outdating(app: &App) -> Result<()> {
    loop {
        let sql = "select id from sessions where outdated_at is not null limit 1";
        let marked: Option<(SessionId,)> = app.db.maybe(sql, args![]).await?;
        if marked.is_none() {
            return Ok(());
        }
        let mut change = app.change(&Actor::system()).await?;
        next_batch(&mut change).await?;
        change.commit_quietly("tokens are outdated by a change that records its own event").await?;
    }
}
