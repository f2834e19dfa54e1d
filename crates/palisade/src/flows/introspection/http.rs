//! `/auth/introspect`, `/auth/revoke`, `/auth/revocations`, `/.well-known/oauth-authorization-server`.

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::INTROSPECT;
use super::metadata::metadata;
use super::pages::{Cursor, read};
use super::stream;
use super::token::{introspect, revoke};
use crate::access::{ANYONE, Admission, Caller, needs, one_method};
use crate::app::App;
use crate::credential::Introspection;
use crate::error::{Error, Kind, Result};
use crate::http::describe::{Answered, Describe, Description};
use crate::http::serve::Stopping;
use crate::http::{Form, Params, Routes};
use crate::shape;

pub(super) fn routes() -> Routes {
    Routes::at("/auth")
        .post("/introspect", needs(INTROSPECT).clients(), introspect_token)
        .summary(
            "Introspects a token (RFC 7662): an access token, a refresh token or an API \
             key.\n\nThe response contains the user's current roles and permissions. It contains \
             the user's email address and name if the caller also has the permission \
             `users:read`. Introspection does not use up a refresh token.",
        )
        .post("/revoke", needs(INTROSPECT).clients(), end)
        .destructive()
        .summary(
            "Revokes a token (RFC 7009).\n\nIf it is an access or refresh token, its session ends. \
             If it is an API key, the key stops working.\n\nAn unknown token is not an error.",
        )
        .get("/revocations", needs(INTROSPECT).lasting(), feed)
        .summary(
            "Returns the revocation feed: signed, ordered pages of ended sessions and API keys, \
             for services that verify access tokens themselves.\n\nAn entry with a `generation` \
             refuses only the session's tokens with a lower `gen`. An entry is listed until \
             all access tokens that were issued before it have expired. With \
             `Accept: text/event-stream`, returns a stream of events, each with one page, at least \
             one every five seconds.",
        )
        .or(Kind::Unavailable, "verifiers.too_many_streams")
        .and(
            Routes::root()
                .get("/.well-known/oauth-authorization-server", ANYONE, metadata)
                .summary(
                    "Returns the metadata of the authorization server (RFC 8414).\n\nOAuth clients \
                     find the endpoints for introspection and revocation with it.",
                ),
        )
}

/// Other fields are ignored (RFC 7662 section 2.1, RFC 7009 section 2.1).
#[derive(Deserialize, JsonSchema)]
struct TokenForm {
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// Ignored. The server recognizes the type from the token itself.
    #[serde(rename = "token_type_hint")]
    #[schemars(length(max = 100))]
    _token_type_hint: Option<String>,
    /// The id of the API key, or of its owner, if the client authenticates in the form.
    #[serde(rename = "client_id")]
    #[schemars(length(max = 100))]
    _client_id: Option<String>,
    /// The API key, if the client authenticates in the form.
    #[schemars(with = "Option<shape::Secret>")]
    client_secret: Option<SecretString>,
    /// Not supported.
    #[schemars(with = "Option<shape::Secret>")]
    client_assertion: Option<SecretString>,
}

impl TokenForm {
    /// Returns the token, if the client authenticates in one way only.
    fn token(&self, headers: &HeaderMap) -> Result<&str> {
        one_method(headers, self.client_secret.as_ref(), self.client_assertion.as_ref())?;
        Ok(self.token.expose())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FeedParams {
    /// The `next` of the previous page. Omit to start with the oldest entry that is still relevant.
    #[schemars(with = "Option<AfterShape>")]
    after: Option<String>,
}

/// A cursor of the feed.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct AfterShape(
    #[schemars(
        length(max = 54),
        regex(pattern = r"^[0-9]{1,18}\.[0-9]{1,18}(\.[0-9a-fA-F]{16})?$")
    )]
    String,
);

async fn introspect_token(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Form(form): Form<TokenForm>,
) -> Result<Json<Introspection>> {
    introspect(&app, &caller, form.token(&headers)?).await.map(Json)
}

/// An empty response with status 200, as RFC 7009 section 2.2 requires.
struct Revoked;

impl IntoResponse for Revoked {
    fn into_response(self) -> Response {
        StatusCode::OK.into_response()
    }
}

impl Describe for Revoked {
    fn describe(handler: &mut Description) {
        handler.answers(Answered { status: StatusCode::OK, summary: "Success.", body: None });
    }
}

async fn end(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Form(form): Form<TokenForm>,
) -> Result<Revoked> {
    revoke(&app, &caller.actor, form.token(&headers)?).await?;
    Ok(Revoked)
}

/// The media type of a compact JWS (RFC 7515 section 9.2.1).
const JOSE: &str = "application/jose";
const EVENTS: &str = "text/event-stream";

/// A signed page, or a stream of them.
struct Feed(Response);

impl IntoResponse for Feed {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Describe for Feed {
    fn describe(handler: &mut Description) {
        let summary =
            "A compact JWS (RFC 7515) with `typ` `revocations+jwt`, or events that contain one.";
        for media in [JOSE, EVENTS] {
            let body = Some((media, json!({ "type": "string" })));
            handler.answers(Answered { status: StatusCode::OK, summary, body });
        }
    }
}

async fn feed(
    State(app): State<App>,
    caller: Caller,
    admission: Admission,
    stopping: Stopping,
    Params(params): Params<FeedParams>,
) -> Result<Feed> {
    let after = params.after.as_deref().map(str::parse::<Cursor>).transpose().map_err(|()| {
        let detail = "Use the value of next from an earlier page, or omit it.";
        Error::bad_field("after", "request.bad_cursor", detail)
    })?;
    let cursor = after.unwrap_or_default();
    if !wants_events(admission.headers()) {
        let signed = read(&app, cursor).await?.sign(&app, None).await?;
        let media = HeaderValue::from_static(JOSE);
        return Ok(Feed(([(CONTENT_TYPE, media)], signed).into_response()));
    }
    let body = stream::open(&app, caller.signed_in()?.user, admission, cursor, stopping)?;
    let media = (CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    // nginx would hold the events back.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    Ok(Feed(([media, (unbuffered, HeaderValue::from_static("no"))], body).into_response()))
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|media| {
        media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(EVENTS))
    })
}
