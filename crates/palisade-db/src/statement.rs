//! One statement with its values, checked before any database sees it.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use sqlx::Arguments as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{FromRow, Row};
use crate::{Args, DbError, DbErrorKind, Type, Value};

/// A statement whose parameters and values are known to match.
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    args: Args,
}

/// The result of a statement: its rows, and how many rows it changed.
pub(crate) enum Answer {
    Sqlite(Vec<SqliteRow>, u64),
    Postgres(Vec<PgRow>, u64),
}

impl Statement {
    /// Creates a statement. Refuses parameter syntax that only one of the databases accepts, several statements in one
    /// text, a number of values that doesn't match the parameters, and statements that would interfere with the group
    /// that shares a commit.
    ///
    /// SECURITY: SQLite treats a parameter without a value as NULL, which disables every `$1 is null or …` filter
    /// (test: a_forgotten_value_is_refused_before_the_database_sees_it).
    pub(crate) fn new(sql: &'static str, args: Args) -> Result<Self, DbError> {
        Self::checked(sql, args, facts(sql)?)
    }

    /// Creates a statement that is run outside a transaction and changes nothing.
    pub(crate) fn reading(sql: &'static str, args: Args) -> Result<Self, DbError> {
        let facts = facts(sql)?;
        // SECURITY: every change has an event, which needs a transaction (test: what_only_reads_changes_nothing).
        if facts.may_change {
            return Err(DbError::wrong("outside a transaction, a statement may only read"));
        }
        Self::checked(sql, args, facts)
    }

    fn checked(sql: &'static str, args: Args, facts: Facts) -> Result<Self, DbError> {
        let wanted = facts.parameters;
        if wanted != args.len() {
            let got = args.len();
            return Err(DbError::wrong(format!(
                "the statement has {wanted} parameters, but {got} values were given"
            )));
        }
        if args.iter().any(|value| matches!(value, Value::Text(text) if text.contains('\0'))) {
            return Err(DbError::new(DbErrorKind::Check, "text cannot hold a NUL character"));
        }
        Ok(Self { sql, args })
    }

    pub(crate) fn sqlite_arguments(&self) -> Result<SqliteArguments, DbError> {
        let mut bound = SqliteArguments::default();
        for value in self.args.clone().into_values() {
            let added = match value {
                Value::Text(text) => bound.add(text),
                Value::Integer(number) => bound.add(number),
                Value::Flag(flag) => bound.add(i64::from(flag)),
                Value::Bytes(bytes) => bound.add(bytes),
                Value::Id(id) => bound.add(id.hyphenated().to_string()),
                Value::Instant(at) => bound.add(at.as_micros()),
                Value::Null(_) => bound.add(None::<i64>),
            };
            added.map_err(cannot_bind)?;
        }
        Ok(bound)
    }

    pub(crate) fn postgres_arguments(&self) -> Result<PgArguments, DbError> {
        let mut bound = PgArguments::default();
        for value in self.args.clone().into_values() {
            let added = match value {
                Value::Text(text) => bound.add(text),
                Value::Integer(number) => bound.add(number),
                Value::Flag(flag) => bound.add(flag),
                Value::Bytes(bytes) => bound.add(bytes),
                Value::Id(id) => bound.add(id),
                Value::Instant(at) => bound.add(at.to_date_time()?),
                Value::Null(Type::Text) => bound.add(None::<String>),
                Value::Null(Type::Integer) => bound.add(None::<i64>),
                Value::Null(Type::Flag) => bound.add(None::<bool>),
                Value::Null(Type::Bytes) => bound.add(None::<Vec<u8>>),
                Value::Null(Type::Id) => bound.add(None::<Uuid>),
                Value::Null(Type::Instant) => bound.add(None::<OffsetDateTime>),
            };
            added.map_err(cannot_bind)?;
        }
        Ok(bound)
    }
}

fn cannot_bind(cause: Box<dyn std::error::Error + Send + Sync>) -> DbError {
    DbError::wrong("a value cannot be bound").caused_by_box(cause)
}

impl Answer {
    pub(crate) fn changed(&self) -> u64 {
        match self {
            Self::Sqlite(_, changed) | Self::Postgres(_, changed) => *changed,
        }
    }

    pub(crate) fn all<T: FromRow>(&self) -> Result<Vec<T>, DbError> {
        match self {
            Self::Sqlite(rows, _) => rows.iter().map(|row| Row::sqlite(row).into_whole()).collect(),
            Self::Postgres(rows, _) => {
                rows.iter().map(|row| Row::postgres(row).into_whole()).collect()
            }
        }
    }

    pub(crate) fn maybe<T: FromRow>(&self) -> Result<Option<T>, DbError> {
        let mut all = self.all()?;
        match all.len() {
            0 | 1 => Ok(all.pop()),
            more => Err(DbError::wrong(format!("at most one row was expected, got {more}"))),
        }
    }

    pub(crate) fn one<T: FromRow>(&self) -> Result<T, DbError> {
        self.maybe()?.ok_or_else(|| DbError::wrong("one row was expected, got none"))
    }
}

/// The properties of a statement, derived from its text.
#[derive(Clone, Copy)]
struct Facts {
    parameters: usize,
    may_change: bool,
}

