//! Changes to a user by an administrator, including the email address.

use super::{ANNOUNCE, CHANGED, settle};
use crate::app::Change;
use crate::credentials::{Act, End};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::mail::{self, Content};
use crate::users::{self, Email, User};

/// The changes that an administrator makes to a user. `None` leaves a field unchanged.
pub struct Changes {
    /// The name. An inner `None` removes it.
    pub name: Option<Option<String>>,
    /// The new email address, which counts as unverified.
    pub email: Option<Email>,
}

/// Changes a user on behalf of an administrator.
///
/// # Errors
/// Fails with 404; `users.email_taken`; `users.service_account`; or if the database fails.
pub async fn alter(mut change: Change, user: &User, changes: Changes) -> Result<()> {
    let email = changes.email.filter(|email| email.as_str() != user.email);
    let mut fields = Vec::new();
    if let Some(email) = email {
        if user.service {
            return Err(users::service_account());
        }
        move_to(&mut change, user.id, &user.email, &email).await?;
        fields.push("email");
    }
    if let Some(name) = changes.name
        && users::set_name(&mut change, user.id, name).await?
    {
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

/// Changes a user's email address on behalf of an administrator. The new email address counts as unverified.
async fn move_to(change: &mut Change, user: UserId, old: &str, email: &Email) -> Result<()> {
    // SECURITY: access to the mailbox of an earlier email address doesn't allow taking the account back either (test:
    // users_are_changed_and_deleted).
    settle(change, End::of(user, Act::EmailSet), email, false).await?;
    mail::enqueue(change, &ANNOUNCE, Content::to(old)).await?;
    // The email address is left out: it would be sealed under the administrator's key, and would outlive the user.
    change.note(CHANGED.about(user));
    Ok(())
}
