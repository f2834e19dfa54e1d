//! The inputs of a handler: a JSON body, query parameters, an id in the path.
//!
//! The refusal of a value names its field and the fix. A JSON body must be an object in UTF-8 within the size and depth
//! limits, without unknown or repeated members.

use std::str::FromStr;

use axum::body::Body as AxumBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::again::Kept;
use super::bounds::{Bounds, Broken};
use super::form::{is_form, json_of_form, once};
use super::whole::whole_numbers;
use crate::access::InBody;
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::visible::excerpt;

/// How much of a body that is too large is still read, so that the client can read the response.
const DRAIN: usize = 8 * 1024 * 1024;

/// How much of the input an error repeats.
const LONGEST_ECHO: usize = 64;

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + 'static> Body<T> {
    /// Parses a complete body.
    ///
    /// # Errors
    /// Fails with `request.malformed` if the body is not JSON in UTF-8. Fails with `request.invalid` and a pointer if
    /// the body isn't a `T`, or if a text in it is longer than the description of `T` allows.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse(bytes).map(Body)
    }
}

impl<T: DeserializeOwned + JsonSchema + 'static> FromRequest<App> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        is_json(request.headers())?;
        Self::parse(&whole(request, app).await?)
    }
}

/// The maximum size of a body that may contain the credential of the caller, in bytes.
const LONGEST_CREDENTIAL: u64 = 16 << 10;

/// Takes the credential out of the body of a request, for the gate, if the route and the request provide for one.
/// Returns the body.
///
/// # Errors
/// Returns an error if the body can't be read.
pub(super) async fn take_credential(
    app: &App,
    in_body: Option<InBody>,
    parts: &mut Parts,
    body: AxumBody,
) -> Result<AxumBody> {
    let Some(place) = in_body.filter(|place| place.is_expected(&parts.headers)) else {
        return Ok(body);
    };
    let readable = match place {
        InBody::Client => is_form(&parts.headers),
        InBody::RefreshToken => is_json(&parts.headers).is_ok(),
    };
    if !readable || body.is_end_stream() {
        return Ok(body);
    }
    // SECURITY: read before the caller is known, so no longer than a credential (test:
    // a_body_with_a_credential_is_short).
    let most = app.settings.server.max_body.min(LONGEST_CREDENTIAL);
    let bytes = within(Request::from_parts(parts.clone(), body), app, most).await?;
    match place {
        InBody::Client => {
            once(&bytes, &["client_id", "client_secret"])?;
            place.take_from(json_of_form(&bytes).as_bytes(), parts);
        }
        InBody::RefreshToken => place.take_from(&bytes, parts),
    }
    Ok(AxumBody::from(bytes))
}

/// Reads the whole body, within the limits of size and time.
pub(super) async fn whole(request: Request, app: &App) -> Result<Bytes> {
    within(request, app, app.settings.server.max_body).await
}

/// Reads a body of at most this size, within the limit of time.
async fn within(request: Request, app: &App, most: u64) -> Result<Bytes> {
    let kept = request.extensions().get::<Kept>().cloned();
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let patience = app.settings.server.request_timeout / 2;
    let body = tokio::time::timeout(patience, read(request, limit)).await.map_err(|_| {
        Error::new(Kind::TooSlow, "request.too_slow", "The body took too long to arrive.")
    })??;
    if let Some(kept) = kept {
        kept.put(&body);
    }
    Ok(body)
}

/// A JSON body, or none.
pub struct MaybeBody<T>(pub Option<T>);

impl<T: DeserializeOwned + JsonSchema + 'static> FromRequest<App> for MaybeBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        if request.body().is_end_stream() {
            return Ok(Self(None));
        }
        // A client or a proxy may announce a body and its type, and then send nothing.
        let headers = is_json(request.headers());
        let bytes = whole(request, app).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        headers?;
        Body::parse(&bytes).map(|Body(body)| Self(Some(body)))
    }
}

fn is_json(headers: &HeaderMap) -> Result<()> {
    let wrong = |detail: &'static str| {
        Err(Error::new(Kind::WrongMediaType, "request.wrong_media_type", detail))
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return wrong("Send the body without Content-Encoding.");
    }
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return wrong("Send JSON, with Content-Type: application/json.");
    };
    let mut parts = value.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        return wrong("Send JSON, with Content-Type: application/json.");
    }
    let charset = parts.find_map(|part| {
        part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset"))
    });
    if charset.is_some_and(|(_, name)| !name.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return wrong("Send JSON in UTF-8.");
    }
    Ok(())
}

