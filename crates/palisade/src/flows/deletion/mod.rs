//! Deletion of an account: at its owner's request, after a grace period, or by an administrator.
//!
//! # Promises
//!
//! - A user who requests deletion is signed out immediately and deleted after `users.deletion_grace`, unless they sign
//!   in before then. When an administrator deletes a user, the deletion is immediate.
//! - No rows of a deleted user remain except the events of the audit log, which refer to the user by id and whose
//!   personal parts can no longer be read.

mod http;

use std::time::Duration;

use palisade_db::args;

use crate::app::{Actor, App, Change, Hold};
use crate::credentials::{self, Act, End};
use crate::error::Result;
use crate::id::UserId;
use crate::mail::{self, Content, EmailTemplate, for_people};
use crate::module::{Job, Module};
use crate::record::Event;
use crate::users::{self, User};

/// A user requested the deletion of their account.
pub const DELETION_ASKED: Event = Event {
    name: "account.deletion_asked",
    summary: "A user requested the deletion of their account",
};
/// A user was deleted.
pub const DELETED: Event = Event { name: "account.deleted", summary: "A user was deleted" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "deletion",
    routes: http::routes,
    events: &[DELETION_ASKED, DELETED],
    email_templates: &[&EMAIL],
    jobs: &[Job {
        name: "deletion.delete_due",
        every: Duration::from_secs(60),
        run: |app| Box::pin(delete_due(app)),
    }],
    ..Module::EMPTY
};

static EMAIL: EmailTemplate = EmailTemplate {
    name: "account_deleted",
    text: include_str!("emails/deleted.txt"),
    html: include_str!("emails/deleted.html"),
    prepare: mail::as_written,
};

/// Signs a user out everywhere and deletes them after the grace period, or immediately if there is none.
///
/// # Errors
/// Fails with 404; `users.last_admin`; or if the database fails.
pub async fn ask_for_deletion(app: &App, actor: &Actor, user: &User) -> Result<()> {
    let grace = app.settings.users.deletion_grace;
    let mut change = app.change_holding(actor, &held_for_deletion(user.id)).await?;
    if grace.is_zero() {
        return delete(change, user).await;
    }
    let at = change.now().plus(grace);
    users::delete_later(&mut change, user.id, at).await?;
    credentials::end(&mut change, End::of(user.id, Act::DeletionAsked)).await?;
    let content = Content::to(&user.email).with("until", for_people(at));
    mail::enqueue(&mut change, &EMAIL, content).await?;
    change.commit(DELETION_ASKED.about(user.id)).await
}

/// Returns the holds of a change that deletes a user.
pub fn held_for_deletion(user: UserId) -> [Hold; 2] {
    [Hold::Alone(user), Hold::Administrators]
}

/// Deletes a user immediately.
///
/// # Errors
/// Fails with 404; `users.last_admin`; or if the database fails.
pub async fn delete(mut change: Change, user: &User) -> Result<()> {
    // Before the rows go: every process must hear of the endings.
    credentials::end(&mut change, End::of(user.id, Act::Deleted)).await?;
    mail::enqueue(&mut change, &EMAIL, Content::to(&user.email).with("until", "")).await?;
    users::delete(&mut change, user.id).await?;
    change.commit(DELETED.about(user.id)).await
}

/// Deletes the users who requested deletion and didn't sign in again.
async fn delete_due(app: &App) -> Result<()> {
    let due: Vec<(UserId,)> = app
        .db
        .all(
            "select id from users where delete_at is not null and delete_at <= $1 limit 100",
            args![app.clock.now()],
        )
        .await?;
    for (id,) in due {
        let Some(user) = users::find(app, id).await? else { continue };
        let mut change = app.change_holding(&Actor::system(), &held_for_deletion(id)).await?;
        // SECURITY: the request may have been canceled since it was read (test:
        // a_deletion_that_was_taken_back_while_it_waited_is_none).
        if !users::is_due(&mut change, id).await? {
            continue;
        }
        match delete(change, &user).await {
            // The last administrator stays until there is another administrator. Another process may have deleted the
            // user first.
            Err(error) if matches!(error.code(), "users.last_admin" | "request.not_found") => {}
            done => done?,
        }
    }
    Ok(())
}
