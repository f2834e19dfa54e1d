//! A change of email address: requested by the user and confirmed from the new mailbox, or made by an administrator.
//! For a week, a change that the user requested can be undone from the old mailbox.
//!
//! # Promises
//!
//! - The response to a request is the same for every email address, whether or not it has an account.
//! - A change that the user requests requires access to the new mailbox **and** the password. For a week afterward,
//!   anyone with access to the old mailbox can undo it. During that week, no other account can take the old email
//!   address.
//! - An administrator's change can't be undone from the old email address, and the new email address counts as
//!   unverified.
//!
//! Tables: `email_changes`.

mod admin;
mod http;

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, Timestamp, args};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::app::{Actor, Answers, App, Change, Hold};
use crate::credentials::{self, Act, End, Ending, Fate, Kind};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::lockout::{self, Account, Client, Guess};
use crate::mail::{self, Content, EmailTemplate};
use crate::mfa;
use crate::module::{Job, Module};
use crate::passwords::{self, QueueSlot, Stored, Verdict};
use crate::record::Event;
use crate::recovery::bad_token;
use crate::shape;
use crate::users::{self, Email};

/// A user requested a change of email address.
pub const ASKED: Event =
    Event { name: "recovery.email_asked", summary: "A user requested a change of email address" };
/// A user's email address was changed.
pub const CHANGED: Event =
    Event { name: "recovery.email_changed", summary: "The email address of a user was changed" };
/// A change of email address was undone with the link sent to the old one.
pub const RESTORED: Event =
    Event { name: "recovery.email_restored", summary: "A change of email address was undone" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "email_change",
    routes: http::routes,
    limits: &[&http::EMAIL_CHANGE, &http::EMAIL_LINK],
    events: &[ASKED, CHANGED, RESTORED],
    email_templates: &[&CONFIRM, &ANNOUNCE],
    jobs: &[Job {
        name: "email_change.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "email_change",
        number: 1,
        name: "email_change",
        sql: Sql::Both(include_str!("../../../migrations/email_change/0001_email_change.sql")),
    }],
    endings: &[
        Ending {
            kind: Kind::EmailLinks,
            owners: None,
            end: |change, end, _| Box::pin(void_asked(change, end.user)),
        },
        Ending {
            kind: Kind::UndoLinks,
            owners: None,
            end: |change, end, fate| {
                let since = end.since.filter(|_| fate == Fate::Since);
                Box::pin(void_undoing(change, end.user, since))
            },
        },
    ],
    tables: &["email_changes"],
    answers: Answers {
        email_is_reserved: Some(|change, key| Box::pin(is_reserved(change, key, None))),
        link_recipient: Some(|app, token| Box::pin(recipient(app, token))),
        ..Answers::NONE
    },
    ..Module::EMPTY
};

pub use admin::{Changes, alter};

const CONFIRM_PREFIX: &str = "pal_em_";
const UNDO_PREFIX: &str = "pal_un_";
const LIVES: Duration = Duration::from_secs(24 * 3600);
const UNDONE_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

static CONFIRM: EmailTemplate = EmailTemplate {
    name: "recovery_confirm_email",
    text: include_str!("emails/confirm_email.txt"),
    html: include_str!("emails/confirm_email.html"),
    prepare: prepare_confirmation,
};

static ANNOUNCE: EmailTemplate = EmailTemplate {
    name: "recovery_email_changed",
    text: include_str!("emails/email_changed.txt"),
    html: include_str!("emails/email_changed.html"),
    prepare: prepare_announcement,
};

/// The name of the template value that identifies the change of email address.
const CHANGE: &str = "change";

/// Records that a user requested a new email address, and sends a link to it. Doesn't reveal whether the email address
/// has an account.
///
/// # Errors
/// Fails with `mail.off`; 404; or if the database fails.
pub async fn ask(app: &App, actor: &Actor, user: UserId, email: &Email) -> Result<()> {
    mail::needed(app)?;
    let mut change = app.change(actor).await?;
    let (id, now) = (app.new_id(), change.now());
    // SECURITY: a link in an earlier email, perhaps to a mistyped email address, must stop working (test:
    // a_newer_link_replaces_the_older_ones).
    users::lock_row(&mut change, user).await?;
    change
        .run("delete from email_changes where user_id = $1 and confirmed_at is null", args![user])
        .await?;
    let asked = change
        .run(
            "insert into email_changes (id, user_id, email, old_email, old_key, created_at, expires_at,
                password_generation)
             select $1, id, $3, email, email_key, $4, $5,
                coalesce((select generation from passwords where user_id = $2), 0)
             from users where id = $2",
            args![id, user, email.as_str(), now, now.plus(LIVES)],
        )
        .await?;
    if asked != 1 {
        return Err(Error::not_found());
    }
    let content = Content::to(email.as_str()).with(CHANGE, id.to_string());
    mail::enqueue(&mut change, &CONFIRM, content).await?;
    change.commit(ASKED.about(user).personal("email", email.as_str())).await
}

