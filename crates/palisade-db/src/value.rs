//! Values that can be bound to a statement.

use uuid::Uuid;

use crate::Timestamp;

/// The column types of the common schema language. The name in parentheses is the one that migrations use; on
/// PostgreSQL, the last four are domains that this crate's own migration creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Unicode text (`text`).
    Text,
    /// A signed 64-bit integer (`bigint`).
    Integer,
    /// True or false (`flag`): `boolean` on PostgreSQL, 0 or 1 on SQLite.
    Flag,
    /// Octets (`bytes`): `bytea` on PostgreSQL, a blob on SQLite.
    Bytes,
    /// A UUID (`id`): `uuid` on PostgreSQL, hyphenated lowercase text on SQLite.
    Id,
    /// An instant (`instant`): `timestamptz` on PostgreSQL, integer microseconds on SQLite.
    Instant,
}

/// One value bound to a `$n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Unicode text.
    Text(String),
    /// A signed 64-bit integer.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// Octets.
    Bytes(Vec<u8>),
    /// A UUID.
    Id(Uuid),
    /// An instant.
    Instant(Timestamp),
    /// NULL of a known type: PostgreSQL requires the type.
    Null(Type),
}

/// A type that can be bound. A newtype implements it by delegating:
///
/// ```
/// use palisade_db::{ToValue, Type, Value};
///
/// struct UserId(uuid::Uuid);
///
/// impl ToValue for UserId {
///     const TYPE: Type = Type::Id;
///     fn to_value(self) -> Value {
///         self.0.to_value()
///     }
/// }
///
/// assert_eq!(Value::from(None::<UserId>), Value::Null(Type::Id));
/// ```
pub trait ToValue {
    /// The column type it is stored as.
    const TYPE: Type;

    /// Returns the value to bind.
    fn to_value(self) -> Value;
}

impl<T: ToValue> From<T> for Value {
    fn from(value: T) -> Self {
        value.to_value()
    }
}

/// `None` becomes a NULL of the type of `T`.
impl<T: ToValue> ToValue for Option<T> {
    const TYPE: Type = T::TYPE;

    fn to_value(self) -> Value {
        self.map_or(Value::Null(T::TYPE), T::to_value)
    }
}

impl<T: ToValue + Clone> ToValue for &T {
    const TYPE: Type = T::TYPE;

    fn to_value(self) -> Value {
        self.clone().to_value()
    }
}

macro_rules! to_value {
    ($($from:ty => $variant:ident($convert:expr)),+ $(,)?) => {$(
        impl ToValue for $from {
            const TYPE: Type = Type::$variant;

            fn to_value(self) -> Value {
                let convert: fn($from) -> _ = $convert;
                Value::$variant(convert(self))
            }
        }
    )+};
}

to_value! {
    String => Text(|text| text),
    &str => Text(|text| text.to_owned()),
    i64 => Integer(|number| number),
    i32 => Integer(i64::from),
    u32 => Integer(i64::from),
    bool => Flag(|flag| flag),
    Vec<u8> => Bytes(|bytes| bytes),
    &[u8] => Bytes(|bytes| bytes.to_vec()),
    [u8; 32] => Bytes(|bytes| bytes.to_vec()),
    Uuid => Id(|id| id),
    Timestamp => Instant(|at| at),
}

/// The values of a statement, in the order of `$1`, `$2`, … Created with [`args!`](crate::args).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<Value>);

impl Args {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// Returns the values, in order.
    pub fn into_values(self) -> Vec<Value> {
        self.0
    }
}

impl From<Vec<Value>> for Args {
    fn from(values: Vec<Value>) -> Self {
        Self(values)
    }
}

/// Creates the values of a statement: `args![id, "text", None::<i64>]`.
///
/// Every value must implement [`ToValue`](crate::ToValue).
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        $crate::Args::from(<[_]>::into_vec(::std::boxed::Box::new([
            $($crate::Value::from($value)),*
        ])) as ::std::vec::Vec<$crate::Value>)
    };
}
