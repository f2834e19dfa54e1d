//! `/mailbox`: in development, the emails that would have been sent.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::http::header::HOST;

use super::Post;
use crate::access::ANYONE;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::client::is_forwarded;
use crate::http::serve::Carrier;
use crate::http::{Html, Routes};
use crate::pages::Page;

pub(super) fn routes() -> Routes {
    Routes::root().get("/mailbox", ANYONE, mailbox)
}

/// The page that shows the emails that would have been sent.
const PAGE: Page =
    Page { title: "Mailbox", body: include_str!("../../pages/mailbox.html"), ..Page::EMPTY };

async fn mailbox(
    State(app): State<App>,
    Extension(carrier): Extension<Carrier>,
    headers: HeaderMap,
) -> Result<Html> {
    let shown = app.state::<Post>().mailbox().ok_or_else(Error::not_found)?;
    // SECURITY: the links in the emails give access to every account, so other machines never get them. The connection
    // counts, not what a proxy reports of the client (tests: no_proxy_shows_the_mailbox_to_other_machines,
    // an_exposed_development_server_shows_its_mailbox_to_its_own_machine_alone).
    let connection = carrier.connection();
    if is_forwarded(&connection, &headers) {
        return Err(Error::not_found());
    }
    if app.settings.server.expose_development && !connection.peer.ip().is_loopback() {
        return Err(Error::not_found());
    }
    // SECURITY: a page under a foreign name that resolves to this machine (DNS rebinding) must not read the mailbox
    // (test: the_mailbox_is_there_in_development_alone).
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        return Err(Error::not_found());
    }
    let mut items = String::new();
    for shown in shown {
        items.push_str(&format!(
            "<article><h2>{}</h2><p class=\"hint\">To {}, {}</p><pre>{}</pre></article>\n",
            escaped(&shown.email.subject),
            escaped(&shown.email.to),
            shown.at,
            linked(&shown.email.text),
        ));
    }
    if items.is_empty() {
        items.push_str("<p>No email has been sent yet.</p>");
    }
    Ok(PAGE.with_body(&app, &PAGE.body.replace("{{items}}", &items)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns the text as HTML, with each line that is a URL turned into a link.
fn linked(text: &str) -> String {
    let line = |line: &str| {
        let line = escaped(line);
        if line.starts_with("http://") || line.starts_with("https://") {
            format!("<a href=\"{line}\">{line}</a>")
        } else {
            line
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
