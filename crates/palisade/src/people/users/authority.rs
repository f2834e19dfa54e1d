//! Which users may act on which others, and which rights they may delegate.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ADMIN, User, current, find, find_now};
use crate::access::Caller;
use crate::app::{ActorKind, App, Change, Hold, Rights};
use crate::error::{Error, Kind, Result, bad_token};
use crate::id::UserId;

/// The authority of a caller. It covers the rights that the caller holds, and no others.
#[derive(Clone, Debug)]
pub enum Authority {
    /// The operator, or Palisade itself. Both may do everything.
    Operator,
    /// A signed-in user.
    User {
        /// The user's id.
        id: UserId,
        /// Whether the user holds the role [`ADMIN`] and the credential in use has all of its permissions. The role
        /// allows everything, including permissions added later.
        admin: bool,
        /// The roles that the user holds.
        roles: Vec<String>,
        /// The permissions that the user has with the credential in use.
        permissions: Arc<BTreeSet<String>>,
    },
}

impl Authority {
    /// Returns the current authority of the actor of a change. The roles are read within the change, which holds what
    /// they depend on. Rights taken away while the change waited don't count.
    ///
    /// # Errors
    /// Returns an error if the caller is not signed in or the database fails.
    pub async fn of(change: &mut Change) -> Result<Self> {
        if matches!(change.actor().kind, ActorKind::Operator | ActorKind::System) {
            return Ok(Self::Operator);
        }
        if change.actor().permission.is_none() {
            change.must_hold(Hold::RolesShared)?;
        }
        let id = change.actor().user.ok_or_else(bad_token)?;
        // SECURITY: (test: rights_that_were_taken_away_do_nothing_for_what_is_under_way)
        let user = find_now(change, id).await?.ok_or_else(bad_token)?;
        let permissions = match change.permissions() {
            // Until a required second factor is set up, the user has no permissions.
            _ if user.must_enrol(change.app()) => Arc::default(),
            Some(own) => Arc::new(own.intersection(&user.permissions).cloned().collect()),
            None => Arc::clone(&user.permissions),
        };
        Ok(Self::by(&user, permissions))
    }

    /// Returns the authority of a user who uses a credential, which may have fewer permissions than the user.
    fn by(user: &User, permissions: Arc<BTreeSet<String>>) -> Self {
        let admin = user.is_admin() && user.permissions.is_subset(&permissions);
        Self::User { id: user.id, admin, roles: user.roles.clone(), permissions }
    }

