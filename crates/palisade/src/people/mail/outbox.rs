//! The queue of emails waiting to be sent.

use std::time::Duration;

use futures_util::future::join_all;
use palisade_crypto::seal::SealingKey;
use palisade_db::{Timestamp, args};
use tokio::time::timeout;
use uuid::Uuid;

use super::smtp::{Connection, Failure, Next};
use super::{Content, EmailTemplate, EmailTemplates, FAILED, Post};
use crate::app::{Actor, App, Change};
use crate::error::{Error, Result};
use crate::metrics::{Label, Metric};
use crate::users;

/// How long a process has to send an email that it has taken. After that, any process may take the email again.
const LEASE: Duration = Duration::from_secs(5 * 60);
/// How long an attempt may take. Recording its outcome must end before the lease does.
const ATTEMPT: Duration = Duration::from_secs(4 * 60);
const _: () = assert!(ATTEMPT.as_secs() + 60 <= LEASE.as_secs());
/// The number of emails that a process sends concurrently.
const AT_ONCE: usize = 4;
/// The delays between attempts. The last one repeats.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(3 * 3600),
    Duration::from_secs(6 * 3600),
];
/// How long delivery of an email is retried. RFC 5321 section 4.5.4.1 recommends at least 4 to 5 days for mail in
/// general, but these emails become stale sooner.
const TRIED_FOR: Duration = Duration::from_secs(3 * 24 * 3600);
/// How long emails that were sent or could not be delivered are kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

fn key(app: &App) -> SealingKey {
    app.root.derive("outbox")
}

/// Stores an email in the queue.
pub(super) async fn put(
    change: &mut Change,
    template: &EmailTemplate,
    content: &Content,
) -> Result<()> {
    let app = change.app().clone();
    let id = app.new_id();
    let plain = serde_json::to_vec(content).map_err(Error::internal)?;
    let sealed = key(&app).seal(&*app.random, id.as_bytes(), &plain);
    let now = change.now();
    change
        .run(
            "insert into outbox (id, template, sealed, created_at, next_try_at, tries)
             values ($1, $2, $3, $4, $4, 0)",
            args![id, template.name, sealed, now],
        )
        .await?;
    Ok(())
}

/// Sends all emails that are due.
pub(super) async fn send_due(app: &App) -> Result<()> {
    if !app.state::<Post>().is_on() {
        return Ok(());
    }
    let done = join_all((0..AT_ONCE).map(|_| send_one_by_one(app))).await;
    done.into_iter().collect()
}

async fn send_one_by_one(app: &App) -> Result<()> {
    let mut kept = None;
    while let Some(taken) = take(app).await? {
        match within(ATTEMPT, send(app, &taken, &mut kept)).await {
            Ok(()) => sent(app, &taken).await?,
            Err(failure) => failed(app, &taken, failure).await?,
        }
    }
    if let Some(connection) = kept {
        connection.quit().await;
    }
    Ok(())
}

/// An email that this process is sending.
struct Taken {
    id: Uuid,
    template: String,
    sealed: Vec<u8>,
    tries: i64,
    created_at: Timestamp,
}

type Row = (Uuid, String, Option<Vec<u8>>, i64, Timestamp);

/// Takes the email that has waited longest; two processes never take the same one.
async fn take(app: &App) -> Result<Option<Taken>> {
    let now = app.clock.now();
    let row: Option<Row> = app
        .upkeep("this process takes an email to send it")
        .maybe(
            "update outbox set tries = tries + 1, next_try_at = $2
             where id = (select id from outbox where next_try_at <= $1 order by next_try_at limit 1)
                and next_try_at <= $1
             returning id, template, sealed, tries, created_at",
            args![now, now.plus(LEASE)],
        )
        .await?;
    Ok(row.map(|(id, template, sealed, tries, created_at)| Taken {
        id,
        template,
        sealed: sealed.unwrap_or_default(),
        tries,
        created_at,
    }))
}

/// Ends an attempt that takes longer than `limit`.
///
/// SECURITY: the time limits of the steps add up to more than the lease, and a mail server that uses them must not get
/// the email from two processes (test: an_attempt_ends_before_its_lease).
async fn within(
    limit: Duration,
    attempt: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let late = |_| Err(Failure::retry("the mail server took too long for all steps together"));
    timeout(limit, attempt).await.unwrap_or_else(late)
}

