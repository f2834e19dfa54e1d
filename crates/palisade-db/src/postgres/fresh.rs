//! Determines which failures are specific to one connection, so that a retry on a fresh one may succeed.
//!
//! A connection keeps prepared statements, and the server keeps plans for them. After `pg_restore --clean`, a migration
//! or another change to the tables, they are no longer valid; behind a pooler, they may belong to another server
//! connection. Such a connection is closed, and so is every older one, which has the same problem.

use sqlx::postgres::PgDatabaseError;

/// Returns whether an operation that failed on this connection may succeed on a fresh one (SQLSTATE: PostgreSQL manual,
/// appendix A).
pub(crate) fn is_of_the_connection(reported: &PgDatabaseError) -> bool {
    match reported.code() {
        // connection failure, shutdown, crash, a session that was idle for too long
        "08003" | "08006" | "57P01" | "57P02" | "57P05" => true,
        _ => is_outdated(reported),
    }
}

/// Returns whether a prepared statement, or what the server keeps for it, no longer fits the tables.
pub(crate) fn is_outdated(reported: &PgDatabaseError) -> bool {
    match reported.code() {
        // no such prepared statement; one that exists already
        "26000" | "42P05" => true,
        // "cached plan must not change result type": the message is translated, the name of the routine is not.
        "0A000" => reported.routine() == Some("RevalidateCachedQuery"),
        // An object that the plan knew by its number is gone ("cache lookup failed for type 16412"); such
        // internal messages aren't translated.
        "XX000" => reported.message().starts_with("cache lookup failed"),
        _ => false,
    }
}
