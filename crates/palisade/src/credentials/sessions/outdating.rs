//! Generations of access tokens: what makes the earlier tokens of a session outdated.
//!
//! Access tokens can contain claims about the user (`tokens.claims`). When one of them changes, the session gets the
//! next generation in the same change. This server then refuses the earlier tokens, and so do verifiers that follow the
//! revocation feed; the client refreshes. A role can have any number of holders, and a user any number of sessions: the
//! sessions are marked in the change and get the next generation in batches, the first one in the same change. Until
//! then, only other services see the outdated claims: this server never reads them.

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
    mark(change, whose).await?;
    match whose {
        Whose::User(user) => next_batch_of(change, user).await,
        Whose::Role(_) => next_batch(change).await,
    }
}

/// Marks the sessions of these users that may have a valid access token. A session that was not refreshed for longer
/// has none, but may be refreshed at this moment, with claims from before this change. For the sessions of a role's
/// holders, a hold excludes that. Those of one user are marked whenever they were last used: PostgreSQL passes over a
/// row without waiting for the refresh that has locked it, if its last committed values don't fit the condition.
async fn mark(change: &mut Change, whose: Whose<'_>) -> Result<()> {
    let now = change.now();
    let issued_after = now.minus(tokens::longest_life(change.app()));
    let transport = Transport::Token.as_str();
    let (sql, args) = match whose {
        Whose::User(user) => (
            "update sessions set outdated_at = $3
             where transport = $2 and ended_at is null and expires_at > $3 and user_id = $1",
            args![user, transport, now],
        ),
        Whose::Role(role) => (
            "update sessions set outdated_at = $4
             where transport = $2 and ended_at is null and last_used_at > $3
                and user_id in (select user_id from user_roles where role = $1)",
            args![role, transport, issued_after, now],
        ),
    };
    change.run(sql, args).await?;
    Ok(())
}

/// Gives marked sessions of a user their next generation. They don't wait for those of other users.
async fn next_batch_of(change: &mut Change, user: UserId) -> Result<()> {
    let outdated: Vec<(SessionId, i64)> = change
        .all(
            "update sessions set generation = generation + 1, outdated_at = null
             where outdated_at is not null and id in (select id from sessions
                where user_id = $2 and outdated_at is not null order by id limit $1)
             returning id, generation",
            args![BATCH, user],
        )
        .await?;
    publish(change, outdated);
    Ok(())
}

/// Gives marked sessions their next generation.
async fn next_batch(change: &mut Change) -> Result<()> {
    let outdated: Vec<(SessionId, i64)> = change
        .all(
            "update sessions set generation = generation + 1, outdated_at = null
             where outdated_at is not null
                and id in (select id from sessions where outdated_at is not null order by id limit $1)
             returning id, generation",
            args![BATCH],
        )
        .await?;
    publish(change, outdated);
    Ok(())
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
