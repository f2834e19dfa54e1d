//! The structure of the tables, in terms that mean the same on both databases.

use std::collections::BTreeMap;

use crate::{Backend, DbError, ReadDb, args};

/// A table. The migration table and the database's internal tables are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnShape>,
    /// The unique indexes, including the primary key, in sorted order: the columns of each, in the order of the index.
    /// An expression shows as `?`.
    pub unique: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// The column type, as migrations write it.
    pub type_word: String,
    /// Whether NULL is refused. On SQLite, a primary key does not imply this: write `not null`.
    pub not_null: bool,
}

const SQLITE_COLUMNS: &str = "select t.name, c.name, lower(c.type), c.\"notnull\" <> 0
    from sqlite_schema t, pragma_table_info(t.name) c
    where t.type = 'table' and t.name not like 'sqlite!_%' escape '!'
    order by t.name, c.cid";

const POSTGRES_COLUMNS: &str = "select cast(table_name as text), cast(column_name as text),
        cast(coalesce(domain_name, data_type) as text), is_nullable = 'NO'
    from information_schema.columns
    join information_schema.tables using (table_schema, table_name)
    where table_schema = current_schema() and table_type = 'BASE TABLE'
    order by table_name, ordinal_position";

const SQLITE_UNIQUE: &str = "select t.name, i.name, coalesce(c.name, '?')
    from sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
    where t.type = 'table' and i.\"unique\" = 1
    order by t.name, i.name, c.seqno";

const POSTGRES_UNIQUE: &str = "select cast(t.relname as text), cast(x.relname as text),
        cast(coalesce(a.attname, '?') as text)
    from pg_index i
    join pg_class t on t.oid = i.indrelid
    join pg_class x on x.oid = i.indexrelid
    join pg_namespace n on n.oid = t.relnamespace
    cross join lateral unnest(i.indkey) with ordinality as k(number, place)
    left join pg_attribute a on a.attrelid = t.oid and a.attnum = k.number
    where i.indisunique and n.nspname = current_schema()
    order by t.relname, x.relname, k.place";

/// Returns the tables by name. Two databases with the same migrations give equal results.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn schema(db: &ReadDb) -> Result<Vec<TableShape>, DbError> {
    let (columns, unique) = match db.backend() {
        Backend::Sqlite => (SQLITE_COLUMNS, SQLITE_UNIQUE),
        Backend::Postgres => (POSTGRES_COLUMNS, POSTGRES_UNIQUE),
    };
    let mut tables = BTreeMap::<String, TableShape>::new();
    for (table, name, type_word, not_null) in
        db.all::<(String, String, String, bool)>(columns, args![]).await?
    {
        tables.entry(table).or_default().columns.push(ColumnShape { name, type_word, not_null });
    }
    let mut indexes = BTreeMap::<(String, String), Vec<String>>::new();
    for (table, index, column) in db.all::<(String, String, String)>(unique, args![]).await? {
        indexes.entry((table, index)).or_default().push(column);
    }
    for ((table, _), columns) in indexes {
        tables.entry(table).or_default().unique.push(columns);
    }
    tables.remove("schema_migrations");
    Ok(tables.into_iter().map(|(name, table)| finished(name, table)).collect())
}

fn finished(name: String, mut table: TableShape) -> TableShape {
    table.unique.sort();
    TableShape { name, ..table }
}
