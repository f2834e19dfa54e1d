//! Recovery for users who have lost every factor: with the password, access to the mailbox, and a waiting period in
//! which the owner can cancel (`mfa.recovery_delay`).
//!
//! # Promises
//!
//! - If `mfa.recovery_delay` is set, a link removes the second factors. It requires the password and access to the
//!   mailbox, and works only after a waiting period. Other links remove factors in two cases only: a password reset for
//!   an account whose email address was never verified, and the undoing of a change of email address.
//! - Until the factors are removed, the owner can cancel the removal with the link. The removal is also canceled when a
//!   factor is used or added, and when the password or the email address is changed.
//!
//! Tables: `factor_recoveries`.

mod http;

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;
use palisade_db::{Migration, Sql, Timestamp, args};

use crate::app::{Actor, Answers, App, Change, Hold};
use crate::challenges::{self, Challenge};
use crate::credentials::{self, Ending};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::lockout::{self, Account, Client};
use crate::mail::{self, Content, EmailTemplate, for_people};
use crate::mfa;
use crate::module::{Job, Module};
use crate::passwords::{self, QueueSlot, Stored, Verdict};
use crate::record::Event;
use crate::recovery::bad_token;
use crate::users;

/// Someone who knows the password requested the removal of the second factors.
pub const ASKED: Event = Event {
    name: "recovery.factors_asked",
    summary: "The removal of the second factors was requested with the password",
};
/// The second factors were removed after the waiting period.
pub const REMOVED: Event = Event {
    name: "recovery.factors_removed",
    summary: "The second factors were removed after the waiting period",
};
/// The removal was canceled.
pub const CANCELLED: Event = Event {
    name: "recovery.factors_kept",
    summary: "The removal of the second factors was canceled",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "factor_recovery",
    routes: http::routes,
    limits: &[&http::FACTORS],
    events: &[ASKED, REMOVED, CANCELLED],
    email_templates: &[&EMAIL],
    jobs: &[Job {
        name: "factor_recovery.prune",
        every: Duration::from_secs(3600),
        run: |app| Box::pin(prune(app)),
    }],
    migrations: &[Migration {
        module: "factor_recovery",
        number: 1,
        name: "factor_recovery",
        sql: Sql::Both(include_str!(
            "../../../migrations/factor_recovery/0001_factor_recovery.sql"
        )),
    }],
    endings: &[Ending {
        kind: credentials::Kind::FactorLinks,
        owners: None,
        end: |change, end, _| Box::pin(void(change, end.user)),
    }],
    answers: Answers {
        link_recipient: Some(|app, token| Box::pin(recipient(app, token))),
        ..Answers::NONE
    },
    tables: &["factor_recoveries"],
    ..Module::EMPTY
};

static EMAIL: EmailTemplate = EmailTemplate {
    name: "recovery_factors",
    text: include_str!("emails/factors.txt"),
    html: include_str!("emails/factors.html"),
    prepare,
};

const PREFIX: &str = "pal_fr_";
/// How long the link works after the waiting period.
const USED_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The condition under which a request may still be used: no new password, no new factor, and no proof of a factor
/// since the request.
macro_rules! unanswered {
    () => {
        "not exists (select 1 from passwords p
            where p.user_id = factor_recoveries.user_id and p.generation <> factor_recoveries.password_generation)
         and not exists (select 1 from totp_secrets t where t.user_id = factor_recoveries.user_id
            and (t.created_at > factor_recoveries.created_at or t.last_used_at > factor_recoveries.created_at))
         and not exists (select 1 from passkeys k where k.user_id = factor_recoveries.user_id
            and (k.created_at > factor_recoveries.created_at or k.last_used_at > factor_recoveries.created_at))"
    };
}

