//! Signing in: a small closed state machine that ends in a session, a challenge or a refusal.
//!
//! ```text
//! password ──wrong──> refused
//!     └──right──> no second factor ──────────────────────────> session
//!           └───> a second factor ──> challenge ──wrong──> refused (five attempts)
//!                                         └──right──> session
//! passkey that verified its user ────────────────────────────> session
//! ```
//!
//! # Promises
//!
//! - A user with a second factor gets no session without it, on any path; [`Next`] has no third case.
//! - The refusal is the same for an unknown email address, a wrong password, a locked account and a disabled account:
//!   same status, same body, same work.
//! - A session starts only if the password that was compared is still current, and the user may still sign in, when the
//!   session is stored.
//! - Every refusal of a checked password or factor is recorded as an event, and the owner is notified of a sign-in from
//!   a new device.
//! - A new proof of identity gives the session new credentials. Its earlier ones are no longer valid.

mod cookies;
mod device_name;
mod entering;
mod http;
mod passkey;
mod passkey_http;
mod reauthentication;
mod second_factor;

use palisade_crypto::mac;
use palisade_crypto::secret::SecretString;

use crate::access::AuthLevel;
use crate::app::{Actor, App, Hold};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::lockout::{self, Account, Admission, Client, Device, Guess};
use crate::mail::{self, EmailTemplate};
use crate::metrics::{Label, Metric};
use crate::mfa;
use crate::module::Module;
use crate::passwords::{self, Hashed, QueueSlot, Stored, Verdict};
use crate::record::{Entry, Event};
use crate::sessions::{Issued, Proof, Transport};
use crate::settings::TokenFormat;
use crate::users::{self, Email};

use entering::{Entering, enter};
pub use http::PER_IP;
pub use second_factor::Challenged;

/// A user signed in.
pub const SIGNED_IN: Event = Event { name: "login.signed_in", summary: "A user signed in" };
/// A sign-in was refused.
pub const DENIED: Event = Event { name: "login.denied", summary: "A sign-in was refused" };

/// A password was correct, and a second factor was requested.
pub const CHALLENGED: Event = Event {
    name: "login.challenged",
    summary: "A password was correct, and a second factor was requested",
};
/// A signed-in user confirmed their identity again.
pub const REAUTHENTICATED: Event =
    Event { name: "login.reauthenticated", summary: "A user confirmed their identity again" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "login",
    routes: http::routes,
    limits: &[&PER_IP, &http::BEGIN_PER_IP, &http::REAUTHENTICATE],
    events: &[SIGNED_IN, DENIED, CHALLENGED, REAUTHENTICATED],
    email_templates: &[&EMAIL],
    metrics: &[&SIGN_INS],
    ..Module::EMPTY
};

/// Sign-ins whose password or factor was checked.
pub static SIGN_INS: Metric = Metric::counter(
    "palisade_sign_ins",
    &[
        Label::one_of("method", &["pwd", "totp", "recovery_code", "passkey"]),
        Label::one_of("outcome", &["success", "failure", "challenged"]),
    ],
    "Sign-ins by the last method that was checked: `success` starts a session, `challenged` is a correct password that \
     needs a second factor.",
);

static EMAIL: EmailTemplate = EmailTemplate {
    name: "login_new_device",
    text: include_str!("emails/new_device.txt"),
    html: include_str!("emails/new_device.html"),
    prepare: mail::as_written,
};

/// The properties of a session that is about to start.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name that the client gives itself.
    pub device_name: Option<String>,
    /// The format of the access tokens.
    pub format: TokenFormat,
    /// How the session's credentials are transmitted.
    pub transport: Transport,
}

/// An attempt to sign in with a password.
pub struct Attempt {
    /// The email address, as it was given.
    pub email: String,
    /// The password, as entered.
    pub password: SecretString,
    /// The token of a device that has signed in before.
    pub device_token: Option<SecretString>,
    /// The requested session.
    pub wanted: Wanted,
    /// The cookie that a browser's challenge is bound to, if it has one.
    pub challenge_cookie: Option<SecretString>,
    /// Whether the client is a browser.
    pub browser: bool,
}

