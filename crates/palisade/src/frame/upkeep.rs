//! Upkeep: writes outside a change, with no effect on users.
//!
//! # Promises
//!
//! - **Every write outside a change states its reason** ([`App::upkeep`](crate::app::App::upkeep)). The test
//!   `every_upkeep_is_known` lists the reasons.
//! - **Rows are deleted in batches**, so that other writers don't wait, however many rows have expired.

use palisade_db::{Args, Db, FromRow, Tx, Value};

use crate::error::Result;

/// How many rows one batch affects: a few milliseconds of work.
const BATCH: u32 = 1000;

/// Permission to make writes that record no event, such as deleting expired rows, recording what was sent or chaining
/// audit records.
#[derive(Clone, Copy)]
pub struct Upkeep<'a>(&'a Db);

impl Upkeep<'_> {
    /// Creates the permission. The `reason` is only for readers of the code.
    pub(super) fn new<'a>(db: &'a Db, reason: &'static str) -> Upkeep<'a> {
        debug_assert!(!reason.is_empty());
        Upkeep(db)
    }

    /// Runs one statement in its own transaction. Returns how many rows it affected. Use
    /// [`in_batches`](Self::in_batches) for a statement that can affect many rows.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn run(self, sql: &'static str, args: Args) -> Result<u64> {
        debug_assert!(
            !sql.starts_with("delete") || sql.contains(" limit "),
            "rows are deleted in batches: {sql}"
        );
        self.once(sql, args).await
    }

    /// Repeats a statement that affects a limited number of rows, each time in its own transaction, until none are
    /// left. Returns how many rows it affected in total. The limit is passed to the statement as an additional, last
    /// value.
    ///
    /// SECURITY: anyone can cause rows that expire, and a statement that deleted all of them at once would block
    /// SQLite's only writer, and with it all sign-ins, for seconds (test: rows_that_expired_are_deleted_in_batches).
    ///
    /// # Errors
    /// Returns an error if the database fails. Batches that are already committed stay.
    pub async fn in_batches(self, sql: &'static str, args: Args) -> Result<u64> {
        let mut values = args.into_values();
        values.push(Value::from(BATCH));
        let mut total = 0;
        loop {
            let touched = self.once(sql, Args::from(values.clone())).await?;
            total += touched;
            if touched < u64::from(BATCH) {
                return Ok(total);
            }
        }
    }

    async fn once(self, sql: &'static str, args: Args) -> Result<u64> {
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
