//! Refresh: a secret is used once and replaced by its successor.
//!
//! If a client doesn't receive the response to its refresh, it may send the same secret again. Within
//! `sessions.refresh_grace`, and while the successor is unused, the client gets the same successor. The successor is
//! sealed under a key derived from the parent secret, so that only the parent's holder can get it again. The sealed
//! copy is wiped when the successor is first used, or after the grace period. After the grace period, a device can
//! still recover its session once ([`super::lost_answer`]). Any other repeat means that two parties hold the secret:
//! the session ends, and the audit log records this (RFC 9700 section 4.14.2). There is one exception: a secret that a
//! new proof of identity has just replaced is refused, and the session continues.

use std::sync::Arc;

use palisade_crypto::opaque;
use palisade_crypto::seal::SealingKey;
use palisade_crypto::secret::SecretString;
use palisade_db::{Timestamp, args, row_struct};

use super::{
    GENERATION_TOPIC, Issued, Proof, RENEWED_TOPIC, REPLAYED, Session, SessionRow, Transport, Why,
    cache, ending, idle_end, live, lost_answer, next_read, session,
};
use crate::app::{Actor, App, Change, Hold};
use crate::error::{Error, Kind, Result};
use crate::id::{SessionId, UserId};
use crate::{keys, users};

/// What a client presents to refresh its session.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// How the secret was transmitted.
    pub transport: Transport,
    /// The refresh token, or the value of the cookie.
    pub secret: &'a SecretString,
    /// The device token, with which the client can recover a session whose last response it lost.
    pub device_token: Option<&'a SecretString>,
}

/// Replaces a secret with its successor, for a client without a device token. See [`refresh_with`].
///
/// # Errors
/// Fails like [`refresh_with`].
pub async fn refresh(
    app: &App,
    actor: &Actor,
    transport: Transport,
    secret: &SecretString,
) -> Result<Issued> {
    refresh_with(app, actor, Presented { transport, secret, device_token: None }).await
}

/// Replaces a secret with its successor.
///
/// # Errors
/// Fails with `sessions.ended` if the secret is unknown or used up, if the session has ended or lacks a second factor
/// that the user has, or if the user is disabled. Also fails if the keys can't be read or the database fails.
pub async fn refresh_with(app: &App, actor: &Actor, presented: Presented<'_>) -> Result<Issued> {
    let Presented { transport, secret, .. } = presented;
    let digest = opaque::digest(transport.prefix(), secret.expose()).ok_or_else(ended)?;
    // A secret that was never issued costs one read, and none of the writer's time.
    let known: Option<(UserId,)> = app
        .db
        .maybe("select user_id from session_secrets where digest = $1", args![digest])
        .await?;
    let (user,) = known.ok_or_else(ended)?;
    // The keys must be there before the old secret is used up.
    keys::ring(app).await?;
    let claims = users::hold_for_claims(app);
    let holds: Vec<Hold> = [Hold::Shared(user)].into_iter().chain(claims).collect();
    let mut change = app.change_holding(actor, &holds).await?;
    // The session's row is locked before those of its secrets, as everywhere.
    let session = take_up(&mut change, digest, transport).await?.ok_or_else(ended)?;
    let successor = opaque::generate(transport.prefix(), &*app.random);
    if !use_up(&mut change, &session, secret, digest, &successor).await? {
        // This may end the session, so the change must hold the account exclusively.
        drop(change);
        let holds: Vec<Hold> = [Hold::Alone(user)].into_iter().chain(claims).collect();
        let mut change = app.change_holding(actor, &holds).await?;
        let session = take_up(&mut change, digest, transport).await?.ok_or_else(ended)?;
        return repeat(change, session, presented, digest).await;
    }
    store_secret(&mut change, &session, &successor).await?;
    match transport {
        Transport::Token => cache(app).forget(&session.id, app.clock.monotonic()),
        Transport::Cookie => change.publish(RENEWED_TOPIC, session.id.0),
    }
    let issued = Issued::new(&mut change, session, successor).await?;
    change.commit_quietly("a refresh continues a session; its start and end are events").await?;
    Ok(issued)
}

