//! Recovery: lets anyone who can read the account's email set a new password.
//!
//! # Promises
//!
//! - A request gets the same response, after the same work, for every email address. Whether an email is sent is
//!   decided later, outside the request.
//! - A link works once. It stops working when it expires, when a newer link replaces it, or when the password or the
//!   email address is changed. It doesn't start a session.
//! - A new password ends every session, revokes every API key and lifts every lockout of the password. If the email
//!   address with which the account was registered is still unverified, it also removes every second factor.
//! - Otherwise, a link never removes a second factor.
//!
//! Tables: `recovery_tokens`, which also contains the links of [`invitations`](crate::invitations).

mod http;

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, args};

use crate::app::{Actor, Answers, App, Change, Hold};
use crate::credentials::{self, Act, End, Ending, Kind};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::lockout;
use crate::mail::{self, Content, EmailTemplate};
use crate::mfa;
use crate::module::{Job, Module};
use crate::passwords::{self, QueueSlot};
use crate::record::Event;
use crate::users::{self, Email, User};

/// A link to choose a new password was requested.
pub const ASKED: Event =
    Event { name: "recovery.asked", summary: "A link to choose a new password was requested" };
/// A link to choose a new password was created for a user.
pub const LINK_MADE: Event =
    Event { name: "recovery.link_made", summary: "A link to choose a new password was created" };
/// A user chose a new password with a link.
pub const RESET: Event =
    Event { name: "recovery.reset", summary: "A new password was chosen with a link" };

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "recovery",
    routes: http::routes,
    limits: &[&http::FORGOT, &http::FORGOT_ACCOUNT, &http::RESET_LIMIT],
    events: &[ASKED, LINK_MADE, RESET],
    email_templates: &[&EMAIL],
    jobs: &[Job {
        name: "recovery.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "recovery",
        number: 1,
        name: "recovery",
        sql: Sql::Both(include_str!("../../../migrations/recovery/0001_recovery.sql")),
    }],
    endings: &[Ending {
        kind: Kind::PasswordLinks,
        owners: None,
        end: |change, end, _| Box::pin(void_links(change, end.user)),
    }],
    answers: Answers {
        link_recipient: Some(|app, token| Box::pin(recipient(app, token))),
        ..Answers::NONE
    },
    tables: &["recovery_tokens"],
    ..Module::EMPTY
};

/// The purpose of a link, which the prefix of its token encodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A new password for a user who has forgotten the old one.
    Reset,
    /// The first password or a new one, with a link sent by an administrator or the operator.
    Invitation,
}

impl Link {
    fn prefix(self) -> &'static str {
        match self {
            Self::Reset => "pal_rs_",
            Self::Invitation => "pal_in_",
        }
    }

    /// Returns the name stored in the table.
    fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Invitation => "invitation",
        }
    }

    /// Returns the purpose of a token and its digest, or `None` if it isn't the token of a link.
    fn parse(token: &SecretString) -> Option<(Self, [u8; 32])> {
        [Self::Reset, Self::Invitation].into_iter().find_map(|link| {
            opaque::digest(link.prefix(), token.expose()).map(|digest| (link, digest))
        })
    }
}

const LIVES: Duration = Duration::from_secs(3600);

static EMAIL: EmailTemplate = EmailTemplate {
    name: "recovery_reset",
    text: include_str!("emails/reset.txt"),
    html: include_str!("emails/reset.html"),
    prepare,
};

/// Records that a link was requested for this email address.
///
/// # Errors
/// Fails with `mail.off`, or if the database fails.
pub async fn forgot(app: &App, actor: &Actor, email: &Email) -> Result<()> {
    mail::needed(app)?;
    let mut change = app.change(actor).await?;
    // SECURITY: the same rows are written for every email address (test: asking_for_a_link_tells_nothing).
    mail::enqueue(&mut change, &EMAIL, Content::to(email.as_str())).await?;
    // The event doesn't contain the email address: its owner may be deleted later.
    change.commit(ASKED.entry()).await
}

/// Creates a link and returns the email that contains it, if there is an account to recover.
fn prepare(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let Some(email) = content.to.as_deref().and_then(|to| Email::parse(to).ok()) else {
            return Ok(None);
        };
        let user = users::find_by_email(app, &email).await?;
        let Some(user) = user.filter(|user| !user.disabled && !user.service) else {
            return Ok(None);
        };
        let token = store_link(app, &user, Link::Reset, LIVES).await?;
        // Sent to the email address as the account has it, not as the request wrote it.
        Ok(token.map(|token| Content::to(&user.email).with_link(app, "reset", &token)))
    })
}

/// Creates a link for a user. Returns `None` if the account can no longer use it.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn store_link(
    app: &App,
    user: &User,
    link: Link,
    lives: Duration,
) -> Result<Option<SecretString>> {
    let token = opaque::generate(link.prefix(), &*app.random);
    let digest = opaque::digest(link.prefix(), token.expose());
    let mut change = app.change_holding(&Actor::system(), &[Hold::Shared(user.id)]).await?;
    let now = change.now();
    // The row is locked, so that if two links are created at the same time, the later one replaces the earlier one.
    users::lock_row(&mut change, user.id).await?;
    replace(&mut change, user.id, link).await?;
    // SECURITY: only if the account still has the email address that the link is sent to. A change of email address may
    // have been undone in the meantime (test: an_undone_change_of_email_voids_those_after_it).
    let made = change
        .run(
            "insert into recovery_tokens (digest, user_id, created_at, expires_at, kind, password_generation)
             select $1, id, $3, $4, $6, coalesce((select generation from passwords where user_id = $2), 0)
             from users
             where id = $2 and email = $5 and disabled_at is null and service is null",
            args![digest, user.id, now, now.plus(lives), user.email.as_str(), link.as_str()],
        )
        .await?;
    if made == 0 {
        return Ok(None);
    }
    change.commit(LINK_MADE.about(user.id)).await?;
    Ok(Some(token))
}

