//! Recognizes tables that another program created, before the first statement changes anything.

use std::collections::BTreeSet;

use crate::migrations::Sql;
use crate::{Backend, DbError};

/// The names in the schema that a migration can't create again.
pub(crate) const OBJECTS: Sql = Sql::Each {
    sqlite: "select lower(name) from sqlite_schema where name not like 'sqlite!_%' escape '!'",
    postgres: "select cast(c.relname as text) from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where n.nspname = current_schema()
               union
               select cast(t.typname as text) from pg_catalog.pg_type t
               join pg_catalog.pg_namespace n on n.oid = t.typnamespace
               where n.nspname = current_schema()",
};

/// The columns of the table of migrations.
pub(crate) const COLUMNS: Sql = Sql::Each {
    sqlite: "select name from pragma_table_info('schema_migrations')",
    postgres: "select cast(attname as text) from pg_catalog.pg_attribute
               where attrelid = to_regclass('schema_migrations') and attnum > 0
                  and not attisdropped",
};

/// Who created `schema_migrations`. Other migration tools use this name too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Absent,
    Current,
    /// A build from before the first release.
    Former,
    /// Another program.
    Foreign,
}

/// How many names an error lists.
const LISTED: usize = 8;

pub(crate) fn layout(columns: &[(String,)]) -> Layout {
    let mut names: Vec<&str> = columns.iter().map(|(name,)| name.as_str()).collect();
    names.sort_unstable();
    match *names {
        [] => Layout::Absent,
        ["applied_at", "module", "name", "number", "sql"] => Layout::Current,
        ["applied_at", "name", "sql", "version"] => Layout::Former,
        _ => Layout::Foreign,
    }
}

/// Returns the objects that exist, that the `pending` migrations would create, and that no `applied` one created.
pub(crate) fn found<'a>(
    existing: &[String],
    applied: impl Iterator<Item = &'a str>,
    pending: impl Iterator<Item = &'a str>,
) -> BTreeSet<String> {
    let ours: BTreeSet<String> = applied.flat_map(created).collect();
    let mut found: BTreeSet<String> = pending.flat_map(created).collect();
    found.retain(|name| !ours.contains(name) && existing.contains(name));
    found
}

/// Refuses a database that contains tables of another program.
pub(crate) fn refuse(found: &BTreeSet<String>, backend: Backend) -> Result<(), DbError> {
    if found.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = found.iter().map(String::as_str).take(LISTED).collect();
    if found.len() > LISTED {
        names.push("…");
    }
    let names = names.join(", ");
    Err(DbError::wrong(match backend {
        Backend::Postgres => format!(
            "another program has created tables with the names of Palisade's: {names}. Nothing was changed. Set \
             database.schema to the name of a schema for Palisade alone, or use another database"
        ),
        Backend::Sqlite => format!(
            "another program has created tables with the names of Palisade's: {names}. No table was changed. Set \
             database.url to a file for Palisade alone"
        ),
    }))
}

/// Returns the names of the tables, indexes, views, sequences and types that a script creates, in lower case.
fn created(sql: &str) -> Vec<String> {
    let spaced = sql.to_ascii_lowercase().replace('(', " ( ").replace(';', " ; ");
    let mut words = spaced.split_whitespace().peekable();
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        if word != "create" {
            continue;
        }
        while words.next_if(|word| BEFORE_KIND.contains(word)).is_some() {}
        if words.next_if(|word| KINDS.contains(word)).is_none() {
            continue;
        }
        while words.next_if(|word| BEFORE_NAME.contains(word)).is_some() {}
        if let Some(name) = words.next() {
            let name = name.rsplit('.').next().unwrap_or(name);
            names.push(name.trim_matches(['"', '`', '[', ']']).to_owned());
        }
    }
    names
}

const BEFORE_KIND: [&str; 4] = ["materialized", "unique", "unlogged", "virtual"];
const KINDS: [&str; 6] = ["domain", "index", "sequence", "table", "type", "view"];
const BEFORE_NAME: [&str; 4] = ["concurrently", "exists", "if", "not"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_a_script_creates_are_found() {
        let script = "create table users (id id);create unique index if not exists by_email on users (lower(email));
            CREATE DOMAIN instant as timestamptz; create table if not exists \"Notes\"(id id);
            create view app.seen as select 1; create materialized view m as select 1; create sequence s;
            create trigger t after insert on users begin select 1; end; insert into users values ('create');";
        assert_eq!(created(script), ["users", "by_email", "instant", "notes", "seen", "m", "s"]);
    }
}
