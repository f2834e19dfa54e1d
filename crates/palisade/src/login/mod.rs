//! Signing in: a small closed state machine that ends in a session or a refusal.
//!
//! Promises:
//! - One refusal for an unknown address, a wrong password and a disabled account: same status, same
//!   body, same work.
//! - What was true when the password was compared is still true when the session is written.
//! - Every refusal is an event.
//!
//! Tables: none.

mod http;

use palisade_crypto::secret::SecretString;

use crate::app::{Actor, App};
use crate::audit::Event;
use crate::error::{Error, Kind, Result};
use crate::http::limit;
use crate::id::UserId;
use crate::module::Module;
use crate::passwords::{self, Hashed, Stored, Turn, Verdict};
use crate::sessions::{self, Issued, NewSession, Transport};
use crate::settings::TokenFormat;
use crate::users::{self, Email};

/// Somebody signed in.
pub const SIGNED_IN: Event = Event { name: "login.signed_in", says: "A user signed in" };
/// Somebody tried to sign in and was refused.
pub const DENIED: Event = Event { name: "login.denied", says: "A sign-in was refused" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "login",
    routes: http::routes,
    limits: &[&http::PER_ADDRESS, &http::PER_ACCOUNT],
    events: &[SIGNED_IN, DENIED],
    ..Module::EMPTY
};

/// An attempt to sign in with a password.
pub struct Attempt {
    /// The address, as it was given.
    pub email: String,
    /// The password, as it was given.
    pub password: SecretString,
    /// What the client calls itself.
    pub device_name: Option<String>,
    /// The form of access tokens.
    pub format: TokenFormat,
    /// How the session's credentials travel.
    pub transport: Transport,
}

/// Signs in with a password.
///
/// # Errors
/// `login.denied`; too many attempts on this account; 503 when too many wait.
pub async fn sign_in(app: &App, actor: &Actor, attempt: Attempt) -> Result<Issued> {
    let email = Email::parse(&attempt.email).ok();
    let key = email.as_ref().map_or(attempt.email.as_str(), Email::key);
    limit(app, &http::PER_ACCOUNT, app.limiter.account(key))?;
    let turn = Turn::of(actor.address);
    // SECURITY: in a flood most are refused, and must cost no look-up
    // (test: a_sign_in_without_a_turn_reads_nothing).
    passwords::room(app, turn)?;
    let user = match &email {
        Some(email) => users::find_by_email(app, email).await?,
        None => None,
    };
    let stored = match &user {
        Some(user) => passwords::stored(app, user.id).await?,
        None => None,
    };
    let verdict = passwords::verify(app, turn, stored.as_ref(), &attempt.password).await?;
    let about = user.as_ref().map(|user| user.id);
    match (about, stored, verdict) {
        (Some(user), Some(stored), Verdict::Right(upgrade)) => {
            let proof = Proof { user, stored, upgrade };
            start(app, actor, attempt, proof).await
        }
        (None, ..) => Err(deny(app, actor, &attempt, None, "unknown_address").await),
        (Some(user), ..) => Err(deny(app, actor, &attempt, Some(user), "wrong_password").await),
    }
}

/// A password that was right a moment ago.
struct Proof {
    user: UserId,
    stored: Stored,
    upgrade: Option<Hashed>,
}

async fn start(app: &App, actor: &Actor, attempt: Attempt, proof: Proof) -> Result<Issued> {
    let user = proof.user;
    let mut change = app.change(actor).await?;
    // SECURITY: between the comparison and here the password may have been changed or the user
    // disabled (test: a_sign_in_that_races_with_a_change_is_refused).
    let still = users::signed_in(&mut change, user).await?
        && passwords::unchanged(&mut change, &proof.stored).await?;
    if !still {
        drop(change);
        return Err(deny(app, actor, &attempt, Some(user), "disabled_or_changed").await);
    }
    if let Some(hashed) = &proof.upgrade {
        passwords::upgrade(&mut change, user, hashed.seal(app, user)).await?;
    }
    let new = NewSession {
        user,
        transport: attempt.transport,
        format: attempt.format,
        device_name: attempt.device_name,
        user_agent: actor.user_agent.clone(),
        address: actor.address,
        amr: "pwd",
    };
    let issued = sessions::start(&mut change, new).await?;
    let session = issued.session.id.to_string();
    change.commit(SIGNED_IN.about(user).detail("session", session).detail("method", "pwd")).await?;
    Ok(issued)
}

/// Writes the event of a refusal; the answer is the same whatever the reason.
async fn deny(
    app: &App,
    actor: &Actor,
    attempt: &Attempt,
    about: Option<UserId>,
    reason: &'static str,
) -> Error {
    let entry = match about {
        Some(user) => DENIED.about(user),
        None => DENIED.entry(),
    };
    let given: String = attempt.email.chars().take(254).collect();
    let entry = entry.detail("reason", reason).detail("method", "pwd").personal("email", given);
    let written = match app.change(actor).await {
        Ok(change) => change.commit(entry).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => Error::new(
            Kind::NotSignedIn,
            "login.denied",
            "The address or the password is wrong, or this account can't sign in.",
        )
        .header(
            axum::http::header::WWW_AUTHENTICATE,
            axum::http::HeaderValue::from_static("Bearer"),
        ),
        Err(error) => error,
    }
}
