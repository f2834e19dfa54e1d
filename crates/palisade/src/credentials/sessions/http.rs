//! The routes for refreshing a session, signing out, and listing and ending the caller's sessions, and the routes with
//! which administrators end sessions and disable users.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    COOKIE, Issued, Presented, SessionView, Transport, Why, end, everyone, list, refresh_with,
};
use crate::access::{ANYONE, Caller, SIGNED_IN, needs, same_origin};
use crate::app::{Actor, ActorKind, App, Hold};
use crate::credentials::{self, Act, End};
use crate::error::{Error, Kind, Result};
use crate::http::describe::{Describe, Description};
use crate::http::{Found, HostCookie, Id, List, MaybeBody, NoContent, Routes, limit};
use crate::id::{SessionId, UserId};
use crate::limits::{Key, LimitKey, Rule};
use crate::shape;
use crate::tokens;
use crate::users;

/// Limits refreshes by IP address, because each one costs a write.
pub const REFRESH: Rule = Rule {
    name: "refresh_ip",
    burst: 120,
    per: Duration::from_secs(60),
    key: Key::Ip,
    summary: "Too many refreshes from this IP address. Try again later.",
};

/// Limits sign-outs with a refresh token by IP address, because each one costs a read.
pub(super) const LOGOUT: Rule = Rule {
    name: "logout_ip",
    burst: 120,
    per: Duration::from_secs(60),
    key: Key::Ip,
    summary: "Too many sign-outs from this IP address. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/auth")
        .post("/refresh", ANYONE.limit(&REFRESH), refresh)
        .summary(
            "Exchanges a refresh token, or the session's cookie, for new credentials.\n\nA refresh \
             token works once. If it is sent again within `sessions.refresh_grace`, and its \
             successor is unused, the response contains the same successor. Later, for seven days \
             at most, a client that also sends its `device_token` gets a new successor, once. Any \
             other repeat ends the session.",
        )
        .or(Kind::NotSignedIn, "sessions.ended")
        .or(Kind::Denied, "access.cross_site")
        .or(Kind::Conflict, "tokens.too_long")
        .post("/logout", SIGNED_IN.enrolling().uncounted().or_refresh_token(), logout)
        .summary(
            "Signs out.\n\nEnds the current session and no other. Its tokens or cookie stop \
             working immediately.\n\nWith `refresh_token`, ends the session of this token, even \
             if the token was already used. Other credentials in the request are ignored. A token \
             that is unknown, or whose session has ended, is not an error.",
        )
        .or(Kind::TooMany, "request.too_many")
        .and(
            Routes::at("/users/me/sessions")
                .get("/", SIGNED_IN, mine)
                .summary("Lists your sessions.")
                .delete("/", SIGNED_IN.uncounted(), end_my_others)
                .summary("Ends all your sessions except the current one.")
                .delete("/{id}", SIGNED_IN.uncounted(), end_mine)
                .summary("Ends one of your sessions."),
        )
        .and(
            Routes::at("/users")
                .post("/revoke-sessions", needs(users::WRITE).fresh(), revoke_everyones)
                .destructive()
                .summary(
                    "Ends all sessions of every user, your own last, and revokes all API \
                     keys.\n\nFor administrators only. After a response with status 503, the \
                     operation may still be running. Once your session has ended, only API keys \
                     that service accounts received in the meantime remain to be revoked. A \
                     repeated call continues with the rest.",
                )
                .or(Kind::Denied, "access.exceeds_own"),
        )
        .and(
            Routes::at("/users/{id}")
                .post("/disable", needs(users::WRITE).fresh(), disable)
                .destructive()
                .summary("Disables a user: refuses their sign-ins and ends all their sessions.")
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "users.last_admin")
                .post("/revoke-sessions", needs(users::WRITE), revoke)
                .destructive()
                .summary("Ends all sessions of a user and revokes all their API keys.")
                .or(Kind::Denied, "access.exceeds_own"),
        )
}

/// The tokens of a session (RFC 6749 section 5.1).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TokenSession")]
struct TokenAnswer {
    /// A JWT or PASETO. Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// The number of seconds until the access token expires.
    expires_in: i64,
    /// The refresh token. It works once, with `POST /auth/refresh`.
    refresh_token: String,
    /// The number of seconds until the refresh token expires.
    refresh_expires_in: u64,
    session_id: SessionId,
    /// After a sign-in: send this token with the next sign-in, so that the device is recognized.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    device_token: Option<String>,
}

/// A cookie session. The cookie is set by the response; the body contains no token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CookieSession")]
struct CookieAnswer {
    session_id: SessionId,
    /// The number of seconds until the session ends if it is not used.
    expires_in: u64,
}

