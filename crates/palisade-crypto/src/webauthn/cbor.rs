//! Reads the CBOR that authenticators write, within bounds.

use ciborium::Value;
use ciborium::de::Error;

use super::WebauthnError;

/// The maximum depth to which arrays and maps may be nested.
const DEEPEST: usize = 8;

/// The maximum number of keys in a map. Authenticators don't write larger maps, and comparing all pairs of keys stays
/// cheap.
const MOST_KEYS: usize = 64;

/// A map without duplicate keys.
pub(super) struct Map(Vec<(Value, Value)>);

/// Reads one map, which must fill `bytes`.
pub(super) fn whole_map(bytes: &[u8]) -> Result<Map, WebauthnError> {
    let (map, rest) = first_map(bytes)?;
    if rest.is_empty() { Ok(map) } else { Err(WebauthnError::TrailingBytes) }
}

/// Reads the map at the beginning of `bytes`. Returns it and the bytes that follow it.
pub(super) fn first_map(bytes: &[u8]) -> Result<(Map, &[u8]), WebauthnError> {
    let mut rest = bytes;
    // The library counts the outermost array or map and those nested in it, but no scalars.
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, DEEPEST).map_err(|error| {
            match error {
                Error::RecursionLimitExceeded => WebauthnError::TooDeep,
                _ => WebauthnError::BadCbor,
            }
        })?;
    check_keys(&value)?;
    match value {
        Value::Map(entries) => Ok((Map(entries), rest)),
        _ => Err(WebauthnError::BadCbor),
    }
}

impl Map {
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the value of a text key.
    pub(super) fn text_key(&self, key: &str) -> Option<&Value> {
        self.find(|candidate| candidate.as_text() == Some(key))
    }

    /// Returns the value of an integer key.
    pub(super) fn integer_key(&self, key: i64) -> Option<&Value> {
        self.find(|candidate| integer(candidate) == Some(key))
    }

    /// Returns the map that is the value of a text key.
    pub(super) fn into_map(self, key: &str) -> Option<Self> {
        let mut entries = self.0.into_iter();
        let found = entries.find(|(candidate, _)| candidate.as_text() == Some(key))?;
        found.1.into_map().ok().map(Self)
    }

    fn find(&self, is_it: impl Fn(&Value) -> bool) -> Option<&Value> {
        self.0.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value)
    }
}

/// Returns the integer, or `None` if the value isn't an integer that fits into an `i64`.
pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_integer().and_then(|integer| i64::try_from(integer).ok())
}

/// SECURITY: refuses maps with a duplicate key, because parsers disagree on which value counts (test:
/// a_map_with_a_key_twice_is_refused_wherever_it_is). Also refuses large maps, keys that are not text, integers or
/// bytes, and tags. Authenticators write none of these (CTAP 2.1, section 8).
fn check_keys(value: &Value) -> Result<(), WebauthnError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(check_keys),
        Value::Map(entries) => {
            if entries.len() > MOST_KEYS {
                return Err(WebauthnError::TooLarge);
            }
            for (index, (key, value)) in entries.iter().enumerate() {
                if !matches!(key, Value::Text(_) | Value::Integer(_) | Value::Bytes(_)) {
                    return Err(WebauthnError::BadCbor);
                }
                if entries.iter().skip(index + 1).any(|(other, _)| other == key) {
                    return Err(WebauthnError::DuplicateKey);
                }
                check_keys(value)?;
            }
            Ok(())
        }
        Value::Tag(..) => Err(WebauthnError::BadCbor),
        _ => Ok(()),
    }
}
