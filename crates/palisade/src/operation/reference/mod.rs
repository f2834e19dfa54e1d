//! The API reference: the description of the API at `/openapi.json`, and a page at `/docs` for reading it and trying it
//! out.
//!
//! # Promises
//!
//! - The description is generated from the served routes; there is no second list.
//! - The page loads nothing from another host, has the same strict content security policy as every other page, and
//!   keeps the tokens that it receives in memory only.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::access::ANYONE;
use crate::app::App;
use crate::http::describe::{Describe, Description};
use crate::http::{Asset, Html, Routes};
use crate::module::Module;
use crate::pages::Page;

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "reference",
    when: |settings| settings.reference.enabled,
    routes,
    ..Module::EMPTY
};

fn routes() -> Routes {
    Routes::root()
        .get("/openapi.json", ANYONE, openapi)
        .get("/docs", ANYONE, docs)
        .get("/assets/docs.js", ANYONE, || async { SCRIPT })
        .get("/assets/docs.css", ANYONE, || async { STYLE })
}

/// The page with the interactive API reference.
const PAGE: Page = Page {
    title: "API reference",
    styles: &["docs.css"],
    scripts: &["factors.js", "docs.js"],
    body: include_str!("../../pages/docs.html"),
};

async fn docs(State(app): State<App>) -> Html {
    PAGE.show(&app)
}

const SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../../pages/docs.js"),
};
const STYLE: Asset =
    Asset { media_type: "text/css; charset=utf-8", body: include_str!("../../pages/docs.css") };

/// The description of the API that this app serves. It is generated when it is first requested and not at the start,
/// because most servers start more often than they receive such a request, and generating it takes memory that the
/// process keeps.
pub struct Document {
    text: OnceLock<Bytes>,
    write: Box<dyn Fn() -> String + Send + Sync>,
}

impl Document {
    /// Creates a description that `write` generates when it is first requested.
    pub fn new(write: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { text: OnceLock::new(), write: Box::new(write) }
    }
}

/// JSON that describes the API.
struct Described(Bytes);

impl IntoResponse for Described {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

impl Describe for Described {
    fn describe(handler: &mut Description) {
        // The description isn't part of the API that it describes.
        handler.for_people();
    }
}

async fn openapi(State(app): State<App>) -> Described {
    let document = app.state::<Document>();
    Described(document.text.get_or_init(|| (document.write)().into()).clone())
}