/// Derives the properties of a statement from its text, only once: the text is part of the program and stays the same
/// at its place in memory.
fn facts(sql: &'static str) -> Result<Facts, DbError> {
    static KNOWN: LazyLock<RwLock<HashMap<(usize, usize), Facts>>> = LazyLock::new(RwLock::default);
    let place = (sql.as_ptr().addr(), sql.len());
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&place).copied();
    if let Some(facts) = known {
        return Ok(facts);
    }
    let facts = Facts { parameters: parameters(sql)?, may_change: may_change(sql) };
    if controls_transaction(sql) {
        return Err(DbError::wrong(
            "a statement cannot begin or end a transaction; use the methods of Db and Tx",
        ));
    }
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(place, facts);
    Ok(facts)
}

/// Returns how many parameters a statement has, which must be `$1` to `$n` without a gap.
///
/// Refuses characters with which only one dialect works: `?`, `:name` and `@name` would be parameters only on SQLite,
/// and `::` and dollar quotes work only on PostgreSQL.
fn parameters(sql: &str) -> Result<usize, DbError> {
    let mut seen = 0_u128;
    let mut rest = sql.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\'' | b'"' => while rest.next().is_some_and(|inside| inside != byte) {},
            b'-' if rest.peek() == Some(&b'-') => while rest.next().is_some_and(|b| b != b'\n') {},
            b';' if rest.clone().any(|after| !after.is_ascii_whitespace()) => {
                return Err(DbError::wrong("one statement at a time"));
            }
            b'?' | b':' | b'@' => return Err(DbError::wrong("parameters are written $1, $2, …")),
            b'$' => {
                let mut number = 0_u32;
                while let Some(digit) = rest.next_if(u8::is_ascii_digit) {
                    number = number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
                }
                if !(1..=128).contains(&number) {
                    return Err(DbError::wrong("parameters are numbered $1 to $128"));
                }
                seen |= 1 << (number - 1);
            }
            _ => {}
        }
    }
    if seen.trailing_ones() == seen.count_ones() {
        return Ok(seen.count_ones() as usize);
    }
    Err(DbError::wrong("the parameters of the statement are not numbered without a gap"))
}

/// Returns whether a statement may change rows, tables, sequences or settings. Every statement except a plain read
/// counts as one that may. A guard against mistakes in statements that are part of the program.
fn may_change(sql: &str) -> bool {
    const READS: [&str; 3] = ["select", "with", "pragma"];
    const CHANGES: [&str; 9] = [
        "insert",
        "update",
        "delete",
        "merge",
        "into",
        "setval",
        "nextval",
        "set_config",
        "pg_notify",
    ];
    let among = |list: &[&str], word: &str| list.iter().any(|own| own.eq_ignore_ascii_case(word));
    let mut words =
        sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    // A pragma with a value sets something.
    let sets = first.eq_ignore_ascii_case("pragma") && sql.contains(['=', '(']);
    !among(&READS, first) || sets || words.any(|word| among(&CHANGES, word))
}

fn controls_transaction(sql: &str) -> bool {
    const WORDS: [&str; 8] =
        ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    let first = sql.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty());
    first.is_some_and(|first| WORDS.iter().any(|word| word.eq_ignore_ascii_case(first)))
}

#[cfg(test)]
mod tests {
    use super::{Statement, may_change, parameters};
    use crate::{DbErrorKind, args};

    #[test]
    fn a_statement_cannot_begin_or_end_a_transaction() {
        for sql in ["commit", " ROLLBACK;", "savepoint a", "Release a", "end", "begin immediate"] {
            assert!(Statement::new(sql, args![]).is_err(), "{sql}");
        }
        for sql in ["select 1; commit", "select 1;select 2"] {
            assert!(Statement::new(sql, args![]).is_err(), "{sql}");
        }
        for sql in ["select ';';\n", "select commit from t", "select 1;"] {
            assert!(Statement::new(sql, args![]).is_ok(), "{sql}");
        }
    }

    #[test]
    fn only_plain_reads_count_as_reads() {
        for sql in
            ["select updated_at from t", " WITH a as (select 1) select 1", "pragma page_size"]
        {
            assert!(!may_change(sql), "{sql}");
        }
        for sql in [
            "insert into t values (1) returning 1",
            "Update t set a = 1 returning a",
            "with gone as (delete from t returning a) select a from gone",
            "select a into other from t",
            "select a from t for update",
            "create table t (a text)",
            "select setval('s', 1)",
            "select nextval('s')",
            "select set_config('statement_timeout', '0', false)",
            "select pg_notify('c', '')",
            "pragma query_only = off",
            "PRAGMA query_only(0)",
            "",
        ] {
            assert!(may_change(sql), "{sql}");
        }
    }

    #[test]
    fn text_with_a_nul_character_is_refused_on_both_databases_alike() {
        let refused = Statement::new("select $1", args!["a\0b"]).err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Check);
    }

    #[test]
    fn a_parameter_used_twice_counts_once() {
        assert_eq!(parameters("select $1 where $1 = $2").unwrap(), 2);
        assert_eq!(parameters("select 1").unwrap(), 0);
        assert_eq!(parameters("$12 $1 $2 $3 $4 $5 $6 $7 $8 $9 $10 $11").unwrap(), 12);
    }

    #[test]
    fn what_stands_in_quotes_or_comments_does_not_count() {
        assert_eq!(parameters("select '$1 it''s ?', \"$2\", $1 -- $3 ?\n, $2").unwrap(), 2);
    }

    #[test]
    fn gaps_and_other_ways_to_write_a_parameter_are_refused() {
        for sql in ["select $2", "select ?", "select :a", "select @a", "select $a", "select $0"] {
            assert!(parameters(sql).is_err(), "{sql}");
        }
        assert!(parameters("select $129").is_err());
        assert!(parameters("select 1::text").is_err());
    }
}
