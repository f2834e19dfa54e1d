//! Earlier passwords, if `passwords.history` is set.

use palisade_crypto::secret::SecretString;
use palisade_db::args;

use super::{QueueSlot, Stored, Verdict, verify};
use crate::app::{App, Change};
use crate::error::{Error, Result};
use crate::id::UserId;

/// Refuses a password that is one of the user's most recent ones. Computes one hash for each of them.
///
/// # Errors
/// Fails with `password.reused` at `pointer`; 503 if the hashing queue is full; or if the database fails.
pub(super) async fn refuse_earlier(
    app: &App,
    slot: QueueSlot,
    user: UserId,
    pointer: &str,
    password: &SecretString,
) -> Result<()> {
    let kept = i64::from(app.settings.passwords.history);
    if kept == 0 {
        return Ok(());
    }
    let earlier: Vec<(Vec<u8>,)> = app
        .db
        .all(
            "select sealed from (
                select sealed, 0 as old, changed_at as at from passwords where user_id = $1
                union all
                select sealed, 1 as old, replaced_at as at from password_history where user_id = $1
             ) e order by old, at desc limit $2",
            args![user, kept],
        )
        .await?;
    for (sealed,) in earlier {
        let stored = Stored::apart(user, sealed);
        if let Verdict::Right(_) = verify(app, slot, Some(&stored), password).await? {
            let detail = match kept {
                1 => "Choose a password that differs from your current one.".to_owned(),
                _ => format!("Choose a password that is not among your last {kept} passwords."),
            };
            return Err(Error::bad_field(pointer, "password.reused", detail));
        }
    }
    Ok(())
}

/// Stores the password that is about to be replaced, if `passwords.history` is set, and deletes the ones that are too
/// old to be compared.
pub(super) async fn keep(change: &mut Change, user: UserId) -> Result<()> {
    let kept = i64::from(change.app().settings.passwords.history);
    if kept == 0 {
        return Ok(());
    }
    let (id, now) = (change.app().new_id(), change.now());
    change
        .run(
            "insert into password_history (id, user_id, sealed, replaced_at)
             select $2, user_id, sealed, $3 from passwords where user_id = $1",
            args![user, id, now],
        )
        .await?;
    // The current password, which is stored in `passwords`, is one of the `kept` ones.
    change
        .run(
            "delete from password_history where user_id = $1 and id not in
                (select id from password_history where user_id = $1 order by replaced_at desc, id desc limit $2)",
            args![user, kept - 1],
        )
        .await?;
    Ok(())
}
