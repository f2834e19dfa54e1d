//! Starts the session at the end of every kind of sign-in.

use super::{EMAIL, SIGN_INS, SIGNED_IN, SignedIn, Wanted};
use crate::app::Change;
use crate::error::Result;
use crate::id::UserId;
use crate::lockout::Device;
use crate::mail::{self, Content, for_people};
use crate::sessions::{self, NewSession, Proof};
use crate::users::{self, FirstTime};

/// A user who has presented everything that the sign-in requires.
pub(super) struct Entering {
    pub(super) device: Device,
    pub(super) is_new_device: bool,
    pub(super) first: FirstTime,
    pub(super) wanted: Wanted,
    pub(super) proof: Proof,
    /// The name of the method in the audit log.
    pub(super) method: &'static str,
}

/// Starts the session of a user who may sign in, and commits the change. The change must hold the user's account.
pub(super) async fn enter(mut change: Change, entering: Entering) -> Result<SignedIn> {
    let user = entering.device.user;
    if entering.is_new_device && entering.first == FirstTime(false) {
        notify_owner(&mut change, user).await?;
    }
    users::signed_in(&mut change, user).await?;
    let (user_agent, ip) = (change.actor().user_agent.clone(), change.actor().ip);
    let new = NewSession {
        user,
        transport: entering.wanted.transport,
        format: entering.wanted.format,
        device_name: entering.wanted.device_name,
        device: entering.device.id,
        user_agent,
        ip,
        proof: entering.proof,
    };
    let issued = sessions::start(&mut change, new).await?;
    let session = issued.session.id.to_string();
    let entry = SIGNED_IN.about(user).detail("session", session);
    let app = change.app().clone();
    change.commit(entry.detail("method", entering.method)).await?;
    app.metrics.count(&SIGN_INS, &[entering.method, "success"]);
    Ok(SignedIn { issued, device: entering.device })
}

/// Notifies the owner of a sign-in from a new device. The same software at the same IP address as in an earlier session
/// isn't a new device, so that a script that stores no device token isn't reported every time.
async fn notify_owner(change: &mut Change, user: UserId) -> Result<()> {
    let actor = change.actor().clone();
    let ip = actor.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let agent = actor.user_agent.unwrap_or_default();
    if sessions::seen(change, user, &ip, &agent).await? {
        return Ok(());
    }
    let at = for_people(change.now());
    let content = Content::to_user(user).with("at", at).with("ip", ip);
    mail::enqueue(change, &EMAIL, content.with("user_agent", agent)).await
}
