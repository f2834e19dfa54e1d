//! The background work of a running Palisade: it reads the feed, and runs the scheduled jobs.
//!
//! # Promises
//!
//! - Background work continues after a panic in it.
//! - The records that this process wrote to the audit log are chained before it stops.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use palisade_db::Woken;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::error::{Error, Result};
use crate::feed::POLL;
use crate::metrics::{Label, Metric};
use crate::module::Job;
use crate::{audit_log, tokens};

/// Every change wakes every process. Changes within this time after a read of the feed are read together.
const GATHERED_FOR: Duration = Duration::from_millis(25);

/// How much longer than usual a failed job waits before it runs again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

pub(crate) static JOB_SUCCESS: Metric = Metric::gauge(
    "palisade_job_last_success_timestamp_seconds",
    &[Label::listed("job", "a job of this server")],
    "When the job last succeeded in this process, in seconds since 1970-01-01 00:00 UTC.",
);
pub(crate) static JOB_FAILURES: Metric = Metric::counter(
    "palisade_job_failures",
    &[Label::listed("job", "a job of this server")],
    "Runs of the job that failed in this process.",
);

/// Work that belongs to the frame and not to a slice.
const FRAME_JOBS: &[Job] = &[Job {
    name: "feed.prune",
    every: Duration::from_secs(60),
    run: |app| {
        let upkeep = app.upkeep("notices that every reader has seen are deleted");
        Box::pin(app.feed.prune(upkeep, app.clock.now(), tokens::longest_life(app)))
    },
}];

/// Starts reading the feed and running the jobs.
///
/// # Errors
/// Returns an error if the initial read of the feed fails.
pub(crate) async fn start(app: &App, jobs: impl Iterator<Item = &'static Job>) -> Result<Running> {
    app.feed.start(&app.db, &app.clock).await?;
    catch_up(app, false, false).await?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![tokio::spawn(until(stopped.clone(), read_feed(app.clone())))];
    for job in jobs.chain(FRAME_JOBS) {
        tasks.push(tokio::spawn(until(stopped.clone(), repeat(app.clone(), *job))));
    }
    Ok(Running { app: app.clone(), stop, tasks })
}

/// Background work of a running app; stops when it is dropped or when [`stop`](Self::stop) is called.
pub struct Running {
    app: App,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Stops the work and waits until it has stopped. Then chains the pending records of the audit log, which takes
    /// three seconds at most.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        join_all(self.tasks).await;
        // SECURITY: a record that isn't chained can be deleted unseen once the process that wrote it is gone
        // (test: what_waits_is_chained_when_the_work_stops).
        if let Some(Err(error)) = survived("audit.chain", audit_log::seal_all(&self.app)).await {
            let cause = error.causes().unwrap_or_default();
            tracing::error!(cause, "the newest records of the audit log are not chained yet");
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Catches a panic in background work, so that it can continue. Returns `None` if there was one.
///
/// SECURITY: if a panic ended a task, emails would stay unsent, the audit log would stay unchained, and the process
/// would no longer be notified of revocations and would refuse every request (test:
/// a_panic_in_background_work_does_not_end_it).
async fn survived<T>(what: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await.ok();
    if ended.is_none() {
        tracing::error!(what, "background work panicked; it is retried");
    }
    ended
}

/// Applies the changes of other processes, for as long as the app runs.
async fn read_feed(app: App) {
    let mut changes = app.db.changes();
    let mut reachable = true;
    let (mut moved, mut unsure) = (false, false);
    loop {
        let read = async {
            moved |= changes.wait(POLL).await == Woken::Replaced;
            catch_up(&app, moved, unsure).await
        };
        match survived("feed", read).await {
            Some(Ok(())) => {
                (reachable, moved, unsure) = (true, false, false);
                tokio::time::sleep(GATHERED_FOR).await;
            }
            Some(Err(error)) => {
                if std::mem::take(&mut reachable) {
                    let cause = error.causes().unwrap_or_default();
                    tracing::error!(
                        cause,
                        "the feed can't be read; requests are refused until it can"
                    );
                }
                tokio::time::sleep(POLL).await;
            }
            None => {
                // Notices read before the panic aren't read again.
                unsure = true;
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Reads the feed once and applies the new notices. `moved` means that the database may have been replaced. `unsure`
/// means that notices read earlier may not have been applied.
async fn catch_up(app: &App, moved: bool, unsure: bool) -> Result<()> {
    let began = app.clock.monotonic();
    let mut poll = app.feed.poll(&app.db, began).await?;
    if moved || poll.changed {
        tracing::warn!(
            "the database may have been restored, restarted or replaced by a standby: all caches \
             are discarded"
        );
        app.feed.start(&app.db, &app.clock).await?;
        // SECURITY: only now, so that everything cached from here on belongs to the history that the feed follows
        // (test: a_sign_out_is_heard_after_the_database_was_restored).
        app.forget_all();
        poll = app.feed.poll(&app.db, began).await?;
    }
    if poll.changed {
        return Err(Error::internal("the feed's history changed while it was read"));
    }
    if poll.lost || unsure {
        app.forget_all();
    }
    for (topic, subject) in poll.notices {
        app.apply(&topic, subject);
    }
    app.feed.read_at(began);
    Ok(())
}

async fn repeat(app: App, job: Job) {
    loop {
        tokio::time::sleep(job.every).await;
        match survived(job.name, async { (job.run)(&app).await }).await {
            Some(Ok(())) => {
                let now = app.clock.now().as_micros() as f64 / 1e6;
                app.metrics.set(&JOB_SUCCESS, now, &[job.name]);
                continue;
            }
            Some(Err(error)) => {
                let cause = error.causes().unwrap_or_default();
                tracing::warn!(job = job.name, code = error.code(), cause, "a job failed");
            }
            None => {}
        }
        app.metrics.count(&JOB_FAILURES, &[job.name]);
        tokio::time::sleep(AFTER_A_FAILURE).await;
    }
}
