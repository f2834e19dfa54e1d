//! `/.well-known/oauth-authorization-server` (RFC 8414).

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::App;
use crate::http::describe::{Describe, Description};

/// How clients authenticate at the endpoints for introspection and revocation.
const METHODS: &[&str] = &["client_secret_basic", "client_secret_post"];

/// The metadata of the authorization server (RFC 8414 section 2).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuthorizationServerMetadata")]
pub(super) struct Metadata {
    /// `tokens.issuer`.
    issuer: String,
    /// The public keys that verify JWTs.
    jwks_uri: String,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: &'static [&'static str],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: &'static [&'static str],
    /// Empty: there is no authorization endpoint.
    response_types_supported: &'static [&'static str],
    /// `refresh_token` if `compat.login_form` is `true`, otherwise empty.
    grant_types_supported: &'static [&'static str],
    /// Only if `compat.login_form` is `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    /// Only if `compat.login_form` is `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint_auth_methods_supported: Option<&'static [&'static str]>,
}

impl IntoResponse for Metadata {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "public, max-age=300")], Json(self)).into_response()
    }
}

impl Describe for Metadata {
    fn describe(handler: &mut Description) {
        Json::<Self>::describe(handler);
    }
}

pub(super) async fn metadata(State(app): State<App>) -> Metadata {
    let settings = &app.settings;
    let at = |path: &str| format!("{}{path}", settings.server.public_url);
    let form = settings.compat.login_form;
    Metadata {
        issuer: settings.tokens.issuer.clone(),
        jwks_uri: at("/.well-known/jwks.json"),
        introspection_endpoint: at("/api/v1/auth/introspect"),
        introspection_endpoint_auth_methods_supported: METHODS,
        revocation_endpoint: at("/api/v1/auth/revoke"),
        revocation_endpoint_auth_methods_supported: METHODS,
        response_types_supported: &[],
        grant_types_supported: if form { &["refresh_token"] } else { &[] },
        token_endpoint: form.then(|| at("/api/v1/login/access-token")),
        // The refresh token is all that the endpoint looks at.
        token_endpoint_auth_methods_supported: form.then_some(&["none"]),
    }
}
