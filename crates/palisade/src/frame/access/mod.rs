//! Identifies the caller and decides whether the call is allowed, before the body is read. Where the body can contain the
//! credential, at most 16 KiB of it are read first.
//!
//! The route line states who may call ([`ANYONE`], [`SIGNED_IN`], [`needs`]); the [gate](admit) enforces it.
//!
//! # Promises
//!
//! - A route without an access value doesn't compile.
//! - On a route that requires a credential, an invalid one is refused; it is never ignored in favor of another.
//! - An unsafe request authenticated by a cookie needs proof of its origin.
//! - A process that has not read the feed within the last second refuses every request that requires a credential.

mod client;
mod lasting;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts as RequestParts;
use axum::http::{HeaderMap, Method};

use crate::actor::{Actor, ActorKind};
use crate::app::{App, fresh_enough, session_needed};
use crate::arrival::{Arrival, limit_at};
use crate::cookie::{Found, HostCookie};
use crate::credential::Via;
use crate::error::{Error, Kind, Result, bad_token, denied, not_signed_in};
use crate::limits::{Decision, Key, LimitKey, Rule};
use crate::trace::{self, TracedCaller};
use crate::visible::label;

pub use crate::app::{AuthLevel, Identity};
pub use client::{InBody, has_value, one_method};
pub(crate) use lasting::Gate;
pub use lasting::{Admission, is_recheck};

/// The Fetch Metadata header in which a browser states how the origin of a request relates to the server's origin.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Limits the requests of all sessions of an account together.
pub(crate) const ACCOUNT: Rule = Rule {
    name: "account",
    burst: 3000,
    per: Duration::from_secs(60),
    key: Key::Account,
    summary: "Too many requests from this account. Slow down.",
};

/// The access rules of a route.
#[derive(Clone, Debug)]
pub struct Access {
    /// The callers that the route accepts.
    pub who: Who,
    /// Rate limits by the client's IP address, checked before anything else.
    pub limits: Vec<&'static Rule>,
    /// Whether the route requires a proof of identity within `sessions.fresh_for`.
    pub fresh: bool,
    /// Whether the route also accepts a user who must set up a second factor first.
    pub enrolling: bool,
    /// Whether an API key may call the route if the route requires no permission; see [`Access::takes_keys`].
    pub keys: bool,
    /// Whether a session's request counts against the limit of its account; see [`Access::uncounted`].
    pub counted: bool,
    /// Whether the response is streamed, and so may outlast the caller's right to it; see [`Access::lasting`].
    pub lasting: bool,
    /// The credential that the body may contain; see [`Access::clients`] and [`Access::or_refresh_token`].
    pub in_body: Option<InBody>,
    /// Whether errors have the form of RFC 6749; see [`Access::oauth`].
    pub oauth: bool,
}

/// The callers that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// All callers; credentials are ignored.
    Anyone,
    /// Signed-in users.
    SignedIn,
    /// Signed-in users who hold this permission.
    Holds(Permission),
}

/// A right that a role can include, such as `users:read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// `area:verb`.
    pub name: &'static str,
    /// A one-sentence description for people.
    pub summary: &'static str,
}

/// Access for all callers; credentials are ignored.
pub const ANYONE: Access = Access::to(Who::Anyone);
/// Access for signed-in users, for routes about the caller.
pub const SIGNED_IN: Access = Access::to(Who::SignedIn);

/// Accepts users who hold `permission`.
pub const fn needs(permission: Permission) -> Access {
    Access::to(Who::Holds(permission))
}

impl Access {
    const fn to(who: Who) -> Self {
        Self {
            who,
            limits: Vec::new(),
            fresh: false,
            enrolling: false,
            keys: false,
            counted: true,
            lasting: false,
            in_body: None,
            oauth: false,
        }
    }

