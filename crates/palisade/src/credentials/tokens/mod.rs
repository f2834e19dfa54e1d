//! Access tokens: short-lived, and signed or (PASETO `v4.local`) encrypted. A token is verified once and then cached by
//! its digest.
//!
//! # Promises
//!
//! - A token is a JWT (RFC 9068) or a PASETO v4. Its key determines the algorithm, never its header.
//! - A verified token is cached only until it expires, and doesn't show that its session is active. Every request
//!   checks the session separately; see [`crate::sessions`].
//!
//! The keys belong to [`crate::keys`].

mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use palisade_crypto::opaque::fingerprint;
use palisade_crypto::secret::SecretString;
use palisade_crypto::token::{AccessClaims, TokenError, fits};
use palisade_db::Timestamp;

use crate::app::{App, Change, State, Subscription};
use crate::cache::Bounded;
use crate::error::{Error, Kind, Result, bad_token};
use crate::id::{SessionId, UserId};
use crate::keys;
use crate::module::Module;
use crate::settings::{TokenClaim, TokenFormat};
use crate::users;

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "tokens",
    routes: http::routes,
    subscriptions: &[Subscription {
        topic: keys::CHANGED,
        apply: |app, _| forget(app),
        forget_all: forget,
    }],
    state: |_, state: &mut State| {
        state.put(Verified { tokens: Bounded::new(200_000), forgotten: AtomicU64::new(0) });
        Ok(())
    },
    ..Module::EMPTY
};

struct Verified {
    tokens: Bounded<[u8; 32], Remembered>,
    /// The number of times that all tokens were discarded.
    forgotten: AtomicU64,
}

/// A verified token, and the value of [`Verified::forgotten`] when its verification began.
#[derive(Clone)]
struct Remembered {
    token: Arc<AccessToken>,
    forgotten: u64,
}

/// Discards all verified tokens, because a key may have been dropped.
fn forget(app: &App) {
    // The keys first: a verification that begins after the next line uses the new ones.
    keys::expire(app);
    let verified = app.state::<Verified>();
    verified.forgotten.fetch_add(1, Ordering::SeqCst);
    verified.tokens.clear();
}

/// The contents of a valid access token.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The user who signed in.
    pub user: UserId,
    /// The session of the token.
    pub session: SessionId,
    /// The generation of the session's credentials to which the token belongs (`gen`).
    pub generation: i64,
    /// When the user proved their identity (`auth_time`).
    pub authenticated_at: Timestamp,
    /// When the token expires (`exp`).
    pub expires_at: Timestamp,
}

/// The contents of an access token to be issued.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// JWT or PASETO.
    pub format: TokenFormat,
    /// The current generation of the session's credentials.
    pub generation: i64,
    /// When the user proved their identity.
    pub authenticated_at: Timestamp,
    /// The methods with which the user proved it (RFC 8176).
    pub amr: Vec<String>,
    /// The session's absolute end, which no token outlives.
    pub session_ends_at: Timestamp,
    /// The claims about the user.
    pub user_claims: UserClaims,
}

/// The claims about the user that `tokens.claims` requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserClaims {
    roles: Option<Vec<String>>,
    scope: Option<String>,
    email: Option<String>,
    email_verified: Option<bool>,
    name: Option<String>,
}

impl UserClaims {
    /// Reads the claims within the change that issues a token. The session's row, or the user's if the session is new,
    /// must be locked: a change to the claims then either precedes this change, or makes the token outdated.
    ///
    /// # Errors
    /// Returns an error if the user doesn't exist, if the change lacks the hold that
    /// [`hold_for_claims`](users::hold_for_claims) returns, or if the database fails.
    pub async fn read(change: &mut Change, user: UserId) -> Result<Self> {
        let app = change.app().clone();
        let mut claims = Self::default();
        if app.settings.tokens.claims.is_empty() {
            return Ok(claims);
        }
        // SECURITY: (test: a_sign_in_that_commits_beside_a_change_of_claims_is_outdated)
        users::hold_for_claims(&app).map_or(Ok(()), |hold| change.must_hold(hold))?;
        // Not from memory, which may still contain the claims from before a change by another process.
        let user = users::find_now(change, user).await?.ok_or_else(bad_token)?;
        // SECURITY: a service that verifies the token itself would accept rights that this server doesn't grant until
        // the user sets up the required factor (test: a_token_that_must_enrol_contains_no_rights).
        let entitled = !user.must_enrol(&app);
        for claim in &app.settings.tokens.claims {
            match claim {
                TokenClaim::Roles => {
                    claims.roles = Some(if entitled { user.roles.clone() } else { Vec::new() });
                }
                TokenClaim::Scope => {
                    claims.scope = Some(if entitled { user.scope() } else { String::new() });
                }
                TokenClaim::Email => claims.email = Some(user.email.clone()),
                TokenClaim::EmailVerified => claims.email_verified = Some(user.email_verified),
                TokenClaim::Name => claims.name.clone_from(&user.name),
            }
        }
        Ok(claims)
    }
}

