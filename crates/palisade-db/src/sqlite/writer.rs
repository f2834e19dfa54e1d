//! The only connection that writes, and the commits that its users share.
//!
//! A sync to disk costs milliseconds, a savepoint microseconds. So changes that arrive together become members of one
//! group: an outer transaction in which each member runs in its own savepoint, one after the other, in the order of
//! their requests. The group commits when no change is waiting or after [`GROUP_LIMIT`] members, and its members are
//! acknowledged only after that.
//!
//! A task owns the connection, so nothing a caller does (drop, cancellation, panic) can leave it in an unfinished
//! state: a member's handle is a channel, and a closed channel means "roll back".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Connection, Failure, Source, Use};
use crate::error::is_sqlite_io;
use crate::statement::{Answer, Statement};
use crate::{Args, DbError, DbErrorKind};

/// The maximum number of members in a group.
const GROUP_LIMIT: usize = 64;

/// The queue of changes waiting for the writer.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<Request>,
    groups: Arc<Groups>,
    patience: Duration,
    #[cfg(feature = "testing")]
    waiting: Arc<std::sync::atomic::AtomicUsize>,
}

enum Request {
    Begin(Grant),
    Close(oneshot::Sender<()>),
}

type Grant = oneshot::Sender<Result<Member, DbError>>;

enum Command {
    Run(Statement, oneshot::Sender<Result<Answer, DbError>>),
    Commit(Acknowledgement),
}

type Acknowledgement = oneshot::Sender<Result<(), DbError>>;

/// The opened groups, and how they ended.
struct Groups {
    opened: AtomicU64,
    ended: AtomicU64,
    committed: AtomicU64,
    last: watch::Sender<Ended>,
}

#[derive(Clone, Copy, Default)]
struct Ended {
    group: u64,
    last_failed: u64,
}

impl Writer {
    /// Opens the writing connection and starts the task that owns it.
    pub(crate) async fn start(source: Source) -> Result<Self, DbError> {
        let connection = Connection::open(&source, Use::Writing).await?;
        let (queue, requests) = mpsc::unbounded_channel();
        let groups = Arc::new(Groups {
            opened: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            last: watch::Sender::default(),
        });
        let patience = source.statement_timeout;
        let task = Task {
            source,
            requests,
            next: None,
            connection: Some(connection),
            members: Vec::new(),
            closing: None,
            groups: Arc::clone(&groups),
        };
        tokio::spawn(task.run());
        Ok(Self {
            queue,
            groups,
            patience,
            #[cfg(feature = "testing")]
            waiting: Arc::default(),
        })
    }

    /// Waits for a turn, in the order of the calls.
    pub(crate) async fn begin(&self) -> Result<Member, DbError> {
        #[cfg(feature = "testing")]
        let _waiting = Waiting::new(&self.waiting);
        let (grant, granted) = oneshot::channel();
        self.queue.send(Request::Begin(grant)).map_err(|_| closed())?;
        match timeout(self.patience, granted).await {
            Ok(answer) => answer.map_err(|_| closed())?,
            Err(_) => Err(DbError::unavailable("too many changes are waiting")),
        }
    }

    /// Waits until the group that is open now, if any, is on disk.
    pub(crate) async fn settled(&self) -> Result<(), DbError> {
        let open = self.groups.opened.load(Ordering::Acquire);
        if self.groups.ended.load(Ordering::Acquire) >= open {
            return Ok(());
        }
        let mut last = self.groups.last.subscribe();
        let ended = *last.wait_for(|ended| ended.group >= open).await.map_err(|_| closed())?;
        if ended.last_failed >= open { Err(group_failed()) } else { Ok(()) }
    }

    /// Makes a change that has no effect, but is written to disk.
    pub(crate) async fn try_to_write(&self) -> Result<(), DbError> {
        let mut member = self.begin().await?;
        // SQLite writes no page for an update that leaves the row as it is: the row has to change and change back.
        for sql in [
            "update schema_migrations set name = name || '.' where module = 'palisade_db'",
            "update schema_migrations set name = rtrim(name, '.') where module = 'palisade_db'",
        ] {
            member.run(Statement::new(sql, Args::default())?).await?;
        }
        member.commit().await
    }

