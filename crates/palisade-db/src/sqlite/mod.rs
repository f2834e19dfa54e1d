//! SQLite: one writer with a shared commit, several readers, files that only the owner can access.

mod connection;
mod files;
mod readers;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use connection::{Connection, Source, Use};
pub(crate) use files::{naming, no_link, open_file};
pub(crate) use writer::Member;

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use crate::statement::{Answer, Statement};
use crate::{Args, Connections, DbError, Options};
use readers::Readers;
use writer::Writer;

/// Returns the version of SQLite that is part of this program.
///
/// # Errors
/// Returns an error if a database in memory can't be opened.
pub async fn version() -> Result<String, DbError> {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
    let version = sqlx::query_scalar("select sqlite_version()").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(version)
}

/// Returns how many readers are useful: reading from SQLite is CPU work without waiting, and each connection keeps a
/// thread, pages and prepared statements.
fn useful() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores.max(2)).unwrap_or(u32::MAX)
}

/// An open SQLite database.
#[derive(Clone)]
pub(crate) struct Sqlite {
    pub(crate) source: Source,
    readers: Arc<Readers>,
    writer: Writer,
}

impl Sqlite {
    pub(crate) async fn open(path: PathBuf, options: &Options) -> Result<Self, DbError> {
        let sentence = format!("the database file {} can't be used", path.display());
        let unusable = |cause| DbError::unavailable(sentence.clone()).caused_by(cause);
        files::prepare(&path).map_err(unusable)?;
        let source = Source::new(path, options.statement_timeout).map_err(unusable)?;
        let writer = Writer::start(source.clone()).await.map_err(|error| error.saying(sentence))?;
        let readers = Arc::new(Readers::new(source.clone(), options.max_connections.min(useful())));
        let database = Self { source, readers, writer };
        database.check_encoding().await?;
        Ok(database)
    }

    /// SQLite compares text as it is stored, so `order by` would sort UTF-16 in another order than PostgreSQL sorts.
    async fn check_encoding(&self) -> Result<(), DbError> {
        let encoding = Statement::new("pragma encoding", Args::default())?;
        let (encoding,): (String,) = self.read(&encoding).await?.one()?;
        if encoding == "UTF-8" {
            return Ok(());
        }
        self.close().await;
        Err(DbError::wrong(format!(
            "the SQLite file is encoded in {encoding}, and must be encoded in UTF-8: set database.url to another file"
        )))
    }

    pub(crate) async fn read(&self, statement: &Statement) -> Result<Answer, DbError> {
        self.readers.run(statement).await
    }

    pub(crate) fn connections(&self) -> Connections {
        self.readers.connections()
    }

    pub(crate) async fn begin(&self) -> Result<Member, DbError> {
        self.writer.begin().await
    }

    /// Returns whether changes can be made, as far as the file and its disk show.
    pub(crate) async fn takes_writes(&self) -> Result<bool, DbError> {
        let read = Statement::new("select count(*) from sqlite_schema", Args::default())?;
        self.read(&read).await?;
        Ok(files::can_be_written(&self.source.path))
    }

    pub(crate) async fn try_to_write(&self) -> Result<(), DbError> {
        self.writer.try_to_write().await
    }

    pub(crate) async fn settled(&self) -> Result<(), DbError> {
        self.writer.settled().await
    }

    #[cfg(feature = "testing")]
    pub(crate) fn committed_groups(&self) -> u64 {
        self.writer.committed_groups()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn waiting(&self) -> usize {
        self.writer.waiting()
    }

    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}
