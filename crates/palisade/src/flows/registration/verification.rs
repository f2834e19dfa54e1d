//! Verifies the email address of a registration with an emailed link and the password chosen at registration.

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::args;
use uuid::Uuid;

use super::{REGISTERED, RESENT, VERIFIED, Wanted};
use crate::app::{Actor, App, Change, Hold};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::lockout::{self, Account, Client, Guess};
use crate::mail::{self, Content, EmailTemplate};
use crate::passwords::{self, Hashed, QueueSlot, Sealed, Stored, Verdict};
use crate::users::{self, Email, NewUser};

const PREFIX: &str = "pal_vf_";
const LIVES: Duration = Duration::from_secs(24 * 3600);

pub(super) static EMAIL: EmailTemplate = EmailTemplate {
    name: "registration_verify",
    text: include_str!("emails/verify.txt"),
    html: include_str!("emails/verify.html"),
    prepare,
};

/// The name of the template value that contains the id of the registration.
const REGISTRATION: &str = "registration";

/// Stores a registration until its email address is verified, and queues the email. Writes the same rows for every
/// email address.
pub(super) async fn ask(
    change: &mut Change,
    user: UserId,
    wanted: &Wanted,
    hashed: &Hashed,
) -> Result<()> {
    mail::needed(change.app())?;
    let app = change.app().clone();
    let (id, now) = (app.new_id(), change.now());
    let sealed = hashed.seal(&app, user).into_bytes();
    change
        .run(
            "insert into registrations (id, user_id, email, email_key, name, sealed, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            args![
                id,
                user,
                wanted.email.as_str(),
                wanted.email.key(),
                wanted.name.clone(),
                sealed,
                now,
                now.plus(LIVES),
            ],
        )
        .await?;
    let content = Content::to(wanted.email.as_str()).with(REGISTRATION, id.to_string());
    mail::enqueue(change, &EMAIL, content).await
}

/// Records that the confirmation email was requested again.
///
/// # Errors
/// Fails with `mail.off`, or if the database fails.
pub async fn resend(app: &App, actor: &Actor, email: &Email) -> Result<()> {
    mail::needed(app)?;
    let mut change = app.change(actor).await?;
    mail::enqueue(&mut change, &EMAIL, Content::to(email.as_str())).await?;
    change.commit(RESENT.entry()).await
}

/// Creates a link and returns the email that contains it. If a registration names the email address of an existing
/// account, returns an email that informs the owner of the account instead. Returns `None` if there is nothing to send.
fn prepare(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let Some(email) = content.to.as_deref().and_then(|to| Email::parse(to).ok()) else {
            return Ok(None);
        };
        let asked_again = !content.values.contains_key(REGISTRATION);
        let named = content.values.get(REGISTRATION).and_then(|id| id.parse::<Uuid>().ok());
        let waiting: Option<(Uuid, UserId, String)> = app
            .db
            .maybe(
                "select id, user_id, email from registrations
                 where email_key = $1 and used_at is null and expires_at > $2 and ($3 is null or id = $3)
                 order by created_at desc, id desc limit 1",
                args![email.key(), app.clock.now(), named],
            )
            .await?;
        let owner = users::find_by_email(app, &email).await?;
        let (id, email) = match (waiting, owner) {
            (Some((id, _, email)), None) => (id, email),
            (Some((id, user, email)), Some(owner)) if owner.id == user && !owner.email_verified => {
                (id, email)
            }
            (Some(_), Some(owner)) if !asked_again => {
                let word = Content::to(&owner.email).with("known", "yes").with("link", "");
                return Ok(Some(word));
            }
            _ => return Ok(None),
        };
        let token = opaque::generate(PREFIX, &*app.random);
        let mut change = app.change(&Actor::system()).await?;
        let stored = change
            .run(
                "update registrations set digest = $2 where id = $1 and used_at is null",
                args![id, opaque::digest(PREFIX, token.expose())],
            )
            .await?;
        change.commit_quietly("a link for a registration is created; using it is an event").await?;
        let content = || Content::to(&email).with("known", "").with_link(app, "verify", &token);
        // The registration may have been used or deleted since it was found.
        Ok((stored == 1).then(content))
    })
}

/// Returns the email address that received a link, as long as the link can be used.
pub(super) async fn recipient(app: &App, token: &SecretString) -> Result<Option<String>> {
    let Some(digest) = opaque::digest(PREFIX, token.expose()) else { return Ok(None) };
    let row: Option<(String,)> = app
        .db
        .maybe(
            "select email from registrations
             where digest = $1 and used_at is null and expires_at > $2",
            args![digest, app.clock.now()],
        )
        .await?;
    Ok(row.map(|(email,)| email))
}

