//! The stored form of counts.

use palisade_db::{Timestamp, args, row_struct};

use super::count::Count;
use super::{Account, Client};
use crate::app::Change;
use crate::error::Result;
use crate::id::UserId;

row_struct! {
    /// A count, as it is stored.
    struct CountRow {
        window_began_at: Timestamp,
        in_window: i64,
        in_a_row: i64,
        locks: i64,
        locked_until: Option<Timestamp>,
        last_at: Timestamp,
        user: Option<UserId>,
    }
}

/// Returns the count and, if the user still exists, the user. Creates an empty count if there is none, and locks its
/// row until the change ends.
pub(super) async fn lock_row(
    change: &mut Change,
    account: &Account,
    client: Client,
) -> Result<(Count, Option<UserId>)> {
    let now = change.now();
    let row: CountRow = change
        .one(
            "insert into lockout_counts (account, client, user_id, window_began_at, in_window, in_a_row,
                locks, refused, last_at)
             values ($1, $2, (select id from users where id = $3), $4, 0, 0, 0, 0, $4)
             on conflict (account, client) do update set account = excluded.account
             returning window_began_at, in_window, in_a_row, locks, locked_until, last_at, user_id",
            args![
                account.key.clone(),
                account.count_of(client),
                account.user.map(|user| user.0),
                now
            ],
        )
        .await?;
    let count = Count {
        window_began_at: row.window_began_at,
        in_window: row.in_window,
        in_a_row: row.in_a_row,
        locks: row.locks,
        locked_until: row.locked_until,
        last_at: row.last_at,
    };
    Ok((count, row.user))
}

pub(super) async fn save(
    change: &mut Change,
    account: &Account,
    client: Client,
    count: Count,
) -> Result<()> {
    change
        .run(
            "update lockout_counts set window_began_at = $3, in_window = $4, in_a_row = $5, locks = $6,
                locked_until = $7, last_at = $8
             where account = $1 and client = $2",
            args![
                account.key.clone(),
                account.count_of(client),
                count.window_began_at,
                count.in_window,
                count.in_a_row,
                count.locks,
                count.locked_until,
                count.last_at,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn refuse(change: &mut Change, account: &Account, client: Client) -> Result<()> {
    change
        .run(
            "update lockout_counts set refused = refused + 1 where account = $1 and client = $2",
            args![account.key.clone(), account.count_of(client)],
        )
        .await?;
    Ok(())
}