    /// Returns whether the caller holds a permission.
    pub fn holds(&self, permission: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::User { permissions, .. } => permissions.contains(permission),
        }
    }

    /// Refuses to give or delete a role that has rights in addition to permissions, unless the caller holds the role or
    /// the permission that covers all such rights.
    ///
    /// # Errors
    /// Fails with `access.exceeds_own`.
    pub fn gives_what_is_open_to(&self, role: &str, rights: Rights) -> Result<()> {
        let Self::User { admin, roles, permissions: own, .. } = self else { return Ok(()) };
        // SECURITY: (test: only_rights_that_are_held_are_given)
        let held = roles.iter().any(|held| held == role) || own.contains(rights.managed_by);
        if *admin || held { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses to delegate permissions that the caller doesn't hold.
    ///
    /// # Errors
    /// Fails with `access.exceeds_own`.
    pub fn may_delegate<'a>(
        &self,
        role: &str,
        permissions: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let Self::User { admin, permissions: own, .. } = self else { return Ok(()) };
        // SECURITY: a caller who holds every current permission doesn't hold those added later, which `admin` includes
        // (test: only_rights_that_are_held_are_given).
        let held = role != ADMIN && permissions.into_iter().all(|name| own.contains(name));
        if *admin || held { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses an action on all users, unless the caller is an administrator or the operator.
    ///
    /// # Errors
    /// Fails with `access.exceeds_own`.
    pub fn may_act_on_everyone(&self) -> Result<()> {
        match self {
            Self::Operator | Self::User { admin: true, .. } => Ok(()),
            Self::User { .. } => Err(exceeds_own()),
        }
    }

    /// Refuses to act on a user who holds a permission that the caller doesn't hold.
    ///
    /// # Errors
    /// Fails with `access.exceeds_own`.
    fn may_act_on(&self, target: &User) -> Result<()> {
        let Self::User { id, admin, permissions, .. } = self else { return Ok(()) };
        let above = target.is_admin() || !target.permissions.is_subset(permissions);
        if *admin || *id == target.id || !above { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses to act on a user who has rights, in addition to permissions, that the caller doesn't have.
    ///
    /// # Errors
    /// Fails with `access.exceeds_own`, or if the database fails.
    async fn covers_rights(&self, change: &mut Change, target: &User) -> Result<()> {
        let Self::User { id, admin, .. } = self else { return Ok(()) };
        if *admin || *id == target.id {
            return Ok(());
        }
        let app = change.app().clone();
        for rights in app.answers.iter().filter_map(|answers| answers.rights) {
            let managed = self.holds(rights.managed_by);
            if !managed && (rights.open_more)(change, target.id, *id).await? {
                return Err(exceeds_own());
            }
        }
        Ok(())
    }
}

/// Returns the user that a change acts on, if its actor holds everything that the user holds: each permission, and each
/// grant on a resource. Used for every action except those that only stop an account.
///
/// # Errors
/// Fails with 404; `access.exceeds_own`; or if the database fails.
pub async fn find_manageable(change: &mut Change, target: UserId) -> Result<User> {
    let (authority, target) = judged(change, target).await?;
    // SECURITY: (test: every_act_on_another_user_asks_for_what_they_hold)
    authority.covers_rights(change, &target).await?;
    Ok(target)
}

/// Returns the authority of the actor and the user that a change acts on, if the actor holds each of the user's
/// permissions.
async fn judged(change: &mut Change, target: UserId) -> Result<(Authority, User)> {
    // Otherwise, a concurrent change could give the user more rights.
    change.must_hold(Hold::Alone(target)).or_else(|_| change.must_hold(Hold::Shared(target)))?;
    let target = find_now(change, target).await?.ok_or_else(Error::not_found)?;
    let authority = Authority::of(change).await?;
    // SECURITY: (test: an_account_with_more_rights_stays_untouched)
    authority.may_act_on(&target)?;
    Ok((authority, target))
}

/// Begins a change to a user whom the caller may manage ([`find_manageable`]). The change holds `holds`, which must
/// include the user's account.
///
/// # Errors
/// Fails with 404; `access.exceeds_own`; or an error of [`App::change`].
pub async fn change_manageable(
    app: &App,
    caller: &Caller,
    target: UserId,
    holds: &[Hold],
) -> Result<(Change, User)> {
    let mut change = begin(app, caller, target, holds).await?;
    let target = find_manageable(&mut change, target).await?;
    Ok((change, target))
}

/// Begins a change that only stops an account: its sessions, API keys or sign-ins. The caller must hold each of the
/// user's permissions. Grants aren't required: stopping a stolen account gives no access to it.
///
/// # Errors
/// Fails like [`change_manageable`].
pub async fn change_stoppable(
    app: &App,
    caller: &Caller,
    target: UserId,
    holds: &[Hold],
) -> Result<Change> {
    let mut change = begin(app, caller, target, holds).await?;
    judged(&mut change, target).await?;
    Ok(change)
}

/// Begins a change after a preliminary check that the caller may stop the account, so that a caller who may not stop it
/// can't block it. The decisive check runs within the change.
async fn begin(app: &App, caller: &Caller, target: UserId, holds: &[Hold]) -> Result<Change> {
    stoppable(app, caller, target).await?;
    app.change_holding(&caller.actor, holds).await
}

/// Returns the user whose API keys a caller may see, if the caller holds each of the user's permissions. For reading
/// only: a change checks the permissions within its transaction.
///
/// # Errors
/// Fails with 404; `access.exceeds_own`; or if the database fails.
pub async fn stoppable(app: &App, caller: &Caller, target: UserId) -> Result<User> {
    let target = find(app, target).await?.ok_or_else(Error::not_found)?;
    let me = caller.signed_in()?;
    let user = current(app, me.user).await?.ok_or_else(bad_token)?;
    let authority = Authority::by(&user, Arc::clone(&me.permissions));
    // SECURITY: otherwise, an administrator with few rights could lock out the administrators who would notice (test:
    // every_act_on_another_user_asks_for_what_they_hold).
    authority.may_act_on(&target)?;
    Ok(target)
}

/// Returns the error for a request that requires rights that the caller doesn't hold.
pub fn exceeds_own() -> Error {
    let detail = "This requires rights that you don't hold. Ask an administrator.";
    Error::new(Kind::Denied, "access.exceeds_own", detail)
}