    /// Returns how many groups have been committed.
    #[cfg(feature = "testing")]
    pub(crate) fn committed_groups(&self) -> u64 {
        self.groups.committed.load(Ordering::Acquire)
    }

    /// Returns how many changes are waiting for their turn.
    #[cfg(feature = "testing")]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Ends the task once the changes that are already waiting are done.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Request::Close(done)).is_ok() && closed.await.is_err() {
            tracing::warn!("the SQLite writer ended before it could close");
        }
    }
}

/// A change waiting for its turn, counted until its turn comes or it gives up.
#[cfg(feature = "testing")]
struct Waiting(Arc<std::sync::atomic::AtomicUsize>);

#[cfg(feature = "testing")]
impl Waiting {
    fn new(count: &Arc<std::sync::atomic::AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

#[cfg(feature = "testing")]
impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn closed() -> DbError {
    DbError::unavailable("the database is being closed")
}

fn group_failed() -> DbError {
    DbError::unavailable("the shared commit failed")
}

/// A member of the open group: the right to write until it is committed or dropped.
pub(crate) struct Member {
    commands: mpsc::Sender<Command>,
}

impl Member {
    pub(crate) async fn run(&mut self, statement: Statement) -> Result<Answer, DbError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Run(statement, reply)).await?;
        answer.await.map_err(|_| ended())?
    }

    /// Commits, and waits until the group is on disk. The commit continues even if the caller stops waiting.
    pub(crate) async fn commit(self) -> Result<(), DbError> {
        let (acknowledge, acknowledged) = oneshot::channel();
        self.send(Command::Commit(acknowledge)).await?;
        acknowledged.await.map_err(|_| DbError::outcome_unknown())?
    }

    async fn send(&self, command: Command) -> Result<(), DbError> {
        self.commands.send(command).await.map_err(|_| ended())
    }
}

fn ended() -> DbError {
    DbError::new(DbErrorKind::Timeout, "the transaction was open for too long")
}

