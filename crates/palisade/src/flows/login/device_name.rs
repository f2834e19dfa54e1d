//! The name that a client gives itself in the list of sessions.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::visible::label;

/// A device name in a request, as the list of sessions shows it.
///
/// Programs make it up, often from a User-Agent, and no person reads why a sign-in was refused. So it has no bounds: any text is brought into the form of a [`label`], even one that was cut in the middle of a character.
pub(super) struct DeviceName(String);

impl DeviceName {
    /// Returns the name, or `None` if nothing of it is visible.
    pub(super) fn shown(self) -> Option<String> {
        Some(self.0).filter(|name| !name.is_empty())
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, because JSON can also contain half of a character (RFC 8259 section 8.2).
        deserializer.deserialize_bytes(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = DeviceName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DeviceName, E> {
        Ok(DeviceName(label(text)))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<DeviceName, E> {
        let whole: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
        self.visit_str(&whole)
    }
}

impl JsonSchema for DeviceName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DeviceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["Firefox on Linux"] })
    }
}
