//! Migrations, which bring the tables up to date.
//!
//! Each migration is applied once, completely or not at all. It belongs to a module and has a number within it: modules
//! are migrated in the order of the list, and the migrations of one module in the order of their numbers. The text of
//! an applied migration is kept in `schema_migrations`, so that a later edit is detected. Every step first takes the
//! migration lock and then checks again which migrations are applied, so two concurrent runs do the work only once. If
//! none is missing, nothing is written, so that a role without the privilege to change tables can serve.
//!
//! Migrations of modules that aren't in the list are left as they are.

use std::collections::BTreeMap;

use crate::db::{Db, Engine};
use crate::foreign::{self, Layout};
use crate::postgres::PgMigration;
use crate::sqlite::{Connection, Use};
use crate::statement::{Answer, Statement};
use crate::{Args, Backend, DbError, Timestamp, args};

/// The text of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sql {
    /// The same for both databases.
    Both(&'static str),
    /// One text per database, for what the dialects don't have in common.
    Each {
        /// The SQL for SQLite.
        sqlite: &'static str,
        /// The SQL for PostgreSQL.
        postgres: &'static str,
    },
}

impl Sql {
    /// Returns the SQL for this database.
    pub fn on(self, backend: Backend) -> &'static str {
        match (self, backend) {
            (Self::Both(sql), _) => sql,
            (Self::Each { sqlite, .. }, Backend::Sqlite) => sqlite,
            (Self::Each { postgres, .. }, Backend::Postgres) => postgres,
        }
    }
}

/// One step of a module's schema. Its text must never change once released.
///
/// Constraints must not be `deferrable`: on SQLite, they would be checked when the whole group commits, and one
/// member's violation would fail the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The module that it belongs to.
    pub module: &'static str,
    /// Its number within its module: above zero and unique.
    pub number: i64,
    /// Its subject, in a word or two.
    pub name: &'static str,
    /// Its text. It may contain several statements, but none that ends a transaction.
    pub sql: Sql,
}

/// A migration, and when it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// [`Migration::module`].
    pub module: String,
    /// [`Migration::number`].
    pub number: i64,
    /// [`Migration::name`].
    pub name: String,
    /// The time at which it was applied, or `None` if it wasn't.
    pub applied_at: Option<Timestamp>,
}

/// A migration that isn't applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which one it is.
    pub status: Status,
    /// Its text for this database.
    pub sql: &'static str,
}

/// The state of a database's schema, compared with a list of migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Every migration of the list, in order.
    pub migrations: Vec<Status>,
    /// The modules that aren't in the list but have applied migrations to this database, by name.
    pub unknown_modules: Vec<String>,
}

impl SchemaStatus {
    /// Returns how many migrations of the list aren't applied.
    pub fn missing(&self) -> usize {
        self.migrations.iter().filter(|status| status.applied_at.is_none()).count()
    }
}

/// The module of this crate's own migration.
const OWN: &str = "palisade_db";

/// The type names with which the same schema text works on both databases. SQLite accepts any name as a type.
const WORDS: Migration = Migration {
    module: OWN,
    number: 1,
    name: "type words",
    sql: Sql::Each {
        sqlite: "select 1",
        postgres: "create domain id as uuid;
                   create domain instant as timestamptz;
                   create domain bytes as bytea;
                   create domain flag as boolean;",
    },
};

const CREATE_TABLE: Sql = Sql::Each {
    sqlite: "create table if not exists schema_migrations (
                 module text not null,
                 number bigint not null,
                 name text not null,
                 sql text not null,
                 applied_at instant not null,
                 primary key (module, number)
             )",
    postgres: "create table if not exists schema_migrations (
                   module text not null,
                   number bigint not null,
                   name text not null,
                   sql text not null,
                   applied_at timestamptz not null,
                   primary key (module, number)
               )",
};

const APPLIED: &str =
    "select module, number, name, sql, applied_at from schema_migrations order by module, number";

const RECORD: &str = "insert into schema_migrations (module, number, name, sql, applied_at)
     values ($1, $2, $3, $4, $5)";

type AppliedRow = (String, i64, String, String, Timestamp);

/// The name, text and time of each applied migration, by module and number.
type Applied = BTreeMap<(String, i64), (String, String, Timestamp)>;

impl Db {
    /// Applies the migrations that are missing, and returns them. Records `now` as the time at which they were applied.
    ///
    /// # Errors
    /// Returns `Wrong` if the list is invalid (a repeated module or number, a number that isn't above zero, a
    /// deferrable constraint), if an applied migration was edited, if the database has a migration of one of these
    /// modules that `migrations` doesn't contain (a newer version applied it), if the database predates the first
    /// release, if it contains tables that a migration would create, or if the role may not change the tables. If a
    /// migration fails, returns an error of the same kind as its cause; the migrations before it stay
    /// applied.
    pub async fn migrate(
        &self,
        migrations: &[Migration],
        now: Timestamp,
    ) -> Result<Vec<Status>, DbError> {
        let wanted = in_order(migrations)?;
        let mut done = Vec::new();
        if self.survey(&wanted).await?.covers(&wanted) {
            return Ok(done);
        }
        for migration in &wanted {
            let mut step = Step::begin(self).await.map_err(may_not)?;
            let result = step.apply(migration, &wanted, now).await;
            let ended = step.end(result.is_ok()).await;
            let applied = result.map_err(may_not)?;
            ended?;
            if applied {
                done.push(migration.status(Some(now)));
            }
        }
        Ok(done)
    }

