//! Invitations: an account created for a user, who chooses the password.
//!
//! # Promises
//!
//! - An invited account has no password until its owner chooses one with the link sent by email.
//! - The link works once and expires after a week. It stops working when the password or the email address is changed,
//!   or when a newer invitation is sent.
//!
//! The links are implemented in [`recovery`].

mod http;

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::app::{Actor, App, Change};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::mail::{self, Content, EmailTemplate};
use crate::module::Module;
use crate::passwords;
use crate::record::Event;
use crate::recovery::{self, Link};
use crate::roles;
use crate::users::{self, Email, NewUser};

/// A user was invited.
pub const INVITED: Event = Event {
    name: "recovery.invited",
    summary: "A user was sent an invitation or a link to choose a new password",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "invitations",
    routes: http::routes,
    limits: &[&http::INVITE],
    events: &[INVITED],
    email_templates: &[&EMAIL],
    ..Module::EMPTY
};

/// The lifetime of an invitation: one week.
const LIVES: Duration = Duration::from_secs(7 * 24 * 3600);

static EMAIL: EmailTemplate = EmailTemplate {
    name: "recovery_invite",
    text: include_str!("emails/invite.txt"),
    html: include_str!("emails/invite.html"),
    prepare,
};

/// The user to invite.
pub struct Invitation {
    /// The email address.
    pub email: Email,
    /// The name.
    pub name: Option<String>,
    /// Roles in addition to the one that all users have.
    pub roles: Vec<String>,
}

/// Creates a user without a password and sends them a link to choose one.
///
/// # Errors
/// Fails with `mail.off`; `users.email_taken`; `roles.unknown`; `access.exceeds_own`; or if the database fails.
pub async fn invite(app: &App, actor: &Actor, invitation: Invitation) -> Result<UserId> {
    mail::needed(app)?;
    let mut change = app.change(actor).await?;
    roles::check_for_new(&mut change, &invitation.roles).await?;
    let Invitation { email, name, roles } = invitation;
    let new = NewUser { id: None, verified: false, email, name, roles, service: false };
    let user = users::create(&mut change, &new).await?.ok_or_else(users::email_taken)?;
    send(&mut change, user).await?;
    change.note(users::CREATED.about(user));
    change.commit(INVITED.about(user)).await?;
    Ok(user)
}

/// Sends a link to choose a password, on behalf of an administrator or the operator.
///
/// # Errors
/// Fails with `mail.off`; 404; `users.disabled`; `users.service_account`; or if the database fails.
pub async fn send_link(mut change: Change, user: UserId) -> Result<()> {
    mail::needed(change.app())?;
    let found = users::find_now(&mut change, user).await?.ok_or_else(Error::not_found)?;
    if found.disabled {
        let detail = "This user is disabled. Enable them first.";
        return Err(Error::new(Kind::Conflict, "users.disabled", detail));
    }
    if found.service {
        return Err(users::service_account());
    }
    send(&mut change, user).await?;
    change.commit(INVITED.about(user)).await
}

async fn send(change: &mut Change, user: UserId) -> Result<()> {
    let first = if passwords::has(change, user).await? { "" } else { "yes" };
    mail::enqueue(change, &EMAIL, Content::to_user(user).with("first", first)).await
}

fn prepare(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let user = match content.user {
            Some(user) => users::find(app, user).await?,
            None => None,
        };
        let Some(user) = user.filter(|user| !user.disabled && !user.service) else {
            return Ok(None);
        };
        let token = recovery::store_link(app, &user, Link::Invitation, LIVES).await?;
        let first = content.values.get("first").cloned().unwrap_or_default();
        let content = Content::to(&user.email).with("first", first);
        Ok(token.map(|token| content.with_link(app, "invite", &token)))
    })
}
