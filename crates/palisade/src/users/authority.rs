//! Who may act on whom, and hand on what.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_db::args;

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

    /// Refuses to give or delete a role that opens single resources, unless the caller holds the role or manages
    /// every resource.
    ///
    /// # Errors
    /// `access.exceeds_own`.
    pub fn gives_resources_of(&self, role: &str) -> Result<()> {
        let Authority::User { admin, roles, permissions: own, .. } = self else { return Ok(()) };
        // SECURITY: (test: nobody_hands_on_what_they_do_not_hold)
        let held = roles.iter().any(|held| held == role) || own.contains(MANAGES_RESOURCES);
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

    /// Refuses to act on every user at once, unless nothing is above the caller.
    ///
    /// # Errors
    /// `access.exceeds_own`.
    pub fn reaches_everyone(&self) -> Result<()> {
        match self {
            Authority::Operator | Authority::User { admin: true, .. } => Ok(()),
            Authority::User { .. } => Err(exceeds_own()),
        }
    }

    /// Refuses to act on a user who holds a permission that the caller doesn't hold.
    ///
    /// # Errors
    /// `access.exceeds_own`.
    fn covers_permissions(&self, target: &User) -> Result<()> {
        let Authority::User { id, admin, permissions, .. } = self else { return Ok(()) };
        let above = target.is_admin() || !target.permissions.is_subset(permissions);
        if *admin || *id == target.id || !above { Ok(()) } else { Err(exceeds_own()) }
    }

    /// Refuses to act on a user for whom a single resource is open that isn't open for the caller.
    ///
    /// # Errors
    /// `access.exceeds_own`; or the database fails.
    async fn covers_resources(&self, app: &App, target: &User) -> Result<()> {
        let Authority::User { id, admin, permissions, .. } = self else { return Ok(()) };
        if *admin || *id == target.id || permissions.contains(MANAGES_RESOURCES) {
            return Ok(());
        }
        let more: Option<(i64,)> =
            app.db.maybe(OPENS_MORE, args![target.id, *id, app.clock.now()]).await?;
        if more.is_none() { Ok(()) } else { Err(exceeds_own()) }
    }
}

/// The permission of the slice `grants` that stands for every grant on every resource.
const MANAGES_RESOURCES: &str = "resources:write";

/// Whether something is granted to user `$1` and not to user `$2`: to a role that only the first one holds, or to
/// the first one in person and to the second one in no way that lasts as long. A role counts as a whole, as when
/// it is given: its next grant reaches all who hold it.
const OPENS_MORE: &str = "select cast(1 as bigint) from (
        select g.id from grants g join user_roles r on r.role = g.role
        where r.user_id = $1 and (g.expires_at is null or g.expires_at > $3)
            and r.role not in (select role from user_roles where user_id = $2)
        union all
        select g.id from grants g
        where g.user_id = $1 and (g.expires_at is null or g.expires_at > $3)
            and not exists (select 1 from grants o
                where o.resource_type = g.resource_type and o.resource_id = g.resource_id
                    and o.action = g.action and (o.expires_at is null or o.expires_at >= g.expires_at)
                    and (o.subject = 'anyone' or o.user_id = $2
                        or o.role in (select role from user_roles where user_id = $2)))
     ) opened limit 1";

/// The user that a caller acts on, if the caller holds everything that the user holds: each permission, and each
/// grant on a single resource. For every act but those of [`stoppable`].
///
/// # Errors
/// Not found; `access.exceeds_own`; or the database fails.
pub async fn within_reach(app: &App, caller: &Caller, target: UserId) -> Result<User> {
    let target = find(app, target).await?.ok_or_else(Error::not_found)?;
    let authority = Authority::of(app, caller).await?;
    // SECURITY: (test: nobody_acts_on_somebody_who_may_do_more)
    authority.covers_permissions(&target)?;
    // SECURITY: (test: every_act_on_another_user_asks_for_what_they_hold)
    authority.covers_resources(app, &target).await?;
    Ok(target)
}

/// The user whose sessions, keys or sign-ins a caller stops, if the caller holds each of the user's permissions.
/// Grants aren't asked for: who stops a stolen account opens nothing with it.
///
/// # Errors
/// Not found; `access.exceeds_own`; or the database fails.
pub async fn stoppable(app: &App, caller: &Caller, target: UserId) -> Result<User> {
    let target = find(app, target).await?.ok_or_else(Error::not_found)?;
    // SECURITY: else the least of them could shut out those who would notice
    // (test: every_act_on_another_user_asks_for_what_they_hold).
    Authority::of(app, caller).await?.covers_permissions(&target)?;
    Ok(target)
}

/// What is asked for takes rights that the caller doesn't hold.
pub fn exceeds_own() -> Error {
    let says = "This takes rights that you don't hold yourself; ask an administrator.";
    Error::new(Kind::Denied, "access.exceeds_own", says)
}