    /// Returns all of `migrations` in order, each with the time at which it was applied, and the other modules that
    /// have applied migrations. Changes nothing.
    ///
    /// # Errors
    /// Returns the same errors as [`migrate`](Self::migrate), except those of a migration that fails.
    pub async fn migrations(&self, migrations: &[Migration]) -> Result<SchemaStatus, DbError> {
        let wanted = in_order(migrations)?;
        let applied = self.survey(&wanted).await?.0;
        let at = |migration: &Migration| {
            let key = (migration.module.to_owned(), migration.number);
            applied.get(&key).map(|(_, _, at)| *at)
        };
        let mut unknown_modules: Vec<String> =
            applied.keys().map(|(module, _)| module.clone()).collect();
        unknown_modules.retain(|module| !wanted.iter().any(|known| known.module == module));
        unknown_modules.dedup();
        Ok(SchemaStatus {
            migrations: wanted.iter().map(|migration| migration.status(at(migration))).collect(),
            unknown_modules,
        })
    }

    /// Returns the text of each migration of the list that isn't applied, in order, with its module, number and name.
    ///
    /// # Errors
    /// Returns the same errors as [`migrations`](Self::migrations).
    pub async fn pending(&self, migrations: &[Migration]) -> Result<Vec<Pending>, DbError> {
        let wanted = in_order(migrations)?;
        let survey = self.survey(&wanted).await?;
        let backend = self.backend();
        let pending = wanted.iter().filter(|migration| !survey.contains(migration));
        Ok(pending.map(|it| Pending { status: it.status(None), sql: it.sql.on(backend) }).collect())
    }

    /// Reads which migrations are applied, and refuses a database that they don't fit.
    async fn survey(&self, wanted: &[Migration]) -> Result<Survey, DbError> {
        let backend = self.backend();
        // In this order: a migration that another process applies in between is then among the applied ones, and its
        // tables aren't taken for those of another program.
        let existing: Vec<(String,)> = self.all(foreign::OBJECTS.on(backend), args![]).await?;
        let existing: Vec<String> = existing.into_iter().map(|(name,)| name).collect();
        let columns: Vec<(String,)> = self.all(foreign::COLUMNS.on(backend), args![]).await?;
        let layout = foreign::layout(&columns);
        if layout == Layout::Former {
            return Err(DbError::wrong(
                "the database was created by a build from before the first release, and this version can't \
                 read its tables; start with a new, empty database",
            ));
        }
        let applied = match layout {
            Layout::Current => by_module(self.all(APPLIED, args![]).await?),
            _ => Applied::new(),
        };
        check(&applied, wanted, backend)?;
        let survey = Survey(applied);
        if layout != Layout::Current || !survey.covers(wanted) {
            let pending = wanted.iter().filter(|migration| !survey.contains(migration));
            let pending = pending.map(|migration| migration.sql.on(backend));
            let applied = survey.0.values().map(|(_, sql, _)| sql.as_str());
            let mut found = foreign::found(&existing, applied, pending);
            if layout == Layout::Foreign {
                found.insert("schema_migrations".to_owned());
            }
            foreign::refuse(&found, backend)?;
        }
        Ok(survey)
    }
}

/// The migrations that are applied.
struct Survey(Applied);

impl Survey {
    fn contains(&self, migration: &Migration) -> bool {
        self.0.contains_key(&(migration.module.to_owned(), migration.number))
    }

    fn covers(&self, wanted: &[Migration]) -> bool {
        wanted.iter().all(|migration| self.contains(migration))
    }
}

/// Adds the fix if PostgreSQL refuses a change of the tables.
fn may_not(error: DbError) -> DbError {
    if !error.lacks_privilege() {
        return error;
    }
    DbError::wrong(
        "the database role may not change the tables: set database.migrate_url to the URL of a role that may, such as \
         the owner of the tables, or grant the role create on the schema",
    )
    .caused_by(error)
}

impl Migration {
    fn status(&self, applied_at: Option<Timestamp>) -> Status {
        let (module, name) = (self.module.to_owned(), self.name.to_owned());
        Status { module, number: self.number, name, applied_at }
    }

    /// Returns how the migration is named in errors.
    fn title(&self) -> String {
        title(self.module, self.number, self.name)
    }
}

fn title(module: &str, number: i64, name: &str) -> String {
    format!("migration {number} of {module} ({name})")
}

