//! All ways in which sessions end, and the cleanup afterwards.

use std::time::Duration;

use palisade_db::args;

use super::{ENDED, ENDED_TOPIC};
use crate::app::{App, Change, Hold};
use crate::credentials::{Act, End, Ending, Fate};
use crate::error::{Error, Result};
use crate::id::{SessionId, UserId};
use crate::record::{Entry, Event};
use crate::{credentials, users};

/// All of a user's sessions were ended by an administrator or the operator.
pub const REVOKED: Event =
    Event { name: "sessions.revoked", summary: "All sessions of a user were ended" };

/// The reason why a session ended, as stored in the table and the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The user signed out.
    SignedOut,
    /// The user ended it from another session.
    EndedByUser,
    /// An administrator or the operator ended it, or one of its tokens was revoked (`POST /auth/revoke`).
    Revoked,
    /// The user was disabled.
    Disabled,
    /// The password was changed.
    PasswordChanged,
    /// A used refresh token or cookie was used again outside its grace period.
    Replayed,
    /// A change of email address was undone.
    EmailRestored,
    /// The user was deleted, or requested deletion.
    Deleted,
    /// The user set up a second factor, and the session was started without one.
    FactorAdded,
    /// A second factor was removed.
    FactorRemoved,
}

impl Why {
    fn of(act: Act) -> Self {
        match act {
            Act::PasswordChanged | Act::PasswordReset | Act::PasswordSet => Self::PasswordChanged,
            Act::EmailChanged | Act::EmailSet | Act::EmailRestored => Self::EmailRestored,
            Act::FactorAdded => Self::FactorAdded,
            Act::FactorRemoved | Act::FactorsReset => Self::FactorRemoved,
            Act::OthersEnded => Self::EndedByUser,
            Act::Revoked => Self::Revoked,
            Act::Disabled => Self::Disabled,
            Act::DeletionAsked | Act::Deleted => Self::Deleted,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::EndedByUser => "ended_by_user",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::PasswordChanged => "password_changed",
            Self::Replayed => "replayed",
            Self::EmailRestored => "email_restored",
            Self::Deleted => "deleted",
            Self::FactorAdded => "factor_added",
            Self::FactorRemoved => "factor_removed",
        }
    }
}

/// The number of ended sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub usize);

/// Ends one of a user's sessions.
///
/// # Errors
/// Fails with 404 if the session has ended or belongs to another user, or if the database fails. Returns an internal
/// error if the change doesn't hold the account exclusively.
pub async fn end(change: &mut Change, user: UserId, id: SessionId, why: Why) -> Result<()> {
    change.must_hold(Hold::Alone(user))?;
    let now = change.now();
    let ended = change
        .run(
            "update sessions set ended_at = $3, ended_because = $4
             where id = $2 and user_id = $1 and ended_at is null",
            args![user, id, now, why.as_str()],
        )
        .await?;
    if ended == 0 {
        return Err(Error::not_found());
    }
    publish(change, user, id, why);
    Ok(())
}

/// How an act on an account ends its sessions.
pub(super) const BY_ACT: Ending = Ending {
    kind: credentials::Kind::Sessions,
    end: |change, end, fate| {
        Box::pin(async move {
            let why = Why::of(end.act);
            match fate {
                Fate::WithoutFactor => end_without_factor(change, end.user, why).await,
                Fate::Others => end_but(change, end.user, end.keeping, why).await,
                _ => end_but(change, end.user, None, why).await,
            }
        })
    },
    owners: Some(|app, after, limit| Box::pin(owners(app, after, limit))),
};

/// Returns users with an active session.
async fn owners(app: &App, after: UserId, limit: i64) -> Result<Vec<UserId>> {
    let rows: Vec<(UserId,)> = app
        .db
        .all(
            "select distinct user_id from sessions
             where user_id > $1 and ended_at is null and expires_at > $2 order by user_id limit $3",
            args![after, app.clock.now(), limit],
        )
        .await?;
    Ok(rows.into_iter().map(|(user,)| user).collect())
}