/// The step after a correct password.
pub enum Next {
    /// A second factor is required.
    Prove(Challenged),
    /// The user is signed in.
    In(SignedIn),
}

/// A session, and the token that the device presents at the next sign-in.
pub struct SignedIn {
    /// The session's first credentials.
    pub issued: Issued,
    /// The device, known from now on.
    pub device: Device,
}

/// Signs in with a password.
///
/// # Errors
/// Fails with `login.denied`; 503 if the hashing queue is full; or if the database fails.
pub async fn sign_in(app: &App, actor: &Actor, attempt: Attempt) -> Result<Next> {
    let email = Email::parse(&attempt.email).ok();
    let device = attempt.device_token.as_ref().and_then(|token| Device::open(app, token.expose()));
    let slot = QueueSlot::of(actor.ip);
    let slot = if device.is_some() { slot.known() } else { slot };
    // SECURITY: in a flood, most sign-ins are refused here, and these must cost no lookup (test:
    // a_sign_in_without_a_turn_reads_nothing).
    passwords::check_capacity(app, slot)?;
    let found = match &email {
        Some(email) => passwords::of_email(app, email).await?,
        None => None,
    };
    let (user, stored) = match found {
        Some(found) => (Some(found.user), found.stored),
        None => (None, None),
    };
    // SECURITY: a device is known to the account that it signed in to, and to no other
    // (test: a_device_of_another_account_is_a_stranger).
    let device = device.filter(|device| Some(device.user) == user);
    let slot = if device.is_some() { slot } else { QueueSlot::of(actor.ip) };
    let key = email.as_ref().map_or(attempt.email.as_str(), Email::key);
    let account = Account::of(app, user, key);
    let client = Client::of_device(device, stored.as_ref().map(|stored| stored.generation));
    let admission = lockout::admit(app, actor, account, client).await?;
    // A refused guess costs the same work, although nothing is compared.
    let compared = stored.filter(|_| matches!(admission, Admission::Counted(_)));
    let verdict = passwords::verify(app, slot, compared.as_ref(), &attempt.password).await?;
    let reason = match (admission, user, compared, verdict) {
        (Admission::Counted(guess), Some(user), Some(stored), Verdict::Right(upgrade)) => {
            let is_new_device = !matches!(client, Client::Known(_));
            let password = stored.generation;
            let device = device.map(|known| Device { password, ..known });
            let device = device.unwrap_or_else(|| Device::new(app, user, password));
            let right = Right { guess, device, is_new_device, stored, upgrade };
            return go_on(app, actor, attempt, right).await;
        }
        (admission @ Admission::Refused(_), ..) => {
            Reason { about: user, cause: "locked", admission }
        }
        (admission, None, ..) => Reason { about: None, cause: "unknown_email", admission },
        (admission, ..) => Reason { about: user, cause: "wrong_password", admission },
    };
    Err(deny(app, actor, email.as_ref(), reason).await)
}

/// A password that was just verified as correct.
struct Right {
    guess: Guess,
    device: Device,
    is_new_device: bool,
    stored: Stored,
    upgrade: Option<Hashed>,
}

/// Returns the holds of a change that starts or renews a session.
fn holds(app: &App, account: Hold) -> Vec<Hold> {
    [account].into_iter().chain(users::hold_for_claims(app)).collect()
}

