//! The account as a whole: what administrators change of it, everything that is kept of a person, and its end.
//!
//! Promises:
//! - A user who requests deletion is signed out at once and deleted after `users.deletion_grace`, unless they sign in
//!   before; a user whom an administrator deletes is deleted at once.
//! - Gone means gone: no row of theirs is left but the events of the audit log, where an id stands for them and
//!   what was personal can't be read any more.
//! - The export holds everything that is kept of a person.
//!
//! Tables: none.

mod export;
mod http;

use std::time::Duration;

use palisade_db::args;

use crate::app::{Actor, App, Change, Hold};
use crate::audit::Event;
use crate::credentials::{self, Act, End};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::mail::{self, Content, Letter, for_people};
use crate::module::{Job, Module};
use crate::recovery;
use crate::users::{self, Email, User};

/// A user asked for their account to be deleted.
pub const DELETION_ASKED: Event = Event {
    name: "account.deletion_asked",
    says: "A user requested the deletion of their account",
};
/// A user was deleted.
pub const DELETED: Event = Event { name: "account.deleted", says: "A user was deleted" };
/// Everything that is kept of a person was given out to them.
pub const EXPORTED: Event =
    Event { name: "account.exported", says: "A user exported the data that is stored about them" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "account",
    routes: http::routes,
    limits: &[&http::EXPORT],
    events: &[DELETION_ASKED, DELETED, EXPORTED],
    letters: &[&LETTER],
    jobs: &[Job {
        name: "account.delete_due",
        every: Duration::from_secs(60),
        run: |app| Box::pin(delete_due(app)),
    }],
    ..Module::EMPTY
};

static LETTER: Letter = Letter {
    name: "account_deleted",
    text: include_str!("letters/deleted.txt"),
    html: include_str!("letters/deleted.html"),
    prepare: mail::as_written,
};

/// Signs a user out everywhere and deletes them when the grace is over; at once if there is none.
///
/// # Errors
/// Not found; `users.last_admin`; or the database fails.
pub async fn ask_for_deletion(app: &App, actor: &Actor, user: &User) -> Result<()> {
    let grace = app.settings.users.deletion_grace;
    let mut change = app.change_holding(actor, &held_for_deletion(user.id)).await?;
    if grace.is_zero() {
        return delete(change, user).await;
    }
    let at = change.now().plus(grace);
    users::delete_later(&mut change, user.id, at).await?;
    credentials::end(&mut change, End::of(user.id, Act::DeletionAsked)).await?;
    let letter = Content::to(&user.email).with("until", for_people(at));
    mail::post(&mut change, &LETTER, letter).await?;
    change.commit(DELETION_ASKED.about(user.id)).await
}

/// What a change holds that deletes a user.
pub fn held_for_deletion(user: UserId) -> [Hold; 2] {
    [Hold::Alone(user), Hold::Administrators]
}

/// Deletes a user now.
///
/// # Errors
/// Not found; `users.last_admin`; or the database fails.
pub async fn delete(mut change: Change, user: &User) -> Result<()> {
    // Before the rows go: every process must hear of the endings.
    credentials::end(&mut change, End::of(user.id, Act::Deleted)).await?;
    mail::post(&mut change, &LETTER, Content::to(&user.email).with("until", "")).await?;
    users::delete(&mut change, user.id).await?;
    change.commit(DELETED.about(user.id)).await
}

/// Deletes whoever asked for it and didn't come back.
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
        // SECURITY: it may have been taken back since it was read.
        if !users::is_due(&mut change, id).await? {
            continue;
        }
        match delete(change, &user).await {
            // The last administrator stays until there is another one; another node may have been first.
            Err(error) if matches!(error.code(), "users.last_admin" | "request.not_found") => {}
            done => done?,
        }
    }
    Ok(())
}

/// What an administrator changes of a user; absent: unchanged.
pub struct Changes {
    /// What they are called; inner none: nothing.
    pub name: Option<Option<String>>,
    /// Another address, which counts as unproven.
    pub email: Option<Email>,
}

/// Changes a user at the word of an administrator.
///
/// # Errors
/// Not found; `users.email_taken`; `users.service_account`; or the database fails.
pub async fn alter(mut change: Change, user: &User, changes: Changes) -> Result<()> {
    let email = changes.email.filter(|email| email.address() != user.email);
    let mut fields = Vec::new();
    if let Some(email) = email {
        if user.service {
            return Err(users::service_account());
        }
        recovery::move_to(&mut change, user.id, &user.email, &email).await?;
        fields.push("email");
    }
    if let Some(name) = changes.name {
        users::set_name(&mut change, user.id, name).await?;
        fields.push("name");
    }
    if fields.is_empty() {
        return if users::exists(&mut change, user.id).await? {
            Ok(())
        } else {
            Err(Error::not_found())
        };
    }
    change.commit(users::CHANGED.about(user.id).detail("field", fields.join(" "))).await
}
