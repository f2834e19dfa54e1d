//! OAuth clients that authenticate with an id and a secret (RFC 6749 section 2.3.1), and other credentials in a body.
//!
//! # Promises
//!
//! - The secret of a client is its API key. It gives the rights that the key gives as a bearer token, and no others.
//! - A cookie never authenticates such a client.
//! - A request uses one method of authentication. With two, it is refused.

use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts as RequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palisade_crypto::secret::SecretString;
use serde::Deserialize;

use super::{Access, after_scheme, bearer, feed_is_current, of_bearer};
use crate::app::{App, Identity};
use crate::credential::{TokenShape, Via};
use crate::error::{Error, Kind, Result, bad_token, not_signed_in};

/// The credential that the body of a request may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InBody {
    /// The id and the secret of a client, in a form.
    Client,
    /// A refresh token, in JSON. The request is judged by it alone.
    RefreshToken,
}

impl Access {
    /// Accepts clients that authenticate with an id and a secret (RFC 6749 section 2.3.1), and no cookies. Errors have
    /// the form of RFC 6749.
    #[must_use]
    pub const fn clients(mut self) -> Self {
        self.in_body = Some(InBody::Client);
        self.oauth()
    }

    /// Also accepts a request without a credential if its body contains a refresh token. The handler then judges the
    /// refresh token, and gets no caller.
    #[must_use]
    pub const fn or_refresh_token(mut self) -> Self {
        self.in_body = Some(InBody::RefreshToken);
        self
    }

    /// Gives errors the form of RFC 6749 section 5.2, for OAuth clients.
    #[must_use]
    pub const fn oauth(mut self) -> Self {
        self.oauth = true;
        self
    }
}

/// The id and the secret of a client, as they stand in a form.
#[derive(Clone, Deserialize)]
struct Client {
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: Option<SecretString>,
}

/// A refresh token, as it stands in JSON. The handler checks its type.
#[derive(Deserialize)]
struct Refresh {
    refresh_token: Option<serde::de::IgnoredAny>,
}

/// The credential that the body of a request contains.
#[derive(Clone)]
enum Sent {
    Client(Client),
    RefreshToken,
}

impl InBody {
    /// Returns whether the body must be read before the gate decides.
    pub(crate) fn is_expected(self, headers: &HeaderMap) -> bool {
        match self {
            // With a credential in the header, the gate decides before the body is read.
            Self::Client => in_header(headers) == InHeader::Nothing,
            Self::RefreshToken => true,
        }
    }

    /// Stores the credential of a body, which is JSON or the JSON of a form, for the gate.
    pub(crate) fn take_from(self, json: &[u8], parts: &mut RequestParts) {
        let sent = match self {
            Self::Client => serde_json::from_slice::<Client>(json)
                .ok()
                .filter(|client| has_value(client.client_secret.as_ref()))
                .map(Sent::Client),
            Self::RefreshToken => serde_json::from_slice::<Refresh>(json)
                .ok()
                .and_then(|refresh| refresh.refresh_token)
                .map(|_| Sent::RefreshToken),
        };
        if let Some(sent) = sent {
            parts.extensions.insert(sent);
        }
    }
}

/// Returns whether the handler judges the request by the refresh token in its body.
pub(super) fn sends_refresh_token(parts: &RequestParts) -> bool {
    matches!(parts.extensions.get(), Some(Sent::RefreshToken))
}

/// The credential in the `Authorization` header. A scheme other than these two is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InHeader<'a> {
    Nothing,
    Bearer,
    Basic(&'a [u8]),
    Several,
}

fn in_header(headers: &HeaderMap) -> InHeader<'_> {
    let mut found = InHeader::Nothing;
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.as_bytes();
        let one = match after_scheme(value, "basic") {
            Some(encoded) => InHeader::Basic(encoded),
            None if after_scheme(value, "bearer").is_some() => InHeader::Bearer,
            None => continue,
        };
        found = if found == InHeader::Nothing { one } else { InHeader::Several };
    }
    found
}