/// Sends an email.
async fn send(app: &App, taken: &Taken, kept: &mut Option<Connection>) -> Result<(), Failure> {
    let unreadable =
        |_| Failure::mend("the email can't be decrypted: it was encrypted with another root key");
    let plain = key(app).open(taken.id.as_bytes(), &taken.sealed).map_err(unreadable)?;
    let content: Content = serde_json::from_slice(plain.expose())
        .map_err(|_| Failure::mend("the email can't be read"))?;
    let templates = app.state::<EmailTemplates>();
    let template = templates
        .find(&taken.template)
        .ok_or_else(|| Failure::mend("the template of the email no longer exists"))?;
    let content =
        (template.prepare)(app, content).await.map_err(|error| Failure::retry(error.code()))?;
    // SECURITY: no email is sent to a service account, whatever queued it (test: a_service_account_never_signs_in).
    let reachable = |content: &Content| !content.to.as_deref().is_some_and(users::unreachable);
    let Some(content) = content.filter(reachable) else { return Ok(()) };
    let rendered = templates.render(app, template, &content).map_err(Failure::mend)?;
    app.state::<Post>().send(app, taken.id, rendered, kept).await
}

async fn sent(app: &App, taken: &Taken) -> Result<()> {
    let now = app.clock.now();
    let sql = "update outbox set sent_at = $2, sealed = null, next_try_at = null, problem = null
         where id = $1";
    app.upkeep("an email was sent").run(sql, args![taken.id, now]).await?;
    app.metrics.count(&DELIVERIES, &["sent"]);
    Ok(())
}

async fn failed(app: &App, taken: &Taken, failure: Failure) -> Result<()> {
    let now = app.clock.now();
    let Failure { problem, next, .. } = failure;
    let (template, tries) = (&taken.template, taken.tries);
    let given_up = next == Next::GiveUp || now.since(taken.created_at) >= TRIED_FOR;
    match next {
        Next::Mend => {
            tracing::error!(template, tries, problem, given_up, "an email was not delivered")
        }
        _ => tracing::warn!(template, tries, problem, given_up, "an email was not delivered"),
    }
    if !given_up {
        let tries = usize::try_from(taken.tries - 1).unwrap_or(0);
        let pause = PAUSES.get(tries).or(PAUSES.last()).copied().unwrap_or(LEASE);
        let sql = "update outbox set next_try_at = $2, problem = $3 where id = $1";
        let args = args![taken.id, now.plus(pause), problem];
        app.upkeep("delivery of an email will be retried later").run(sql, args).await?;
        app.metrics.count(&DELIVERIES, &["retried"]);
        return Ok(());
    }
    let mut change = app.change(&Actor::system()).await?;
    change
        .run(
            "update outbox set failed_at = $2, next_try_at = null, problem = $3 where id = $1",
            args![taken.id, now, problem.clone()],
        )
        .await?;
    let entry = FAILED.entry().detail("template", taken.template.clone());
    change.commit(entry.detail("problem", problem)).await?;
    app.metrics.count(&DELIVERIES, &["failed"]);
    Ok(())
}

static WAITING: Metric = Metric::gauge(
    "palisade_outbox_waiting",
    &[],
    "Emails that wait to be sent, counted every 15 seconds.",
);
static OLDEST: Metric = Metric::gauge(
    "palisade_outbox_oldest_seconds",
    &[],
    "The age of the oldest email that waits to be sent, in seconds, and 0 if none waits.",
);
static DELIVERIES: Metric = Metric::counter(
    "palisade_emails",
    &[Label::one_of("outcome", &["sent", "retried", "failed"])],
    "Attempts to send an email: `retried` attempts are repeated later, `failed` emails are given up.",
);
pub(super) const METRICS: &[&Metric] = &[&WAITING, &OLDEST, &DELIVERIES];

pub(super) async fn measure(app: &App) -> Result<()> {
    let sql = "select count(*), min(created_at) from outbox where next_try_at is not null";
    let (waiting, oldest): (i64, Option<Timestamp>) = app.db.one(sql, args![]).await?;
    let age = oldest.map_or(Duration::ZERO, |oldest| app.clock.now().since(oldest));
    app.metrics.set(&WAITING, waiting as f64, &[]);
    app.metrics.set(&OLDEST, age.as_secs_f64(), &[]);
    Ok(())
}

/// Deletes emails sent or given up long ago.
pub(super) async fn prune(app: &App) -> Result<()> {
    let before = app.clock.now().minus(KEPT_FOR);
    let sql = "delete from outbox where id in
         (select id from outbox where next_try_at is null and created_at < $1 limit $2)";
    app.upkeep("old sent or failed emails are deleted").in_batches(sql, args![before]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn an_attempt_ends_before_its_lease() {
        let limit = Duration::from_millis(20);
        let late = timeout(Duration::from_secs(20), within(limit, pending())).await;
        let failure = late.expect("the attempt ended").unwrap_err();
        assert_eq!(failure.next, Next::Retry);
        assert!(failure.problem.contains("too long"), "{failure:?}");
        within(limit, ready(Ok(()))).await.unwrap();
        let failure = within(limit, ready(Err(Failure::give_up("no")))).await.unwrap_err();
        assert_eq!(failure.next, Next::GiveUp);
    }
}
