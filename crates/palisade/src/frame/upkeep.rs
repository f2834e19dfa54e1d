//! Upkeep: writes outside a change, with no effect on users.
//!
//! # Promises
//!
//! - **Every write outside a change states its reason** ([`App::upkeep`](crate::app::App::upkeep)). The test
//!   `every_upkeep_is_known` lists the reasons.

use palisade_db::{Args, Db, FromRow, Tx};

use crate::error::Result;

/// Permission to make writes that record no event: deleting expired rows, recording what was sent, ordering the audit
/// log.
#[derive(Clone, Copy)]
pub struct Upkeep<'a>(&'a Db);

impl Upkeep<'_> {
    /// Creates the permission. The `reason` is only for readers of the code.
    pub(super) fn new<'a>(db: &'a Db, reason: &'static str) -> Upkeep<'a> {
        debug_assert!(!reason.is_empty());
        Upkeep(db)
    }

    /// Runs one statement in its own transaction. Returns how many rows it affected.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn run(self, sql: &'static str, args: Args) -> Result<u64> {
        let mut tx = self.0.begin().await?;
        let touched = tx.run(sql, args).await?;
        tx.commit().await?;
        Ok(touched)
    }

    /// Runs one statement in its own transaction. Returns the resulting row, if there is one.
    ///
    /// # Errors
    /// Returns an error if the statement returns more than one row, or the database fails.
    pub async fn maybe<T: FromRow>(self, sql: &'static str, args: Args) -> Result<Option<T>> {
        let mut tx = self.0.begin().await?;
        let row = tx.maybe(sql, args).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Starts a transaction, for work that takes several statements.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn begin(self) -> Result<Tx> {
        Ok(self.0.begin().await?)
    }
}
