//! Pages for people: the parts that differ, inside the shared shell (`pages/shell.html`).
//!
//! # Promises
//!
//! - A page loads nothing from another host, and runs only its own scripts: each carries the nonce of its policy.

use crate::access::ANYONE;
use crate::app::App;
use crate::http::{Asset, Html, Routes};
use crate::module::Module;

/// The slice's table of contents.
pub const MODULE: Module = Module { name: "pages", routes, ..Module::EMPTY };

const SHELL: &str = include_str!("../pages/shell.html");

/// A page for people.
#[derive(Clone, Copy)]
pub struct Page {
    /// Its title, as HTML.
    pub title: &'static str,
    /// Style sheets in `/assets`, in addition to the shared one.
    pub styles: &'static [&'static str],
    /// Scripts in `/assets`, in the order in which they run.
    pub scripts: &'static [&'static str],
    /// The contents of its body, as HTML.
    pub body: &'static str,
}

impl Page {
    /// An empty page: the base for `..Page::EMPTY`.
    pub const EMPTY: Self = Self { title: "", styles: &[], scripts: &[], body: "" };

    /// Returns the page.
    pub fn show(&self, app: &App) -> Html {
        self.with_body(app, self.body)
    }

    /// Returns the page with a different body, given as HTML.
    pub fn with_body(&self, app: &App, body: &str) -> Html {
        Html::new(&*app.random, |nonce| {
            let mut links = String::new();
            for style in self.styles {
                links.push_str(&format!("<link rel=\"stylesheet\" href=\"/assets/{style}\">\n"));
            }
            for script in self.scripts {
                let src = format!("src=\"/assets/{script}\"");
                links.push_str(&format!("<script nonce=\"{nonce}\" {src} defer></script>\n"));
            }
            // The body is inserted last, so that nothing in it is taken for a placeholder of the shell.
            let head = SHELL.replace("{{title}}", self.title).replace("{{links}}", &links);
            head.replace("{{body}}", body)
        })
    }
}

fn routes() -> Routes {
    Routes::root().get("/assets/account.js", ANYONE, || async { ACCOUNT_SCRIPT }).get(
        "/assets/palisade.css",
        ANYONE,
        || async { STYLE },
    )
}

/// The script of every page that an emailed link opens.
const ACCOUNT_SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../pages/account.js"),
};

const STYLE: Asset =
    Asset { media_type: "text/css; charset=utf-8", body: include_str!("../pages/palisade.css") };
