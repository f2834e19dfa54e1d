//! The API's description (OpenAPI 3.1.1), generated from the route lines and the handlers'
//! signatures.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::answer::Problem;
use super::describe::Description;
use super::oauth;
use super::routes::Route;
use crate::access::{InBody, Who};
use crate::app::{CredentialForm, CredentialMethods};
use crate::cookie::HostCookie;
use crate::credential::{CredentialKind, TokenShape, Via};
use crate::error::Kind;
use crate::settings::Settings;

/// The parts of the description that concern the whole API.
pub struct About<'a> {
    /// The settings, which determine the URL of the server and the names of cookies.
    pub settings: &'a Settings,
    /// The kinds of credential.
    pub credentials: &'a [CredentialMethods],
}

impl About<'_> {
    /// Returns the forms of credentials that authenticate requests.
    fn proofs(&self) -> impl Iterator<Item = (&CredentialKind, &CredentialForm)> {
        let all = self.credentials.iter();
        let forms = all.flat_map(|one| one.forms.iter().map(|form| (one.kind, form)));
        forms.filter(|(_, form)| form.prove.is_some())
    }
}

/// Returns the OpenAPI description of these routes. Pages for people are left out.
pub fn openapi(about: &About<'_>, routes: &[Route]) -> Value {
    let mut description = Description::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        description.next();
        route.describe(&mut description);
        if !description.page {
            let operation = operation(about, route, &description);
            let methods = paths.entry(route.path.clone()).or_default();
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    let problem = Problem::json_schema(&mut description.given).to_value();
    let mut schemas = description.definitions();
    schemas.insert("Problem".to_owned(), problem);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Palisade",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": about.settings.server.public_url.as_str() }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": schemes(about),
        },
    })
}

const INTRODUCTION: &str = "Accounts, sign-in, sessions, tokens and an audit log. Every error is a \
                            problem document (RFC 9457) with a stable `code`. Times are RFC 3339 \
                            in UTC; ids are UUIDs of version 7. Sign in at `POST \
                            /api/v1/auth/login` and send the access token as `Authorization: \
                            Bearer …`, or request a cookie session there. An unsafe request with \
                            the cookie must come from the server's own origin. Programs send an \
                            API key instead of an access token.";

/// The name of the scheme for OAuth clients.
const CLIENT: &str = "client_secret_basic";
const FORM: &str = "application/x-www-form-urlencoded";

fn schemes(about: &About<'_>) -> Value {
    let schemes = about.proofs().map(|(_, form)| {
        let scheme = match form.shape {
            TokenShape::Prefix(_) | TokenShape::Signed => json!({
                "type": "http",
                "scheme": "bearer",
                "description": form.summary,
            }),
            TokenShape::Cookie(name) => json!({
                "type": "apiKey",
                "in": "cookie",
                "name": HostCookie::new(name, about.settings).name(),
                "description": form.summary,
            }),
        };
        (form.name.to_owned(), scheme)
    });
    let client = json!({
        "type": "http",
        "scheme": "basic",
        "description": "The id and the secret of an OAuth client (RFC 6749 section 2.3.1). The id is that of \
                        an API key or of its owner, and the secret is the API key. Both can be sent as \
                        `client_id` and `client_secret` in the form instead.",
    });
    Value::Object(schemes.chain([(CLIENT.to_owned(), client)]).collect())
}

fn operation(about: &About<'_>, route: &Route, known: &Description) -> Value {
    let mut operation = Map::new();
    let (summary, more) = route.summary.split_once("\n\n").unwrap_or((route.summary, ""));
    let needs = match route.access.who {
        Who::Anyone | Who::SignedIn => String::new(),
        Who::Holds(permission) => format!("Requires the permission `{}`.", permission.name),
    };
    let fresh = if route.access.fresh {
        "Requires a proof of identity within `sessions.fresh_for` (10 minutes by default)."
    } else {
        ""
    };
    let text: Vec<&str> =
        [more, &needs, fresh].into_iter().filter(|text| !text.is_empty()).collect();
    operation.insert("operationId".to_owned(), json!(operation_id(route)));
    operation.insert("tags".to_owned(), json!([tag(&route.path)]));
    operation.insert("summary".to_owned(), json!(summary.trim_end_matches('.')));
    if !text.is_empty() {
        operation.insert("description".to_owned(), json!(text.join("\n\n")));
    }
    operation.insert("security".to_owned(), security(about, route));
    if route.destructive {
        operation.insert("x-destructive".to_owned(), json!(true));
    }
    let parameters = parameters(route, known);
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), json!(parameters));
    }
    if let Some((schema, required)) = &known.body {
        let media = if known.form { FORM } else { "application/json" };
        let content = json!({ media: { "schema": schema } });
        let body = json!({ "required": required, "content": content });
        operation.insert("requestBody".to_owned(), body);
    }
    operation.insert("responses".to_owned(), responses(route, known));
    Value::Object(operation)
}