/// The response when a session starts or is renewed.
pub struct Answer(Response);

impl Answer {
    /// Adds a cookie to the response.
    #[must_use]
    pub fn with_cookie(mut self, cookie: HeaderValue) -> Self {
        self.0.headers_mut().append(SET_COOKIE, cookie);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Describe for Answer {
    fn describe(handler: &mut Description) {
        /// Tokens, or a cookie if the session uses one.
        #[derive(JsonSchema)]
        #[schemars(untagged, inline)]
        #[expect(dead_code, reason = "only its schema is used")]
        enum Either {
            Tokens(TokenAnswer),
            Cookie(CookieAnswer),
        }
        handler.answers_json::<Either>(StatusCode::OK, "The session's credentials.");
    }
}

/// Creates the response when a session starts or is renewed. A new token session also gets a device token.
///
/// # Errors
/// Returns an error if the keys can't be read, or the session ends in less than a second.
pub async fn answer(
    app: &App,
    issued: Issued,
    device_token: Option<&SecretString>,
) -> Result<Answer> {
    let session = &issued.session;
    let left = session.idle_expires_at.since(app.clock.now());
    if session.transport == Transport::Cookie {
        // The browser keeps the cookie until the session's absolute end. The server decides when the session has been
        // idle for too long.
        let kept = session.expires_at.since(app.clock.now());
        let cookie = super::cookie(app).set(issued.secret.expose(), kept);
        let cookie = cookie.ok_or_else(|| Error::internal("the cookie is not a header value"))?;
        let body = CookieAnswer { session_id: session.id, expires_in: left.as_secs() };
        // A request with cookies of two kinds is refused, so any cookie of another kind is removed.
        let others = app.credentials.cookies().filter(|(name, _)| name.secure != COOKIE.secure);
        let cleared = others.filter_map(|(name, _)| HostCookie::new(name, &app.settings).clear());
        let set = std::iter::once(cookie).chain(cleared).map(|value| (SET_COOKIE, value));
        return Ok(Answer((AppendHeaders(set.collect::<Vec<_>>()), Json(body)).into_response()));
    }
    let (access_token, expires_in) = tokens::issue(app, issued.grant()).await?;
    let body = TokenAnswer {
        access_token: access_token.expose().to_owned(),
        token_type: "Bearer",
        expires_in,
        refresh_token: issued.secret.expose().to_owned(),
        refresh_expires_in: left.as_secs(),
        session_id: session.id,
        device_token: device_token.map(|token| token.expose().to_owned()),
    };
    Ok(Answer(Json(body).into_response()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    /// The refresh token. Omit it if the request sends the session's cookie.
    #[schemars(with = "Option<shape::Secret>")]
    refresh_token: Option<SecretString>,
    /// The `device_token` of the response to the sign-in. It lets the client continue its session
    /// if it never received the response to its last refresh. Without effect on a cookie.
    #[schemars(with = "Option<shape::Secret>")]
    device_token: Option<SecretString>,
}

async fn refresh(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    MaybeBody(body): MaybeBody<RefreshBody>,
) -> Result<Answer> {
    let (token, device_token) =
        body.map_or((None, None), |body| (body.refresh_token, body.device_token));
    let (transport, secret) = match (token, super::cookie(&app).get(&headers)) {
        (Some(token), _) => (Transport::Token, token),
        (None, Found::One(value)) => {
            same_origin(&app, &Method::POST, &headers)?;
            (Transport::Cookie, SecretString::from(value))
        }
        (None, Found::None | Found::Several) => {
            let detail = "Send the refresh token, or the session cookie.";
            return Err(Error::bad_field("/refresh_token", "request.missing", detail));
        }
    };
    let presented = Presented { transport, secret: &secret, device_token: device_token.as_ref() };
    let issued = refresh_with(&app, &caller.actor, presented).await?;
    answer(&app, issued, None).await
}

/// A 204 response that removes the session's cookie from the browser. The cookie of the known device stays, because it
/// keeps a lock caused by others from affecting this device.
///
/// `Clear-Site-Data` is not sent: it also deletes what other applications on the same domain have stored, and clearing
/// the cache can take a browser many seconds.
pub struct SignedOut(Option<HeaderValue>);

impl SignedOut {
    /// Creates the response for the caller whose session has ended.
    pub fn new(app: &App) -> Self {
        Self(super::cookie(app).clear())
    }
}

impl IntoResponse for SignedOut {
    fn into_response(self) -> Response {
        let set = self.0.into_iter().map(|cookie| (SET_COOKIE, cookie)).collect::<Vec<_>>();
        (StatusCode::NO_CONTENT, AppendHeaders(set)).into_response()
    }
}

impl Describe for SignedOut {
    fn describe(handler: &mut Description) {
        NoContent::describe(handler);
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogoutBody {
    /// A refresh token of the session to end. Omit it to end the session that the request is sent with.
    #[schemars(with = "Option<shape::Secret>")]
    refresh_token: Option<SecretString>,
}

async fn logout(
    State(app): State<App>,
    caller: Caller,
    MaybeBody(body): MaybeBody<LogoutBody>,
) -> Result<SignedOut> {
    if let Some(token) = body.and_then(|body| body.refresh_token) {
        end_by_token(&app, caller.actor, &token).await?;
        // SECURITY: the cookie beside the token, if any, is of another session, which goes on (test:
        // a_sign_out_with_a_refresh_token_ends_its_session_alone).
        return Ok(SignedOut(None));
    }
    match end_this(&app, &caller).await {
        // The session ended at the same moment, and was active when this request was admitted: the user is signed out.
        // SECURITY: this is not so if the session is still active and only the credential was replaced (test:
        // a_new_proof_refuses_what_waited_with_the_credentials_before_it).
        Err(error)
            if matches!(error.kind(), Kind::NotFound | Kind::NotSignedIn)
                && super::find_live(&app, caller.signed_in()?.session()?).await?.is_none() => {}
        ended => ended?,
    }
    Ok(SignedOut::new(&app))
}

/// Ends the session of a refresh token, even of a used one. Does nothing if it has ended or the token is unknown.
async fn end_by_token(app: &App, actor: Actor, token: &SecretString) -> Result<()> {
    if let Some(ip) = actor.ip {
        limit(app, &LOGOUT, LimitKey::ip(ip))?;
    }
    let form = app.credentials.of_token(token.expose()).map(|(_, form)| form);
    // Success would be wrong: the session or the key goes on.
    if form.is_some_and(|form| form.prove.is_some()) {
        let detail =
            "This is an access token or an API key. Send the refresh token of the session.";
        return Err(Error::bad_field("/refresh_token", "sessions.not_refresh_token", detail));
    }
    let session = super::of_refresh_token(app, token.expose(), true).await?;
    let Some(session) = session else { return Ok(()) };
    let actor = Actor { kind: ActorKind::User, user: Some(session.user), ..actor };
    let mut change = app.change_holding(&actor, &[Hold::Alone(session.user)]).await?;
    match end(&mut change, session.user, session.id, Why::SignedOut).await {
        // It ended at the same moment.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => {
            ended?;
            change.commit_quietly("ending a session records its own event").await
        }
    }
}

async fn end_this(app: &App, caller: &Caller) -> Result<()> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    end(&mut change, me.user, me.session()?, Why::SignedOut).await?;
    change.commit_quietly("ending a session records its own event").await
}

async fn mine(State(app): State<App>, caller: Caller) -> Result<Json<List<SessionView>>> {
    let me = caller.signed_in()?;
    let items = list(&app, me.user, me.session()?).await?;
    Ok(Json(List { items, next_cursor: None }))
}

async fn end_mine(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<SessionId>,
) -> Result<SignedOut> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    end(&mut change, me.user, id, Why::EndedByUser).await?;
    change.commit_quietly("ending a session records its own event").await?;
    Ok(if me.session()? == id { SignedOut::new(&app) } else { SignedOut(None) })
}

async fn end_my_others(State(app): State<App>, caller: Caller) -> Result<NoContent> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    let keeping = Some(me.session()?);
    let act = End { keeping, ..End::of(me.user, Act::OthersEnded) };
    credentials::end(&mut change, act).await?;
    change.commit_quietly("ending a session records its own event").await?;
    Ok(NoContent)
}

async fn disable(State(app): State<App>, caller: Caller, Id(id): Id<UserId>) -> Result<NoContent> {
    let holds = [Hold::Alone(id), Hold::Administrators];
    super::disable(users::change_stoppable(&app, &caller, id, &holds).await?, id).await?;
    Ok(NoContent)
}

async fn revoke_everyones(State(app): State<App>, caller: Caller) -> Result<SignedOut> {
    everyone::revoke_for(&app, &caller).await?;
    Ok(SignedOut::new(&app))
}

async fn revoke(State(app): State<App>, caller: Caller, Id(id): Id<UserId>) -> Result<NoContent> {
    let change = users::change_stoppable(&app, &caller, id, &[Hold::Alone(id)]).await?;
    super::revoke_all(change, id).await?;
    Ok(NoContent)
}
