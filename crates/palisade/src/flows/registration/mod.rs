//! Creates accounts: with the setup link for the first administrator, by registration, and on the operator's command
//! line. Invitations have [their own module](crate::invitations).
//!
//! # Promises
//!
//! - There is no default account. The first administrator is created by the operator, or with a setup link. The link is
//!   shown only to the operator, works once, expires after 30 minutes, and works only while no administrator exists.
//! - Registration gives the same response, after the same work, whether or not the email address already has an
//!   account.
//! - If email verification is required, no account is created until the email address is verified by someone who knows
//!   the password chosen at registration. A stranger who registers another person's email address gains nothing.
//! - The link that verifies an email address stops working when its account gets a different email address or is
//!   deleted.
//!
//! Tables: `setup_links`, `registrations`.

mod http;
mod verification;

use std::time::Duration;

use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, args};

use crate::app::{Actor, Answers, App, Change, Hold};
use crate::credentials::{self, Ending};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::module::{Job, Module};
use crate::passwords::{self, QueueSlot};
use crate::record::Event;
use crate::settings::EmailVerification;
use crate::users::{self, ADMIN, Email, NewUser};

pub use verification::{resend, verify};

/// An account was registered.
pub const REGISTERED: Event =
    Event { name: "registration.registered", summary: "An account was registered" };
/// A registration was refused because the email address already has an account.
pub const REFUSED: Event = Event {
    name: "registration.refused",
    summary: "A registration was refused because the email address has an account",
};
/// The first administrator was created.
pub const SET_UP: Event =
    Event { name: "registration.set_up", summary: "The first administrator was created" };
/// A setup link was created.
pub const LINK_MADE: Event =
    Event { name: "registration.link_made", summary: "A setup link was created" };

/// An account was requested, and its email address isn't confirmed yet.
pub const REQUESTED: Event = Event {
    name: "registration.requested",
    summary: "A registration is waiting for its email address to be confirmed",
};
/// An email address was verified.
pub const VERIFIED: Event = Event {
    name: "registration.verified",
    summary: "The email address of an account was confirmed",
};
/// The confirmation email was requested again.
pub const RESENT: Event =
    Event { name: "registration.resent", summary: "The confirmation email was requested again" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "registration",
    routes: http::routes,
    limits: &[&http::REGISTER, &http::SETUP, &http::VERIFY, &http::RESEND, &http::RESEND_ACCOUNT],
    events: &[REGISTERED, REFUSED, SET_UP, LINK_MADE, REQUESTED, VERIFIED, RESENT],
    email_templates: &[&verification::EMAIL],
    jobs: &[Job {
        name: "registration.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(verification::prune(app)),
    }],
    migrations: &[Migration {
        module: "registration",
        number: 1,
        name: "registration",
        sql: Sql::Both(include_str!("../../../migrations/registration/0001_registration.sql")),
    }],
    endings: &[LINKS],
    answers: Answers {
        link_recipient: Some(|app, token| Box::pin(verification::recipient(app, token))),
        ..Answers::NONE
    },
    tables: &["setup_links", "registrations"],
    ..Module::EMPTY
};

const SETUP_PREFIX: &str = "pal_su_";
const SETUP_LIVES: Duration = Duration::from_secs(30 * 60);

/// A requested account.
pub struct Wanted {
    /// The email address.
    pub email: Email,
    /// The password, as entered.
    pub password: SecretString,
    /// The name.
    pub name: Option<String>,
}

impl Wanted {
    async fn hash(&self, app: &App, slot: QueueSlot) -> Result<passwords::Hashed> {
        let context = [self.email.as_str(), self.name.as_deref().unwrap_or("")];
        passwords::hash(app, slot, "/password", &self.password, &context).await
    }
}

/// Registers a person. Doesn't reveal whether the email address already has an account.
///
/// # Errors
/// Fails with `registration.closed`; a broken password rule; 503 if the hashing queue is full; or if the database
/// fails.
pub async fn register(app: &App, actor: &Actor, wanted: Wanted) -> Result<()> {
    if app.settings.registration.mode != crate::settings::RegistrationMode::Open {
        return Err(Error::new(
            Kind::Denied,
            "registration.closed",
            "Registration is closed. Ask an administrator for an account.",
        ));
    }
    let hashed = wanted.hash(app, QueueSlot::of(actor.ip)).await?;
    let mut change = app.change(actor).await?;
    if app.settings.registration.email_verification == EmailVerification::Required {
        let user = UserId(app.new_id());
        verification::ask(&mut change, user, &wanted, &hashed).await?;
        return change.commit(REQUESTED.entry()).await;
    }
    let optional = app.settings.registration.email_verification == EmailVerification::Optional;
    let made = create(&mut change, &wanted, &hashed, Vec::new()).await?;
    if optional {
        let user = made.unwrap_or_else(|| UserId(app.new_id()));
        users::await_proof(&mut change, user).await?;
        verification::ask(&mut change, user, &wanted, &hashed).await?;
    }
    match made {
        Some(user) => change.commit(REGISTERED.about(user)).await,
        None => {
            let entry = REFUSED.entry().detail("reason", "email_taken");
            change.commit(entry).await
        }
    }
}

