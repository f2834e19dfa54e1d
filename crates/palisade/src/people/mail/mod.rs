//! Mail: an email is queued in the change that causes it, and sent after the change commits.
//!
//! # Promises
//!
//! - An email and its cause are committed together or not at all. A mail server that is down or slow, or that refuses
//!   an email, never makes a request fail or wait. No email is lost silently: delivery is retried for three days, unless
//!   the mail server refuses the recipient or the email for good. An email that could not be delivered is recorded as an
//!   event, and is kept until 30 days after it was queued.
//! - A queued email is sealed, and its content is erased once it is sent: neither recipients nor links can be read from
//!   the table.
//! - Links begin with `server.public_url`, whatever a request contains.
//! - Each email is sent by one process. If the process dies after sending it and before recording that, the email is
//!   sent again.
//!
//! Tables: `outbox`.

mod http;
mod outbox;
mod render;
mod smtp;
mod transport;

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_db::{Migration, Sql};

use crate::app::{App, Change, State};
use crate::error::{Error, Result};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::users;

pub use crate::email_template::{Content, EmailTemplate, Prepare, for_people};
pub use render::{EmailTemplates, Rendered};
pub use transport::Post;

/// An email was refused for good, or could not be delivered within three days.
pub const FAILED: Event = Event { name: "mail.failed", summary: "An email could not be delivered" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "mail",
    routes: http::routes,
    events: &[FAILED],
    jobs: &[
        Job {
            name: "mail.send",
            every: Duration::from_secs(1),
            run: |app| Box::pin(outbox::send_due(app)),
        },
        Job {
            name: "mail.measure",
            every: Duration::from_secs(15),
            run: |app| Box::pin(outbox::measure(app)),
        },
        Job {
            name: "mail.prune",
            every: Duration::from_secs(3600),
            run: |app| Box::pin(outbox::prune(app)),
        },
    ],
    migrations: &[Migration {
        module: "mail",
        number: 1,
        name: "mail",
        sql: Sql::Both(include_str!("../../../migrations/mail/0001_mail.sql")),
    }],
    tables: &["outbox"],
    metrics: outbox::METRICS,
    state: |settings, state: &mut State| {
        state.put(Post::new(settings)?);
        Ok(())
    },
    ..Module::EMPTY
};

/// Prepares the email as written. If it names no recipient, it is addressed to the user's current email address.
pub fn as_written(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        if content.to.is_some() {
            return Ok(Some(content));
        }
        let Some(user) = content.user else { return Ok(None) };
        let found = users::find(app, user).await?;
        Ok(found.map(|found| Content { to: Some(found.email), ..content }))
    })
}

/// Returns whether this server sends emails or, in development, shows them on the mailbox page.
pub fn is_on(app: &App) -> bool {
    app.state::<Post>().is_on()
}

/// Refuses an operation that needs mail if this server sends none.
///
/// # Errors
/// Fails with `mail.off`.
pub fn needed(app: &App) -> Result<()> {
    if is_on(app) {
        return Ok(());
    }
    let detail = "This server sends no email. Ask an administrator.";
    Err(Error::off("mail.off", detail))
}

/// Queues an email in the change that causes it. Does nothing if this server sends no mail.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn enqueue(
    change: &mut Change,
    template: &'static EmailTemplate,
    content: Content,
) -> Result<()> {
    if !is_on(change.app()) {
        return Ok(());
    }
    outbox::put(change, template, &content).await
}
