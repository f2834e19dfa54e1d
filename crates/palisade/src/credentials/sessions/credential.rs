//! Sessions as a kind of credential: access tokens, refresh tokens and cookies.

use palisade_db::{Timestamp, args};
use uuid::Uuid;

use super::{
    COOKIE, ENDED_TOPIC, REFRESH_PREFIX, Why, end, of_access_token, of_refresh_token, prove,
};
use crate::access::AuthLevel;
use crate::app::{App, Change, CredentialForm, CredentialMethods, Kind, LiveCredential};
use crate::credential::{Credential, CredentialKind, Introspection, TokenShape};
use crate::error::Result;
use crate::id::{SessionId, UserId};
use crate::tokens;
use crate::users::Factors;

/// The credential kind of sessions.
pub static KIND: CredentialKind = CredentialKind { name: "session", session: true };

/// The methods of this credential kind.
pub(super) const METHODS: CredentialMethods = CredentialMethods {
    kind: &KIND,
    forms: &[ACCESS_TOKEN, SESSION_COOKIE, REFRESH_TOKEN],
    ends_as: Kind::Sessions,
    ended: ENDED_TOPIC,
    is_alive: |change, user, credential| Box::pin(is_alive(change, user, credential)),
    revoke: |change, user, id| Box::pin(end(change, user, SessionId(id), Why::Revoked)),
};

const ACCESS_TOKEN: CredentialForm = CredentialForm {
    name: "bearer",
    summary: "The access token of a session (RFC 6750): a JWT or a PASETO.",
    shape: TokenShape::Signed,
    prove: Some(|app, token, _| Box::pin(of_access_token(app, token))),
    introspect: Some(|app, token| Box::pin(introspect_access_token(app, token))),
    locate: Some(|app, token| Box::pin(locate_by_access_token(app, token))),
};

const SESSION_COOKIE: CredentialForm = CredentialForm {
    name: "cookie",
    summary: "The cookie of a session. Unsafe methods require a proof of origin: \
           `Sec-Fetch-Site: same-origin`, or an `Origin` that is the server's origin.",
    shape: TokenShape::Cookie(COOKIE),
    prove: Some(|app, value, parts| Box::pin(prove::cookie(app, value, parts))),
    introspect: None,
    locate: None,
};

const REFRESH_TOKEN: CredentialForm = CredentialForm {
    name: "refresh_token",
    summary: "A refresh token: `pal_rt_…`.",
    shape: TokenShape::Prefix(REFRESH_PREFIX),
    prove: None,
    introspect: Some(|app, token| Box::pin(introspect_refresh_token(app, token))),
    locate: Some(|app, token| Box::pin(locate_by_refresh_token(app, token))),
};

/// Checks that the session is active, and that the presented credential is an access token of the session's current
/// generation, or a cookie that no reauthentication has replaced. The idle timeout is not checked.
async fn is_alive(
    change: &mut Change,
    user: UserId,
    credential: Credential,
) -> Result<Option<LiveCredential>> {
    let (generation, digest) = (credential.secret.generation(), credential.secret.digest());
    let now = change.now();
    // SECURITY: the generation or the cookie, and the absolute timeout, are checked again here. The idle timeout was
    // checked when the request arrived (tests: a_new_proof_refuses_what_waited_with_the_credentials_before_it,
    // a_request_that_waited_past_the_end_of_its_session_is_refused).
    let row: Option<(Timestamp, String, bool, i64)> = change
        .maybe(
            "select s.authenticated_at, s.proved_with, u.has_totp, u.passkeys
             from sessions s join users u on u.id = s.user_id and u.disabled_at is null
             where s.id = $1 and s.user_id = $2 and s.ended_at is null and s.expires_at > $5
                and (s.generation = $3 or exists (select 1 from session_secrets x
                    where x.digest = $4 and x.session_id = s.id
                        and (x.used_at is null or x.successor_digest is not null)))",
            args![credential.id, user, generation, digest, now],
        )
        .await?;
    Ok(row.map(|(at, with, totp, passkeys)| LiveCredential {
        proved: Some((at, AuthLevel::parse(&with))),
        permissions: None,
        required_level: Some(Factors { totp, passkeys, ..Factors::default() }.required_level()),
    }))
}

async fn introspect_access_token(app: &App, token: &str) -> Result<Option<Introspection>> {
    // SECURITY: the session is checked, as on every request (test: a_token_of_an_ended_session_is_not_active).
    let identity = of_access_token(app, token).await?;
    let claims = tokens::claims(app, token).await?;
    Ok(Some(Introspection {
        token_type: Some("Bearer"),
        sub: Some(identity.user),
        sid: identity.credential.session(),
        iss: Some(claims.iss),
        aud: Some(claims.aud),
        client_id: Some(claims.client_id),
        jti: Some(claims.jti),
        iat: Some(claims.iat),
        exp: Some(claims.exp),
        auth_time: Some(claims.auth_time),
        amr: Some(claims.amr),
        ..Introspection::default()
    }))
}

async fn introspect_refresh_token(app: &App, token: &str) -> Result<Option<Introspection>> {
    let session = of_refresh_token(app, token, false).await?;
    Ok(session.map(|session| Introspection {
        sub: Some(session.user),
        sid: Some(session.id),
        exp: Some(session.idle_expires_at.as_seconds()),
        ..Introspection::default()
    }))
}

async fn locate_by_access_token(app: &App, token: &str) -> Result<Option<(UserId, Uuid)>> {
    let identity = of_access_token(app, token).await?;
    Ok(Some((identity.user, identity.credential.id)))
}

async fn locate_by_refresh_token(app: &App, token: &str) -> Result<Option<(UserId, Uuid)>> {
    // Any refresh token of a session can be used to end the session, even one that was already used.
    let session = of_refresh_token(app, token, true).await?;
    Ok(session.map(|session| (session.user, session.id.0)))
}
