//! Resuming the log after a fault.

use palisade_db::args;

use super::head::{Ending, Finding, Head, put};
use super::{FaultKind, RESEALED};
use crate::app::{Actor, App};
use crate::error::Result;

/// Creates a new head from the last record of the chain, if the head is missing or doesn't match the records. Returns
/// what was wrong, and records it as an event. Faults in existing records can still be found.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn reseal(app: &App) -> Result<Option<(FaultKind, &'static str)>> {
    let ending = Ending::read(&app.db, None).await?;
    let (_, finding) = ending.judge(&app.audit_keys.chain(), None);
    let Some(Finding { kind, detail, .. }) = finding else { return Ok(None) };
    let mut change = app.change(&Actor::operator()).await?;
    // Locks the old head, so that no server chains from it in the meantime.
    change.run("update audit_head set position = position where one = 1", args![]).await?;
    let last: Option<(i64, [u8; 32])> = change
        .maybe(
            "select position, chain from audit_events where position is not null
             order by position desc limit 1",
            args![],
        )
        .await?;
    let head = last.map_or(Head::START, |(position, chain)| Head { position, chain });
    put(&mut change, head).await?;
    let entry = RESEALED.entry().detail("kind", kind.as_str()).detail("detail", detail);
    change.commit(entry.detail("position", head.position.to_string())).await?;
    Ok(Some((kind, detail)))
}
