//! What a token is worth at this moment, and its revocation.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api_keys;
use crate::app::{Actor, App, Change, Hold};
use crate::error::{Kind, Result};
use crate::id::{ApiKeyId, SessionId, UserId};
use crate::sessions::{self, Why};
use crate::tokens;

/// The state of a token (RFC 7662 section 2.2).
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "Introspection")]
#[serde(default)]
pub(super) struct Worth {
    /// Whether this server accepts the token now.
    active: bool,
    /// `Bearer` for a token that is sent with requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<UserId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// When the token expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When the user last proved their identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    /// The methods used to sign in (RFC 8176).
    #[serde(skip_serializing_if = "Option::is_none")]
    amr: Option<Vec<String>>,
    /// The current permissions of an API key, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The networks from which an API key can be used, if they are restricted. The caller must
    /// check where a request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<String>>,
}

/// A token that isn't ours, or no longer good, is worth nothing; everything else stays an error.
fn good<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotSignedIn => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a token is worth.
///
/// # Errors
/// When the database is needed and doesn't answer.
pub(super) async fn introspect(app: &App, token: &str) -> Result<Worth> {
    let worth = if token.contains('.') {
        of_access_token(app, token).await?
    } else if token.starts_with(api_keys::PREFIX) {
        of_api_key(app, token).await?
    } else {
        of_refresh_token(app, token).await?
    };
    Ok(worth.unwrap_or_default())
}

async fn of_access_token(app: &App, token: &str) -> Result<Option<Worth>> {
    // SECURITY: the session is asked, as on every request (test: a_token_of_an_ended_session_is_not_active).
    let Some(identity) = good(sessions::of_access_token(app, token).await)? else {
        return Ok(None);
    };
    // SECURITY: what would open nothing here is worth nothing (test: a_token_that_must_enrol_is_not_active).
    if identity.must_enrol {
        return Ok(None);
    }
    let Some(claims) = good(tokens::claims(app, token).await)? else { return Ok(None) };
    Ok(Some(Worth {
        active: true,
        token_type: Some("Bearer"),
        sub: Some(identity.user),
        sid: identity.session,
        iss: Some(claims.iss),
        aud: Some(claims.aud),
        client_id: Some(claims.client_id),
        jti: Some(claims.jti),
        iat: Some(claims.iat),
        exp: Some(claims.exp),
        auth_time: Some(claims.auth_time),
        amr: Some(claims.amr),
        ..Worth::default()
    }))
}

async fn of_refresh_token(app: &App, token: &str) -> Result<Option<Worth>> {
    let session = sessions::of_refresh_token(app, token, false).await?;
    Ok(session.map(|session| Worth {
        active: true,
        sub: Some(session.user),
        sid: Some(session.id),
        exp: Some(session.idle_expires_at.as_seconds()),
        ..Worth::default()
    }))
}

async fn of_api_key(app: &App, token: &str) -> Result<Option<Worth>> {
    let Some(key) = api_keys::of_secret(app, token).await? else { return Ok(None) };
    let Some(allowed) = api_keys::allowed(app, &key).await? else { return Ok(None) };
    let networks = key.addresses.as_ref();
    Ok(Some(Worth {
        active: true,
        token_type: Some("Bearer"),
        sub: Some(key.user),
        exp: Some(key.expires_at.as_seconds()),
        iat: Some(key.created_at.as_seconds()),
        scope: Some(allowed.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        addresses: networks.map(|all| all.iter().map(ToString::to_string).collect()),
        ..Worth::default()
    }))
}

/// What a token can be revoked by.
enum Revocable {
    Session(UserId, SessionId),
    Key(UserId, ApiKeyId),
}

/// Ends the session of an access or refresh token, or revokes an API key. A token that is worth nothing stays so.
///
/// # Errors
/// When the database fails.
pub(super) async fn revoke(app: &App, actor: &Actor, token: &str) -> Result<()> {
    let Some(found) = revocable(app, token).await? else { return Ok(()) };
    let (Revocable::Session(user, _) | Revocable::Key(user, _)) = found;
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    match end(&mut change, found).await {
        // Ended by somebody else in the same moment.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => {
            ended?;
            change.commit_quietly("revoking a token noted its own event").await
        }
    }
}

async fn revocable(app: &App, token: &str) -> Result<Option<Revocable>> {
    if token.contains('.') {
        let identity = good(sessions::of_access_token(app, token).await)?;
        let found = identity.and_then(|identity| Some((identity.user, identity.session?)));
        return Ok(found.map(|(user, session)| Revocable::Session(user, session)));
    }
    if token.starts_with(api_keys::PREFIX) {
        let key = api_keys::of_secret(app, token).await?;
        return Ok(key.map(|key| Revocable::Key(key.user, key.id)));
    }
    // Whoever held one of a session's tokens may end it, a used one too.
    let session = sessions::of_refresh_token(app, token, true).await?;
    Ok(session.map(|session| Revocable::Session(session.user, session.id)))
}

async fn end(change: &mut Change, found: Revocable) -> Result<()> {
    match found {
        Revocable::Session(user, id) => sessions::end(change, user, id, Why::Revoked).await,
        Revocable::Key(user, id) => {
            api_keys::revoke(change, user, id, api_keys::Why::Revoked).await
        }
    }
}