async fn read(request: Request, limit: usize) -> Result<Bytes> {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value: &HeaderValue| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    let mut body = request.into_body();
    let mut kept = BytesMut::new();
    let mut seen = 0usize;
    let mut too_large = declared.is_some_and(|length| length > limit);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| malformed("The body is incomplete.").because(error))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        too_large |= seen > limit;
        if too_large && (seen > DRAIN || declared.is_some_and(|length| length > DRAIN)) {
            break;
        }
        if !too_large {
            kept.extend_from_slice(&data);
        }
    }
    if too_large {
        return Err(Error::new(
            Kind::TooLarge,
            "request.too_large",
            format!("The body is larger than the limit of {limit} bytes."),
        ));
    }
    Ok(kept.freeze())
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::new(Kind::Malformed, "request.malformed", detail.into())
}

fn parse<T: DeserializeOwned + JsonSchema + 'static>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("The body is not UTF-8."))?;
    // First whether it is JSON at all, so that every later error is about a value.
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        malformed(format!("The body is not valid JSON: error at line {line}, column {column}."))
    })?;
    // A sequence would otherwise be taken for an object with its fields in order.
    if !text.trim_start().starts_with('{') {
        return Err(Error::bad_field("", "request.wrong_type", "The body must be a JSON object."));
    }
    let text = &*whole_numbers(text);
    // SECURITY: before anything is done with it (test: every_bound_is_described_and_enforced).
    let bounds = Bounds::of::<T>().check(text);
    if let Err(Broken::Bound(broken)) = bounds {
        return Err(Error::bad_input(vec![broken]));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, problem) = (pointer(error.path()), explain(&error.inner().to_string(), "field"));
        let path = problem.name.map_or_else(|| path.clone(), |name| below(&path, &name));
        Error::bad_field(&path, problem.code, problem.detail)
    })?;
    // The type explains better than the bounds what can't be read.
    bounds.map(|()| value).map_err(|_| malformed("The body contains an unreadable value."))
}

/// Returns the location of an error as a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// What is wrong with a value.
struct Problem {
    /// The name of the missing, unknown or repeated member, which the path to the value may lack.
    name: Option<String>,
    code: &'static str,
    detail: String,
}

/// Converts the parser's message about a value to a code and a detail text, which names the value by `noun`. The input
/// isn't repeated, except for the beginning of a name, because a password may have been sent as a number.
fn explain(text: &str, noun: &str) -> Problem {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let (found, expected) = text.rsplit_once(", expected ").unwrap_or((text, ""));
    let named = || found.split_once('`').and_then(|(_, rest)| rest.rsplit_once('`'));
    let name = Some(named().map_or_else(String::new, |(name, _)| name.to_owned()));
    if text.starts_with("missing field") {
        Problem { name, code: "request.missing", detail: format!("This {noun} is required.") }
    } else if text.starts_with("unknown field") {
        let known = if expected.is_empty() { "none" } else { expected };
        let detail = format!("Unknown {noun}. Expected: {known}.");
        Problem { name, code: "request.unknown", detail }
    } else if text.starts_with("duplicate field") {
        let detail = format!("This {noun} appears more than once.");
        Problem { name, code: "request.repeated", detail }
    } else {
        let detail = match expected {
            "" => excerpt(text, LONGEST_ECHO),
            expected => format!("expected {expected}"),
        };
        let detail = format!("This value is not valid: {detail}.");
        Problem { name: None, code: "request.wrong_type", detail }
    }
}

/// Returns the pointer to the member `name`, whether or not `path` already ends there.
fn below(path: &str, name: &str) -> String {
    let leaf = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    if path.ends_with(&leaf) { path.to_owned() } else { format!("{path}{leaf}") }
}

/// Query parameters.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        // PostgreSQL can't store a NUL character, and nothing that is searched for contains one.
        let query = parts.uri.query().filter(|query| query.contains("%00")).unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        if let Some((name, _)) =
            pairs.find(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            let detail = "This query parameter contains a NUL character.";
            return Err(Error::bad_field(&name, "request.wrong_type", detail));
        }
        Query::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|error| bad_parameter(&error))
    }
}

/// The error of a query deserializer, with the path to the parameter.
type BadQuery = serde_path_to_error::Error<serde::de::value::Error>;

