//! Refreshing, signing out, and looking at one's own sessions; the administrators' endings.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{HeaderName, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use palisade_crypto::secret::SecretString;
use serde::{Deserialize, Serialize};

use super::prove::Found;
use super::{Issued, SessionCookie, SessionView, Transport, Why, end, end_others, list};
use crate::access::{ANYONE, Caller, SIGNED_IN, needs, same_origin};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::http::{Id, List, MaybeBody, Routes};
use crate::id::{SessionId, UserId};
use crate::limits::{Key, Rule};
use crate::tokens::{self, Grant};
use crate::users;

/// Refreshing, by address: each costs a write.
pub(super) const REFRESH: Rule = Rule {
    name: "refresh_address",
    burst: 120,
    per: Duration::from_secs(60),
    key: Key::Address,
    says: "Too many refreshes from this address; wait a moment.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth")
        .post("/refresh", ANYONE.limit(&REFRESH), refresh)
        .post("/logout", SIGNED_IN, logout)
        .and(
            Routes::at("/users/me/sessions")
                .get("/", SIGNED_IN, mine)
                .delete("/", SIGNED_IN, end_my_others)
                .delete("/{id}", SIGNED_IN, end_mine),
        )
        .and(Routes::at("/users/{id}").post("/disable", needs(users::WRITE), disable).post(
            "/revoke-sessions",
            needs(users::WRITE),
            revoke,
        ))
}

/// The token answer (RFC 6749 section 5.1).
#[derive(Serialize)]
struct TokenAnswer {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    refresh_token: String,
    refresh_expires_in: u64,
    session_id: SessionId,
}

/// The answer of a cookie session: no token in it, the cookie is beside it.
#[derive(Serialize)]
struct CookieAnswer {
    session_id: SessionId,
    expires_in: u64,
}

/// What a client gets when a session starts or goes on.
///
/// # Errors
/// When the keys can't be read.
pub async fn answer(app: &App, issued: Issued) -> Result<Response> {
    let session = issued.session;
    let left = session.idle_expires_at.since(app.clock.now());
    if session.transport == Transport::Cookie {
        // The browser keeps it to the absolute end; the server decides when it was idle too long.
        let kept = session.expires_at.since(app.clock.now());
        let cookie = SessionCookie::of(app).set(issued.secret.expose(), kept);
        let cookie = cookie.ok_or_else(|| Error::internal("the cookie is no header value"))?;
        let body = CookieAnswer { session_id: session.id, expires_in: left.as_secs() };
        return Ok(([(SET_COOKIE, cookie)], Json(body)).into_response());
    }
    let grant = Grant {
        user: session.user,
        session: session.id,
        format: session.format,
        authenticated_at: session.authenticated_at,
        amr: session.amr.split(' ').map(str::to_owned).collect(),
        session_ends_at: session.expires_at,
    };
    let (access_token, expires_in) = tokens::issue(app, grant).await?;
    Ok(Json(TokenAnswer {
        access_token: access_token.expose().to_owned(),
        token_type: "Bearer",
        expires_in,
        refresh_token: issued.secret.expose().to_owned(),
        refresh_expires_in: left.as_secs(),
        session_id: session.id,
    })
    .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    refresh_token: Option<SecretString>,
}

async fn refresh(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    MaybeBody(body): MaybeBody<RefreshBody>,
) -> Result<Response> {
    let token = body.and_then(|body| body.refresh_token);
    let (transport, secret) = match (token, SessionCookie::of(&app).get(&headers)) {
        (Some(token), _) => (Transport::Token, token),
        (None, Found::One(value)) => {
            same_origin(&app, &Method::POST, &headers)?;
            (Transport::Cookie, SecretString::from(value))
        }
        (None, Found::None | Found::Several) => {
            let says = "Send the refresh token, or the session cookie.";
            return Err(Error::bad_field("/refresh_token", "request.missing", says));
        }
    };
    let issued = super::refresh(&app, &caller.actor, transport, &secret).await?;
    answer(&app, issued).await
}

/// What a browser should drop when it signs out.
const CLEAR_SITE_DATA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

async fn logout(State(app): State<App>, caller: Caller) -> Result<Response> {
    let me = caller.signed_in()?;
    let mut change = app.change(&caller.actor).await?;
    match end(&mut change, me.user, me.session, Why::SignedOut).await {
        // Ended by somebody else in the same moment: signed out all the same.
        Err(error) if error.kind() == Kind::NotFound => {}
        ended => {
            ended?;
            change.commit_quietly("ending a session noted its own event").await?;
        }
    }
    let mut response = (StatusCode::NO_CONTENT, [CLEAR_SITE_DATA]).into_response();
    if let Some(cookie) = SessionCookie::of(&app).clear() {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn mine(State(app): State<App>, caller: Caller) -> Result<Json<List<SessionView>>> {
    let me = caller.signed_in()?;
    let items = list(&app, me.user, me.session).await?;
    Ok(Json(List { items, next_cursor: None }))
}

async fn end_mine(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<SessionId>,
) -> Result<StatusCode> {
    let mut change = app.change(&caller.actor).await?;
    end(&mut change, caller.signed_in()?.user, id, Why::EndedByUser).await?;
    change.commit_quietly("ending a session noted its own event").await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn end_my_others(State(app): State<App>, caller: Caller) -> Result<StatusCode> {
    let me = caller.signed_in()?;
    let mut change = app.change(&caller.actor).await?;
    end_others(&mut change, me.user, me.session, Why::EndedByUser).await?;
    change.commit_quietly("ending a session noted its own event").await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn disable(State(app): State<App>, caller: Caller, Id(id): Id<UserId>) -> Result<StatusCode> {
    super::disable(app.change(&caller.actor).await?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke(State(app): State<App>, caller: Caller, Id(id): Id<UserId>) -> Result<StatusCode> {
    super::revoke_all(app.change(&caller.actor).await?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
