//! Rotation of the signing keys, and their replacement after a compromise.

use palisade_crypto::token::Algorithm;
use palisade_db::{Timestamp, args, row_struct};
use serde::Serialize;
use uuid::Uuid;

use super::{
    CHANGED, DROPPED, RETIRED_VERIFIES_FOR, ROOT, ROTATED, SIGNING, SIGNS_AFTER, active,
    create_token_key, ring,
};
use crate::app::{Actor, App, Change};
use crate::error::Result;
use crate::record::Entry;

row_struct! {
    /// A new signing key.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct RotatedKey {
        /// The key ID, as it appears in tokens.
        pub kid: String,
        /// When it starts to sign.
        pub signs_from: Timestamp,
    }
}

/// Creates new signing keys, one for each algorithm in use, and publishes them. They replace the current ones after 15
/// minutes, when every verifier can know them. Tokens signed with the old keys stay valid until they expire. If new
/// keys are already waiting, returns those and changes nothing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn rotate(app: &App, actor: &Actor) -> Result<Vec<RotatedKey>> {
    let mut change = app.change(actor).await?;
    lock(&mut change).await?;
    let signs_from = change.now().plus(SIGNS_AFTER);
    let (mut keys, mut made) = (Vec::new(), Vec::new());
    for algorithm in active(&mut change).await? {
        if let Some(waiting) = waiting(&mut change, algorithm).await? {
            keys.push(waiting);
            continue;
        }
        change
            .run(
                "update keys set retired_at = $3
                 where purpose = $1 and algorithm = $2 and retired_at is null and dropped_at is null",
                args![SIGNING, algorithm.as_str(), signs_from],
            )
            .await?;
        let kid = create_token_key(&mut change, algorithm, signs_from).await?;
        made.push(kid.clone());
        keys.push(RotatedKey { kid, signs_from });
    }
    if made.is_empty() {
        return Ok(keys);
    }
    change.publish(CHANGED, Uuid::nil());
    change.commit(rotated(&made, signs_from)).await?;
    ring::load(app).await?;
    Ok(keys)
}

/// Replaces the signing keys after a compromise: creates new ones, which sign immediately, and drops every other one.
/// Tokens that a dropped key signed are refused.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replace(app: &App, actor: &Actor) -> Result<Vec<RotatedKey>> {
    let mut change = app.change(actor).await?;
    lock(&mut change).await?;
    let signs_from = change.now();
    let algorithms = active(&mut change).await?;
    // A key that retired long ago verifies nothing, and is not part of this.
    let dropped: Vec<(String,)> = change
        .all(
            "update keys set dropped_at = $2,
                retired_at = case when retired_at < $2 then retired_at else $2 end
             where purpose = $1 and dropped_at is null and (retired_at is null or retired_at > $3)
             returning kid",
            args![SIGNING, signs_from, signs_from.minus(RETIRED_VERIFIES_FOR)],
        )
        .await?;
    let dropped: Vec<String> = dropped.into_iter().map(|(kid,)| kid).collect();
    let mut keys = Vec::new();
    for algorithm in algorithms {
        let kid = create_token_key(&mut change, algorithm, signs_from).await?;
        keys.push(RotatedKey { kid, signs_from });
    }
    let made: Vec<String> = keys.iter().map(|key| key.kid.clone()).collect();
    change.note(DROPPED.entry().detail("kids", dropped.join(" ")));
    change.publish(CHANGED, Uuid::nil());
    change.commit(rotated(&made, signs_from)).await?;
    ring::load(app).await?;
    Ok(keys)
}

fn rotated(kids: &[String], signs_from: Timestamp) -> Entry {
    ROTATED.entry().detail("kids", kids.join(" ")).detail("signs_from", signs_from.to_string())
}

/// Lets one rotation run at a time.
async fn lock(change: &mut Change) -> Result<()> {
    change.run("update keys set version = version where purpose = $1", args![ROOT]).await?;
    Ok(())
}

/// Returns the key of this algorithm that doesn't sign yet.
async fn waiting(change: &mut Change, algorithm: Algorithm) -> Result<Option<RotatedKey>> {
    let now = change.now();
    let sql = "select kid, signs_from from keys
         where purpose = $1 and algorithm = $2 and retired_at is null and dropped_at is null
            and signs_from > $3";
    change.maybe(sql, args![SIGNING, algorithm.as_str(), now]).await
}