/// Returns the active session of a refresh token, without using up the token. If `spent` is true, a token that was
/// already used is accepted too.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn of_refresh_token(app: &App, token: &str, spent: bool) -> Result<Option<Arc<Session>>> {
    let Some(digest) = opaque::digest(Transport::Token.prefix(), token) else { return Ok(None) };
    let row: Option<(SessionId, Option<Timestamp>)> = app
        .db
        .maybe("select session_id, used_at from session_secrets where digest = $1", args![digest])
        .await?;
    let Some((id, used_at)) = row else { return Ok(None) };
    if used_at.is_some() && !spent {
        return Ok(None);
    }
    let Some(session) = live(app, id).await? else { return Ok(None) };
    let user = users::current(app, session.user).await?.filter(|user| !user.disabled);
    Ok(user.is_some().then_some(session).filter(|session| session.transport == Transport::Token))
}

/// Renews a session whose user has proved their identity again. Its earlier credentials are no longer valid.
///
/// # Errors
/// Fails with `sessions.ended`, or if the database fails.
pub async fn renew(
    change: &mut Change,
    user: UserId,
    id: SessionId,
    proof: Proof,
) -> Result<Issued> {
    // SECURITY: this ends credentials that other changes may depend on (test:
    // an_ending_that_does_not_hold_the_account_is_refused).
    change.must_hold(Hold::Alone(user))?;
    let app = change.app().clone();
    let now = change.now();
    let mut session = lock_row(change, user, id).await?;
    // A number, because the times in tokens don't distinguish two moments of the same second.
    session.generation += 1;
    session.authenticated_at = now;
    session.proved_with = proof.level;
    // SECURITY: the time of the last proof is that of this one. A key that may have been copied must not appear as the
    // hardware that an earlier proof came from (test: a_passkey_gains_backup_eligibility_at_every_door).
    if proof.amr.split(' ').any(|method| method == "swk") {
        let kept = session.amr.split(' ').filter(|method| *method != "hwk");
        session.amr = kept.collect::<Vec<_>>().join(" ");
    }
    add_proof(change, &mut session, proof).await?;
    // SECURITY: anyone who copied one of the earlier secrets must not gain the fresh proof of the owner (test:
    // a_new_proof_of_identity_ends_the_credentials_before_it).
    change
        .run(
            "update session_secrets set used_at = coalesce(used_at, $2), successor_digest = null,
                successor_sealed = null
             where session_id = $1",
            args![id, now],
        )
        .await?;
    let secret = opaque::generate(session.transport.prefix(), &*app.random);
    store_secret(change, &session, &secret).await?;
    extend(change, &mut session).await?;
    change.publish_generation(GENERATION_TOPIC, id.0, session.generation);
    Issued::new(change, session, secret).await
}

/// Adds a proof of identity to the earlier ones recorded in a session.
///
/// # Errors
/// Fails with `sessions.ended`, or if the database fails.
pub async fn raise_level(
    change: &mut Change,
    user: UserId,
    id: SessionId,
    proof: Proof,
) -> Result<()> {
    let mut session = lock_row(change, user, id).await?;
    session.proved_with = session.proved_with.max(proof.level);
    add_proof(change, &mut session, proof).await?;
    change.publish(RENEWED_TOPIC, id.0);
    Ok(())
}

/// Returns one of a user's active sessions, and locks its row until the change ends.
async fn lock_row(change: &mut Change, user: UserId, id: SessionId) -> Result<Session> {
    let row: Option<SessionRow> = change
        .maybe(
            "update sessions set amr = amr
             where id = $2 and user_id = $1 and ended_at is null
             returning id, user_id, transport, token_format, amr, generation, authenticated_at, proved_with,
                last_used_at, idle_expires_at, expires_at",
            args![user, id],
        )
        .await?;
    Ok(session(row.ok_or_else(ended)?, next_read(change.app())))
}