struct Task {
    source: Source,
    requests: mpsc::UnboundedReceiver<Request>,
    /// The turn after the current one, already taken from the queue.
    next: Option<Grant>,
    connection: Option<Connection>,
    /// Members of the open group that are released and wait for its commit.
    members: Vec<Acknowledgement>,
    closing: Option<oneshot::Sender<()>>,
    groups: Arc<Groups>,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.next_turn().await {
            let group = self.groups.opened.fetch_add(1, Ordering::AcqRel) + 1;
            let result = self.group(first).await;
            if result.is_err() {
                self.reset().await;
            }
            self.end(group, result);
        }
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
        if let Some(done) = self.closing.take() {
            // If the caller of `close` has given up, no one listens, and nothing is lost.
            let _ = done.send(());
        }
    }

    async fn next_turn(&mut self) -> Option<Grant> {
        if let Some(grant) = self.next.take() {
            return Some(grant);
        }
        while self.closing.is_none() {
            match self.requests.recv().await? {
                Request::Begin(grant) if grant.is_closed() => {}
                Request::Begin(grant) => return Some(grant),
                Request::Close(done) => self.closing = Some(done),
            }
        }
        None
    }

    fn turn_waiting(&mut self) -> Option<Grant> {
        while self.closing.is_none() {
            match self.requests.try_recv().ok()? {
                Request::Begin(grant) if grant.is_closed() => {}
                Request::Begin(grant) => return Some(grant),
                Request::Close(done) => self.closing = Some(done),
            }
        }
        None
    }

    async fn group(&mut self, first: Grant) -> Result<(), DbError> {
        if let Err(cause) = self.open().await {
            let error = DbError::from(cause);
            // A waiter that gave up meanwhile needs no answer.
            let _ = first.send(Err(error.clone()));
            return Err(error);
        }
        self.next = Some(first);
        let mut turns = 0;
        while let Some(grant) = self.next.take() {
            let committed = self.serve(grant).await?;
            turns += 1;
            self.next = if turns < GROUP_LIMIT { self.turn_waiting() } else { None };
            let kept = committed.is_some();
            // Added before the next statement, which can fail: the end of the group informs every member.
            self.members.extend(committed);
            match (kept, self.next.is_some()) {
                (true, true) => self.control("release member; savepoint member").await?,
                // The savepoint stays open for the next member.
                (false, true) => self.control("rollback to member").await?,
                (true, false) => self.commit("release member; commit").await?,
                (false, false) if self.members.is_empty() => self.control("rollback").await?,
                (false, false) => {
                    self.commit("rollback to member; release member; commit").await?;
                }
            }
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => {
                self.source.check()?;
                connection
            }
            None => Connection::open(&self.source, Use::Writing).await?,
        };
        self.connection.insert(connection).control("begin immediate; savepoint member").await
    }

    fn connection(&mut self) -> Result<&mut Connection, DbError> {
        self.connection.as_mut().ok_or_else(group_failed)
    }

    async fn control(&mut self, sql: &'static str) -> Result<(), DbError> {
        self.connection()?.control(sql).await.map_err(DbError::from)
    }

    /// Runs one member in the open savepoint until it commits, drops its handle or has taken too long. A member that
    /// commits is acknowledged at the end of the group.
    ///
    /// # Errors
    /// Returns an error if the outer transaction can no longer be trusted.
    async fn serve(&mut self, grant: Grant) -> Result<Option<Acknowledgement>, DbError> {
        let (commands, mut received) = mpsc::channel(1);
        if grant.send(Ok(Member { commands })).is_ok() {
            let deadline = Instant::now() + self.source.statement_timeout * 2;
            while let Ok(Some(command)) = timeout_at(deadline, received.recv()).await {
                match command {
                    Command::Run(statement, reply) => self.statement(&statement, reply).await?,
                    Command::Commit(acknowledge) => return Ok(Some(acknowledge)),
                }
            }
        }
        Ok(None)
    }

    async fn statement(
        &mut self,
        statement: &Statement,
        reply: oneshot::Sender<Result<Answer, DbError>>,
    ) -> Result<(), DbError> {
        let answer = self.connection()?.run(statement).await;
        let (answer, fatal) = match answer {
            Ok(answer) => (Ok(answer), None),
            Err(Failure::Statement(error)) => (Err(error), None),
            Err(Failure::Transaction(error)) => (Err(error.clone()), Some(error)),
        };
        // A canceled caller gets no answer; its closed channel rolls the member back.
        let _ = reply.send(answer);
        fatal.map_or(Ok(()), Err)
    }

    async fn commit(&mut self, sql: &'static str) -> Result<(), DbError> {
        match self.connection()?.control(sql).await {
            Ok(()) => {
                self.groups.committed.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(cause) if is_sqlite_io(&cause) => Err(DbError::outcome_unknown().caused_by(cause)),
            Err(cause) => Err(cause.into()),
        }
    }

    /// SECURITY: after a failed commit, the transaction may still be open. If it were left open, the next group's
    /// commit would store changes reported to this group's members as lost (test:
    /// a_group_that_cannot_commit_tells_every_member_and_stores_nothing).
    async fn reset(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            if let Err(cause) = connection.control("rollback").await {
                tracing::debug!(%cause, "nothing to roll back");
            }
            connection.close().await;
        }
    }

    fn end(&mut self, group: u64, result: Result<(), DbError>) {
        self.groups.ended.store(group, Ordering::Release);
        self.groups.last.send_modify(|last| {
            last.group = group;
            if result.is_err() {
                last.last_failed = group;
            }
        });
        let told = result.map_err(|cause| match cause.kind() {
            DbErrorKind::OutcomeUnknown => cause,
            _ => group_failed().caused_by(cause),
        });
        for acknowledge in self.members.drain(..) {
            // The caller may be gone, which does not affect whether its change is stored.
            let _ = acknowledge.send(told.clone());
        }
    }
}
