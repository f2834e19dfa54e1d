//! What access tokens tell about a user, if `tokens.claims` requests it, and what happens when it changes.

use super::lock_row;
use crate::app::{App, Change, Hold, Whose};
use crate::error::Result;
use crate::settings::TokenClaim;

/// Returns the hold of a change that issues an access token, if tokens contain roles or permissions. Without it, a
/// change to a role at the same moment would miss the new token.
pub fn hold_for_claims(app: &App) -> Option<Hold> {
    let of_roles = |claim: &TokenClaim| matches!(claim, TokenClaim::Roles | TokenClaim::Scope);
    app.settings.tokens.claims.iter().any(of_roles).then_some(Hold::RolesShared)
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
