//! Who may act on whom, and hand on what.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ADMIN, User, current, find};
use crate::access::{Caller, bad_token};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::id::UserId;

/// How far somebody's word goes: to what they hold themselves, and no further.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Whoever holds the machine itself: everything.
    Operator,
    /// A signed-in user.
    User {
        /// Who.
        id: UserId,
        /// Whether they hold the role [`ADMIN`]: whatever may ever be done.
        admin: bool,
        /// Roles that they hold.
        roles: Vec<String>,
        /// What they may do.
        permissions: Arc<BTreeSet<String>>,
    },
}

impl Authority {
    /// The authority of whoever calls.
    ///
    /// # Errors
    /// Nobody is signed in; or the database fails.
    pub async fn of(app: &App, caller: &Caller) -> Result<Authority> {
        let me = caller.signed_in()?;
        let user = current(app, me.user).await?.ok_or_else(bad_token)?;
        // What the credential may do, which can be less than the user may.
        let permissions = Arc::clone(&me.permissions);
        let admin = user.is_admin() && user.permissions.is_subset(&permissions);
        Ok(Authority::User { id: me.user, admin, roles: user.roles.clone(), permissions })
    }

    /// Refuses to give a role that opens single resources, to whoever neither holds it nor looks after all
    /// resources (`manages`: the permission that says so).
    ///
    /// # Errors
    /// `access.exceeds_own`.
    pub fn gives_resources_of(&self, role: &str, manages: &str) -> Result<()> {
        let Authority::User { admin, roles, permissions: own, .. } = self else { return Ok(()) };
        // SECURITY: (test: nobody_hands_on_what_they_do_not_hold)
        let held = roles.iter().any(|held| held == role) || own.contains(manages);
        if *admin || held { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses to hand on what isn't held.
    ///
    /// # Errors
    /// `access.exceeds_own`.
    pub fn hands_on<'a>(
        &self,
        role: &str,
        permissions: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let Authority::User { admin, permissions: own, .. } = self else { return Ok(()) };
        // SECURITY: whoever holds every permission of today doesn't hold those of tomorrow
        // (test: nobody_hands_on_what_they_do_not_hold).
        let held = role != ADMIN && permissions.into_iter().all(|name| own.contains(name));
        if *admin || held { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses to act on a user who may do more.
    ///
    /// # Errors
    /// `access.exceeds_own`.
    pub fn reaches(&self, target: &User) -> Result<()> {
        let Authority::User { id, admin, permissions, .. } = self else { return Ok(()) };
        let above = target.is_admin() || !target.permissions.is_subset(permissions);
        if *admin || *id == target.id || !above { Ok(()) } else { Err(exceeds_own()) }
    }
}

/// The user that a caller acts on, if they may.
///
/// # Errors
/// Not found; `access.exceeds_own`; or the database fails.
pub async fn within_reach(app: &App, caller: &Caller, target: UserId) -> Result<User> {
    let target = find(app, target).await?.ok_or_else(Error::not_found)?;
    // SECURITY: (test: nobody_acts_on_somebody_who_may_do_more)
    Authority::of(app, caller).await?.reaches(&target)?;
    Ok(target)
}

/// What is asked for takes rights that the caller doesn't hold.
pub fn exceeds_own() -> Error {
    let says = "This takes rights that you don't hold yourself; ask an administrator.";
    Error::new(Kind::Denied, "access.exceeds_own", says)
}
