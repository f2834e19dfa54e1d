//! A user's stored sessions: for the export, and for recognizing a device.

use palisade_db::{Timestamp, args, row_struct};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::{App, Change};
use crate::error::Result;
use crate::id::{SessionId, UserId};
use crate::shape;

row_struct! {
    /// A stored session, active or ended, as exported for its owner.
    #[derive(Clone, Debug, Serialize, JsonSchema)]
    #[schemars(rename = "KeptSession")]
    pub struct KeptSession {
        /// The id of the session.
        pub id: SessionId,
        /// The name that the client gave itself.
        pub device_name: Option<String>,
        /// The client's `User-Agent`.
        pub user_agent: Option<String>,
        /// The IP address from which the user signed in.
        pub ip: Option<String>,
        /// When the session began.
        #[schemars(with = "shape::DateTime")]
        pub created_at: Timestamp,
        /// When the session was last extended.
        #[schemars(with = "shape::DateTime")]
        pub last_used_at: Timestamp,
        /// When the session was ended, if it was.
        #[schemars(with = "Option<shape::DateTime>")]
        pub ended_at: Option<Timestamp>,
        /// Why the session was ended.
        pub ended_because: Option<String>,
    }
}

/// Returns all of a user's stored sessions, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn kept(app: &App, user: UserId) -> Result<Vec<KeptSession>> {
    let sql =
        "select id, device_name, user_agent, ip, created_at, last_used_at, ended_at, ended_because
         from sessions where user_id = $1 order by created_at desc, id desc";
    Ok(app.db.all(sql, args![user]).await?)
}

/// Returns whether the user has signed in with this software from this IP address before, according to the stored
/// sessions.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn seen(change: &mut Change, user: UserId, ip: &str, agent: &str) -> Result<bool> {
    let row: Option<(i64,)> = change
        .maybe(
            "select cast(1 as bigint) from sessions
             where user_id = $1 and coalesce(ip, '') = $2 and coalesce(user_agent, '') = $3 limit 1",
            args![user, ip, agent],
        )
        .await?;
    Ok(row.is_some())
}
