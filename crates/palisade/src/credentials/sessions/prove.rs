//! Identifies the caller by access token or cookie: the hot path of every request.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use palisade_crypto::opaque;
use palisade_db::{Timestamp, args};

use super::{
    COOKIE_PREFIX, KIND, Known, Owner, Session, Transport, cache, idle_end, live, next_read,
};
use crate::access::{self, AuthLevel, Identity};
use crate::app::App;
use crate::credential::{Credential, SecretRef};
use crate::error::{Result, bad_token};
use crate::id::SessionId;
use crate::{tokens, users};

/// How long a process caches which session a cookie belongs to. Ending a session or replacing a cookie takes effect
/// without waiting for this time to pass.
const COOKIE_REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);
/// A cookie session is extended at most this often.
const EXTEND_AFTER: Duration = Duration::from_secs(60);

/// Returns the caller behind an access token, if its session is active.
///
/// # Errors
/// Fails with `access.invalid_token`, or if the database is needed and fails.
pub async fn of_access_token(app: &App, token: &str) -> Result<Identity> {
    let token = tokens::verify(app, token).await?;
    let mut session = live(app, token.session).await?.ok_or_else(bad_token)?;
    if session.generation < token.generation {
        // Another process began this generation, and the notice of it is still on the way.
        cache(app).forget(&token.session, app.clock.monotonic());
        session = live(app, token.session).await?.ok_or_else(bad_token)?;
    }
    if session.user != token.user || session.transport != Transport::Token {
        return Err(bad_token());
    }
    // SECURITY: a token from before the last proof of identity may have been copied, and must no longer be accepted
    // (test: a_new_proof_of_identity_ends_the_credentials_before_it).
    if token.generation != session.generation {
        return Err(bad_token());
    }
    let secret = SecretRef::Generation(token.generation);
    identity(app, session, Some(token.authenticated_at), secret).await
}

/// Identifies the caller by the value of a session cookie.
pub(super) async fn cookie(app: &App, value: &str, parts: &Parts) -> Result<Identity> {
    let digest = opaque::digest(COOKIE_PREFIX, value).ok_or_else(bad_token)?;
    let owner = owner_of(app, digest).await?.ok_or_else(bad_token)?;
    let mut session = live(app, owner.session).await?.ok_or_else(bad_token)?;
    if owner.read < session.read {
        // The session was read again since: perhaps because this cookie was replaced.
        let owner = look_up_owner(app, digest).await?.ok_or_else(bad_token)?;
        session = live(app, owner.session).await?.ok_or_else(bad_token)?;
    }
    if session.transport != Transport::Cookie {
        return Err(bad_token());
    }
    if !access::is_recheck(parts) {
        extend(app, &session);
    }
    identity(app, session, None, SecretRef::Digest(digest)).await
}

async fn identity(
    app: &App,
    mut session: Arc<Session>,
    authenticated_at: Option<Timestamp>,
    secret: SecretRef,
) -> Result<Identity> {
    let credential = Credential { kind: &KIND, id: session.id.0, secret };
    let identity = users::identity(app, session.user, credential).await?;
    // SECURITY: a session that began before the first factor was set up doesn't survive the setup, whatever else went
    // wrong (test: a_session_without_the_factor_is_no_session).
    if identity.required_level > AuthLevel::Password && !session.has_mfa() {
        session = again(app, &session, secret).await?;
    }
    Ok(Identity {
        authenticated_at: authenticated_at.unwrap_or(session.authenticated_at),
        proved_with: session.proved_with,
        ..identity
    })
}

/// Reads the session again, because it lacks its user's factor. The factor may have been set up in this session after
/// the session was read and before the user was read.
async fn again(app: &App, session: &Session, secret: SecretRef) -> Result<Arc<Session>> {
    cache(app).forget(&session.id, app.clock.monotonic());
    let session = live(app, session.id).await?.ok_or_else(bad_token)?;
    let good = match secret {
        SecretRef::Generation(generation) => session.generation == generation,
        SecretRef::Digest(digest) => {
            look_up_owner(app, digest).await?.is_some_and(|owner| owner.session == session.id)
        }
        SecretRef::Only => false,
    };
    if good && session.has_mfa() { Ok(session) } else { Err(bad_token()) }
}

/// Returns the owner of a cookie, if the cookie is the newest one of its session or was replaced within the grace
/// period.
async fn owner_of(app: &App, digest: [u8; 32]) -> Result<Option<Owner>> {
    match app.state::<Known>().cookies.get(&digest, app.clock.monotonic()) {
        Some(owner) => Ok(Some(owner)),
        None => look_up_owner(app, digest).await,
    }
}

async fn look_up_owner(app: &App, digest: [u8; 32]) -> Result<Option<Owner>> {
    let (read, now) = (next_read(app), app.clock.monotonic());
    let row: Option<(SessionId, Option<Timestamp>, Option<Vec<u8>>)> = app
        .db
        .maybe(
            "select session_id, used_at, successor_digest from session_secrets where digest = $1",
            args![digest],
        )
        .await?;
    let Some((session, used_at, successor)) = row else { return Ok(None) };
    let left = match (used_at, successor) {
        (None, _) => COOKIE_REMEMBERED_FOR,
        (Some(used_at), Some(_)) => {
            used_at.plus(app.settings.sessions.refresh_grace).since(app.clock.now())
        }
        // A new proof of identity replaced it.
        (Some(_), None) => Duration::ZERO,
    };
    if left.is_zero() {
        return Ok(None);
    }
    let owner = Owner { session, read };
    app.state::<Known>().cookies.put(digest, owner, now + left, now);
    Ok(Some(owner))
}

/// Extends the idle timeout of a cookie session in the background, so that the request doesn't wait for it.
fn extend(app: &App, session: &Arc<Session>) {
    let now = app.clock.now();
    if now.since(session.last_used_at) < EXTEND_AFTER {
        return;
    }
    let mut extended = Session::clone(session);
    extended.last_used_at = now;
    extended.idle_expires_at = idle_end(app, session.transport, now).min(session.expires_at);
    // Cached first, so that the requests that follow don't extend the session too. SECURITY: a session that was read in
    // the meantime is not replaced in the cache (test: only_what_is_remembered_is_replaced).
    if !cache(app).replace(&session.id, session, Arc::new(extended.clone())) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(error) = write_extension(&app, &extended).await {
            tracing::warn!(%error, "can't extend a session");
        }
    });
}

async fn write_extension(app: &App, session: &Session) -> Result<()> {
    let sql = "update sessions set last_used_at = $2, idle_expires_at = $3
         where id = $1 and ended_at is null and idle_expires_at < $3";
    let args = args![session.id, session.last_used_at, session.idle_expires_at];
    app.upkeep("recording the use of a session does not change the session").run(sql, args).await?;
    Ok(())
}