/// A registration whose link was presented.
struct Waiting {
    id: Uuid,
    user: UserId,
    email: String,
    name: Option<String>,
    sealed: Vec<u8>,
}

type Row = (Uuid, UserId, String, Option<String>, Vec<u8>);

/// Verifies an email address: creates the account, or records that its email address is verified.
///
/// # Errors
/// Fails with `registration.bad_token`; `registration.wrong_password`; `lockout.locked`; `users.email_taken`; 503 if
/// the hashing queue is full; or if the database fails.
pub async fn verify(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    password: &SecretString,
) -> Result<()> {
    let digest = opaque::digest(PREFIX, token.expose()).ok_or_else(bad_token)?;
    let row: Option<Row> = app
        .db
        .maybe(
            "select id, user_id, email, name, sealed from registrations
             where digest = $1 and used_at is null and expires_at > $2",
            args![digest, app.clock.now()],
        )
        .await?;
    let (id, user, email, name, sealed) = row.ok_or_else(bad_token)?;
    let waiting = Waiting { id, user, email, name, sealed };
    // SECURITY: the link alone is not enough: the password shows that the person who uses it is the one who registered
    // (test: a_stranger_who_registers_an_email_gains_nothing).
    let account = Account::of_link(app, &format!("registration {id}"));
    let guess = lockout::admit(app, actor, account, Client::Unknown).await?.counted(app)?;
    let stored = Stored::apart(user, waiting.sealed.clone());
    let slot = QueueSlot::of(actor.ip);
    let verdict = passwords::verify(app, slot, Some(&stored), password).await?;
    let mut change = app.change_holding(actor, &[Hold::Shared(user)]).await?;
    if let Verdict::Wrong = verdict {
        guess.wrong(&mut change).await?;
        change
            .commit_quietly("a wrong password for a link is counted; too many of them are an event")
            .await?;
        let detail = "This is not the password chosen at registration.";
        return Err(Error::bad_field("/password", "registration.wrong_password", detail));
    }
    finish(change, waiting, guess).await
}

async fn finish(mut change: Change, waiting: Waiting, guess: Guess) -> Result<()> {
    let now = change.now();
    // All registrations of the email address, in one order: verifying two of them at once would otherwise wait in a
    // circle (test: two_registrations_verified_at_once_meet_no_deadlock).
    let lock = "update registrations set digest = digest where used_at is null and email_key =
         (select email_key from registrations where id = $1)";
    change.run(lock, args![waiting.id]).await?;
    // SECURITY: a link works at most once, even if two requests use it at the same time (test:
    // a_verifying_link_works_once).
    let used = change
        .run(
            "update registrations set used_at = $2 where id = $1 and used_at is null and expires_at > $2",
            args![waiting.id, now],
        )
        .await?;
    if used != 1 {
        return Err(bad_token());
    }
    guess.right(&mut change).await?;
    let email = Email::parse(&waiting.email)
        .map_err(|_| Error::internal("a stored email address is not valid"))?;
    change
        .run(
            "delete from registrations where email_key = $1 and used_at is null",
            args![email.key()],
        )
        .await?;
    if users::exists(&mut change, waiting.user).await? {
        // SECURITY: a link sent to a former email address verifies nothing (test:
        // a_verification_link_ends_with_its_email_and_its_account).
        if !users::prove_email(&mut change, waiting.user, &waiting.email).await? {
            return Err(bad_token());
        }
        return change.commit(VERIFIED.about(waiting.user)).await;
    }
    let new = NewUser {
        id: Some(waiting.user),
        verified: true,
        email,
        name: waiting.name,
        roles: Vec::new(),
        service: false,
    };
    let user = users::create(&mut change, &new).await?.ok_or_else(users::email_taken)?;
    passwords::store(&mut change, user, Sealed::from_bytes(waiting.sealed)).await?;
    change.note(VERIFIED.about(user));
    change.commit(REGISTERED.about(user)).await
}

fn bad_token() -> Error {
    let detail =
        "This link was used, has expired or was replaced. Request a new one, or register again.";
    Error::bad_field("/token", "registration.bad_token", detail)
}

/// Deletes registrations that have expired.
pub(super) async fn prune(app: &App) -> Result<()> {
    let upkeep = app.upkeep("expired registrations are deleted");
    let sql = "delete from registrations where id in
         (select id from registrations where expires_at < $1 limit $2)";
    upkeep.in_batches(sql, args![app.clock.now()]).await?;
    Ok(())
}
