//! Results: rows, cells and the types that can be read from them.

use std::str::FromStr as _;

use sqlx::postgres::{PgRow, PgValueRef, Postgres};
use sqlx::sqlite::{Sqlite, SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row as _, TypeInfo as _, ValueRef as _};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::{DbError, Timestamp, Type};

/// A row whose columns are read from left to right.
pub struct Row<'r> {
    cells: Cells<'r>,
    read: usize,
}

enum Cells<'r> {
    Sqlite(&'r SqliteRow),
    Postgres(&'r PgRow),
}

impl<'r> Row<'r> {
    pub(crate) fn sqlite(row: &'r SqliteRow) -> Self {
        Self { cells: Cells::Sqlite(row), read: 0 }
    }

    pub(crate) fn postgres(row: &'r PgRow) -> Self {
        Self { cells: Cells::Postgres(row), read: 0 }
    }

    /// Reads the next column.
    ///
    /// # Errors
    /// Returns `Wrong` if there is no further column or its value is not a `T`.
    #[expect(clippy::should_implement_trait, reason = "each column has its own type")]
    pub fn next<T: Column>(&mut self) -> Result<T, DbError> {
        let at = self.read;
        self.read += 1;
        let cell = match self.cells {
            Cells::Sqlite(row) => row.try_get_raw(at).map(Source::Sqlite),
            Cells::Postgres(row) => row.try_get_raw(at).map(Source::Postgres),
        };
        let source = cell.map_err(|cause| {
            DbError::wrong(format!("the row has no column {}", at + 1)).caused_by(cause)
        })?;
        T::from_cell(Cell { source, position: at + 1 })
    }

    /// Reads the whole row. A column that `T` did not read is an error: it means that the statement and the type no
    /// longer match.
    pub(crate) fn into_whole<T: FromRow>(mut self) -> Result<T, DbError> {
        let value = T::from_row(&mut self)?;
        let columns = match self.cells {
            Cells::Sqlite(row) => row.len(),
            Cells::Postgres(row) => row.len(),
        };
        if columns == self.read {
            return Ok(value);
        }
        Err(DbError::wrong(format!("the row has {columns} columns, but {} were read", self.read)))
    }
}

/// Declares a struct read from a row: its fields are the columns of the statement, in the same order.
///
/// ```
/// # use palisade_db::{DbError, Timestamp, args};
/// palisade_db::row_struct! {
///     /// A note, as it is stored.
///     struct NoteRow {
///         text: String,
///         made_at: Timestamp,
///     }
/// }
/// # async fn shown(db: &palisade_db::ReadDb) -> Result<(), DbError> {
/// let notes: Vec<NoteRow> = db.all("select text, made_at from notes", args![]).await?;
/// # drop(notes.into_iter().map(|note| (note.text, note.made_at)));
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! row_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type),+
        }

        impl $crate::FromRow for $name {
            fn from_row(
                row: &mut $crate::Row<'_>,
            ) -> ::std::result::Result<Self, $crate::DbError> {
                ::std::result::Result::Ok(Self { $($field: row.next()?),+ })
            }
        }
    };
}

/// One value of a row.
pub struct Cell<'r> {
    source: Source<'r>,
    position: usize,
}

enum Source<'r> {
    Sqlite(SqliteValueRef<'r>),
    Postgres(PgValueRef<'r>),
}

impl<'r> Cell<'r> {
    /// Returns whether the value is NULL.
    pub fn is_null(&self) -> bool {
        match &self.source {
            Source::Sqlite(value) => value.is_null(),
            Source::Postgres(value) => value.is_null(),
        }
    }

    fn stored_as(&self) -> String {
        match &self.source {
            Source::Sqlite(value) if value.is_null() => "NULL".to_owned(),
            Source::Postgres(value) if value.is_null() => "NULL".to_owned(),
            Source::Sqlite(value) => value.type_info().name().to_owned(),
            Source::Postgres(value) => value.type_info().name().to_owned(),
        }
    }

    /// Refuses a value stored as anything but one of the named types, because both drivers would silently convert some
    /// of them.
    fn stored_as_one_of(
        self,
        wanted: Type,
        sqlite: &[&str],
        postgres: &[&str],
    ) -> Result<Self, DbError> {
        let stored = self.stored_as();
        let names = match self.source {
            Source::Sqlite(_) => sqlite,
            Source::Postgres(_) => postgres,
        };
        if names.contains(&stored.as_str()) {
            return Ok(self);
        }
        Err(DbError::wrong(format!("column {} is {stored}, not {wanted:?}", self.position)))
    }

    fn decode<S, P>(self) -> Result<Decoded<S, P>, DbError>
    where
        S: Decode<'r, Sqlite>,
        P: Decode<'r, Postgres>,
    {
        let position = self.position;
        let decoded = match self.source {
            Source::Sqlite(value) => S::decode(value).map(Decoded::Sqlite),
            Source::Postgres(value) => P::decode(value).map(Decoded::Postgres),
        };
        decoded.map_err(|cause| {
            DbError::wrong(format!("column {position} cannot be read")).caused_by_box(cause)
        })
    }
}

enum Decoded<S, P> {
    Sqlite(S),
    Postgres(P),
}

impl<T> Decoded<T, T> {
    fn same(self) -> T {
        match self {
            Self::Sqlite(value) | Self::Postgres(value) => value,
        }
    }
}

/// A type that can be read from a column. A newtype implements it by delegating:
///
/// ```
/// use palisade_db::{Cell, Column, DbError, Type};
///
/// struct UserId(uuid::Uuid);
///
/// impl Column for UserId {
///     const TYPE: Type = Type::Id;
///     fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
///         uuid::Uuid::from_cell(cell).map(Self)
///     }
/// }
/// ```
pub trait Column: Sized {
    /// The column type it is stored as.
    const TYPE: Type;

    /// Reads the value.
    ///
    /// # Errors
    /// Returns `Wrong` if the cell holds something else, including NULL.
    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError>;
}

impl<T: Column> Column for Option<T> {
    const TYPE: Type = T::TYPE;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        if cell.is_null() { Ok(None) } else { T::from_cell(cell).map(Some) }
    }
}