/// Records that a client that presented the correct password requested the removal of the factors of `user`, and
/// notifies the owner. An earlier request remains pending and unchanged. Returns `false` if the challenge ended in the
/// meantime: the password that it depends on may have been replaced, or the user deleted.
///
/// # Errors
/// Fails with `recovery.factors_off`; `mail.off`; or if the database fails.
pub async fn ask(app: &App, actor: &Actor, user: UserId, challenge: &Challenge) -> Result<bool> {
    let delay = delay(app)?;
    mail::needed(app)?;
    let mut change = app.change_holding(actor, &[Hold::Shared(user)]).await?;
    if !challenges::lock_row(&mut change, challenge).await? {
        return Ok(false);
    }
    let now = change.now();
    let ready_at = now.plus(delay);
    // A request that can't be used any more must not block a new one.
    change
        .run(
            concat!(
                "delete from factor_recoveries where user_id = $1 and (expires_at <= $2 or not (",
                unanswered!(),
                "))"
            ),
            args![user, now],
        )
        .await?;
    let asked = change
        .run(
            "insert into factor_recoveries (user_id, created_at, ready_at, expires_at, password_generation)
             values ($1, $2, $3, $4, coalesce((select generation from passwords where user_id = $1), 0))
             on conflict (user_id) do nothing",
            args![user, now, ready_at, ready_at.plus(USED_WITHIN)],
        )
        .await?;
    if asked == 0 {
        return Ok(true);
    }
    let content = Content::to_user(user).with("from", for_people(ready_at));
    let until = for_people(ready_at.plus(USED_WITHIN));
    mail::enqueue(&mut change, &EMAIL, content.with("until", until)).await?;
    change.commit(ASKED.about(user)).await?;
    Ok(true)
}

fn delay(app: &App) -> Result<Duration> {
    app.settings.mfa.recovery_delay.ok_or_else(|| {
        let detail = "This server does not remove second factors by email. Ask an administrator.";
        Error::new(Kind::Denied, "recovery.factors_off", detail)
    })
}

fn prepare(app: &App, content: Content) -> BoxFuture<'_, Result<Option<Content>>> {
    Box::pin(async move {
        let Some(content) = mail::as_written(app, content).await? else { return Ok(None) };
        let Some(user) = content.user else { return Ok(None) };
        let token = opaque::generate(PREFIX, &*app.random);
        let mut change = app.change(&Actor::system()).await?;
        let stored = change
            .run(
                "update factor_recoveries set digest = $2 where user_id = $1",
                args![user, opaque::digest(PREFIX, token.expose())],
            )
            .await?;
        change.commit_quietly("a link for lost factors is created; using it is an event").await?;
        Ok((stored == 1).then(|| content.with_link(app, "factors", &token)))
    })
}

type Row = (UserId, Timestamp, Vec<u8>, i64);

/// Returns the request that a link belongs to.
async fn asked(app: &App, digest: [u8; 32]) -> Result<Option<Row>> {
    // SECURITY: not after a new password, nor after a proof that a factor isn't lost
    // (test: lost_factors_come_back_after_a_time).
    app.db
        .maybe(
            concat!(
                "select factor_recoveries.user_id, ready_at, s.sealed, s.generation
                 from factor_recoveries
                    join users u on u.id = factor_recoveries.user_id and u.disabled_at is null
                    join passwords s on s.user_id = factor_recoveries.user_id
                 where digest = $1 and expires_at > $2 and ",
                unanswered!()
            ),
            args![digest, app.clock.now()],
        )
        .await
        .map_err(Into::into)
}

/// Returns the email address that received a link, as long as the link can be used.
async fn recipient(app: &App, token: &SecretString) -> Result<Option<String>> {
    let Some(digest) = opaque::digest(PREFIX, token.expose()) else { return Ok(None) };
    let Some((user, ..)) = asked(app, digest).await? else { return Ok(None) };
    Ok(users::find(app, user).await?.map(|user| user.email.as_str().to_owned()))
}

