//! What access tokens tell about a user, if `tokens.claims` requests it, and what happens when it changes.

use super::{User, lock_row};
use crate::app::{App, Change, Hold, Whose};
use crate::error::Result;
use crate::id::UserId;
use crate::settings::TokenClaim;

/// The claims about a user's rights.
pub(super) const OF_RIGHTS: [TokenClaim; 2] = [TokenClaim::Roles, TokenClaim::Scope];

/// Returns the hold of a change that issues an access token, if tokens contain roles or permissions. Without it, a
/// change to a role at the same moment would miss the new token.
pub fn hold_for_claims(app: &App) -> Option<Hold> {
    let of_roles = |claim: &TokenClaim| OF_RIGHTS.contains(claim);
    app.settings.tokens.claims.iter().any(of_roles).then_some(Hold::RolesShared)
}

/// Makes earlier access tokens outdated if they contain claims about rights, because the user now has a first factor or
/// no factor. Without a required factor, tokens contain no rights.
pub(super) async fn factors_began_or_ended(change: &mut Change, user: UserId) -> Result<()> {
    // SECURITY: whether this user needs a factor isn't asked: a change to a role at the same moment may decide it
    // (test: a_change_of_what_a_user_must_set_up_outdates_earlier_tokens).
    if User::may_need_factor(change.app()) {
        claims_changed(change, Whose::User(user), &OF_RIGHTS).await?;
    }
    Ok(())
}

/// Makes earlier access tokens outdated if they contain one of these claims, which have just changed.
pub(super) async fn claims_changed(
    change: &mut Change,
    whose: Whose<'_>,
    changed: &[TokenClaim],
) -> Result<()> {
    let app = change.app().clone();
    if !app.settings.tokens.claims.iter().any(|claim| changed.contains(claim)) {
        return Ok(());
    }
    // SECURITY: a sign-in locks the user too before it reads the claims. It either reads the new ones or has its session
    // outdated (test: a_sign_in_that_commits_beside_a_change_of_claims_is_outdated).
    if let Whose::User(user) = whose {
        lock_row(change, user).await?;
    }
    for outdate in app.answers.iter().filter_map(|answers| answers.outdate) {
        outdate(change, whose).await?;
    }
    Ok(())
}