/// Checks that an access token would not be too long, before anything is changed.
///
/// # Errors
/// Fails with `tokens.too_long`.
pub fn check(app: &App, grant: &Grant) -> Result<()> {
    if grant.user_claims == UserClaims::default() {
        return Ok(());
    }
    let algorithm = keys::algorithm(&app.settings, grant.format);
    let life = i64::try_from(app.settings.tokens.access_ttl.as_secs()).unwrap_or(0);
    // SECURITY: (test: a_token_that_would_be_too_long_is_not_issued)
    if fits(algorithm, &claims_of(app, grant.clone(), life)) { Ok(()) } else { Err(too_long()) }
}

fn too_long() -> Error {
    let detail = "The access token would be longer than 4 KiB. The administrator must shorten \
                  tokens.claims or give this user fewer roles.";
    Error::new(Kind::Conflict, "tokens.too_long", detail)
}

/// Issues an access token. Returns it with its lifetime in seconds.
///
/// # Errors
/// Returns an error if the keys can't be read, or the session ends in less than a second.
pub async fn issue(app: &App, grant: Grant) -> Result<(SecretString, i64)> {
    let now = app.clock.now();
    let life = app.settings.tokens.access_ttl.min(grant.session_ends_at.since(now));
    let life = i64::try_from(life.as_secs()).unwrap_or(0);
    if life < 1 {
        return Err(bad_token());
    }
    let format = grant.format;
    let claims = claims_of(app, grant, life);
    let key = keys::ring(app).await?.signing(app, format)?;
    let token = key.sign(&claims, &*app.random).map_err(Error::internal)?;
    Ok((token.into(), life))
}

fn claims_of(app: &App, grant: Grant, life: i64) -> AccessClaims {
    let now = app.clock.now();
    let user = grant.user_claims;
    AccessClaims {
        iss: app.settings.tokens.issuer.clone(),
        aud: app.settings.tokens.audience.clone(),
        sub: grant.user.to_string(),
        client_id: CLIENT.to_owned(),
        sid: grant.session.to_string(),
        jti: app.new_id().to_string(),
        iat: now.as_seconds(),
        exp: now.as_seconds() + life,
        auth_time: grant.authenticated_at.as_seconds(),
        amr: grant.amr,
        generation: grant.generation,
        roles: user.roles,
        scope: user.scope,
        email: user.email,
        email_verified: user.email_verified,
        name: user.name,
    }
}

/// The `client_id` that RFC 9068 requires. The application itself is the only client.
const CLIENT: &str = "palisade";

/// Verifies an access token: signature or authentication tag, kind, issuer, audience, time.
///
/// # Errors
/// Fails with `access.invalid_token`, or if the keys can't be read.
pub async fn verify(app: &App, token: &str) -> Result<Arc<AccessToken>> {
    let digest = fingerprint(token.as_bytes());
    let verified = app.state::<Verified>();
    let forgotten = verified.forgotten.load(Ordering::SeqCst);
    let (monotonic, now) = (app.clock.monotonic(), app.clock.now());
    // SECURITY: expiry is also checked by the time of day, which advances while a machine sleeps (test:
    // a_remembered_token_expires_by_the_time_of_day).
    let known = verified.tokens.get(&digest, monotonic);
    let known = known.filter(|known| now < known.token.expires_at);
    // SECURITY: a verification that began before a key was dropped counts for nothing afterwards (test:
    // every_token_of_a_dropped_key_is_refused_beside_many_requests).
    if let Some(known) = known.filter(|known| known.forgotten == forgotten) {
        return Ok(known.token);
    }
    let mut verdict = keys::ring(app).await?.verifier.verify(token, now.as_seconds());
    if matches!(verdict, Err(TokenError::UnknownKey)) {
        verdict = keys::look_again(app).await?.verifier.verify(token, now.as_seconds());
    }
    let claims = verdict.map_err(|_| bad_token())?;
    let token = Arc::new(read(&claims).ok_or_else(bad_token)?);
    let left = Timestamp::from_seconds(claims.exp).since(now);
    let remembered = Remembered { token: Arc::clone(&token), forgotten };
    verified.tokens.put(digest, remembered, monotonic + left, monotonic);
    Ok(token)
}

/// Verifies an access token and returns all its claims.
///
/// # Errors
/// Fails with `access.invalid_token`, or if the keys can't be read.
pub async fn claims(app: &App, token: &str) -> Result<AccessClaims> {
    let verdict = keys::ring(app).await?.verifier.verify(token, app.clock.now().as_seconds());
    verdict.map_err(|_| bad_token())
}

fn read(claims: &AccessClaims) -> Option<AccessToken> {
    Some(AccessToken {
        user: claims.sub.parse().ok()?,
        session: claims.sid.parse().ok()?,
        generation: claims.generation,
        authenticated_at: Timestamp::from_seconds(claims.auth_time),
        expires_at: Timestamp::from_seconds(claims.exp),
    })
}

/// Returns the longest time for which a token is valid, and therefore for which an ended session must be remembered.
pub fn longest_life(app: &App) -> Duration {
    app.settings.tokens.access_ttl + Duration::from_secs(60)
}
