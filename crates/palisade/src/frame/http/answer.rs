//! Responses: problem documents, pages, and the headers that every response carries.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use palisade_crypto::random::Random;
use schemars::JsonSchema;
use serde::Serialize;

use super::oauth::{self, Oauth};
use super::standing::Standing;
use super::{Arrival, REQUEST_ID};
use crate::error::{Error, FieldError, Kind};
use crate::shape;
use crate::visible::{excerpt, json};

const API_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
/// The content security policy of a page, without the part for scripts, which carry a nonce.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
/// The maximum length of a problem's `detail`, however much of the request it repeats.
const LONGEST_DETAIL: usize = 1000;
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The capacity for the headers of a response. Copies of the map have the same capacity.
const USUAL_HEADERS: usize = 20;
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The headers of every response. A header that a handler has set is kept unchanged.
static ALWAYS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let permissions = "accelerometer=(), camera=(), display-capture=(), geolocation=(), \
                       gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()";
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    headers.extend([
        (CONTENT_SECURITY_POLICY, API_POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(permissions)),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (CACHE_CONTROL, NO_STORE),
    ]);
    headers
});

/// 200 with the JSON of a `T`, serialized once and reused.
#[derive(Debug)]
pub struct Written<T> {
    json: Bytes,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> Written<T> {
    /// Serializes the value.
    ///
    /// # Errors
    /// Returns an error if the value has no JSON form.
    pub fn new(value: &T) -> Result<Self, Error> {
        let json = serde_json::to_vec(value).map_err(Error::internal)?;
        Ok(Self { json: json.into(), of: PhantomData })
    }
}

impl<T> Clone for Written<T> {
    fn clone(&self) -> Self {
        Self { json: self.json.clone(), of: PhantomData }
    }
}

impl<T> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, JSON)], self.json).into_response()
    }
}

/// 201 with the created object.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// 202: accepted. The response does not reveal the outcome.
pub struct Accepted<T>(pub T);

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

/// The request was accepted. The response does not reveal the outcome.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Taken")]
pub struct Taken {
    /// Always `accepted`.
    status: &'static str,
}

impl Default for Taken {
    fn default() -> Self {
        Self { status: "accepted" }
    }
}

/// 204: done, without a body.
#[derive(Clone, Copy, Debug)]
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// 303: redirects to this path.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere(pub &'static str);

impl IntoResponse for Elsewhere {
    fn into_response(self) -> Response {
        (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static(self.0))]).into_response()
    }
}

/// A page that is part of the binary. Only its own scripts run, because they carry this response's nonce (CSP level 3,
/// section 7.1).
#[derive(Clone, Debug)]
pub struct Html {
    status: StatusCode,
    text: String,
    policy: String,
}

impl Html {
    /// Creates a page from the text that `write` returns. `write` receives a fresh nonce, which the page's scripts must
    /// carry.
    pub fn new(random: &dyn Random, write: impl FnOnce(&str) -> String) -> Self {
        let mut bytes = [0u8; 16];
        random.fill(&mut bytes);
        let nonce = URL_SAFE_NO_PAD.encode(bytes);
        let policy = format!("{PAGE_POLICY}; script-src 'nonce-{nonce}'");
        Self { status: StatusCode::OK, text: write(&nonce), policy }
    }

    /// Returns the page with the status 410: what it was for is no longer possible.
    #[must_use]
    pub fn gone(self) -> Self {
        Self { status: StatusCode::GONE, ..self }
    }
}

/// The policy of the page in a response. The frame completes it and writes the header.
#[derive(Clone, Debug)]
struct PagePolicy(String);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::response::Html(self.text)).into_response();
        response.extensions_mut().insert(PagePolicy(self.policy));
        response
    }
}

/// A script or style sheet that is part of the binary.
#[derive(Clone, Copy)]
pub struct Asset {
    /// Its media type, with charset.
    pub media_type: &'static str,
    /// Its bytes.
    pub body: &'static str,
}

impl IntoResponse for Asset {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static(self.media_type))], self.body).into_response()
    }
}