async fn add_proof(change: &mut Change, session: &mut Session, proof: Proof) -> Result<()> {
    let new =
        proof.amr.split(' ').filter(|method| !session.amr.split(' ').any(|had| had == *method));
    session.amr = session.amr.split(' ').chain(new).collect::<Vec<_>>().join(" ");
    change
        .run(
            "update sessions set amr = $2, proved_with = $3, authenticated_at = $4, generation = $5
             where id = $1",
            args![
                session.id,
                session.amr.clone(),
                session.proved_with.as_str(),
                session.authenticated_at,
                session.generation
            ],
        )
        .await?;
    Ok(())
}

fn ended() -> Error {
    Error::new(Kind::NotSignedIn, "sessions.ended", "The session has ended. Sign in again.").header(
        axum::http::header::WWW_AUTHENTICATE,
        axum::http::HeaderValue::from_static("Bearer error=\"invalid_token\""),
    )
}

/// Extends the active session of a secret, and reads it in the same statement.
async fn take_up(
    change: &mut Change,
    digest: [u8; 32],
    transport: Transport,
) -> Result<Option<Session>> {
    let read = next_read(change.app());
    let now = change.now();
    let idle_end = idle_end(change.app(), transport, now);
    // SECURITY: the session may have ended while this change waited (test:
    // a_refresh_that_waited_for_an_ending_is_refused).
    let row: Option<SessionRow> = change
        .maybe(
            "update sessions set last_used_at = $3,
                idle_expires_at = case when expires_at < $4 then expires_at else $4 end
             where id = (select x.session_id from session_secrets x where x.digest = $1) and transport = $2
                and ended_at is null and idle_expires_at > $3 and expires_at > $3
                and exists (select 1 from users u where u.id = sessions.user_id and u.disabled_at is null
                    and (' ' || sessions.amr || ' ' like '% mfa %' or (u.passkeys = 0 and not u.has_totp)))
             returning id, user_id, transport, token_format, amr, generation, authenticated_at, proved_with,
                last_used_at, idle_expires_at, expires_at",
            args![digest, transport.as_str(), now, idle_end],
        )
        .await?;
    Ok(row.map(|row| session(row, read)))
}

/// Stores the digest of a session's next secret.
pub(super) async fn store_secret(
    change: &mut Change,
    session: &Session,
    secret: &SecretString,
) -> Result<()> {
    let digest = opaque::digest(session.transport.prefix(), secret.expose());
    change
        .run(
            "insert into session_secrets (digest, session_id, user_id) values ($1, $2, $3)",
            args![digest, session.id, session.user],
        )
        .await?;
    Ok(())
}

/// Uses up a secret. Of any number of simultaneous attempts, only one succeeds.
async fn use_up(
    change: &mut Change,
    session: &Session,
    secret: &SecretString,
    digest: [u8; 32],
    successor: &SecretString,
) -> Result<bool> {
    let sealed = seal(change.app(), secret, digest, successor);
    let successor = opaque::digest(session.transport.prefix(), successor.expose());
    let now = change.now();
    let used = change
        .run(
            "update session_secrets set used_at = $2, successor_digest = $3, successor_sealed = $4
             where digest = $1 and used_at is null",
            args![digest, now, successor, sealed],
        )
        .await?;
    if used == 1 {
        // The sealed copy of this secret in its parent's row is no longer needed: the client has received the secret.
        change
            .run(
                "update session_secrets set successor_sealed = null where successor_digest = $1",
                args![digest],
            )
            .await?;
    }
    Ok(used == 1)
}

