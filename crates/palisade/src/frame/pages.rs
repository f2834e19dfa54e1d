//! Pages for people: the parts that differ, inside the shared shell (`pages/shell.html`).
//!
//! # Promises
//!
//! - A page loads nothing from another host, and runs only its own scripts: each carries the nonce of its policy.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::ANYONE;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{Asset, Body, Html, Routes};
use crate::limits::{Key, Rule};
use crate::module::Module;
use crate::shape;

/// The slice's table of contents.
pub const MODULE: Module = Module { name: "pages", routes, limits: &[&LINK], ..Module::EMPTY };

/// Limits lookups of emailed links, by IP address.
const LINK: Rule = Rule {
    name: "link_ip",
    burst: 120,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many links were opened from this IP address. Try again later.",
};

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
            // SECURITY: the name of the site is text, and the body is inserted last, so that nothing in either is taken
            // for HTML or a placeholder of the shell (test: the_name_of_the_site_is_text_on_every_page).
            let site = escaped(app.settings.site.name.as_str());
            let head = SHELL.replace("{{title}}", self.title).replace("{{links}}", &links);
            head.replace("{{site}}", &site).replace("{{body}}", body)
        })
    }
}

/// Returns a text as HTML. Braces are escaped too, because placeholders consist of them.
fn escaped(text: &str) -> String {
    let mut html = String::new();
    for letter in text.chars() {
        match letter {
            '&' | '<' | '>' | '"' | '\'' | '{' | '}' => {
                html.push_str(&format!("&#{};", u32::from(letter)));
            }
            letter => html.push(letter),
        }
    }
    html
}

fn routes() -> Routes {
    Routes::root()
        .get("/assets/form.js", ANYONE, || async { FORM_SCRIPT })
        .get("/assets/account.js", ANYONE, || async { ACCOUNT_SCRIPT })
        .get("/assets/palisade.css", ANYONE, || async { STYLE })
        .get("/favicon.svg", ANYONE, || async { ICON })
        // What browsers request for a response that isn't a page, such as `/livez`.
        .get("/favicon.ico", ANYONE, || async { ICON })
        .and(Routes::at("/auth").post("/link", ANYONE.limit(&LINK), link).summary(
            "Returns the email address that received a link, as long as the link can be used.\n\n\
                 The page that the link opens shows it, so that password managers store the new \
                 password for the right account. The link stays usable.",
        ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
}

/// An emailed link that can be used.
#[derive(Serialize, JsonSchema)]
struct LinkView {
    /// The email address that received the link.
    #[schemars(with = "shape::EmailAddress")]
    email: String,
}

async fn link(State(app): State<App>, Body(body): Body<LinkBody>) -> Result<Json<LinkView>> {
    for recipient in app.answers.iter().filter_map(|answers| answers.link_recipient) {
        if let Some(email) = recipient(&app, &body.token).await? {
            return Ok(Json(LinkView { email }));
        }
    }
    let detail = "This link was used, was replaced by a newer one or has expired, or the password or \
                  the email address has changed. Request a new link.";
    Err(Error::bad_field("/token", "links.unusable", detail))
}

/// The script that every form shares: required fields, errors, and links that open in a tab that already shows the page.
const FORM_SCRIPT: Asset =
    Asset { media_type: "text/javascript; charset=utf-8", body: include_str!("../pages/form.js") };

/// The script of every page that an emailed link opens.
const ACCOUNT_SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../pages/account.js"),
};

const ICON: Asset =
    Asset { media_type: "image/svg+xml", body: include_str!("../pages/favicon.svg") };
const STYLE: Asset =
    Asset { media_type: "text/css; charset=utf-8", body: include_str!("../pages/palisade.css") };