/// Deletes the unused links that a new link replaces.
async fn replace(change: &mut Change, user: UserId, new: Link) -> Result<()> {
    // SECURITY: a link in an old email stops working once a newer link is sent. A reset link doesn't replace an
    // invitation, because anyone can request a reset (test: a_newer_link_replaces_the_older_ones).
    change
        .run(
            "delete from recovery_tokens
             where user_id = $1 and used_at is null and (kind = 'reset' or kind = $2)",
            args![user, new.as_str()],
        )
        .await?;
    Ok(())
}

/// Deletes a user's unused links. Returns 0, because links aren't counted.
async fn void_links(change: &mut Change, user: UserId) -> Result<usize> {
    change
        .run("delete from recovery_tokens where user_id = $1 and used_at is null", args![user])
        .await?;
    Ok(0)
}

/// Sets a password with the token of a reset link or an invitation.
///
/// # Errors
/// Fails with `recovery.bad_token`; a broken password rule; 503 if the hashing queue is full; or if the database fails.
pub async fn reset(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    password: &SecretString,
) -> Result<()> {
    let (link, digest) = Link::parse(token).ok_or_else(bad_token)?;
    let user = usable(app, digest).await?.ok_or_else(bad_token)?;
    let slot = QueueSlot::of(actor.ip);
    let hashed = passwords::hash_for(app, slot, &user, "/password", password).await?;
    let sealed = hashed.seal(app, user.id);
    let mut change = app.change_holding(actor, &[Hold::Alone(user.id)]).await?;
    let now = change.now();
    users::lock_row(&mut change, user.id).await?;
    // SECURITY: a link works at most once, even if two requests use it at the same time, and not if the password has
    // been changed since the link was created (test: a_link_works_once_and_dies_with_the_password) or the user has been
    // disabled in the meantime (test: a_link_that_waited_for_a_disabling_is_refused).
    let used = change
        .run(
            "update recovery_tokens set used_at = $2
             where digest = $1 and used_at is null and expires_at > $2
                and password_generation = coalesce((select p.generation from passwords p
                    where p.user_id = recovery_tokens.user_id), 0)
                and exists (select 1 from users u
                    where u.id = recovery_tokens.user_id and u.disabled_at is null)",
            args![digest, now],
        )
        .await?;
    if used != 1 {
        return Err(bad_token());
    }
    if users::awaits_proof(&mut change, user.id).await? {
        // SECURITY: someone other than the owner of the email address may have set up the factors (test:
        // what_was_set_up_before_the_email_was_proved_is_gone).
        mfa::remove_all(&mut change, user.id).await?;
    }
    let first = !passwords::has(&mut change, user.id).await?;
    passwords::store(&mut change, user.id, sealed).await?;
    users::prove_email(&mut change, user.id, &user.email).await?;
    // SECURITY: email is not a second factor, so guesses at the second factor stay counted (test:
    // a_new_password_by_mail_gives_no_more_guesses_at_the_factor).
    lockout::clear_password(&mut change, user.id).await?;
    // SECURITY: an attacker who had access to the account may have created some of its credentials (tests:
    // what_revokes_an_api_key, every_act_ends_what_the_table_says).
    credentials::end(&mut change, End::of(user.id, Act::PasswordReset)).await?;
    if !first {
        passwords::notify_owner(&mut change, user.id).await?;
    }
    change.commit(RESET.about(user.id).detail("with", link.as_str())).await
}

/// Returns the user that a token belongs to, if the token can be used now. Called first, so that no password is hashed
/// for an unusable token.
async fn usable(app: &App, digest: [u8; 32]) -> Result<Option<User>> {
    let row: Option<(UserId,)> = app
        .db
        .maybe(
            "select t.user_id from recovery_tokens t left join passwords p on p.user_id = t.user_id
             where t.digest = $1 and t.used_at is null and t.expires_at > $2
                and t.password_generation = coalesce(p.generation, 0)",
            args![digest, app.clock.now()],
        )
        .await?;
    let Some((id,)) = row else { return Ok(None) };
    Ok(users::find(app, id).await?.filter(|user| !user.disabled))
}

/// Returns the email address that received a link, as long as the link can be used.
async fn recipient(app: &App, token: &SecretString) -> Result<Option<String>> {
    let Some((_, digest)) = Link::parse(token) else { return Ok(None) };
    Ok(usable(app, digest).await?.map(|user| user.email.as_str().to_owned()))
}

/// Returns the error for a link token that can't be used.
pub(crate) fn bad_token() -> Error {
    let detail = "This link was used, was replaced by a newer one or has expired, or the password or \
                the email address has changed. Request a new link.";
    Error::bad_field("/token", "recovery.bad_token", detail)
}

async fn prune(app: &App) -> Result<()> {
    let upkeep = app.upkeep("expired links to reset a password are deleted");
    let sql = "delete from recovery_tokens where digest in
         (select digest from recovery_tokens where expires_at < $1 limit $2)";
    upkeep.in_batches(sql, args![app.clock.now()]).await?;
    Ok(())
}
