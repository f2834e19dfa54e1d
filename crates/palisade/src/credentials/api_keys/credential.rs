//! API keys as a kind of credential.

use palisade_db::args;

use super::{ENDED_TOPIC, PREFIX, Why, allowed, of_secret, prove, revoke, split};
use crate::app::{App, Change, CredentialForm, CredentialMethods, Kind, LiveCredential};
use crate::credential::{Credential, CredentialKind, Introspection, TokenShape};
use crate::error::Result;
use crate::id::{ApiKeyId, UserId};
use crate::users::Factors;

/// The credential kind of API keys.
pub static KIND: CredentialKind = CredentialKind { name: "api_key", session: false };

/// The methods of this credential kind.
pub(super) const METHODS: CredentialMethods = CredentialMethods {
    kind: &KIND,
    forms: &[CredentialForm {
        name: "api_key",
        summary: "An API key: `pal_ak_…`.",
        shape: TokenShape::Prefix(PREFIX),
        prove: Some(|app, token, parts| Box::pin(prove::bearer(app, token, parts))),
        introspect: Some(|app, token| Box::pin(introspect(app, token))),
        locate: Some(|app, token| {
            Box::pin(async {
                let key = of_secret(app, token).await?;
                Ok(key.map(|key| (key.user, key.id.0)))
            })
        }),
    }],
    ends_as: Kind::ApiKeys,
    ended: ENDED_TOPIC,
    is_alive: |change, user, credential| Box::pin(is_alive(change, user, credential)),
    revoke: |change, user, id| Box::pin(revoke(change, user, ApiKeyId(id), Why::Revoked)),
};

async fn is_alive(
    change: &mut Change,
    user: UserId,
    credential: Credential,
) -> Result<Option<LiveCredential>> {
    let now = change.now();
    let row: Option<(String, bool, i64)> = change
        .maybe(
            "select k.permissions, u.has_totp, u.passkeys
             from api_keys k join users u on u.id = k.user_id and u.disabled_at is null
             where k.id = $1 and k.user_id = $2 and k.revoked_at is null and k.expires_at > $3",
            args![credential.id, user, now],
        )
        .await?;
    Ok(row.map(|(permissions, totp, passkeys)| LiveCredential {
        // An API key is never a proof of identity, however recently it was created.
        proved: None,
        permissions: Some(split(&permissions).into_iter().collect()),
        required_level: Some(Factors { totp, passkeys, ..Factors::default() }.required_level()),
    }))
}

async fn introspect(app: &App, token: &str) -> Result<Option<Introspection>> {
    let Some(key) = of_secret(app, token).await? else { return Ok(None) };
    let Some(allowed) = allowed(app, &key).await? else { return Ok(None) };
    let networks = key.allowed_networks.as_ref();
    Ok(Some(Introspection {
        token_type: Some("Bearer"),
        sub: Some(key.user),
        exp: Some(key.expires_at.as_seconds()),
        iat: Some(key.created_at.as_seconds()),
        scope: Some(allowed.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        allowed_networks: networks.map(|all| all.iter().map(ToString::to_string).collect()),
        ..Introspection::default()
    }))
}