/// Passes the error unchanged to the outermost layer, which converts it to a response once the request's id is known.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.kind().status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Additional members of some problems (RFC 9457 section 3.2).
#[derive(Serialize, JsonSchema)]
struct Extensions {
    /// With `login.mfa_required`: the token with which to continue the sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa_token: Option<String>,
    /// With `login.mfa_required`: the number of seconds until `mfa_token` expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    /// With `login.mfa_required`: the options for `navigator.credentials.get`, if the account has
    /// passkeys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<shape::WebauthnOptions>")]
    passkey_options: Option<serde_json::Value>,
    /// With `login.mfa_required`, `login.stronger_needed` and `access.not_fresh`: the methods that
    /// are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<String>>,
}

/// An error (RFC 9457 section 3).
#[derive(Serialize, JsonSchema)]
pub(super) struct Problem<'a> {
    /// Always `about:blank`; `code` identifies the problem.
    #[schemars(example = &"about:blank")]
    #[serde(rename = "type")]
    kind: &'static str,
    /// A short description of the kind of problem.
    #[schemars(example = &"Invalid input")]
    title: &'static str,
    /// The HTTP status.
    #[schemars(example = 422, range(min = 400, max = 599))]
    status: u16,
    /// What is wrong and how to fix it.
    #[schemars(example = &"The request is invalid. See errors.")]
    detail: &'a str,
    /// A stable code for programs: `area.reason`.
    #[schemars(example = &"request.invalid")]
    code: &'static str,
    /// The id of the request, which is also in the server's log.
    #[schemars(with = "shape::Uuid")]
    request_id: String,
    /// The rules that the input breaks (status 422).
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// On routes for OAuth clients: the code of RFC 6749 section 5.2.
    #[schemars(with = "Option<&'static str>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// On routes for OAuth clients: the same text as `detail`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<&'a str>,
    /// The additional members of this problem.
    #[serde(flatten)]
    #[schemars(with = "Extensions")]
    extensions: &'a BTreeMap<&'static str, serde_json::Value>,
}

/// Completes a response: problem body, headers, request id. Returns the error that it carried, for the log.
pub(super) fn finish(
    response: &mut Response,
    arrival: &Arrival,
    standing: &Standing,
) -> Option<Arc<Error>> {
    let error = response.extensions_mut().remove::<Arc<Error>>().or_else(|| bare(response));
    let oauth = response.extensions_mut().remove::<Oauth>().is_some();
    if let Some(error) = &error {
        write_problem(response, error, arrival, oauth);
    }
    let page = response.extensions_mut().remove::<PagePolicy>();
    let headers = response.headers_mut();
    let own = std::mem::replace(headers, ALWAYS.clone());
    headers.extend(own);
    standing.write(headers);
    if let Some(PagePolicy(policy)) = page {
        standing.write_page(headers, policy);
    }
    let mut id = uuid::Uuid::encode_buffer();
    if let Ok(value) =
        HeaderValue::from_str(arrival.request.0.as_hyphenated().encode_lower(&mut id))
    {
        headers.insert(REQUEST_ID, value);
    }
    error
}

/// Returns the error for a status that the router itself set.
fn bare(response: &Response) -> Option<Arc<Error>> {
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => Some(Arc::new(Error::new(
            Kind::WrongMethod,
            "request.wrong_method",
            "This URL does not support this method. See the Allow header.",
        ))),
        _ => None,
    }
}

fn write_problem(response: &mut Response, error: &Error, arrival: &Arrival, oauth: bool) {
    let kind = error.kind();
    let status = if oauth { oauth::status(kind) } else { kind.status() };
    let detail = excerpt(error.detail(), LONGEST_DETAIL);
    let problem = Problem {
        kind: "about:blank",
        title: kind.title(),
        status: status.as_u16(),
        detail: &detail,
        code: error.code(),
        request_id: arrival.request.to_string(),
        errors: error.fields(),
        error: oauth.then(|| oauth::name(error)),
        error_description: oauth.then_some(&*detail),
        extensions: error.extensions(),
    };
    *response.status_mut() = status;
    // Text and numbers always have a JSON form.
    *response.body_mut() = Body::from(json(&problem).unwrap_or_default());
    let headers = response.headers_mut();
    headers.remove(axum::http::header::CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, if oauth { JSON } else { PROBLEM });
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    for (name, value) in error.headers() {
        if name == SET_COOKIE {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
    }
}
