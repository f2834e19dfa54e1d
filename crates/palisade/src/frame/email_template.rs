//! Emails, declared by the slices that write them. The slice `mail` sends them.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use palisade_crypto::secret::SecretString;
use palisade_db::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::Result;
use crate::id::UserId;

/// A kind of email, declared by the slice that writes it.
#[derive(Clone, Copy, Debug)]
pub struct EmailTemplate {
    /// The name, in the form `area_what`. Files of this name in `mail.templates` replace the built-in templates.
    pub name: &'static str,
    /// The template of the plain text. Its first line is `Subject: …`.
    pub text: &'static str,
    /// The template of the HTML version.
    pub html: &'static str,
    /// Determines the content and the recipient of the email just before it is sent. `None` means that it isn't sent.
    /// Lookups that must not delay a request belong here.
    pub prepare: Prepare,
}

/// See [`EmailTemplate::prepare`].
pub type Prepare = for<'a> fn(&'a App, Content) -> BoxFuture<'a, Result<Option<Content>>>;

/// The content and the recipient of an email.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Content {
    /// The email address, as its owner wrote it.
    pub to: Option<String>,
    /// The user whose current email address receives the email, unless `to` is set.
    pub user: Option<UserId>,
    /// The values that the template may use.
    pub values: BTreeMap<String, String>,
}

impl Content {
    /// Creates content for an email address.
    pub fn to(email: &str) -> Self {
        Self { to: Some(email.to_owned()), ..Self::default() }
    }

    /// Creates content for a user, sent to the user's email address at the time of sending.
    pub fn to_user(user: UserId) -> Self {
        Self { user: Some(user), ..Self::default() }
    }

    /// Adds a value for the template.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Adds `link`: the URL of a page that takes a token, with the token in the fragment, which browsers don't send to
    /// servers.
    #[must_use]
    pub fn with_link(self, app: &App, page: &str, token: &SecretString) -> Self {
        let url = &app.settings.server.public_url;
        let link = format!("{url}/account/{page}#token={}", token.expose());
        self.with("link", link)
    }
}

/// Formats a time for use in emails, to the minute.
pub fn for_people(at: Timestamp) -> String {
    at.to_string().replace('T', " ").chars().take(16).chain(" UTC".chars()).collect()
}
