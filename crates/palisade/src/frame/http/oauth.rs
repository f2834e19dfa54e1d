//! Errors for OAuth clients (RFC 6749 section 5.2): the problem document with two more members, `error` and
//! `error_description`, as `application/json`. Such clients read nothing else.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{Error, Kind};

/// Marks the error of a response whose client expects the form of RFC 6749.
#[derive(Clone, Copy)]
pub(super) struct Oauth;

/// Marks the error of a response, if it is one.
pub(super) fn mark(mut response: Response) -> Response {
    if response.extensions().get::<Arc<Error>>().is_some() {
        response.extensions_mut().insert(Oauth);
    }
    response
}

/// Returns the `error` of RFC 6749 section 5.2, RFC 6750 section 3.1 or RFC 7009 section 2.2.1.
pub(super) fn name(error: &Error) -> &'static str {
    match (error.kind(), error.code()) {
        (_, "access.invalid_token") => "invalid_token",
        (_, "access.not_signed_in" | "access.invalid_client") => "invalid_client",
        (_, "compat.unsupported_grant") => "unsupported_grant_type",
        (Kind::NotSignedIn | Kind::BadGrant, _) => "invalid_grant",
        (Kind::Denied, _) => "unauthorized_client",
        (Kind::TooMany | Kind::Unavailable, _) => "temporarily_unavailable",
        (Kind::Internal, _) => "server_error",
        _ => "invalid_request",
    }
}

/// Returns the status: input that breaks a rule gets 400 (RFC 6749 section 5.2).
pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadInput => StatusCode::BAD_REQUEST,
        kind => kind.status(),
    }
}
