//! Refuses a pooler that gives a client another server connection for each transaction or statement.
//!
//! On such a connection, time limits and the search path would be lost or reach other clients, notifications would never
//! arrive, and prepared statements would fail.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::time::timeout;

use crate::{DbError, DbErrorKind};

/// How often both connections are compared. A pooler may return a client to the same server connection by chance.
const ROUNDS: usize = 3;

/// How long to wait for the second connection. A pooler in session mode lets it wait if no server connection is free.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process that serves a connection. In the simple protocol, which works behind every pooler.
const SERVER: &str = "select concat_ws(' ', pg_backend_pid(), pg_postmaster_start_time())";

/// Opens a second connection and checks that each of the two has one server process to itself: two connections that are
/// open at the same time never have the same one, and none ever changes it (tests:
/// a_pooler_that_keeps_no_session_is_refused, a_pooler_in_session_mode_is_accepted).
pub(super) async fn refuse_shared_servers(
    first: &mut PgConnection,
    connect: &PgConnectOptions,
) -> Result<(), DbError> {
    let Ok(Ok(mut second)) = timeout(PATIENCE, connect.connect()).await else {
        // Nothing is known, except that connections are scarce.
        return Ok(());
    };
    let compared = timeout(PATIENCE, are_shared(first, &mut second)).await;
    // Not awaited: it may be waiting for a server connection.
    tokio::spawn(second.close_hard());
    match compared {
        Ok(Ok(true)) => Err(keeps_no_session()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) | Err(_) => Ok(()),
    }
}

/// Returns the error for such a pooler.
fn keeps_no_session() -> DbError {
    DbError::wrong(
        "the database URL leads to a connection pooler in transaction or statement mode, in which the state of a \
         connection is lost: use the pooler in session mode (pgbouncer: pool_mode = session), or the URL of the \
         database server itself",
    )
}

/// Replaces the error of a new connection whose prepared statement doesn't exist: only such a pooler causes it.
pub(super) fn explain(error: DbError) -> DbError {
    match error.kind() {
        DbErrorKind::BrokenOff => keeps_no_session().caused_by(error),
        _ => error,
    }
}

/// Asks each connection twice in a row: a pooler may reuse the server connection that it used last, or the one that it
/// hasn't used for longest.
async fn are_shared(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, DbError> {
    let mine = server(first).await?;
    let mut others = None;
    for _ in 0..ROUNDS {
        if server(first).await? != mine {
            return Ok(true);
        }
        for _ in 0..2 {
            let other = server(second).await?;
            if other == mine || others.get_or_insert_with(|| other.clone()) != &other {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn server(connection: &mut PgConnection) -> Result<String, DbError> {
    Ok(connection.fetch_one(SERVER).await?.try_get(0)?)
}
