//! Ending the sessions of every user.

use std::collections::BTreeSet;

use super::ending::revoke_within;
use super::{Ended, revoke_all};
use crate::access::Caller;
use crate::app::{Actor, App, Hold};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::record::Event;
use crate::users::{self, Authority};

/// All sessions of every user were ended by an administrator or the operator.
pub const ALL_REVOKED: Event =
    Event { name: "sessions.all_revoked", summary: "All sessions of every user were ended" };

/// The number of accounts looked up at a time.
const PAGE: i64 = 200;

/// The result of ending the sessions of every user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedAll {
    /// The number of accounts that had credentials to end.
    pub accounts: usize,
    /// The number of ended sessions.
    pub sessions: usize,
}

impl EndedAll {
    fn add(&mut self, ended: Ended) {
        self.accounts += 1;
        self.sessions += ended.0;
    }
}

/// Ends the sessions of every user on behalf of an administrator. The work runs in a separate task, which continues if
/// the client disconnects or the request times out.
///
/// # Errors
/// Fails with `access.exceeds_own` if the caller isn't an administrator, or like [`revoke_everyone`].
pub(super) async fn revoke_for(app: &App, caller: &Caller) -> Result<()> {
    // SECURITY: this also ends the sessions of users who have more rights than a caller who isn't an administrator
    // (test: only_an_administrator_signs_everyone_out).
    let mut change = app.change(&caller.actor).await?;
    Authority::of(&mut change).await?.may_act_on_everyone()?;
    drop(change);
    // SECURITY: each change checks the role again. The role takes the place of a permission: no permission has its name
    // (test: a_role_taken_away_between_two_accounts_spares_the_second). The age of the proof isn't checked again: the
    // proof was fresh when the work began.
    let actor = Actor { permission: Some(users::ADMIN), fresh: false, ..caller.actor.clone() };
    let app = app.clone();
    let work = tokio::spawn(async move {
        let done = revoke_everyone(&app, &actor).await;
        match &done {
            Ok(ended) => tracing::info!(
                accounts = ended.accounts,
                sessions = ended.sessions,
                "the sessions of every user were ended"
            ),
            Err(error) => tracing::warn!(
                code = error.code(),
                "ending the sessions of every user stopped halfway; repeat the request to continue, \
                 after a new sign-in if your session has ended"
            ),
        }
        done
    });
    work.await.map_err(Error::internal)?.map(|_| ())
}

/// Ends all sessions, API keys and challenges of every user, as [`revoke_all`] does for one user. Each account is
/// handled in a separate change, so that no request waits for all of them. After a failure, what has ended stays ended,
/// and the next call continues with the rest.
///
/// The session of `actor` ends last, in the same change as the event that summarizes the operation. Service accounts
/// are handled after people, and again after the caller, because a session that is still active could create keys for
/// them.
///
/// # Errors
/// Returns an error if the session of `actor` has ended, the actor no longer has the role `admin`, or the database
/// fails. If the failure follows the end of the caller's session, only keys that service accounts received in the
/// meantime remain to be revoked.
pub async fn revoke_everyone(app: &App, actor: &Actor) -> Result<EndedAll> {
    let mut all = EndedAll::default();
    for service in [false, true] {
        revoke_each(app, actor, service, &mut all).await?;
    }
    finish(app, actor, &mut all).await?;
    if actor.user.is_some() {
        // SECURITY: (test: a_key_that_the_callers_session_makes_meanwhile_ends)
        let caller = Actor { credential: None, permission: None, ..actor.clone() };
        // Counted already, and without sessions.
        revoke_each(app, &caller, true, &mut EndedAll::default()).await?;
    }
    Ok(all)
}

/// Ends the credentials of people or of service accounts, one account after the other and without the caller's.
async fn revoke_each(app: &App, actor: &Actor, service: bool, all: &mut EndedAll) -> Result<()> {
    let mut after = UserId(uuid::Uuid::nil());
    loop {
        let page = with_credentials(app, after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = *last;
        for user in page.into_iter().filter(|user| Some(*user) != actor.user) {
            let account = users::current(app, user).await?;
            if account.is_none_or(|account| account.service != service) {
                continue;
            }
            let change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
            match revoke_all(change, user).await {
                Ok(ended) => all.add(ended),
                // Deleted meanwhile: everything of the account ended with it.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Ends the caller's credentials, and records the event for the whole operation.
async fn finish(app: &App, actor: &Actor, all: &mut EndedAll) -> Result<()> {
    let holds: Vec<Hold> = actor.user.map(Hold::Alone).into_iter().collect();
    let mut change = app.change_holding(actor, &holds).await?;
    if let Some(caller) = actor.user {
        // SECURITY: (test: everyone_is_signed_out_and_the_caller_last)
        all.add(revoke_within(&mut change, caller).await?);
    }
    let event = ALL_REVOKED.entry().detail("accounts", all.accounts.to_string());
    change.commit(event.detail("sessions", all.sessions.to_string())).await
}

/// Returns the next accounts after `after` that have credentials to end, as found by the `owners` functions of the
/// endings.
async fn with_credentials(app: &App, after: UserId) -> Result<BTreeSet<UserId>> {
    let (mut found, mut known_to) = (BTreeSet::new(), None::<UserId>);
    for find in app.endings.iter().filter_map(|ending| ending.owners) {
        let page = find(app, after, PAGE).await?;
        // SECURITY: after a full page, there may be more accounts with this kind of credential (test:
        // accounts_beyond_a_page_are_signed_out).
        let full = i64::try_from(page.len()).is_ok_and(|rows| rows >= PAGE);
        if let Some(last) = page.last().filter(|_| full) {
            known_to = Some(known_to.map_or(*last, |known_to| known_to.min(*last)));
        }
        found.extend(page);
    }
    found.retain(|user| known_to.is_none_or(|known_to| *user <= known_to));
    Ok(found)
}