async fn end_but(
    change: &mut Change,
    user: UserId,
    kept: Option<SessionId>,
    why: Why,
) -> Result<usize> {
    let now = change.now();
    let ended: Vec<(SessionId,)> = change
        .all(
            "update sessions set ended_at = $2, ended_because = $3
             where user_id = $1 and ended_at is null and ($4 is null or id <> $4) returning id",
            args![user, now, why.as_str(), kept.map(|kept| kept.0)],
        )
        .await?;
    for (id,) in &ended {
        publish(change, user, *id, why);
    }
    Ok(ended.len())
}

/// Ends a user's sessions in which no second factor was used.
async fn end_without_factor(change: &mut Change, user: UserId, why: Why) -> Result<usize> {
    let now = change.now();
    // SECURITY: (test: the_first_factor_ends_sessions_without_it)
    let ended: Vec<(SessionId,)> = change
        .all(
            "update sessions set ended_at = $2, ended_because = $3
             where user_id = $1 and ended_at is null and ' ' || amr || ' ' not like '% mfa %' returning id",
            args![user, now, why.as_str()],
        )
        .await?;
    for (id,) in &ended {
        publish(change, user, *id, why);
    }
    Ok(ended.len())
}

/// Disables a user and ends all their sessions.
///
/// # Errors
/// Fails with 404; `users.last_admin`; or if the database fails.
pub async fn disable(mut change: Change, user: UserId) -> Result<()> {
    users::disable(&mut change, user).await?;
    credentials::end(&mut change, End::of(user, Act::Disabled)).await?;
    change.commit(users::DISABLED.about(user)).await
}

/// Ends all of a user's sessions and revokes all their API keys, on behalf of an administrator or the operator.
///
/// # Errors
/// Fails with 404, or if the database fails.
pub async fn revoke_all(mut change: Change, user: UserId) -> Result<Ended> {
    if !users::exists(&mut change, user).await? {
        return Err(Error::not_found());
    }
    let ended = credentials::end(&mut change, End::of(user, Act::Revoked)).await?;
    change.commit(revoked(user, ended)).await?;
    Ok(Ended(ended))
}

/// Does the same as [`revoke_all`], within a change that does more.
pub(super) async fn revoke_within(change: &mut Change, user: UserId) -> Result<Ended> {
    let ended = credentials::end(change, End::of(user, Act::Revoked)).await?;
    change.note(revoked(user, ended));
    Ok(Ended(ended))
}

fn revoked(user: UserId, sessions: usize) -> Entry {
    REVOKED.about(user).detail("sessions", sessions.to_string())
}

fn publish(change: &mut Change, user: UserId, id: SessionId, why: Why) {
    change.publish(ENDED_TOPIC, id.0);
    let entry = ENDED.about(user).detail("session", id.to_string());
    change.note(entry.detail("because", why.as_str()));
}

/// How long the row of a session is kept after the session's absolute timeout, so that the owner can see it.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Wipes sealed successors after their grace period, and deletes sessions that expired long ago.
pub(super) async fn prune(app: &App) -> Result<()> {
    let now = app.clock.now();
    let grace_over = now.minus(app.settings.sessions.refresh_grace);
    let upkeep = app.upkeep("sessions that ended long ago are deleted");
    let sql = "update session_secrets set successor_sealed = null where digest in
         (select digest from session_secrets
          where successor_sealed is not null and coalesce(recovered_at, used_at) < $1 limit $2)";
    upkeep.in_batches(sql, args![grace_over]).await?;
    // A hundred sessions at a time, the oldest first, and their secrets before them: one session can have thousands.
    let secrets = "delete from session_secrets where digest in
         (select digest from session_secrets where session_id in
             (select id from sessions where expires_at < $1 order by expires_at, id limit 100)
          limit $2)";
    let sessions = "delete from sessions where id in
         (select id from sessions where expires_at < $1 order by expires_at, id limit 100)";
    let before = now.minus(KEPT_FOR);
    loop {
        upkeep.in_batches(secrets, args![before]).await?;
        if upkeep.run(sessions, args![before]).await? < 100 {
            return Ok(());
        }
    }
}
