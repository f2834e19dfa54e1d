//! A session whose device lost the response to a refresh, and asks again after the grace period.
//!
//! A phone may be offline for days after a request whose response it never received. Its refresh token is used, and the
//! successor is unknown to it. If the session ended then, as after every other late repeat, people would be signed out
//! by bad networks. The device therefore gets a new successor if it also proves with its device token that it started
//! the session. The first successor, which nobody has used, is void: if it is used, two parties hold secrets of the
//! session, and the session ends (RFC 9700 section 4.14.2).

use std::time::Duration;

use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Timestamp, args};
use uuid::Uuid;

use super::refresh::{Parent, Presented, seal, store_secret};
use super::{Issued, RECOVERED, Session, Transport, cache};
use crate::app::Change;
use crate::error::{Error, Result};
use crate::lockout::Device;
use crate::mail::{self, Content, EmailTemplate, for_people};

/// How long after its use a refresh token can still recover the session.
const RECOVERABLE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) static EMAIL: EmailTemplate = EmailTemplate {
    name: "session_recovered",
    text: include_str!("emails/recovered.txt"),
    html: include_str!("emails/recovered.html"),
    prepare: mail::as_written,
};

/// Returns whether the client presents a device token of the device that started the session.
pub(super) async fn is_own_device(
    change: &mut Change,
    session: &Session,
    presented: Presented<'_>,
) -> Result<bool> {
    // A browser sends the cookie of its device with every request, so a thief of cookies would have both.
    let token = presented.device_token.filter(|_| session.transport == Transport::Token);
    let device = token.and_then(|token| Device::open(change.app(), token.expose()));
    // SECURITY: the device of another session or another user proves nothing about this one (test:
    // only_the_sessions_own_device_recovers_it).
    let Some(device) = device.filter(|device| device.user == session.user) else {
        return Ok(false);
    };
    let (own,): (Option<Uuid>,) =
        change.one("select device_id from sessions where id = $1", args![session.id]).await?;
    Ok(own == Some(device.id))
}

/// Returns the successor that was lost, if the parent may still get another one.
pub(super) fn lost(parent: &Parent, now: Timestamp, grace: Duration) -> Option<[u8; 32]> {
    // SECURITY: once a parent, within seven days, and only while no one has used the successor. A new proof of identity
    // leaves no successor (tests: a_lost_response_is_recovered_once, a_lost_response_is_recovered_for_seven_days,
    // nothing_is_recovered_past_a_new_proof).
    let recent = parent.used_at.is_some_and(|at| now.since(at) < RECOVERABLE_FOR);
    let first = parent.recovered_at.is_none() && parent.superseded_at.is_none();
    let may = recent && first && parent.successor_used_at.is_none() && !grace.is_zero();
    parent.successor.filter(|_| may)
}

/// Issues another successor in place of the lost one, which becomes void.
pub(super) async fn recover(
    mut change: Change,
    session: Session,
    parent: &SecretString,
    (digest, lost): ([u8; 32], [u8; 32]),
) -> Result<Issued> {
    let app = change.app().clone();
    let now = change.now();
    let secret = opaque::generate(session.transport.prefix(), &*app.random);
    let void = change
        .run(
            "update session_secrets set used_at = $2, superseded_at = $2
             where digest = $1 and used_at is null",
            args![lost, now],
        )
        .await?;
    if void != 1 {
        return Err(Error::internal("the lost successor of a refresh token is missing"));
    }
    store_secret(&mut change, &session, &secret).await?;
    let sealed = seal(&app, parent, digest, &secret);
    let successor = opaque::digest(session.transport.prefix(), secret.expose());
    change
        .run(
            "update session_secrets
             set successor_digest = $2, successor_sealed = $3, recovered_at = $4 where digest = $1",
            args![digest, successor, sealed, now],
        )
        .await?;
    notify_owner(&mut change, &session).await?;
    cache(&app).forget(&session.id, app.clock.monotonic());
    let entry = RECOVERED.about(session.user).detail("session", session.id.to_string());
    let issued = Issued::new(&mut change, session, secret).await?;
    change.commit(entry).await?;
    Ok(issued)
}

async fn notify_owner(change: &mut Change, session: &Session) -> Result<()> {
    let actor = change.actor().clone();
    let ip = actor.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let content = Content::to_user(session.user).with("at", for_people(change.now()));
    let content = content.with("ip", ip).with("user_agent", actor.user_agent.unwrap_or_default());
    mail::enqueue(change, &EMAIL, content).await
}