impl Column for String {
    const TYPE: Type = Type::Text;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let cell = cell.stored_as_one_of(
            Self::TYPE,
            &["TEXT"],
            &["TEXT", "VARCHAR", "CHAR", "NAME", "UNKNOWN"],
        )?;
        Ok(cell.decode::<Self, Self>()?.same())
    }
}

/// Accepts PostgreSQL's narrower integers too: a literal `1` is `int4` there.
impl Column for i64 {
    const TYPE: Type = Type::Integer;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let cell = cell.stored_as_one_of(Self::TYPE, &["INTEGER"], &["INT8", "INT4", "INT2"])?;
        match cell.stored_as().as_str() {
            "INT4" => cell.decode::<i32, i32>().map(|number| Self::from(number.same())),
            "INT2" => cell.decode::<i16, i16>().map(|number| Self::from(number.same())),
            _ => cell.decode::<Self, Self>().map(Decoded::same),
        }
    }
}

fn narrow<T: TryFrom<i64>>(cell: Cell<'_>) -> Result<T, DbError> {
    let position = cell.position;
    T::try_from(i64::from_cell(cell)?)
        .map_err(|_| DbError::wrong(format!("column {position} is out of range")))
}

impl Column for i32 {
    const TYPE: Type = Type::Integer;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        narrow(cell)
    }
}

impl Column for u32 {
    const TYPE: Type = Type::Integer;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        narrow(cell)
    }
}

impl Column for bool {
    const TYPE: Type = Type::Flag;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let position = cell.position;
        let cell = cell.stored_as_one_of(Self::TYPE, &["INTEGER"], &["BOOL"])?;
        match cell.decode::<i64, Self>()? {
            Decoded::Sqlite(0) => Ok(false),
            Decoded::Sqlite(1) => Ok(true),
            Decoded::Sqlite(_) => {
                Err(DbError::wrong(format!("column {position} is neither 0 nor 1")))
            }
            Decoded::Postgres(flag) => Ok(flag),
        }
    }
}

impl Column for Vec<u8> {
    const TYPE: Type = Type::Bytes;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let cell = cell.stored_as_one_of(Self::TYPE, &["BLOB"], &["BYTEA"])?;
        Ok(cell.decode::<Self, Self>()?.same())
    }
}

impl Column for [u8; 32] {
    const TYPE: Type = Type::Bytes;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let position = cell.position;
        <[u8; 32]>::try_from(Vec::from_cell(cell)?)
            .map_err(|_| DbError::wrong(format!("column {position} is not 32 bytes long")))
    }
}

impl Column for Uuid {
    const TYPE: Type = Type::Id;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let position = cell.position;
        let cell = cell.stored_as_one_of(Self::TYPE, &["TEXT"], &["UUID"])?;
        match cell.decode::<&str, Self>()? {
            // SECURITY: only one spelling is accepted. A row with another could be read, but not found by its id (test:
            // an_id_in_another_spelling_is_refused).
            Decoded::Sqlite(text) if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Err(DbError::wrong(format!("column {position} is not a lowercase UUID")))
            }
            Decoded::Sqlite(text) => {
                Hyphenated::from_str(text).map(Hyphenated::into_uuid).map_err(|cause| {
                    DbError::wrong(format!("column {position} is not a UUID")).caused_by(cause)
                })
            }
            Decoded::Postgres(id) => Ok(id),
        }
    }
}

impl Column for Timestamp {
    const TYPE: Type = Type::Instant;

    fn from_cell(cell: Cell<'_>) -> Result<Self, DbError> {
        let cell = cell.stored_as_one_of(Self::TYPE, &["INTEGER"], &["TIMESTAMPTZ"])?;
        // SECURITY: PostgreSQL also stores `infinity` and years that cannot be written back. The driver panics on them,
        // so the raw number is read instead (test: forged_records_keep_no_other_from_being_chained).
        match cell.decode::<i64, i64>()? {
            Decoded::Sqlite(micros) => Ok(Self::from_micros(micros)),
            Decoded::Postgres(micros) => Self::from_postgres(micros),
        }
    }
}

/// A type that can be read from a row. Tuples of up to sixteen columns implement it; a struct reads
/// its columns in the order of the statement:
///
/// ```
/// use palisade_db::{DbError, FromRow, Row};
///
/// struct User { id: uuid::Uuid, email: Option<String> }
///
/// impl FromRow for User {
///     fn from_row(row: &mut Row<'_>) -> Result<Self, DbError> {
///         Ok(Self { id: row.next()?, email: row.next()? })
///     }
/// }
/// ```
pub trait FromRow: Sized {
    /// Reads every column of the row, from left to right.
    ///
    /// # Errors
    /// Returns `Wrong` if a column is missing or has a different type.
    fn from_row(row: &mut Row<'_>) -> Result<Self, DbError>;
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Column, $($rest: Column),*> FromRow for ($first, $($rest,)*) {
            fn from_row(row: &mut Row<'_>) -> Result<Self, DbError> {
                Ok((row.next::<$first>()?, $(row.next::<$rest>()?,)*))
            }
        }
        tuples! { $($rest)* }
    };
    () => {};
}

tuples! { A B C D E F G H I J K L M N O P }
