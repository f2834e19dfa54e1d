//! SQLite: one writer with a shared commit, several readers, files for the owner alone.

mod connection;
mod files;
mod readers;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use connection::{Connection, Source, Use};
pub(crate) use writer::Member;

use crate::statement::{Answer, Statement};
use crate::{DbError, Options};
use readers::Readers;
use writer::Writer;

/// An open SQLite database.
/// How many readers are of use: a read of SQLite is work for a core and no waiting, and each connection keeps a
/// thread, pages and prepared statements.
fn useful() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores.max(2)).unwrap_or(u32::MAX)
}

#[derive(Clone)]
pub(crate) struct Sqlite {
    pub(crate) source: Source,
    readers: Arc<Readers>,
    writer: Writer,
}

impl Sqlite {
    pub(crate) async fn open(path: PathBuf, options: &Options) -> Result<Self, DbError> {
        files::prepare(&path).map_err(|cause| {
            DbError::unavailable("the database file cannot be created or opened").caused_by(cause)
        })?;
        let source = Source { path, statement_timeout: options.statement_timeout };
        let writer = Writer::start(source.clone()).await?;
        let readers = Arc::new(Readers::new(source.clone(), options.max_connections.min(useful())));
        Ok(Self { source, readers, writer })
    }

    pub(crate) async fn read(&self, statement: &Statement) -> Result<Answer, DbError> {
        self.readers.run(statement).await
    }

    pub(crate) async fn begin(&self) -> Result<Member, DbError> {
        self.writer.begin().await
    }

    pub(crate) async fn settled(&self) -> Result<(), DbError> {
        self.writer.settled().await
    }

    #[cfg(feature = "testing")]
    pub(crate) fn committed_groups(&self) -> u64 {
        self.writer.committed_groups()
    }

    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}