    /// Counts each call against `rule`, which counts by the client's IP address.
    ///
    /// # Panics
    /// Panics if the rule doesn't count by IP address. Apply such a rule in the handler instead, with
    /// [`limit`](crate::arrival::limit).
    #[must_use]
    pub fn limit(mut self, rule: &'static Rule) -> Self {
        assert!(rule.key == Key::Ip, "{} doesn't count by IP address", rule.name);
        self.limits.push(rule);
        self
    }

    /// Also accepts a user who must set up a second factor before anything else (`mfa.required`, `access.admin_mfa`).
    #[must_use]
    pub const fn enrolling(mut self) -> Self {
        self.enrolling = true;
        self
    }

    /// Requires a proof of identity within `sessions.fresh_for`, with the account's strongest factor, so that a person
    /// who finds a signed-in device can't call the route.
    #[must_use]
    pub const fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Accepts API keys too, on a route that requires no permission.
    #[must_use]
    pub const fn keys(mut self) -> Self {
        self.keys = true;
        self
    }

    /// Excludes requests from the limit of their account. For routes that end sessions or API keys, which must work
    /// even while a stolen session uses up that limit.
    #[must_use]
    pub const fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Returns whether an API key may call the route. It may if the route accepts all callers, requires a permission,
    /// or allows API keys in its line, but not if the route requires a fresh proof of identity, which a key can't
    /// provide.
    pub const fn takes_keys(&self) -> bool {
        match self.who {
            Who::Anyone => true,
            Who::SignedIn => self.keys && !self.fresh,
            Who::Holds(_) => !self.fresh,
        }
    }
}

/// The permission that a route requires, checked again in each change that the request makes.
#[derive(Clone, Copy)]
struct Needed(&'static str);

/// Marks a request whose route requires a fresh proof of identity, checked again in each change that the request makes.
#[derive(Clone, Copy)]
struct NeedsFresh;

/// Whether any part of the request is committed.
#[derive(Clone, Default)]
pub struct Committed(pub Arc<AtomicBool>);

/// The caller of a route, as passed to every handler that reads or changes data.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The actor that the audit log records.
    pub actor: Actor,
    identity: Option<Arc<Identity>>,
}

impl Caller {
    /// Returns the signed-in caller.
    ///
    /// # Errors
    /// Returns an error if the caller is not signed in, which can't happen behind [`SIGNED_IN`] or [`needs`].
    pub fn signed_in(&self) -> Result<&Identity> {
        self.identity.as_deref().ok_or_else(not_signed_in)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Infallible;
    async fn from_request_parts(
        parts: &mut RequestParts,
        _: &App,
    ) -> std::result::Result<Self, Infallible> {
        let identity = parts.extensions.get::<Arc<Identity>>().cloned();
        let arrival = parts.extensions.get::<Arrival>();
        let actor = Actor {
            kind: if identity.is_some() { ActorKind::User } else { ActorKind::Anyone },
            user: identity.as_ref().map(|identity| identity.user),
            credential: identity.as_ref().map(|identity| identity.credential),
            ip: arrival.map(|arrival| arrival.client.ip),
            user_agent: user_agent(&parts.headers),
            request: arrival.map(|arrival| arrival.request),
            permission: parts.extensions.get::<Needed>().map(|needed| needed.0),
            fresh: parts.extensions.get::<NeedsFresh>().is_some(),
            committed: parts
                .extensions
                .get::<Committed>()
                .map(|committed| Arc::clone(&committed.0)),
        };
        Ok(Self { actor, identity })
    }
}

/// Returns the client's `User-Agent`, in the form of a [`label`].
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(axum::http::header::USER_AGENT)?;
    Some(label(&String::from_utf8_lossy(value.as_bytes()))).filter(|label| !label.is_empty())
}

