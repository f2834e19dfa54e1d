//! Identifies the caller by API key, from memory if the key is cached.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use ipnet::IpNet;
use palisade_crypto::opaque;
use palisade_db::{Timestamp, args, row_struct};

use super::{ApiKey, KIND, Known, PREFIX, USE, cache};
use crate::access::{self, Identity};
use crate::app::App;
use crate::cache::Cached;
use crate::credential::{Credential, SecretRef};
use crate::error::{Result, bad_token};
use crate::http::{Arrival, counted};
use crate::id::{ApiKeyId, UserId};
use crate::limits::Decision;
use crate::users;

/// How long a process caches which key a digest belongs to.
const DIGEST_REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// The use of a key is recorded at most this often.
const NOTE_AFTER: Duration = Duration::from_secs(60);

/// Identifies the caller by API key. The refusal is the same for every invalid key.
pub(super) async fn bearer(app: &App, token: &str, parts: &Parts) -> Result<Identity> {
    let key = of_secret(app, token).await?.ok_or_else(bad_token)?;
    let ip = parts.extensions.get::<Arrival>().map(|arrival| arrival.client.ip);
    if !key.takes(ip) {
        return Err(bad_token());
    }
    let credential = Credential { kind: &KIND, id: key.id.0, secret: SecretRef::Only };
    let mut identity = users::identity(app, key.user, credential).await?;
    if !access::is_recheck(parts) {
        identity.limit = Some(count(app, &key)?);
        note_use(app, &key);
    }
    identity.permissions = as_far_as(&key, &identity.permissions, identity.must_enrol);
    Ok(identity)
}

/// Returns the current permissions of a key: those of its own permissions that its owner also holds. Returns `None` if
/// the owner is disabled, or must set up a second factor first.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub async fn allowed(app: &App, key: &ApiKey) -> Result<Option<Arc<BTreeSet<String>>>> {
    let owner = users::current(app, key.user).await?.filter(|user| !user.disabled);
    // Until the owner sets up a factor that is required, other services don't accept the key either.
    let owner = owner.filter(|owner| !owner.must_enrol(app));
    Ok(owner.map(|owner| as_far_as(key, &owner.permissions, false)))
}

fn as_far_as(
    key: &ApiKey,
    held: &Arc<BTreeSet<String>>,
    must_enrol: bool,
) -> Arc<BTreeSet<String>> {
    // SECURITY: a key is no way around a factor that its owner has yet to set up
    // (test: an_api_key_is_no_way_around_the_second_factor).
    if must_enrol {
        return Arc::default();
    }
    // SECURITY: the owner's rights count as they are now, not as they were when the key was created (test:
    // an_api_key_may_do_what_its_owner_may_and_no_more).
    if key.permissions.is_subset(held) {
        return Arc::clone(&key.permissions);
    }
    Arc::new(key.permissions.intersection(held).cloned().collect())
}

/// Returns the key with this secret, if it is active.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub async fn of_secret(app: &App, secret: &str) -> Result<Option<Arc<ApiKey>>> {
    let Some(digest) = opaque::digest(PREFIX, secret) else { return Ok(None) };
    let now = app.clock.monotonic();
    let digests = &app.state::<Known>().digests;
    let id = match digests.get(&digest, now) {
        Some(id) => id,
        None => {
            let row: Option<(ApiKeyId,)> =
                app.db.maybe("select id from api_keys where digest = $1", args![digest]).await?;
            let Some((id,)) = row else { return Ok(None) };
            digests.put(digest, id, now + DIGEST_REMEMBERED_FOR, now);
            id
        }
    };
    live(app, id).await
}

/// Returns the key, if it is neither revoked nor expired. A revoked key never works again.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub async fn live(app: &App, id: ApiKeyId) -> Result<Option<Arc<ApiKey>>> {
    // SECURITY: (test: an_api_key_expires)
    let works = |key: &Arc<ApiKey>| key.expires_at > app.clock.now();
    match cache(app).get(&id) {
        Cached::Ended => return Ok(None),
        Cached::Known(key) => return Ok(Some(key).filter(works)),
        Cached::Nothing => {}
    }
    let ticket = cache(app).begin(&id, app.clock.monotonic());
    let Some(key) = find(app, id).await?.map(Arc::new) else { return Ok(None) };
    cache(app).insert_if_unchanged(ticket, id, Arc::clone(&key), app.clock.monotonic());
    Ok(Some(key).filter(works))
}

row_struct! {
    /// A key that isn't revoked, as it is stored.
    struct WorkingKeyRow {
        user: UserId,
        permissions: String,
        allowed_networks: Option<String>,
        requests_per_minute: Option<i64>,
        created_at: Timestamp,
        expires_at: Timestamp,
        last_used_at: Option<Timestamp>,
    }
}

async fn find(app: &App, id: ApiKeyId) -> Result<Option<ApiKey>> {
    let row: Option<WorkingKeyRow> = app
        .db
        .maybe(
            "select user_id, permissions, allowed_networks, requests_per_minute, created_at, expires_at,
                last_used_at
             from api_keys where id = $1 and revoked_at is null",
            args![id],
        )
        .await?;
    // A network that can't be parsed is left out, and so admits no one.
    let networks = |text: String| -> Vec<IpNet> {
        text.split(' ').filter_map(|network| network.parse().ok()).collect()
    };
    Ok(row.map(|row| ApiKey {
        id,
        user: row.user,
        permissions: Arc::new(super::split(&row.permissions).into_iter().collect()),
        allowed_networks: row.allowed_networks.map(networks),
        created_at: row.created_at,
        expires_at: row.expires_at,
        requests_per_minute: row.requests_per_minute.and_then(|rate| u32::try_from(rate).ok()),
        last_used_at: row.last_used_at,
    }))
}

/// Counts one use of a key.
fn count(app: &App, key: &ApiKey) -> Result<Decision> {
    let (counter, now) = (app.limiter.account(&key.id.to_string()), app.clock.monotonic());
    counted(
        match key.requests_per_minute {
            Some(own) => app.limiter.check_own(&USE, counter, own, now),
            None => app.limiter.check(&USE, counter, now),
        },
        &USE,
    )
}

/// Records that a key was used, in the background, so that the request doesn't wait for it.
fn note_use(app: &App, key: &Arc<ApiKey>) {
    let now = app.clock.now();
    if key.last_used_at.is_some_and(|last| now.since(last) < NOTE_AFTER) {
        return;
    }
    let noted = ApiKey { last_used_at: Some(now), ..ApiKey::clone(key) };
    // The new time is cached first, so that the requests that follow don't write it too. It replaces only the key that
    // was read: a key that was dropped from the cache or revoked in the meantime must stay so.
    if !cache(app).replace(&key.id, key, Arc::new(noted)) {
        return;
    }
    let (app, id) = (app.clone(), key.id);
    tokio::spawn(async move {
        if let Err(error) = write_use(&app, id, now).await {
            let cause = error.causes().unwrap_or_default();
            tracing::warn!(cause, "can't record the use of an API key");
        }
    });
}

async fn write_use(app: &App, id: ApiKeyId, at: Timestamp) -> Result<()> {
    let sql = "update api_keys set last_used_at = $2
         where id = $1 and (last_used_at is null or last_used_at < $2)";
    app.upkeep("recording the use of an API key does not change the key")
        .run(sql, args![id, at])
        .await?;
    Ok(())
}