/// Returns all migrations in the order in which they are applied: by module as listed, then by number.
fn in_order(migrations: &[Migration]) -> Result<Vec<Migration>, DbError> {
    let mut modules = vec![OWN];
    for migration in migrations {
        if migration.module == OWN || migration.module.is_empty() || migration.number <= 0 {
            return Err(DbError::wrong(format!(
                "{}: a module must have a name other than {OWN}, and numbers must be above zero",
                migration.title()
            )));
        }
        if modules.last() == Some(&migration.module) {
            continue;
        }
        if modules.contains(&migration.module) {
            return Err(DbError::wrong(format!("two modules are named {}", migration.module)));
        }
        modules.push(migration.module);
    }
    let mut wanted = vec![WORDS];
    for module in modules {
        let mut own: Vec<Migration> =
            migrations.iter().filter(|migration| migration.module == module).copied().collect();
        own.sort_by_key(|migration| migration.number);
        wanted.append(&mut own);
    }
    for pair in wanted.windows(2) {
        if let [before, after] = pair
            && (before.module, before.number) == (after.module, after.number)
        {
            let detail = "the numbers of a module's migrations must be unique";
            return Err(DbError::wrong(format!("{}: {detail}", after.title())));
        }
    }
    for migration in &wanted {
        let texts = [migration.sql.on(Backend::Sqlite), migration.sql.on(Backend::Postgres)];
        if texts.iter().any(|text| text.to_ascii_lowercase().contains("deferrable")) {
            let detail = "deferrable constraints are not supported";
            return Err(DbError::wrong(format!("{}: {detail}", migration.title())));
        }
    }
    Ok(wanted)
}

fn by_module(rows: Vec<AppliedRow>) -> Applied {
    let entry = |(module, number, name, sql, at): AppliedRow| ((module, number), (name, sql, at));
    rows.into_iter().map(entry).collect()
}

/// Refuses edited migrations, and those of a newer version of a module. Modules that aren't in the list are ignored.
fn check(applied: &Applied, wanted: &[Migration], backend: Backend) -> Result<(), DbError> {
    for ((module, number), (name, sql, _)) in applied {
        let mut own = wanted.iter().filter(|migration| migration.module == module).peekable();
        if own.peek().is_none() {
            continue;
        }
        match own.find(|migration| migration.number == *number) {
            None => {
                return Err(DbError::wrong(format!(
                    "the database was migrated by a newer version: it has {}, which this version \
                     does not contain",
                    title(module, *number, name)
                )));
            }
            Some(migration) if migration.sql.on(backend) != sql => {
                return Err(DbError::wrong(format!(
                    "{} was edited after it was applied",
                    title(module, *number, name)
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// One transaction under the migration lock.
enum Step {
    Sqlite(Connection),
    Postgres(PgMigration),
}

impl Step {
    async fn begin(db: &Db) -> Result<Self, DbError> {
        match &db.engine {
            Engine::Sqlite(sqlite) => {
                let mut connection = Connection::open(&sqlite.source, Use::Writing).await?;
                connection.control("begin immediate").await?;
                Ok(Self::Sqlite(connection))
            }
            Engine::Postgres(postgres) => Ok(Self::Postgres(postgres.begin_migration().await?)),
        }
    }

    fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    async fn apply(
        &mut self,
        migration: &Migration,
        wanted: &[Migration],
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let backend = self.backend();
        self.script(CREATE_TABLE.on(backend)).await?;
        let applied = by_module(self.run(APPLIED, args![]).await?.all()?);
        check(&applied, wanted, backend)?;
        let (module, number) = (migration.module.to_owned(), migration.number);
        if applied.contains_key(&(module, number)) {
            return Ok(false);
        }
        let sql = migration.sql.on(backend);
        self.script(sql).await.map_err(|cause| {
            DbError::new(cause.kind(), format!("{} failed", migration.title())).caused_by(cause)
        })?;
        self.run(RECORD, args![migration.module, number, migration.name, sql, now]).await?;
        Ok(true)
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), DbError> {
        match self {
            Self::Sqlite(connection) => connection.script(sql).await.map_err(DbError::from),
            Self::Postgres(transaction) => transaction.script(sql).await,
        }
    }

    async fn run(&mut self, sql: &'static str, args: Args) -> Result<Answer, DbError> {
        let statement = Statement::new(sql, args)?;
        match self {
            Self::Sqlite(connection) => {
                connection.run(&statement).await.map_err(|failure| failure.into_error())
            }
            Self::Postgres(transaction) => transaction.run(&statement).await,
        }
    }

    async fn end(self, keep: bool) -> Result<(), DbError> {
        match self {
            Self::Sqlite(mut connection) => {
                let ended = if keep { connection.control("commit").await } else { Ok(()) };
                connection.close().await;
                ended.map_err(DbError::from)
            }
            Self::Postgres(transaction) => transaction.end(keep).await,
        }
    }
}
