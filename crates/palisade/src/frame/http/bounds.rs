//! Enforces the maximum text lengths that the description of a body states, before the body is deserialized, so that
//! `/openapi.json` states exactly what is enforced.
//!
//! Texts with a pattern, lists and numbers are checked by the types that read them, which reject values beyond their
//! bounds with their own codes. `every_bound_is_described_and_enforced` in `tests/it/bounds.rs` checks all of them.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::FieldError;

/// The maximum length of a text, and the bounds of what a list or an object contains.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// The maximum length of a text, in code points.
    max_length: Option<u64>,
    /// The bounds of each item of a list.
    items: Option<Box<Self>>,
    /// The bounds of each member of an object.
    members: HashMap<String, Self>,
}

/// The bounds of each type of body, created once per type.
static KNOWN: LazyLock<RwLock<HashMap<TypeId, Arc<Bounds>>>> = LazyLock::new(RwLock::default);

impl Bounds {
    /// Returns the bounds in the schema of this type.
    pub(super) fn of<T: JsonSchema + 'static>() -> Arc<Self> {
        let id = TypeId::of::<T>();
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        known.unwrap_or_else(|| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.inline_subschemas = true;
            });
            let schema = settings.for_deserialize().into_generator().into_root_schema_for::<T>();
            let bounds = Arc::new(Self::read(schema.as_value()));
            let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(id).or_insert(bounds))
        })
    }

    fn read(schema: &Value) -> Self {
        // An optional value is described by a choice of two schemas.
        let one_of = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
        let inner = one_of.and_then(|all| all.iter().find(|schema| schema["type"] != "null"));
        let mut bounds = inner.map_or_else(Self::default, Self::read);
        if schema["pattern"].is_null() {
            bounds.max_length = schema["maxLength"].as_u64().or(bounds.max_length);
        }
        if schema["items"].is_object() {
            bounds.items = Some(Box::new(Self::read(&schema["items"])));
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let member = Self::read(member);
            // The walk skips a member without bounds, which can then also be a text that only its type can read.
            if member.max_length.is_some() || member.items.is_some() || !member.members.is_empty() {
                bounds.members.insert(name.clone(), member);
            }
        }
        bounds
    }

    /// Checks a JSON text.
    ///
    /// # Errors
    /// Returns the first place where the text exceeds its bounds. Other errors are not explained here.
    pub(super) fn check(&self, json: &str) -> Result<(), Broken> {
        let found = RefCell::new(None);
        let walk = Walk { bounds: self, at: &At::Root, found: &found };
        let walked = walk.deserialize(&mut serde_json::Deserializer::from_str(json));
        match (found.into_inner(), walked) {
            (Some(bound), _) => Err(Broken::Bound(bound)),
            // SECURITY: the walk ended early, so what follows was not checked (test:
            // what_the_walk_can_not_read_is_not_within_its_bounds).
            (None, Err(_)) => Err(Broken::Unread),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Why a text isn't known to be within its bounds.
#[derive(Debug)]
pub(super) enum Broken {
    /// It exceeds a bound.
    Bound(FieldError),
    /// It contains a value that can't be read.
    Unread,
}

/// A place in a body.
enum At<'a> {
    Root,
    Member(&'a Self, &'a str),
    Item(&'a Self, u64),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Member(above, name) => {
                write!(f, "{above}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            At::Item(above, index) => write!(f, "{above}/{index}"),
        }
    }
}

struct Walk<'a> {
    bounds: &'a Bounds,
    at: &'a At<'a>,
    found: &'a RefCell<Option<FieldError>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let Some(most) = self.bounds.max_length else { return Ok(()) };
        // A text never has more code points than bytes.
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if length > most && text.chars().count() as u64 > most {
            let detail = format!("Use at most {most} characters.");
            let broken = || FieldError::new(&self.at.to_string(), "request.too_long", detail);
            self.found.borrow_mut().get_or_insert_with(broken);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let at = At::Item(self.at, index);
            let more = match &self.bounds.items {
                Some(bounds) => {
                    items.next_element_seed(Walk { bounds, at: &at, found: self.found })?.is_some()
                }
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            match self.bounds.members.get(&name) {
                Some(bounds) => {
                    let at = At::Member(self.at, &name);
                    members.next_value_seed(Walk { bounds, at: &at, found: self.found })?;
                }
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Sample {
        free: String,
        #[schemars(length(max = 3))]
        bound: String,
        #[schemars(length(max = 3))]
        other: String,
    }

    #[test]
    fn what_the_walk_can_not_read_is_not_within_its_bounds() {
        let check = |json: &str| Bounds::of::<Sample>().check(json);
        assert!(check(r#"{"bound":"abc","other":"abc"}"#).is_ok());
        assert!(matches!(check(r#"{"other":"abcd"}"#), Err(Broken::Bound(_))));
        // Half of a character.
        assert!(matches!(check(r#"{"bound":"\ud83d","other":"abcd"}"#), Err(Broken::Unread)));
        assert!(check(r#"{"free":"\ud83d","other":"abc"}"#).is_ok());
        assert!(matches!(check(r#"{"free":"\ud83d","other":"abcd"}"#), Err(Broken::Bound(_))));
    }
}