/// Returns the error for a query parameter, with its name.
fn bad_parameter(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    let Some(error) = chain.find_map(|error| error.downcast_ref::<BadQuery>()) else {
        return malformed("The query can't be read.");
    };
    let problem = explain(&error.inner().to_string(), "query parameter");
    let last = error.path().iter().next_back().map(ToString::to_string);
    let name = problem.name.or(last).unwrap_or_default();
    Error::bad_field(&name, problem.code, problem.detail)
}

/// An id in the path. A malformed id gets 404, like an unknown one.
pub struct Id<T>(pub T);

impl<T: FromStr + Send> FromRequestParts<App> for Id<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let Path(text): Path<String> =
            Path::from_request_parts(parts, app).await.map_err(|_| Error::not_found())?;
        text.parse().map(Id).map_err(|_| Error::not_found())
    }
}

/// Several segments of the path, in order. A malformed segment gets 404.
pub struct Segments<T>(pub T);

async fn segments<const N: usize>(parts: &mut Parts, app: &App) -> Result<[String; N]> {
    let Path(texts): Path<Vec<String>> =
        Path::from_request_parts(parts, app).await.map_err(|_| Error::not_found())?;
    texts.try_into().map_err(|_| Error::not_found())
}

fn segment<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::not_found())
}

impl<A: FromStr + Send, B: FromStr + Send> FromRequestParts<App> for Segments<(A, B)> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let [a, b] = segments(parts, app).await?;
        Ok(Self((segment(&a)?, segment(&b)?)))
    }
}

impl<A: FromStr + Send, B: FromStr + Send, C: FromStr + Send> FromRequestParts<App>
    for Segments<(A, B, C)>
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let [a, b, c] = segments(parts, app).await?;
        Ok(Self((segment(&a)?, segment(&b)?, segment(&c)?)))
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct List<T> {
    /// The items on this page.
    pub items: Vec<T>,
    /// Where the next page starts. `None` on the last page.
    pub next_cursor: Option<Cursor>,
}

impl<T> List<T> {
    /// Builds a page from the queried items, of which there are at most `limit + 1`.
    pub fn page(mut items: Vec<T>, paging: &Paging, cursor: impl Fn(&T) -> Cursor) -> Self {
        let more = items.len() > paging.size();
        items.truncate(paging.size());
        let next_cursor = if more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }

    /// Returns the same page with each item converted by `f`.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> List<U> {
        List { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

/// The end of the year 9999, in microseconds since 1970.
const LATEST: i64 = 253_402_300_799_999_999;

/// The position at which a list continues: after this time and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Timestamp, pub Uuid);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = self.0.as_micros().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.1.as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes: [u8; 24] =
            URL_SAFE_NO_PAD.decode(text).map_err(|_| ())?.try_into().map_err(|_| ())?;
        let (at, id) = bytes.split_first_chunk::<8>().ok_or(())?;
        let at = i64::from_be_bytes(*at);
        let id = Uuid::from_slice(id).map_err(|_| ())?;
        // Both databases can hold these times; no cursor of ours lies outside.
        if (0..=LATEST).contains(&at) { Ok(Self(Timestamp::from_micros(at), id)) } else { Err(()) }
    }
}

/// The checked query parameters `?limit=` and `?cursor=`.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    limit: u16,
    /// The position to continue from.
    pub after: Option<Cursor>,
}

impl Paging {
    /// Checks the two parameters: `limit` from 1 to 200 (default 50), `cursor` as an earlier page returned it.
    ///
    /// # Errors
    /// Fails with `request.invalid`, naming the parameter.
    pub fn new(limit: Option<&str>, cursor: Option<&str>) -> Result<Self> {
        let limit = limit.map_or(Ok(50), str::parse).ok().filter(|limit| (1..=200).contains(limit));
        let limit = limit.ok_or_else(|| {
            Error::bad_field("limit", "request.out_of_range", "Use a whole number from 1 to 200.")
        })?;
        let after = cursor.map(str::parse).transpose().map_err(|()| {
            Error::bad_field(
                "cursor",
                "request.bad_cursor",
                "Use the next_cursor of an earlier page, or omit it.",
            )
        })?;
        Ok(Self { limit, after })
    }

    /// Returns the number of items on a page.
    pub fn size(&self) -> usize {
        usize::from(self.limit)
    }

    /// Returns the number of rows to query: one more than the page size, to determine whether there is a next page.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}