/// Creates the first administrator with a setup token.
///
/// # Errors
/// Fails with `setup.done` once an administrator exists; `setup.bad_token`; `users.email_taken`; a broken password
/// rule; 503 if the hashing queue is full; or if the database fails.
pub async fn set_up(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    wanted: Wanted,
) -> Result<UserId> {
    if users::has_admin(app).await? {
        return Err(done());
    }
    let digest = opaque::digest(SETUP_PREFIX, token.expose()).ok_or_else(bad_token)?;
    usable(app, digest).await?;
    let hashed = wanted.hash(app, QueueSlot::of(actor.ip)).await?;
    // SECURITY: waits for every other change that is creating an administrator (test: set_up_waits_for_another_set_up).
    let mut change = app.change_holding(actor, &[Hold::Administrators]).await?;
    let now = change.now();
    // SECURITY: a setup link works at most once, even if two requests use it at the same time (test:
    // a_setup_link_makes_one_administrator).
    let used = change
        .run(
            "update setup_links set used_at = $2
             where digest = $1 and used_at is null and expires_at > $2",
            args![digest, now],
        )
        .await?;
    if used != 1 {
        return Err(bad_token());
    }
    if users::has_admin_now(&mut change).await? {
        return Err(done());
    }
    let user = create(&mut change, &wanted, &hashed, vec![ADMIN.to_owned()])
        .await?
        .ok_or_else(users::email_taken)?;
    change.commit(SET_UP.about(user)).await?;
    Ok(user)
}

/// Checks that a setup token can be used. Called first, so that no password is hashed for an unusable token.
async fn usable(app: &App, digest: [u8; 32]) -> Result<()> {
    let row: Option<(i64,)> = app
        .db
        .maybe(
            "select 1 from setup_links where digest = $1 and used_at is null and expires_at > $2",
            args![digest, app.clock.now()],
        )
        .await?;
    row.map(drop).ok_or_else(bad_token)
}

/// Returns whether the server still needs setup, which is the case until an administrator exists.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn needs_setup(app: &App) -> Result<bool> {
    Ok(!users::has_admin(app).await?)
}

/// Creates a setup link. All earlier setup links stop working.
///
/// # Errors
/// Fails with `setup.done` once an administrator exists, or if the database fails.
pub async fn setup_link(app: &App, actor: &Actor) -> Result<SecretString> {
    let token = opaque::generate(SETUP_PREFIX, &*app.random);
    let digest = opaque::digest(SETUP_PREFIX, token.expose());
    // SECURITY: waits for every other change that is creating a link, so that only the newest link works (test:
    // set_up_waits_for_another_set_up).
    let mut change = app.change_holding(actor, &[Hold::Administrators]).await?;
    if users::has_admin_now(&mut change).await? {
        return Err(done());
    }
    let now = change.now();
    change.run("delete from setup_links", args![]).await?;
    change
        .run(
            "insert into setup_links (digest, expires_at) values ($1, $2)",
            args![digest, now.plus(SETUP_LIVES)],
        )
        .await?;
    change.commit(LINK_MADE.entry()).await?;
    let link = format!("{}/setup#token={}", app.settings.server.public_url, token.expose());
    Ok(link.into())
}

/// Creates a user on behalf of the operator.
///
/// # Errors
/// Fails with `users.email_taken`; a broken password rule; 503 if the hashing queue is full; or if the database fails.
pub async fn create_user(
    app: &App,
    actor: &Actor,
    wanted: Wanted,
    roles: Vec<String>,
) -> Result<UserId> {
    let hashed = wanted.hash(app, QueueSlot::of(None)).await?;
    let mut change = app.change(actor).await?;
    let user =
        create(&mut change, &wanted, &hashed, roles).await?.ok_or_else(users::email_taken)?;
    change.commit(users::CREATED.about(user)).await?;
    Ok(user)
}

async fn create(
    change: &mut Change,
    wanted: &Wanted,
    hashed: &passwords::Hashed,
    roles: Vec<String>,
) -> Result<Option<UserId>> {
    let new = NewUser {
        id: None,
        verified: false,
        email: wanted.email.clone(),
        name: wanted.name.clone(),
        roles,
        service: false,
    };
    let Some(user) = users::create(change, &new).await? else { return Ok(None) };
    let sealed = hashed.seal(&change.app().clone(), user);
    passwords::store(change, user, sealed).await?;
    Ok(Some(user))
}

/// How an act on an account ends registrations: the registration that created the account is deleted, even if the
/// account's email address has changed since, and so are all registrations for the email address that the account has
/// after the act.
const LINKS: Ending = Ending {
    kind: credentials::Kind::VerificationLinks,
    owners: None,
    end: |change, end, _| {
        Box::pin(async move {
            // SECURITY: a registration left behind could create a deleted account again, with the same id (test:
            // a_verification_link_ends_with_its_email_and_its_account).
            let sql = "delete from registrations where user_id = $1
                or email_key = (select email_key from users where id = $1)";
            change.run(sql, args![end.user]).await?;
            Ok(0)
        })
    },
};

fn done() -> Error {
    Error::new(
        Kind::Gone,
        "setup.done",
        "This server already has an administrator. Setup is complete.",
    )
}

fn bad_token() -> Error {
    Error::bad_field(
        "/token",
        "setup.bad_token",
        "This setup link was used, has expired or was replaced. Print a new one with `palisade \
         setup-link`.",
    )
}
