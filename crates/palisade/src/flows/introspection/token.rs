//! The current state of a token, and its revocation.

use std::sync::Arc;

use crate::access::Caller;
use crate::app::{Actor, App, Hold};
use crate::credential::Introspection;
use crate::error::{Kind, Result};
use crate::users::{self, User};

/// Returns `None` for a token that isn't ours or is no longer valid, and passes on every other error.
fn good<T>(result: Result<Option<T>>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == Kind::NotSignedIn => Ok(None),
        result => result,
    }
}

/// Returns the current state of a token.
///
/// # Errors
/// Returns an error if the database is needed and fails.
pub(super) async fn introspect(app: &App, caller: &Caller, token: &str) -> Result<Introspection> {
    let sees_people = caller.signed_in()?.permissions.contains(users::READ.name);
    Ok(worth(app, token, sees_people).await?.unwrap_or_default())
}

async fn worth(app: &App, token: &str, sees_people: bool) -> Result<Option<Introspection>> {
    let form = app.credentials.of_token(token).map(|(_, form)| form);
    let Some(form) = form else { return Ok(None) };
    let Some(introspect) = form.introspect else { return Ok(None) };
    let Some(found) = good(introspect(app, token).await)? else { return Ok(None) };
    // SECURITY: whatever the kind of the token reports, a token that gives no access here isn't active (tests:
    // an_applications_credential_is_worth_nothing_without_its_user, a_token_that_must_enrol_is_not_active).
    let Some(user) = found.sub else { return Ok(None) };
    let user = users::current(app, user).await?;
    let lets_in = form.prove.is_some();
    let barred = |user: &Arc<User>| user.disabled || (lets_in && user.must_enrol(app));
    let user = user.filter(|user| !barred(user));
    let Some(user) = user else { return Ok(None) };
    Ok(Some(if lets_in { about(&user, found, sees_people) } else { without_rights(found) }))
}

/// Returns the state of an active token that doesn't authenticate requests, such as a refresh token.
fn without_rights(found: Introspection) -> Introspection {
    // SECURITY: a service that doesn't check the kind of the token would accept rights with it (test:
    // a_refresh_token_shows_no_rights).
    Introspection { active: true, scope: None, roles: None, email: None, name: None, ..found }
}

/// Adds what is known about the user of an active token that authenticates requests.
fn about(user: &User, found: Introspection, sees_people: bool) -> Introspection {
    // An API key has its own permissions, and does not act in a role.
    let of_session = found.sid.is_some();
    let (scope, roles) = (of_session.then(|| user.scope()), of_session.then(|| user.roles.clone()));
    // SECURITY: (test: introspection_tells_about_people_only_who_may_see_them)
    let email = sees_people.then(|| user.email.clone());
    let name = user.name.clone().filter(|_| sees_people);
    let scope = found.scope.or(scope);
    Introspection { active: true, scope, roles, email, name, ..found }
}

/// Ends the session of an access token or a refresh token (even a used one), or revokes an API key. Does nothing if the
/// token is unknown, expired or already revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) async fn revoke(app: &App, actor: &Actor, token: &str) -> Result<()> {
    let Some((methods, form)) = app.credentials.of_token(token) else { return Ok(()) };
    let Some(locate) = form.locate else { return Ok(()) };
    let Some((user, id)) = good(locate(app, token).await)? else { return Ok(()) };
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    match (methods.revoke)(&mut change, user, id).await {
        // Another request ended it at the same moment.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => {
            ended?;
            change.commit_quietly("revoking a token records its own event").await
        }
    }
}
