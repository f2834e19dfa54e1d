//! The state of a token at this moment, and its revocation.

use crate::app::{Actor, App, Hold};
use crate::credential::Introspection;
use crate::error::{Kind, Result};
use crate::users;

/// A token that isn't ours, or no longer good, isn't active; everything else stays an error.
fn good<T>(result: Result<Option<T>>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == Kind::NotSignedIn => Ok(None),
        result => result,
    }
}

/// The state of a token.
///
/// # Errors
/// When the database is needed and doesn't answer.
pub(super) async fn introspect(app: &App, token: &str) -> Result<Introspection> {
    Ok(worth(app, token).await?.unwrap_or_default())
}

async fn worth(app: &App, token: &str) -> Result<Option<Introspection>> {
    let form = app.credentials.of_token(token).map(|(_, form)| form);
    let Some(introspect) = form.and_then(|form| form.introspect) else { return Ok(None) };
    let Some(found) = good(introspect(app, token).await)? else { return Ok(None) };
    // SECURITY: whatever its kind says (test: an_applications_credential_is_worth_nothing_without_its_user).
    let Some(user) = found.sub else { return Ok(None) };
    let user = users::current(app, user).await?.filter(|user| !user.disabled);
    Ok(user.map(|_| Introspection { active: true, ..found }))
}

/// Ends the session of an access or refresh token, or revokes an API key. A token that isn't active stays so.
///
/// # Errors
/// When the database fails.
pub(super) async fn revoke(app: &App, actor: &Actor, token: &str) -> Result<()> {
    let Some((methods, form)) = app.credentials.of_token(token) else { return Ok(()) };
    let Some(locate) = form.locate else { return Ok(()) };
    let Some((user, id)) = good(locate(app, token).await)? else { return Ok(()) };
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    match (methods.revoke)(&mut change, user, id).await {
        // Ended by someone else in the same moment.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => {
            ended?;
            change.commit_quietly("revoking a token noted its own event").await
        }
    }
}
