//! `/`: the response to a browser that opens the server's URL.
//!
//! Only the binary has this route. An application that uses the library has its own front page.

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use palisade::access::ANYONE;
use palisade::http::Routes;
use palisade::http::describe::{Describe, Description};
use palisade::module::Module;

pub(crate) const MODULE: Module = Module {
    name: "front",
    // If the page `/docs` is switched off, `/` doesn't exist either.
    when: |settings| settings.reference.enabled,
    routes: || Routes::root().get("/", ANYONE, || async { ToDocs }),
    ..Module::EMPTY
};

/// A 307 redirect to the page that describes the API.
struct ToDocs;

impl IntoResponse for ToDocs {
    fn into_response(self) -> Response {
        (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/docs")]).into_response()
    }
}

impl Describe for ToDocs {
    fn describe(handler: &mut Description) {
        // The redirect is for people and not part of the API.
        handler.for_people();
    }
}