fn named(content: &Content) -> Option<Uuid> {
    content.values.get(CHANGE).and_then(|id| id.parse().ok())
}

fn prepare_confirmation(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let (Some(id), Some(to)) = (named(&content), content.to.clone()) else { return Ok(None) };
        let taken = match Email::parse(&to) {
            Ok(email) => users::find_by_email(app, &email).await?.is_some(),
            Err(_) => true,
        };
        if taken {
            return Ok(None);
        }
        let token = opaque::generate(CONFIRM_PREFIX, &*app.random);
        let mut change = app.change(&Actor::system()).await?;
        let stored = change
            .run(
                "update email_changes set digest = $2 where id = $1 and confirmed_at is null",
                args![id, opaque::digest(CONFIRM_PREFIX, token.expose())],
            )
            .await?;
        change
            .commit_quietly("a link to change the email address is created; using it is an event")
            .await?;
        Ok((stored == 1).then(|| Content::to(&to).with_link(app, "email", &token)))
    })
}

fn prepare_announcement(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let (Some(id), Some(to)) = (named(&content), content.to.clone()) else {
            // An administrator's change: access to the old mailbox doesn't allow undoing it.
            return Ok(Some(content.with("link", "")));
        };
        let token = opaque::generate(UNDO_PREFIX, &*app.random);
        let mut change = app.change(&Actor::system()).await?;
        let stored = change
            .run(
                "update email_changes set undo_digest = $2 where id = $1 and undone_at is null",
                args![id, opaque::digest(UNDO_PREFIX, token.expose())],
            )
            .await?;
        change
            .commit_quietly(
                "a link to undo a change of email address is created; using it is an event",
            )
            .await?;
        Ok((stored == 1).then(|| Content::to(&to).with_link(app, "undo", &token)))
    })
}

/// A stored change of email address, as exported for its owner.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "EmailChange")]
pub struct EmailChange {
    /// The requested email address.
    pub email: String,
    /// The previous email address.
    pub old_email: String,
    /// When the change was requested.
    #[schemars(with = "shape::DateTime")]
    pub created_at: Timestamp,
    /// When the change was confirmed, if it was.
    #[schemars(with = "Option<shape::DateTime>")]
    pub confirmed_at: Option<Timestamp>,
}

