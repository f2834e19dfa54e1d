//! Forms, which OAuth clients send.

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::input::{Body, whole};
use crate::app::App;
use crate::error::{Error, Kind, Result};

/// A form, as `application/x-www-form-urlencoded` (WHATWG URL, section 5). Every field is text. An empty field counts as
/// omitted, and a known field must not be repeated (RFC 6749 section 3.2). The type decides about unknown fields: one
/// that doesn't deny them ignores them.
pub struct Form<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + 'static> FromRequest<App> for Form<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        if !is_form(request.headers()) {
            let detail = "Send a form, with Content-Type: application/x-www-form-urlencoded.";
            return Err(Error::new(Kind::WrongMediaType, "request.wrong_media_type", detail));
        }
        let bytes = whole(request, app).await?;
        let Body(value) = Body::parse(json_of_form(&bytes).as_bytes())?;
        Ok(Self(value))
    }
}

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.and_then(|media| media.split(';').next()).map(str::trim);
    media.is_some_and(|media| media.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// Converts a form to JSON. A field without a value counts as omitted (RFC 6749 section 3.2). Repeated fields stay
/// repeated, so that the type refuses those that it knows.
pub(super) fn json_of_form(bytes: &[u8]) -> String {
    let fields: Vec<String> = form_urlencoded::parse(bytes)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{}:{}", json!(name), json!(value)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Refuses a form with a field of these names that is repeated.
pub(super) fn once(form: &[u8], names: &[&str]) -> Result<()> {
    let count = |wanted: &str| {
        let fields = form_urlencoded::parse(form);
        fields.filter(|(name, value)| name == wanted && !value.is_empty()).count()
    };
    match names.iter().find(|name| count(name) > 1) {
        Some(name) => {
            let detail = "Send this field only once.";
            Err(Error::bad_field(&format!("/{name}"), "request.repeated", detail))
        }
        None => Ok(()),
    }
}
