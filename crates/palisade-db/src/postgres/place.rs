//! The schema that holds the tables, and what depends on it: the search path, the keys of locks, the channel.
//!
//! Several schemas of one database may each hold the tables of a separate installation. Advisory locks and notification
//! channels belong to the whole database, so their names are derived from the schema (test:
//! two_schemas_of_one_database_share_nothing).

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor as _, Row as _};

use crate::{DbError, Lock};

/// Where in its database an installation is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    schema: String,
    /// A number that differs between schemas.
    salt: i64,
}

/// Read in the simple protocol, which works behind every pooler.
const FACTS: &str = "select cast(getdatabaseencoding() as text), cast(current_schema() as text)";

/// The longest name that PostgreSQL doesn't shorten.
const LONGEST: usize = 63;

impl Place {
    /// Determines the schema once for all connections: `asked`, or else the first one in the search path.
    ///
    /// SECURITY: with the search path of the role, any role that may create a schema or a table in one of its schemas
    /// could put a table in front of ours, even while the server runs (tests: only_the_tables_of_the_schema_are_seen,
    /// a_schema_that_appears_later_is_not_used).
    pub(super) async fn find(
        connection: &mut PgConnection,
        asked: Option<&str>,
    ) -> Result<Self, DbError> {
        let row = connection.fetch_one(FACTS).await?;
        let encoding: String = row.try_get(0)?;
        if encoding != "UTF8" {
            return Err(DbError::wrong(format!(
                "the database is encoded in {encoding}, and must be encoded in UTF8: run create database NAME encoding \
                 'UTF8' locale 'C' template template0, and set database.url to that database"
            )));
        }
        let schema = match asked {
            Some(asked) => check_schema(asked).map(|()| asked.to_owned())?,
            None => first_schema(&row)?,
        };
        check_privileges(connection, &schema).await?;
        Ok(Self { salt: salt(&schema), schema })
    }

    /// Returns the search path of every connection.
    ///
    /// `pg_catalog` comes first even though it isn't named; if it were, tables would be created in it. `pg_temp` would
    /// come before it if it weren't named.
    pub(super) fn search_path(&self) -> String {
        format!("{}, pg_temp", self.quoted())
    }

    /// Returns the name of the schema as an SQL identifier.
    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// Returns the name of the schema.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the number that stands for a lock in this schema.
    pub(super) fn key(&self, lock: &Lock) -> i64 {
        lock.key ^ self.salt
    }

    /// Returns the channel on which processes wake each other.
    pub(super) fn channel(&self) -> String {
        format!("palisade_feed_{:016x}", self.salt)
    }
}

/// Checks the name of a schema.
///
/// # Errors
/// Returns what is wrong with the name.
pub fn check_schema(name: &str) -> Result<(), DbError> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !first || !name.bytes().all(is_plain) || name.len() > LONGEST {
        return Err(DbError::wrong(
            "the name of a schema must begin with a letter or _, and may contain letters, digits, _ and -, up to 63",
        ));
    }
    if name.starts_with("pg_") || name == "information_schema" {
        return Err(DbError::wrong("this schema belongs to PostgreSQL"));
    }
    Ok(())
}

fn first_schema(row: &PgRow) -> Result<String, DbError> {
    let found: Option<String> = row.try_get(1)?;
    match found {
        Some(schema) if schema != "$user" && !schema.starts_with("pg_") => Ok(schema),
        _ => Err(DbError::wrong(
            "the search path of the database role contains no schema that it may use: set database.schema",
        )),
    }
}

/// Refuses a schema that exists and that the role may not use: its tables would seem to be missing. Warns if every role
/// may create objects in it, as in `public` before PostgreSQL 15: such a role can have this one run its functions.
async fn check_privileges(connection: &mut PgConnection, schema: &str) -> Result<(), DbError> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "select has_schema_privilege(oid, 'usage'), has_schema_privilege('public', oid, 'create')
         from pg_catalog.pg_namespace where nspname = $1",
    )
    .bind(schema)
    .fetch_optional(connection)
    .await?;
    let Some((is_usable, is_shared)) = found else { return Ok(()) };
    if !is_usable {
        return Err(DbError::wrong(format!(
            "the database role may not use the schema {schema}: as the schema's owner, run grant usage on schema \
             \"{schema}\" to ROLE"
        )));
    }
    if is_shared {
        tracing::warn!(
            schema,
            "every role of the database may create objects in the schema; take this privilege away: revoke create on \
             schema NAME from public"
        );
    }
    Ok(())
}

/// Returns a hash of the name (FNV-1a), the same in every process.
fn salt(schema: &str) -> i64 {
    let hash = schema.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::from_ne_bytes(hash.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_something_else_to_postgresql_is_refused() {
        for name in ["app", "App", "_app", "my-app", "app2", &"a".repeat(LONGEST)] {
            check_schema(name).unwrap();
        }
        let long = "a".repeat(LONGEST + 1);
        for name in [
            "",
            "$user",
            "2app",
            "-app",
            "a b",
            "a,b",
            "a\"b",
            "a.b",
            "ä",
            "pg_temp",
            "pg_catalog",
            &long,
        ]
        .into_iter()
        .chain(["information_schema", "a\0b"])
        {
            assert!(check_schema(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_are_quoted_and_differ_in_everything() {
        let place = |schema: &str| Place { salt: salt(schema), schema: schema.to_owned() };
        let (one, two) = (place("one"), place("t\"wo"));
        assert_eq!(two.search_path(), "\"t\"\"wo\", pg_temp");
        let lock = Lock { key: 7, alone: true };
        assert_ne!(one.key(&lock), two.key(&lock));
        assert_ne!(one.channel(), two.channel());
        // Every process of an installation computes the same number.
        assert_eq!(place("public").channel(), "palisade_feed_f4b72165f60f5b60");
    }
}