/// Seals a successor for the holder of its parent, unless there is no grace period.
pub(super) fn seal(
    app: &App,
    parent: &SecretString,
    digest: [u8; 32],
    successor: &SecretString,
) -> Option<Vec<u8>> {
    let grace = app.settings.sessions.refresh_grace;
    (!grace.is_zero())
        .then(|| successor_key(parent).seal(&*app.random, &digest, successor.expose().as_bytes()))
}

fn successor_key(secret: &SecretString) -> SealingKey {
    SealingKey::derived_from(secret.expose().as_bytes(), "palisade refresh successor v1")
}

row_struct! {
    /// A used secret, and its successor.
    pub(super) struct Parent {
        pub(super) used_at: Option<Timestamp>,
        sealed: Option<Vec<u8>>,
        pub(super) successor: Option<[u8; 32]>,
        pub(super) successor_used_at: Option<Timestamp>,
        pub(super) recovered_at: Option<Timestamp>,
        pub(super) superseded_at: Option<Timestamp>,
    }
}

/// Handles a secret that has already been used or replaced. Within the grace period, returns the same successor while
/// the successor is unused, and refuses a secret that a new proof of identity replaced. Later, lets the session's own
/// device recover it. Otherwise ends the session.
async fn repeat(
    mut change: Change,
    session: Session,
    presented: Presented<'_>,
    digest: [u8; 32],
) -> Result<Issued> {
    let grace = change.app().settings.sessions.refresh_grace;
    let mut parent: Parent = change
        .one(
            "select p.used_at, p.successor_sealed, p.successor_digest, c.used_at, p.recovered_at,
                p.superseded_at
             from session_secrets p left join session_secrets c on c.digest = p.successor_digest
             where p.digest = $1",
            args![digest],
        )
        .await?;
    let answered_at = parent.recovered_at.or(parent.used_at);
    let within = answered_at.is_some_and(|at| change.now().since(at) < grace);
    let own_device = lost_answer::is_own_device(&mut change, &session, presented).await?;
    // SECURITY: after a recovery, the secret alone is not enough (test: a_recovered_session_needs_the_device_again).
    let entitled = parent.recovered_at.is_none() || own_device;
    let sealed = parent.sealed.take().filter(|_| within && entitled);
    if let (Some(sealed), None) = (sealed, parent.successor_used_at) {
        let opened = successor_key(presented.secret).open(&digest, &sealed);
        let opened = opened.map_err(Error::internal)?;
        let text = std::str::from_utf8(opened.expose()).map_err(Error::internal)?;
        let issued = Issued::new(&mut change, session, SecretString::from(text)).await?;
        change
            .commit_quietly("a repeated refresh within the grace period continues the session")
            .await?;
        return Ok(issued);
    }
    // SECURITY: a secret that another one replaced may have been taken from the lost response (test:
    // the_replaced_successor_ends_the_family).
    if within && parent.successor.is_none() && parent.superseded_at.is_none() {
        // A new proof of identity replaced the secret a moment ago. The request is late, but no sign of a copy.
        return Err(ended());
    }
    if own_device && let Some(lost) = lost_answer::lost(&parent, change.now(), grace) {
        return lost_answer::recover(change, session, presented.secret, (digest, lost)).await;
    }
    // SECURITY: someone holds a copy (test: a_late_replay_ends_the_family).
    ending::end(&mut change, session.user, session.id, Why::Replayed).await?;
    let entry = REPLAYED.about(session.user).detail("session", session.id.to_string());
    change.commit(entry).await?;
    Err(ended())
}

async fn extend(change: &mut Change, session: &mut Session) -> Result<()> {
    let now = change.now();
    session.last_used_at = now;
    session.idle_expires_at =
        idle_end(change.app(), session.transport, now).min(session.expires_at);
    let alive = change
        .run(
            "update sessions set last_used_at = $2, idle_expires_at = $3 where id = $1 and ended_at is null",
            args![session.id, now, session.idle_expires_at],
        )
        .await?;
    if alive == 1 { Ok(()) } else { Err(ended()) }
}