/// Returns the stored changes of a user's email address: those that are pending, and those that can be undone.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn kept_changes(app: &App, user: UserId) -> Result<Vec<EmailChange>> {
    let rows: Vec<(String, String, Timestamp, Option<Timestamp>)> = app
        .db
        .all(
            "select email, old_email, created_at, confirmed_at from email_changes
             where user_id = $1 order by created_at, id",
            args![user],
        )
        .await?;
    let view = |(email, old_email, created_at, confirmed_at)| EmailChange {
        email,
        old_email,
        created_at,
        confirmed_at,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// A change of email address that can still be confirmed with its link.
struct Pending {
    id: Uuid,
    user: UserId,
    email: Email,
    old_email: String,
    stored: Stored,
}

type Row = (Uuid, UserId, String, String, Vec<u8>, i64);

/// Returns the change that a link belongs to. The link stops working when the password or the email address is changed.
async fn pending(app: &App, token: &SecretString) -> Result<Option<Pending>> {
    let Some(digest) = opaque::digest(CONFIRM_PREFIX, token.expose()) else { return Ok(None) };
    let row: Option<Row> = app
        .db
        .maybe(
            "select a.id, a.user_id, a.email, a.old_email, p.sealed, p.generation
             from email_changes a
                join users u on u.id = a.user_id and u.email_key = a.old_key
                join passwords p on p.user_id = a.user_id and p.generation = a.password_generation
             where a.digest = $1 and a.confirmed_at is null and a.expires_at > $2
                and u.disabled_at is null",
            args![digest, app.clock.now()],
        )
        .await?;
    let Some((id, user, email, old_email, sealed, generation)) = row else { return Ok(None) };
    let email =
        Email::parse(&email).map_err(|_| Error::internal("a stored email address is not valid"))?;
    Ok(Some(Pending { id, user, email, old_email, stored: Stored::new(user, sealed, generation) }))
}

/// Returns the email address that received a link, as long as the link can be used. The new email address is told
/// nothing about the old one, because it may be mistyped and belong to another person.
async fn recipient(app: &App, token: &SecretString) -> Result<Option<String>> {
    if let Some(pending) = pending(app, token).await? {
        return Ok(Some(pending.email.as_str().to_owned()));
    }
    Ok(undoable(app, token).await?.map(|(_, _, old_email, _)| old_email))
}

/// Changes the email address, with the account's password and the token sent to the new email address.
///
/// # Errors
/// Fails with `recovery.bad_token`; `passwords.wrong`; `lockout.locked`; `users.email_taken`; 503 if the hashing queue
/// is full; or if the database fails.
pub async fn confirm(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    password: &SecretString,
) -> Result<()> {
    let pending = pending(app, token).await?.ok_or_else(bad_token)?;
    // SECURITY: a mistyped email address may belong to another person, who must not get the account with the link alone
    // (test: a_change_of_email_needs_the_password_and_can_be_undone).
    let guess = count(app, actor, &pending).await?;
    let slot = QueueSlot::of(actor.ip);
    let verdict = passwords::verify(app, slot, Some(&pending.stored), password).await?;
    let mut change = app.change_holding(actor, &[Hold::Alone(pending.user)]).await?;
    if let Verdict::Wrong = verdict {
        guess.wrong(&mut change).await?;
        change
            .commit_quietly("a wrong password for a link is counted; too many of them are an event")
            .await?;
        let detail = "This is not the password of the account.";
        return Err(Error::bad_field("/password", "passwords.wrong", detail));
    }
    let now = change.now();
    // SECURITY: not for a user who was disabled meanwhile (test: a_link_that_waited_for_a_disabling_is_refused).
    let used = change
        .run(
            "update email_changes set confirmed_at = $2, undo_until = $3
             where id = $1 and confirmed_at is null and expires_at > $2 and exists (select 1 from users u
                where u.id = email_changes.user_id and u.disabled_at is null)",
            args![pending.id, now, now.plus(UNDONE_WITHIN)],
        )
        .await?;
    // SECURITY: at most once, and with the password that was compared
    // (test: a_change_of_email_needs_the_password_and_can_be_undone).
    if used != 1 || !passwords::unchanged(&mut change, &pending.stored).await? {
        return Err(bad_token());
    }
    let act = End::of(pending.user, Act::EmailChanged);
    settle(&mut change, act, &pending.email, true).await?;
    guess.right(&mut change).await?;
    let content = Content::to(&pending.old_email).with(CHANGE, pending.id.to_string());
    mail::enqueue(&mut change, &ANNOUNCE, content).await?;
    change.commit(CHANGED.about(pending.user).personal("email", pending.email.as_str())).await
}

/// Counts a guess at the password that a link requires. All such links of a user share a separate count, so that a
/// person who received a link at a mistyped email address can't lock the account.
async fn count(app: &App, actor: &Actor, pending: &Pending) -> Result<Guess> {
    let account = Account::of_link(app, &format!("email change of {}", pending.user));
    lockout::admit(app, actor, account, Client::Unknown).await?.counted(app)
}

/// Sets a user's email address and ends the credentials that the act ends, such as links sent to the previous email
/// address.
async fn settle(change: &mut Change, act: End, email: &Email, verified: bool) -> Result<()> {
    let user = act.user;
    users::set_email(change, user, email, verified).await?;
    // SECURITY: checked only now: the statement above may have waited for the change that released the email address
    // (test: an_email_is_reserved_while_its_change_commits).
    if is_reserved(change, email.key(), Some(user)).await? {
        return Err(users::email_taken());
    }
    // SECURITY: links that were sent to the previous email address must stop working (tests:
    // lost_factors_come_back_after_a_time, every_act_ends_what_the_table_says).
    credentials::end(change, act).await.map(drop)
}

/// Voids changes of email address that aren't confirmed. Returns 0, because links aren't counted.
async fn void_asked(change: &mut Change, user: UserId) -> Result<usize> {
    let sql = "delete from email_changes where user_id = $1 and confirmed_at is null";
    change.run(sql, args![user]).await?;
    Ok(0)
}

/// Voids the undo links of changes of email address: those requested at `since` or later, or all of them.
async fn void_undoing(
    change: &mut Change,
    user: UserId,
    since: Option<Timestamp>,
) -> Result<usize> {
    // SECURITY: an attacker who changed the email address again must not take the account back with a later undo link
    // (test: an_undone_change_of_email_voids_those_after_it).
    let sql = "delete from email_changes where user_id = $1 and confirmed_at is not null
            and undone_at is null and ($2 is null or created_at >= $2)";
    change.run(sql, args![user, since]).await?;
    Ok(0)
}

/// Returns whether a user other than this one may still take an email address back.
async fn is_reserved(change: &mut Change, key: &str, user: Option<UserId>) -> Result<bool> {
    let now = change.now();
    let row: Option<(i64,)> = change
        .maybe(
            "select cast(1 as bigint) from email_changes
             where old_key = $1 and ($2 is null or user_id <> $2) and undo_until > $3 and undone_at is null
             limit 1",
            args![key, user.map(|user| user.0), now],
        )
        .await?;
    Ok(row.is_some())
}

/// Restores the account's previous email address, with a new password. No session is started.
///
/// # Errors
/// Fails with `recovery.bad_token`; a broken password rule; `users.email_taken`; 503 if the hashing queue is full; or
/// if the database fails.
pub async fn undo(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    password: &SecretString,
) -> Result<()> {
    let row = undoable(app, token).await?;
    let (id, user, old_email, asked_at) = row.ok_or_else(bad_token)?;
    let slot = QueueSlot::of(actor.ip);
    let found = users::find(app, user).await?.ok_or_else(bad_token)?;
    let hashed = passwords::hash_for(app, slot, &found, "/password", password).await?;
    let sealed = hashed.seal(app, user);
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    let now = change.now();
    // SECURITY: not for a user who was disabled meanwhile (test: a_link_that_waited_for_a_disabling_is_refused).
    let used = change
        .run(
            "update email_changes set undone_at = $2
             where id = $1 and undone_at is null and undo_until > $2 and exists (select 1 from users u
                where u.id = email_changes.user_id and u.disabled_at is null)",
            args![id, now],
        )
        .await?;
    if used != 1 {
        return Err(bad_token());
    }
    if users::awaits_proof(&mut change, user).await? {
        mfa::remove_all(&mut change, user).await?;
    }
    let email = Email::parse(&old_email)
        .map_err(|_| Error::internal("a stored email address is not valid"))?;
    // SECURITY: everything that was set up since then ends too (tests: an_undone_change_of_email_removes_later_factors,
    // an_undone_change_of_email_voids_those_after_it).
    let act = End { since: Some(asked_at), ..End::of(user, Act::EmailRestored) };
    settle(&mut change, act, &email, true).await?;
    users::keep(&mut change, user).await?;
    users::prove_email(&mut change, user, email.as_str()).await?;
    passwords::store(&mut change, user, sealed).await?;
    lockout::clear_password(&mut change, user).await?;
    passwords::notify_owner(&mut change, user).await?;
    change.commit(RESTORED.about(user).personal("email", email.as_str())).await
}

type Undoable = (Uuid, UserId, String, Timestamp);

/// Returns the change that a link undoes: its id, the user, the earlier email address and when it was requested.
async fn undoable(app: &App, token: &SecretString) -> Result<Option<Undoable>> {
    let Some(digest) = opaque::digest(UNDO_PREFIX, token.expose()) else { return Ok(None) };
    app.db
        .maybe(
            "select a.id, a.user_id, a.old_email, a.created_at from email_changes a
                join users u on u.id = a.user_id and u.disabled_at is null
             where a.undo_digest = $1 and a.undone_at is null and a.undo_until > $2",
            args![digest, app.clock.now()],
        )
        .await
        .map_err(Into::into)
}

async fn prune(app: &App) -> Result<()> {
    // The condition is stated twice: a change may be confirmed between the subquery and the deletion.
    let sql = "delete from email_changes
         where ((confirmed_at is null and expires_at < $1) or undo_until < $1)
         and id in (select id from email_changes
             where (confirmed_at is null and expires_at < $1) or undo_until < $1 limit $2)";
    let upkeep =
        app.upkeep("email changes that have expired or can no longer be undone are deleted");
    upkeep.in_batches(sql, args![app.clock.now()]).await?;
    Ok(())
}
