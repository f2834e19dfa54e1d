//! How API keys end, the notice before they expire, and the cleanup afterwards.

use std::time::Duration;

use palisade_db::{Timestamp, args};

use super::{ENDED_TOPIC, ENDS_SOON, EXPIRING, REVOKED};
use crate::app::{Actor, App, Change, Hold};
use crate::credentials::{Act, Ending, Kind};
use crate::error::{Error, Result};
use crate::id::{ApiKeyId, UserId};
use crate::mail::{self, Content, for_people};

/// Why a key was revoked, as stored in the table and the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its owner revoked it.
    RevokedByUser,
    /// An administrator, the operator or another service revoked it.
    Revoked,
    /// The account got a new password, through a link or from the operator.
    PasswordReset,
    /// The email address was restored to its former owner.
    EmailRestored,
    /// The user was deleted, or requested deletion.
    Deleted,
}

impl Why {
    fn of(act: Act) -> Self {
        match act {
            Act::PasswordChanged | Act::PasswordReset | Act::PasswordSet => Self::PasswordReset,
            Act::EmailChanged | Act::EmailSet | Act::EmailRestored => Self::EmailRestored,
            Act::DeletionAsked | Act::Deleted => Self::Deleted,
            Act::FactorAdded
            | Act::FactorRemoved
            | Act::FactorsReset
            | Act::OthersEnded
            | Act::Revoked
            | Act::Disabled => Self::Revoked,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::RevokedByUser => "revoked_by_user",
            Self::Revoked => "revoked",
            Self::PasswordReset => "password_reset",
            Self::EmailRestored => "email_restored",
            Self::Deleted => "deleted",
        }
    }
}

/// Revokes one of a user's keys.
///
/// # Errors
/// Returns an error if the key is already revoked or belongs to another user (not found), or the database fails.
pub async fn revoke(change: &mut Change, user: UserId, id: ApiKeyId, why: Why) -> Result<()> {
    change.must_hold(Hold::Alone(user))?;
    let now = change.now();
    let revoked = change
        .run(
            "update api_keys set revoked_at = $3, revoked_because = $4
             where id = $2 and user_id = $1 and revoked_at is null",
            args![user, id, now, why.as_str()],
        )
        .await?;
    if revoked == 0 {
        return Err(Error::not_found());
    }
    publish(change, user, id, why);
    Ok(())
}

/// How an act on an account ends its API keys.
pub(super) const BY_ACT: Ending = Ending {
    kind: Kind::ApiKeys,
    end: |change, end, _| Box::pin(revoke_all(change, end.user, Why::of(end.act))),
    owners: Some(|app, after, limit| Box::pin(owners(app, after, limit))),
};

/// Returns users who have an active key.
async fn owners(app: &App, after: UserId, limit: i64) -> Result<Vec<UserId>> {
    let rows: Vec<(UserId,)> = app
        .db
        .all(
            "select distinct user_id from api_keys
             where user_id > $1 and revoked_at is null and expires_at > $2 order by user_id limit $3",
            args![after, app.clock.now(), limit],
        )
        .await?;
    Ok(rows.into_iter().map(|(user,)| user).collect())
}

/// Revokes all of a user's keys.
async fn revoke_all(change: &mut Change, user: UserId, why: Why) -> Result<usize> {
    let now = change.now();
    let revoked: Vec<(ApiKeyId,)> = change
        .all(
            "update api_keys set revoked_at = $2, revoked_because = $3
             where user_id = $1 and revoked_at is null returning id",
            args![user, now, why.as_str()],
        )
        .await?;
    for (id,) in &revoked {
        publish(change, user, *id, why);
    }
    Ok(revoked.len())
}

fn publish(change: &mut Change, user: UserId, id: ApiKeyId, why: Why) {
    // SECURITY: every process learns of the revocation (test: what_revokes_an_api_key).
    change.publish(ENDED_TOPIC, id.0);
    let entry = REVOKED.about(user).detail("api_key", id.to_string());
    change.note(entry.detail("because", why.as_str()));
}

/// How long before the expiry of a key its creator is notified.
pub(super) const WARNED_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the row of an ended key is kept, so that its owner can see it.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

type Soon = (ApiKeyId, UserId, UserId, String, Timestamp);

/// Notifies the creator of each key that is about to expire, once per key.
pub(super) async fn warn(app: &App) -> Result<()> {
    let now = app.clock.now();
    let soon: Vec<Soon> = app
        .db
        .all(
            "select id, user_id, made_by, name, expires_at from api_keys
             where expires_at > $1 and expires_at <= $2 and revoked_at is null and warned_at is null
                and made_by is not null
             order by expires_at limit 1000",
            args![now, now.plus(WARNED_BEFORE)],
        )
        .await?;
    for (id, user, made_by, name, expires_at) in soon {
        let holds = [Hold::Shared(user), Hold::Shared(made_by)];
        let mut change = app.change_holding(&Actor::system(), &holds).await?;
        let first = change
            .run(
                "update api_keys set warned_at = $2
                 where id = $1 and warned_at is null and revoked_at is null",
                args![id, now],
            )
            .await?;
        if first == 0 {
            continue;
        }
        let content = Content::to_user(made_by).with("name", name);
        mail::enqueue(&mut change, &ENDS_SOON, content.with("until", for_people(expires_at)))
            .await?;
        change.commit(EXPIRING.about(user).detail("api_key", id.to_string())).await?;
    }
    Ok(())
}

/// Deletes keys that expired or were revoked long ago.
pub(super) async fn prune(app: &App) -> Result<()> {
    let before = app.clock.now().minus(KEPT_FOR);
    let sql = "delete from api_keys where id in
         (select id from api_keys where expires_at < $1 or revoked_at < $1 limit $2)";
    app.upkeep("API keys that ended long ago are deleted").in_batches(sql, args![before]).await?;
    Ok(())
}
