//! Delivery: to a mail server, or in development to a mailbox page.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};
use palisade_db::Timestamp;
use uuid::Uuid;

use super::Rendered;
use super::smtp::{Connection, Failure, Server};
use crate::app::App;
use crate::error::Result;
use crate::settings::Settings;

/// How many emails the development mailbox shows.
const SHOWN: usize = 200;

/// The destination of emails: a mail server, the development mailbox, or none.
pub struct Post(Way);

enum Way {
    Server { server: Box<Server>, from: Mailbox },
    Mailbox(Mutex<VecDeque<Shown>>),
    Nowhere,
}

/// An email in the development mailbox.
#[derive(Clone, Debug)]
pub struct Shown {
    /// When it would have been sent.
    pub at: Timestamp,
    /// The email.
    pub email: Rendered,
}

impl Post {
    /// Configures delivery according to the settings.
    ///
    /// # Errors
    /// Returns an error if the certificate of `mail.root_certificate` can't be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self(match (&settings.mail.smtp_url, &settings.mail.from) {
            (Some(url), Some(from)) => Way::Server {
                server: Box::new(Server::new(url, settings)?),
                from: from.inner().clone(),
            },
            _ if settings.is_production() => Way::Nowhere,
            _ => Way::Mailbox(Mutex::default()),
        }))
    }

    /// Returns whether emails are delivered or shown in the development mailbox.
    pub fn is_on(&self) -> bool {
        !matches!(self.0, Way::Nowhere)
    }

    /// Returns the contents of the development mailbox, newest first, or `None` if this server has no such mailbox.
    pub fn mailbox(&self) -> Option<Vec<Shown>> {
        let Way::Mailbox(shown) = &self.0 else { return None };
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        Some(shown.iter().rev().cloned().collect())
    }

    /// Sends an email over the connection in `kept`, if there is one, and leaves the connection there for the next.
    pub(super) async fn send(
        &self,
        app: &App,
        id: Uuid,
        email: Rendered,
        kept: &mut Option<Connection>,
    ) -> Result<(), Failure> {
        match &self.0 {
            Way::Server { server, from } => {
                let message = message(app, id, from, email)?;
                if let Some(connection) = kept.take() {
                    match deliver(connection, &message, kept).await {
                        // The mail server may limit the emails of a connection, or their time.
                        Err(failure) if failure.before_the_recipient() => {}
                        done => return done,
                    }
                }
                deliver(server.open().await?, &message, kept).await
            }
            Way::Mailbox(shown) => {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.push_back(Shown { at: app.clock.now(), email });
                if shown.len() > SHOWN {
                    shown.pop_front();
                }
                Ok(())
            }
            Way::Nowhere => Err(Failure::mend("no mail server is configured")),
        }
    }
}

async fn deliver(
    mut connection: Connection,
    message: &Message,
    kept: &mut Option<Connection>,
) -> Result<(), Failure> {
    let delivered = connection.deliver(message).await;
    if delivered.is_ok() {
        *kept = Some(connection);
    } else {
        connection.quit().await;
    }
    delivered
}

/// The header `Auto-Submitted` (RFC 3834 section 5), which prevents automatic replies such as vacation notices.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Builds the message. Its id is the same in every attempt, so that an email sent twice is recognized as a duplicate.
fn message(app: &App, id: Uuid, from: &Mailbox, email: Rendered) -> Result<Message, Failure> {
    let invalid = |_| Failure::give_up("the recipient is not a valid email address");
    let to: Address = email.to.parse().map_err(invalid)?;
    let domain = from.email.domain();
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(email.subject)
        .message_id(Some(format!("<{id}@{domain}>")))
        .date(std::time::UNIX_EPOCH + app.clock.now().since(Timestamp::from_seconds(0)))
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(email.text, email.html))
        .map_err(|error| Failure::mend(error.to_string()))
}