/// Returns whether a field is present: one without a value counts as omitted (RFC 6749 section 3.2).
pub fn has_value(field: Option<&SecretString>) -> bool {
    field.is_some_and(|field| !field.expose().is_empty())
}

/// Refuses a form with a second method of authentication (RFC 6749 section 2.3).
///
/// # Errors
/// Fails with `access.several_credentials`.
pub fn one_method(
    headers: &HeaderMap,
    secret: Option<&SecretString>,
    assertion: Option<&SecretString>,
) -> Result<()> {
    let header = in_header(headers) != InHeader::Nothing;
    // SECURITY: (test: a_client_uses_one_method)
    let (secret, assertion) = (has_value(secret), has_value(assertion));
    if [header, secret, assertion].into_iter().filter(|used| *used).count() > 1 {
        return Err(several());
    }
    Ok(())
}

fn several() -> Error {
    let detail = "Authenticate the client in one way only: with the Authorization header, or with \
                  client_id and client_secret in the form.";
    Error::new(Kind::Malformed, "access.several_credentials", detail)
}

/// Identifies the client of a route that accepts [clients](Access::clients).
pub(super) async fn prove(app: &App, parts: &RequestParts) -> Result<(Via, Identity)> {
    feed_is_current(app)?;
    match (in_header(&parts.headers), parts.extensions.get()) {
        (InHeader::Bearer, _) => {
            let token = bearer(&parts.headers)?.ok_or_else(bad_token)?;
            of_bearer(app, token, parts).await
        }
        (InHeader::Basic(encoded), _) => {
            let (id, secret) = decode(encoded).ok_or_else(refused)?;
            of_secret(app, &id, &secret, parts).await
        }
        (InHeader::Several, _) => Err(several()),
        (
            InHeader::Nothing,
            Some(Sent::Client(Client { client_id, client_secret: Some(secret) })),
        ) => of_secret(app, client_id, secret, parts).await,
        (InHeader::Nothing, _) => Err(not_signed_in().header(WWW_AUTHENTICATE, EITHER)),
    }
}

/// Decodes the value of `Basic`: the id and the secret, each encoded as in a form (RFC 6749 section 2.3.1).
fn decode(encoded: &[u8]) -> Option<(String, SecretString)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((from_form(id)?, SecretString::from(from_form(secret)?)))
}

fn from_form(text: &str) -> Option<String> {
    // The separators of a form can't stand in a value.
    if text.contains(['&', '=']) {
        return None;
    }
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    Some(pairs.next().map_or_else(String::new, |(value, _)| value.into_owned()))
}

/// Identifies a client by its id and its secret. The refusal is the same for every wrong pair.
async fn of_secret(
    app: &App,
    id: &str,
    secret: &SecretString,
    parts: &RequestParts,
) -> Result<(Via, Identity)> {
    let form = app.credentials.of_token(secret.expose());
    // SECURITY: a session is no client, and its tokens are no client's secret
    // (test: only_an_api_key_is_the_secret_of_a_client).
    let form = form.filter(|(methods, form)| {
        !methods.kind.session && matches!(form.shape, TokenShape::Prefix(_))
    });
    let prove = form.and_then(|(_, form)| form.prove).ok_or_else(refused)?;
    let identity = prove(app, secret.expose(), parts).await.map_err(|error| {
        if error.kind() == Kind::NotSignedIn { refused().because(error) } else { error }
    })?;
    let ids = [identity.credential.id, identity.user.0];
    // SECURITY: (test: only_an_api_key_is_the_secret_of_a_client)
    if !ids.iter().any(|own| own.to_string().eq_ignore_ascii_case(id)) {
        return Err(refused());
    }
    Ok((Via::Bearer, identity))
}

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"Palisade\", charset=\"UTF-8\"");
const EITHER: HeaderValue =
    HeaderValue::from_static("Basic realm=\"Palisade\", charset=\"UTF-8\", Bearer");

fn refused() -> Error {
    let detail = "The client's id or secret is not valid. The id is that of the API key or of its \
                  owner, and the secret is the API key.";
    Error::new(Kind::NotSignedIn, "access.invalid_client", detail).header(WWW_AUTHENTICATE, BASIC)
}
