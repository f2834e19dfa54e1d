//! `/`: the page for opening the server's URL in a browser.
//!
//! Only the binary has it; an application on the library has a front page of its own.

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use palisade::access::ANYONE;
use palisade::http::Routes;
use palisade::http::describe::{Describe, Description};
use palisade::module::Module;

pub(crate) const MODULE: Module = Module {
    name: "front",
    // Without the page that it leads to, `/` is a path like any other that doesn't exist.
    when: |settings| settings.reference.enabled,
    routes: || Routes::root().get("/", ANYONE, || async { ToDocs }),
    ..Module::EMPTY
};

/// 307 to the page that describes the API.
struct ToDocs;

impl IntoResponse for ToDocs {
    fn into_response(self) -> Response {
        (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/docs")]).into_response()
    }
}

impl Describe for ToDocs {
    fn describe(handler: &mut Description) {
        // It is for people, and no part of the API.
        handler.for_people();
    }
}