/// Returns the method and path as one identifier, such as `post_auth_login` or `get_users_by_id`. Clients are generated
/// from it, so it changes only with the route.
fn operation_id(route: &Route) -> String {
    let path = route.path.strip_prefix("/api/v1").unwrap_or(&route.path);
    let words = path.split('/').filter(|word| !word.is_empty()).map(|word| {
        let plain = word.trim_start_matches('{').trim_end_matches('}');
        let plain = plain.trim_start_matches('.').replace(['-', '.'], "_");
        if word.starts_with('{') { format!("by_{plain}") } else { plain }
    });
    let method = route.method.as_str().to_ascii_lowercase();
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// Returns the heading under which a route is listed.
fn tag(path: &str) -> &str {
    match path.strip_prefix("/api/v1/") {
        None | Some("whoami") => "server",
        Some(path) if path.starts_with("users/me") => "users/me",
        Some(path) => path.split('/').next().unwrap_or(path),
    }
}

fn security(about: &About<'_>, route: &Route) -> Value {
    match route.access.who {
        Who::Anyone => json!([]),
        Who::SignedIn | Who::Holds(_) => {
            let keys = route.access.takes_keys();
            let taken = about.proofs().filter(|(kind, _)| kind.session || keys);
            let in_body = route.access.in_body;
            let taken = taken.filter(|(_, form)| {
                in_body != Some(InBody::Client) || form.shape.via() == Via::Bearer
            });
            let more = match in_body {
                Some(InBody::Client) => Some(json!({ CLIENT: [] })),
                Some(InBody::RefreshToken) => Some(json!({})),
                None => None,
            };
            taken.map(|(_, form)| json!({ form.name: [] })).chain(more).collect()
        }
    }
}

fn parameters(route: &Route, known: &Description) -> Vec<Value> {
    let names = route.path.split('/').filter_map(|segment| {
        segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'))
    });
    let in_path = names.zip(&known.path).map(
        |(name, schema)| json!({ "name": name, "in": "path", "required": true, "schema": schema }),
    );
    let query = known.query.as_ref().and_then(|schema| schema["properties"].as_object());
    let in_query = query.into_iter().flatten().map(|(name, schema)| {
        let mut schema = schema.clone();
        let detail = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
        if let (Some(detail), Some(parameter)) = (detail, parameter.as_object_mut()) {
            parameter.insert("description".to_owned(), detail);
        }
        parameter
    });
    in_path.chain(in_query).collect()
}

/// Returns the responses of a route: those of the handler, those that the gate and the frame may return before the
/// handler runs, and those that the route line names.
fn responses(route: &Route, known: &Description) -> Value {
    let mut all = Map::new();
    for answered in &known.answers {
        // One status may come in several forms.
        let response = all
            .entry(answered.status.as_str())
            .or_insert_with(|| json!({ "description": answered.summary }));
        if let Some((media, schema)) = &answered.body {
            response["content"][*media] = json!({ "schema": schema });
        }
    }
    let mut codes: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for (kind, code) in refusals(route, known) {
        let status = if route.access.oauth { oauth::status(kind) } else { kind.status() };
        let codes = codes.entry(status.as_u16()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    for (status, codes) in codes {
        let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
        let mut response = problem(status, &codes.join(", "));
        if route.access.oauth {
            let content = &mut response["content"];
            content["application/json"] = content["application/problem+json"].clone();
        }
        all.insert(status.to_string(), response);
    }
    all.insert("default".to_owned(), problem(0, "Any other problem, with its code."));
    Value::Object(all)
}

fn refusals(route: &Route, known: &Description) -> Vec<(Kind, &'static str)> {
    let mut all = Vec::new();
    if route.access.who != Who::Anyone {
        all.push((Kind::NotSignedIn, "access.not_signed_in"));
        all.push((Kind::NotSignedIn, "access.invalid_token"));
        all.push((Kind::Unavailable, "server.feed_unavailable"));
        if route.access.in_body == Some(InBody::Client) {
            all.push((Kind::NotSignedIn, "access.invalid_client"));
            all.push((Kind::Malformed, "access.several_credentials"));
        } else if route.method != Method::GET {
            all.push((Kind::Denied, "access.cross_site"));
        }
    }
    if !route.access.takes_keys() {
        all.push((Kind::Denied, "access.session_needed"));
    }
    if let Who::Holds(_) = route.access.who {
        all.push((Kind::Denied, "access.denied"));
    }
    if route.access.who != Who::Anyone && !route.access.enrolling {
        all.push((Kind::Denied, "access.mfa_required"));
    }
    if route.access.fresh {
        all.push((Kind::Denied, "access.not_fresh"));
    }
    // Requests of a session are counted by account, those of an API key by key.
    let counted = route.access.counted || route.access.takes_keys();
    if !route.access.limits.is_empty() || (route.access.who != Who::Anyone && counted) {
        all.push((Kind::TooMany, "request.too_many"));
    }
    if !known.path.is_empty() {
        all.push((Kind::NotFound, "request.not_found"));
    }
    if known.query.is_some() || known.body.is_some() {
        all.push((Kind::Malformed, "request.malformed"));
        all.push((Kind::BadInput, "request.invalid"));
    }
    if known.body.is_some() {
        all.push((Kind::TooSlow, "request.too_slow"));
        all.push((Kind::TooLarge, "request.too_large"));
        all.push((Kind::WrongMediaType, "request.wrong_media_type"));
    }
    if route.path.starts_with("/api/") {
        all.push((Kind::Unavailable, "server.database_unavailable"));
    }
    all.extend(&route.refusals);
    all
}

fn problem(status: u16, description: &str) -> Value {
    let mut response = json!({
        "description": description,
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    });
    let text =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let headers = match StatusCode::from_u16(status) {
        Ok(StatusCode::UNAUTHORIZED) => {
            json!({ "WWW-Authenticate": text("The authentication scheme and the error (RFC 6750).") })
        }
        Ok(StatusCode::TOO_MANY_REQUESTS) => json!({
            "Retry-After": text("How many seconds to wait before trying again."),
            "RateLimit": text("The remaining quota."),
            "RateLimit-Policy": text("The quota and its window in seconds."),
        }),
        Ok(StatusCode::SERVICE_UNAVAILABLE) => {
            json!({ "Retry-After": text("How many seconds to wait before trying again.") })
        }
        _ => Value::Null,
    };
    if let (Some(response), Value::Object(_)) = (response.as_object_mut(), &headers) {
        response.insert("headers".to_owned(), headers);
    }
    response
}
