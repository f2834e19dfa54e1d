//! Delivery: to a mail server, or in development to a mailbox page.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use palisade_db::Timestamp;
use uuid::Uuid;

use super::Rendered;
use crate::app::App;
use crate::error::{Error, Result};
use crate::files;
use crate::settings::{Settings, SmtpUrl};

/// How long a mail server may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many emails the development mailbox shows.
const SHOWN: usize = 200;

/// The destination of emails: a mail server, the development mailbox, or none.
pub struct Post(Way);

enum Way {
    Server { transport: Box<AsyncSmtpTransport<Tokio1Executor>>, from: Mailbox },
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
                transport: Box::new(transport(url, settings)?),
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

    /// Sends an email. The error is a message for the operator that doesn't name the recipient.
    pub(super) async fn send(&self, app: &App, id: Uuid, email: Rendered) -> Result<(), String> {
        match &self.0 {
            Way::Server { transport, from } => {
                let message = message(app, id, from, email)?;
                transport.send(message).await.map(drop).map_err(|error| problem(&error))
            }
            Way::Mailbox(shown) => {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.push_back(Shown { at: app.clock.now(), email });
                if shown.len() > SHOWN {
                    shown.pop_front();
                }
                Ok(())
            }
            Way::Nowhere => Err("no mail server is configured".to_owned()),
        }
    }
}

/// SECURITY: except on loopback, nothing is sent before TLS is established and the certificate is verified; if the
/// server offers no STARTTLS, the email waits (test: an_email_waits_for_a_server_that_offers_no_tls).
fn transport(url: &SmtpUrl, settings: &Settings) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let mut parameters = TlsParameters::builder(url.host().to_owned());
    if let Some(path) = &settings.mail.root_certificate {
        let pem = files::read(path).map_err(|error| unusable(path, &error))?;
        let root = Certificate::from_pem(&pem).map_err(|error| unusable(path, &error))?;
        parameters = parameters.add_root_certificate(root);
    }
    let parameters = parameters.build().map_err(Error::internal)?;
    let tls = match (url.tls_from_the_start(), url.is_loopback()) {
        (true, _) => Tls::Wrapper(parameters),
        (false, false) => Tls::Required(parameters),
        (false, true) => Tls::Opportunistic(parameters),
    };
    let host = url.host().trim_matches(['[', ']']);
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port())
        .tls(tls)
        .timeout(Some(PATIENCE));
    if let Some((user, password)) = url.login() {
        builder = builder.credentials(Credentials::new(user.to_owned(), password.to_owned()));
    }
    Ok(builder.build())
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::internal(format!(
        "mail.root_certificate: the file {} can't be used: {error}",
        path.display()
    ))
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
fn message(app: &App, id: Uuid, from: &Mailbox, email: Rendered) -> Result<Message, String> {
    let to: Address =
        email.to.parse().map_err(|_| "the recipient is not a valid email address".to_owned())?;
    let domain = from.email.domain();
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(email.subject)
        .message_id(Some(format!("<{id}@{domain}>")))
        .date(std::time::UNIX_EPOCH + app.clock.now().since(Timestamp::from_seconds(0)))
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(email.text, email.html))
        .map_err(|error| error.to_string())
}

/// Describes a delivery error. A reply from the server is reduced to its code, because its text may repeat the email
/// address.
fn problem(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("the mail server replied with {code}"),
        None if error.is_timeout() => "the mail server took too long to respond".to_owned(),
        None if error.is_tls() => {
            "a verified TLS connection to the mail server can't be established".to_owned()
        }
        None => "the mail server can't be reached".to_owned(),
    }
}
