//! `/`: the response to a browser or a load balancer that requests the server's URL.
//!
//! Only the binary has this route. An application that uses the library has its own front page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use palisade::App;
use palisade::access::ANYONE;
use palisade::http::Routes;
use palisade::http::describe::{Describe, Description};
use palisade::module::Module;

pub(crate) const MODULE: Module =
    Module { name: "front", routes: || Routes::root().get("/", ANYONE, front), ..Module::EMPTY };

async fn front(State(app): State<App>) -> Front {
    if app.settings.reference.enabled { Front::ToDocs } else { Front::Alive }
}

enum Front {
    /// A 307 redirect to the page that describes the API.
    ToDocs,
    /// The response of `/livez`. Load balancers probe `/` unless they are told otherwise.
    Alive,
}

impl IntoResponse for Front {
    fn into_response(self) -> Response {
        match self {
            Self::ToDocs => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/docs")]).into_response(),
            Self::Alive => "alive\n".into_response(),
        }
    }
}

impl Describe for Front {
    fn describe(handler: &mut Description) {
        // The route is for people and probes and not part of the API.
        handler.for_people();
    }
}