/// Removes the factors, with the token of the emailed link and the password, once the waiting period has passed.
///
/// # Errors
/// Fails with `recovery.factors_off`; `recovery.bad_token`; `recovery.too_early`; `passwords.wrong`; `lockout.locked`;
/// 503 if the hashing queue is full; or if the database fails.
pub async fn finish(
    app: &App,
    actor: &Actor,
    token: &SecretString,
    password: &SecretString,
) -> Result<()> {
    delay(app)?;
    let digest = opaque::digest(PREFIX, token.expose()).ok_or_else(bad_token)?;
    let now = app.clock.now();
    let row = asked(app, digest).await?;
    let (user, ready_at, sealed, generation) = row.ok_or_else(bad_token)?;
    // SECURITY: the owner has this long to say no (test: lost_factors_come_back_after_a_time).
    if now < ready_at {
        let detail = format!(
            "The waiting period has not ended. You can use this link after {}.",
            for_people(ready_at)
        );
        return Err(Error::bad_field("/token", "recovery.too_early", detail));
    }
    let stored = Stored::new(user, sealed, generation);
    let account = Account::of_link(app, &format!("lost factors of {user}"));
    let guess = lockout::admit(app, actor, account, Client::Unknown).await?.counted(app)?;
    let verdict = passwords::verify(app, QueueSlot::of(actor.ip), Some(&stored), password).await?;
    let mut change = app.change_holding(actor, &[Hold::Alone(user)]).await?;
    if let Verdict::Wrong = verdict {
        guess.wrong(&mut change).await?;
        change
            .commit_quietly("a wrong password for a link is counted; too many of them are an event")
            .await?;
        let detail = "This is not the password of the account.";
        return Err(Error::bad_field("/password", "passwords.wrong", detail));
    }
    users::may_sign_in(&mut change, user).await?.ok_or_else(bad_token)?;
    let used = change
        .run(
            concat!(
                "delete from factor_recoveries where user_id = $1 and digest = $2 and ",
                unanswered!()
            ),
            args![user, digest],
        )
        .await?;
    if used != 1 || !passwords::unchanged(&mut change, &stored).await? {
        return Err(bad_token());
    }
    guess.right(&mut change).await?;
    mfa::remove_all(&mut change, user).await?;
    change.commit(REMOVED.about(user)).await
}

/// Cancels the removal, with the token of the emailed link.
///
/// # Errors
/// Fails with `recovery.bad_token`, or if the database fails.
pub async fn cancel(app: &App, actor: &Actor, token: &SecretString) -> Result<()> {
    let digest = opaque::digest(PREFIX, token.expose()).ok_or_else(bad_token)?;
    let mut change = app.change(actor).await?;
    let row: Option<(UserId,)> = change
        .maybe("delete from factor_recoveries where digest = $1 returning user_id", args![digest])
        .await?;
    let (user,) = row.ok_or_else(bad_token)?;
    change.commit(CANCELLED.about(user)).await
}

/// Voids a request when a credential that it depends on ends. Returns 0, because links aren't counted.
async fn void(change: &mut Change, user: UserId) -> Result<usize> {
    change.run("delete from factor_recoveries where user_id = $1", args![user]).await?;
    Ok(0)
}

/// Cancels the removal when the owner uses a factor, in the same change, because the factor isn't lost.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn not_lost(change: &mut Change, user: UserId) -> Result<()> {
    let row: Option<(UserId,)> = change
        .maybe("delete from factor_recoveries where user_id = $1 returning user_id", args![user])
        .await?;
    if row.is_some() {
        change.note(CANCELLED.about(user));
    }
    Ok(())
}

async fn prune(app: &App) -> Result<()> {
    let upkeep = app.upkeep("expired links for lost factors are deleted");
    // The condition is stated twice: a new request may replace the row in the meantime.
    let sql = "delete from factor_recoveries where expires_at < $1 and user_id in
         (select user_id from factor_recoveries where expires_at < $1 limit $2)";
    upkeep.in_batches(sql, args![app.clock.now()]).await?;
    Ok(())
}