/// Makes the only decision about factors: starts a session, or creates a challenge.
async fn go_on(app: &App, actor: &Actor, attempt: Attempt, right: Right) -> Result<Next> {
    let user = right.device.user;
    let mut change = app.change_holding(actor, &holds(app, Hold::Shared(user))).await?;
    // SECURITY: between the comparison and here the password may have been changed or the user
    // disabled (test: a_sign_in_that_races_with_a_change_is_refused).
    let first = users::may_sign_in(&mut change, user).await?;
    let same = passwords::unchanged(&mut change, &right.stored).await?;
    let (Some(first), true) = (first, same) else {
        drop(change);
        let cause = "disabled_or_changed";
        let admission = Admission::Counted(right.guess);
        let reason = Reason { about: Some(user), cause, admission };
        let email = Email::parse(&attempt.email).ok();
        return Err(deny(app, actor, email.as_ref(), reason).await);
    };
    right.guess.right(&mut change).await?;
    if let Some(hashed) = &right.upgrade {
        passwords::upgrade(&mut change, user, hashed.seal(app, user)).await?;
    }
    // SECURITY: read while the user is held: a factor that is set up at this moment is seen, or ends the session
    // (test: a_sign_in_beside_the_first_factor_does_not_slip_through).
    let factors = mfa::factors(&mut change, user).await?;
    let (device, is_new_device) = (right.device, right.is_new_device);
    if factors.any() {
        let challenged =
            second_factor::challenge(&mut change, attempt, factors, (device, is_new_device));
        let challenged = challenged.await?;
        change.commit(CHALLENGED.about(user)).await?;
        app.metrics.count(&SIGN_INS, &["pwd", "challenged"]);
        return Ok(Next::Prove(challenged));
    }
    let proof = Proof { amr: "pwd", level: AuthLevel::Password };
    let entering =
        Entering { device, is_new_device, first, wanted: attempt.wanted, proof, method: "pwd" };
    enter(change, entering).await.map(Next::In)
}

/// The reason why a sign-in is refused, for the audit log only.
struct Reason {
    about: Option<UserId>,
    cause: &'static str,
    admission: Admission,
}

/// Refuses a sign-in. The response is the same for every reason.
async fn deny(app: &App, actor: &Actor, email: Option<&Email>, reason: Reason) -> Error {
    match write(app, actor, email, reason).await {
        Ok(()) => Error::new(
            Kind::NotSignedIn,
            "login.denied",
            "The email address or the password is wrong, or this account can't sign in.",
        )
        .header(
            axum::http::header::WWW_AUTHENTICATE,
            axum::http::HeaderValue::from_static("Bearer"),
        ),
        Err(error) => error,
    }
}

/// Returns a digest that is the same only for the same email address, so that guesses at many email addresses can be
/// told apart from one mistyped email address. Testing a guess against the digest requires the root key.
fn digest(app: &App, email: &Email) -> String {
    let secret = app.root.derive_bytes("addresses without an account");
    let digest = mac::keyed_digest(&secret, email.key().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Creates the event of a refusal.
fn entry(app: &App, about: Option<UserId>, cause: &str, email: Option<&Email>) -> Entry {
    let entry = match about {
        Some(user) => DENIED.about(user),
        None => DENIED.entry(),
    };
    let entry = entry.detail("reason", cause).detail("method", "pwd");
    // SECURITY: people sometimes type a password into the email field. An email address is kept only if an account has
    // it. Of any other email address, only a digest is kept, and of other text nothing (test:
    // what_is_typed_in_place_of_an_email_is_kept_nowhere).
    match (about, email) {
        (Some(_), Some(email)) => entry.personal("email", email.as_str()),
        (None, Some(email)) => entry.detail("email_digest", digest(app, email)),
        (_, None) => entry,
    }
}

async fn write(app: &App, actor: &Actor, email: Option<&Email>, reason: Reason) -> Result<()> {
    // SECURITY: if there is no account, a nonexistent one is held, so that the refusal takes the same time (test:
    // test_time_tells_nobody_who_has_an_account).
    let held = reason.about.unwrap_or(UserId(uuid::Uuid::nil()));
    let mut change = app.change_holding(actor, &[Hold::Shared(held)]).await?;
    let there = match reason.admission {
        Admission::Counted(guess) => guess.wrong(&mut change).await?,
        Admission::Refused(refused) => refused.as_if_wrong(&mut change).await?,
    };
    // SECURITY: the log must not mention a user who was erased in the meantime (test:
    // a_refusal_beside_a_deletion_is_about_nobody).
    let about = reason.about.filter(|user| there == Some(*user));
    let cause = if about == reason.about { reason.cause } else { "unknown_email" };
    change.commit(entry(app, about, cause, email)).await?;
    app.metrics.count(&SIGN_INS, &["pwd", "failure"]);
    Ok(())
}
