//! Service accounts: users for programs. They have roles and API keys, and can't sign in.

use super::{CREATED, Email, NewUser, User, create, find, list};
use crate::app::{Actor, App};
use crate::error::{Error, Kind, Result};
use crate::http::{List, Paging};
use crate::id::UserId;

/// The domain of service accounts' email addresses. It is reserved, so mail never reaches them (RFC 6761 section 6.4).
const DOMAIN: &str = "service.invalid";

/// Returns whether this is the email address of a service account, to which no mail is ever sent.
pub fn unreachable(email: &str) -> bool {
    email.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(DOMAIN))
}

/// Creates a service account.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn create_service(app: &App, actor: &Actor, name: String) -> Result<User> {
    let id = UserId(app.new_id());
    let email = Email::parse(&format!("{id}@{DOMAIN}"))
        .map_err(|_| Error::internal("the email address of a service account is not valid"))?;
    let name = Some(name);
    let new =
        NewUser { id: Some(id), verified: false, email, name, roles: Vec::new(), service: true };
    let mut change = app.change(actor).await?;
    create(&mut change, &new).await?.ok_or_else(super::email_taken)?;
    change.commit(CREATED.about(id).detail("service", "yes")).await?;
    find(app, id).await?.ok_or_else(Error::not_found)
}

/// Returns a page of service accounts, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn service_page(app: &App, paging: &Paging) -> Result<List<User>> {
    list::services(app, paging).await
}

/// Returns the error for an operation that doesn't apply to service accounts.
pub fn service_account() -> Error {
    let detail = "This is a service account. It can't sign in and receives no email.";
    Error::new(Kind::Conflict, "users.service_account", detail)
}
