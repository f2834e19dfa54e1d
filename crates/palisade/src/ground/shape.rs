//! Types that replace others in the API's description: `#[schemars(with = "shape::DateTime")]`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Invisible characters: controls, and those that change the direction of text or how characters join.
macro_rules! unseen {
    () => {
        concat!(
            "\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e",
            "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
        )
    };
}

/// Declares a replacement type.
macro_rules! shape {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

shape! {
    /// A time: RFC 3339, UTC.
    DateTime, { "type": "string", "format": "date-time", "maxLength": 64, "examples": ["2026-01-31T12:00:00Z"] }
}
shape! {
    /// An opaque token or a signed token.
    Secret, { "type": "string", "format": "password", "maxLength": 8192 }
}
shape! {
    /// A password. A new password has at most 128 code points.
    Password, { "type": "string", "format": "password", "maxLength": 1024 }
}
shape! {
    /// A one-time code or a recovery code.
    Code, { "type": "string", "format": "password", "maxLength": 128 }
}
shape! {
    /// An email address.
    EmailAddress, { "type": "string", "format": "idn-email", "maxLength": 254, "examples": ["ann@example.com"] }
}
shape! {
    /// A UUID.
    Uuid, { "type": "string", "format": "uuid", "maxLength": 36 }
}
shape! {
    /// The maximum number of items on a page.
    PageSize, { "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }
}
shape! {
    /// A cursor: the position at which a list continues.
    PageCursor, { "type": "string", "maxLength": 32, "pattern": "^A[A-Za-z0-3][A-Za-z0-9_-]{30}$" }
}

shape! {
    /// The options of a WebAuthn ceremony in their JSON form.
    WebauthnOptions, {
        "type": "object",
        "properties": { "challenge": { "type": "string" } },
        "required": ["challenge"],
    }
}

shape! {
    /// What a browser returns for a new passkey: RegistrationResponseJSON of WebAuthn level 3.
    NewCredential, {
        "type": "object",
        "properties": {
            "id": { "type": "string", "maxLength": 1364 },
            "rawId": { "type": "string", "maxLength": 1364 },
            "type": { "const": "public-key" },
            "response": {
                "type": "object",
                "properties": {
                    "clientDataJSON": { "type": "string", "maxLength": 5462 },
                    "attestationObject": { "type": "string", "maxLength": 87382 },
                },
                "required": ["clientDataJSON", "attestationObject"],
            },
        },
        "required": ["id", "rawId", "type", "response"],
    }
}

shape! {
    /// What a browser returns for a sign-in with a passkey: AuthenticationResponseJSON of WebAuthn
    /// level 3.
    Credential, {
        "type": "object",
        "properties": {
            "id": { "type": "string", "maxLength": 1364 },
            "rawId": { "type": "string", "maxLength": 1364 },
            "type": { "const": "public-key" },
            "response": {
                "type": "object",
                "properties": {
                    "clientDataJSON": { "type": "string", "maxLength": 5462 },
                    "authenticatorData": { "type": "string", "maxLength": 43691 },
                    "signature": { "type": "string", "maxLength": 1366 },
                    "userHandle": { "type": "string", "maxLength": 86 },
                },
                "required": ["clientDataJSON", "authenticatorData", "signature"],
            },
        },
        "required": ["id", "rawId", "type", "response"],
    }
}

shape! {
    /// The name of a role, a resource type or an action, as used in requests and paths.
    Name, { "type": "string", "maxLength": 50, "pattern": "^[a-z][a-z0-9_-]{0,49}$", "examples": ["editors"] }
}

shape! {
    /// The name of a permission: `area:verb`.
    Permission, {
        "type": "string",
        "maxLength": 100,
        "pattern": "^[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*$",
        "examples": ["users:read"],
    }
}

shape! {
    /// A network in CIDR notation, or an IP address.
    Network, {
        "type": "string",
        "maxLength": 64,
        "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$",
        "examples": ["192.0.2.0/24"],
    }
}

shape! {
    /// The name of a person or device: visible text without control characters. The server enforces the bounds of other
    /// texts by itself. A text with a pattern must be checked by the code that takes it.
    Label, {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "pattern": concat!("^[^", unseen!(), "]*[^\\s", unseen!(), "][^", unseen!(), "]*$"),
        "examples": ["Ann"],
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use schemars::schema_for;
    use serde_json::json;

    use super::*;
    use crate::visible::is_unseen;

    /// Tag characters are refused by the server alone: in JavaScript, a pattern without the flag `u` can't name them.
    #[test]
    fn a_label_holds_every_character_but_the_invisible_ones() {
        let schema = json!(schema_for!(Label));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let tag = |c: &char| ('\u{e0000}'..='\u{e007f}').contains(c);
        for c in ('\0'..=char::MAX).filter(|c| !c.is_whitespace() && !tag(c)) {
            let label = json!(format!("a{c}b"));
            assert_eq!(validator.is_valid(&label), !is_unseen(c), "{c:?}");
        }
    }
}