/// Acts as the gate: lets a request through to its handler, or refuses it. Returns the limit that is closest to being
/// used up, if there is one.
///
/// # Errors
/// Returns an error if there are too many requests, if the caller is not signed in or not allowed, if the origin is
/// unproven, if the feed is not current, or if the database fails.
pub async fn admit(
    app: &App,
    access: &Access,
    parts: &mut RequestParts,
) -> Result<Option<Decision>> {
    let mut strictest: Option<Decision> = None;
    let arrival = parts.extensions.get::<Arrival>().copied();
    if let Some(arrival) = arrival {
        for rule in &access.limits {
            let key = LimitKey::ip(arrival.client.ip);
            let decision = limit_at(app, rule, key, arrival.at)?;
            if strictest.is_none_or(|other| decision.remaining < other.remaining) {
                strictest = Some(decision);
            }
        }
    }
    // SECURITY: with a refresh token in the body, other credentials are ignored, and the handler gets no caller (test:
    // a_sign_out_with_a_refresh_token_ends_its_session_alone).
    if access.who == Who::Anyone || client::sends_refresh_token(parts) {
        return Ok(strictest);
    }
    let (via, identity) = match access.in_body {
        Some(InBody::Client) => client::prove(app, parts).await?,
        Some(InBody::RefreshToken) | None => prove(app, parts).await?,
    };
    trace::found_caller(TracedCaller {
        user: identity.user.0,
        kind: identity.credential.kind.name,
        credential: identity.credential.id,
    });
    let at = arrival.map_or_else(|| app.clock.monotonic(), |arrival| arrival.at);
    if let Some(own) = count(app, access, &identity, at)?
        && strictest.is_none_or(|other| own.remaining < other.remaining)
    {
        strictest = Some(own);
    }
    if via == Via::Cookie {
        same_origin(app, &parts.method, &parts.headers)?;
    }
    entitled(app, access, &identity)?;
    if let Who::Holds(permission) = access.who {
        parts.extensions.insert(Needed(permission.name));
    }
    if access.fresh {
        parts.extensions.insert(NeedsFresh);
    }
    parts.extensions.insert(Arc::new(identity));
    Ok(strictest)
}

/// Checks whether an authenticated identity may call a route.
///
/// # Errors
/// Returns the error with which the gate refuses the request.
fn entitled(app: &App, access: &Access, identity: &Identity) -> Result<()> {
    // SECURITY: checked before anything else about the route: a route that requires a session or a fresh proof never
    // accepts an API key (test: an_api_key_opens_what_its_line_lets_it).
    if !identity.credential.kind.session && !access.takes_keys() {
        return Err(session_needed());
    }
    // SECURITY: (test: an_administrator_without_a_second_factor_can_only_enrol)
    if identity.must_enrol && !access.enrolling {
        return Err(enrol_first());
    }
    if let Who::Holds(permission) = access.who
        && !identity.permissions.contains(permission.name)
    {
        return Err(denied());
    }
    if access.fresh {
        let proved = (identity.authenticated_at, identity.proved_with);
        fresh_enough(app, proved, identity.required_level)?;
    }
    Ok(())
}

/// Counts a request against the limit of its account, unless the route is uncounted, or the request was counted against
/// the credential's own limit when the credential was verified, as for an API key. Returns the limit to show in the
/// response, if any.
fn count(
    app: &App,
    access: &Access,
    identity: &Identity,
    at: Duration,
) -> Result<Option<Decision>> {
    if identity.limit.is_some() || !access.counted {
        return Ok(identity.limit);
    }
    // SECURITY: counted after the credential is verified, so that a credential that has ended doesn't use up the limit
    // of the account (test: the_requests_of_an_account_are_counted_together).
    let counted = limit_at(app, &ACCOUNT, app.limiter.account(&identity.user), at)?;
    // Shown only if less than half is left: otherwise, nearly every response would state that nearly all of it is left.
    Ok((counted.remaining < counted.limit / 2).then_some(counted))
}

fn enrol_first() -> Error {
    let detail = "A second factor is required. First set up a passkey or one-time codes, with POST \
                /api/v1/users/me/passkeys/begin or POST /api/v1/users/me/totp.";
    Error::new(Kind::Denied, "access.mfa_required", detail)
}

