//! Renders emails from templates: the built-in ones, or those in the operator's directory.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::{Content, EmailTemplate};
use crate::app::App;
use crate::error::{Error, Result};
use crate::files;
use crate::settings::Settings;

/// The templates of all emails, read and checked.
pub struct EmailTemplates {
    all: Vec<&'static EmailTemplate>,
    templates: Environment<'static>,
}

/// A rendered email, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The recipient's email address.
    pub to: String,
    /// The subject, a single line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same text as HTML.
    pub html: String,
}

const FRAME: &str = include_str!("emails/frame.html");

impl EmailTemplates {
    /// Reads the templates of these emails.
    ///
    /// # Errors
    /// Returns an error if a template can't be read or is invalid.
    pub fn new(all: Vec<&'static EmailTemplate>, settings: &Settings) -> Result<Self> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        });
        let directory = settings.mail.templates.as_deref();
        let forms = all.iter().flat_map(|template| {
            [
                (format!("{}.txt", template.name), template.text),
                (format!("{}.html", template.name), template.html),
            ]
        });
        for (name, built_in) in forms.chain([("frame.html".to_owned(), FRAME)]) {
            let own = directory.map_or(Ok(None), |directory| of_operator(directory, &name))?;
            let text = own.unwrap_or_else(|| built_in.to_owned());
            templates.add_template_owned(name.clone(), text).map_err(|error| {
                Error::internal(format!("mail.templates: {name} is not a valid template: {error}"))
            })?;
        }
        Ok(Self { all, templates })
    }

    /// Returns the email template with this name.
    pub fn find(&self, name: &str) -> Option<&'static EmailTemplate> {
        self.all.iter().find(|template| template.name == name).copied()
    }

    /// Renders an email. The error is a message for the operator.
    ///
    /// # Errors
    /// Returns an error if the email has no recipient, or if a template uses a value that doesn't exist or has no
    /// subject.
    pub fn render(
        &self,
        app: &App,
        template: &EmailTemplate,
        content: &Content,
    ) -> Result<Rendered, String> {
        let mut values: BTreeMap<String, String> = content.values.clone();
        values.insert("site".to_owned(), app.settings.site.name.to_string());
        values.insert("public_url".to_owned(), app.settings.server.public_url.to_string());
        let to = content.to.clone().ok_or("the email has no recipient")?;
        let write = |name: String| {
            let template = self.templates.get_template(&name);
            template
                .and_then(|template| template.render(&values))
                .map_err(|error| format!("{name}: {error}"))
        };
        let text = write(format!("{}.txt", template.name))?;
        let (subject, text) = text.split_once('\n').ok_or("the text has no subject")?;
        let subject = subject
            .strip_prefix("Subject: ")
            .ok_or("the first line of the text does not start with 'Subject: '")?;
        let html = write(format!("{}.html", template.name))?;
        // A line break would end the header.
        let subject = subject.chars().filter(|c| !c.is_control()).take(200).collect();
        Ok(Rendered { to, subject, text: text.trim_start().to_owned(), html })
    }
}

fn of_operator(directory: &Path, name: &str) -> Result<Option<String>> {
    let path = directory.join(name);
    match files::read_text(&path) {
        Ok(text) => Ok(Some(text)),
        // A directory that is missing is a mistake; a template that is missing in it is built in.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory.is_dir() => {
            Ok(None)
        }
        Err(error) => Err(Error::internal(format!(
            "mail.templates: the file {} can't be read: {error}",
            path.display()
        ))),
    }
}