/// Refuses every credential while the feed is not current.
///
/// # Errors
/// Fails with `server.feed_unavailable`.
fn feed_is_current(app: &App) -> Result<()> {
    // SECURITY: without a current feed an ended session could look alive
    // (test: a_process_that_cannot_read_the_feed_lets_nobody_in).
    if !app.feed.is_current(app.clock.monotonic()) {
        return Err(Error::unavailable(
            "server.feed_unavailable",
            "The server can't currently determine which sessions have ended. Try again later.",
        ));
    }
    Ok(())
}

/// Identifies the caller by a bearer token.
async fn of_bearer(app: &App, token: &str, parts: &RequestParts) -> Result<(Via, Identity)> {
    let form = app.credentials.of_token(token).map(|(_, form)| form);
    let prove = form.and_then(|form| form.prove).ok_or_else(bad_token)?;
    Ok((Via::Bearer, prove(app, token, parts).await?))
}

/// Identifies the caller, and how the credential was sent.
async fn prove(app: &App, parts: &RequestParts) -> Result<(Via, Identity)> {
    feed_is_current(app)?;
    // SECURITY: a request with a bearer token is judged by that token alone
    // (test: a_bad_token_beside_a_good_cookie_is_refused).
    if let Some(token) = bearer(&parts.headers)? {
        return of_bearer(app, token, parts).await;
    }
    // SECURITY: with cookies of two kinds, neither is ignored in favor of the other (test:
    // cookies_of_two_kinds_are_refused).
    let mut only = None;
    for (name, prove) in app.credentials.cookies() {
        match HostCookie::new(name, &app.settings).get(&parts.headers) {
            Found::None => {}
            Found::One(value) if only.is_none() => only = Some((value, prove)),
            Found::One(_) | Found::Several => return Err(bad_token()),
        }
    }
    let (value, prove) = only.ok_or_else(not_signed_in)?;
    Ok((Via::Cookie, prove(app, value, parts).await?))
}

/// Refuses an unsafe request that another site may have made a browser send. An unsafe request needs `Sec-Fetch-Site:
/// same-origin` or, without that header, an `Origin` equal to the server's own.
///
/// # Errors
/// Fails with `access.cross_site`.
pub fn same_origin(app: &App, method: &Method, headers: &HeaderMap) -> Result<()> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    // Both headers are set by browsers and can't be set by scripts; the newer one decides.
    let ours = if headers.contains_key(SEC_FETCH_SITE) {
        headers.get_all(SEC_FETCH_SITE).iter().all(|site| site == "same-origin")
    } else {
        headers.contains_key(ORIGIN)
            && headers.get_all(ORIGIN).iter().all(|origin| {
                origin
                    .to_str()
                    .is_ok_and(|origin| origin == app.settings.server.public_url.as_str())
            })
    };
    if ours {
        return Ok(());
    }
    Err(Error::new(
        Kind::Denied,
        "access.cross_site",
        "A request that sends or sets cookies must come from this site: Sec-Fetch-Site must be \
         same-origin or, without that header, Origin must be the public URL.",
    ))
}

/// Returns the bearer token of the `Authorization` header (RFC 6750 section 2.1), or `None` if the header is missing or
/// has another scheme. Such a header is not for this server: browsers repeat the `Basic` credentials of a proxy in every
/// request.
///
/// # Errors
/// Fails with `access.invalid_token` if the header is not text, or if there is another such header.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.find_map(|value| after_scheme(value.as_bytes(), "bearer")) else {
        return Ok(None);
    };
    // SECURITY: of two headers, another server in front might have checked the other one (test:
    // a_bearer_token_stands_alone_in_one_header).
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(bad_token());
    }
    std::str::from_utf8(value).map(Some).map_err(|_| bad_token())
}

/// Returns what follows an authentication scheme and its spaces (RFC 9110 section 11.4), if the value has this scheme.
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    name.eq_ignore_ascii_case(scheme.as_bytes()).then(|| rest.trim_ascii_start())
}
