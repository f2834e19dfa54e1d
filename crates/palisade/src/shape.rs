//! Types that stand in for others in the API's description: `#[schemars(with = "shape::DateTime")]`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Characters that aren't seen: controls, and what changes the direction or joins of a line.
macro_rules! unseen {
    () => {
        "\\u0000-\\u001f\\u007f-\\u009f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff"
    };
}

/// Declares a stand-in.
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
    DateTime, { "type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"] }
}
shape! {
    /// A password or token.
    Secret, { "type": "string", "format": "password" }
}
shape! {
    /// An e-mail address.
    EmailAddress, { "type": "string", "format": "email", "examples": ["ann@example.com"] }
}
shape! {
    /// A UUID.
    Uuid, { "type": "string", "format": "uuid" }
}
shape! {
    /// How many things a page of a list holds.
    PageSize, { "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }
}
shape! {
    /// Where a list goes on.
    PageCursor, { "type": "string", "pattern": "^A[A-Za-z0-3][A-Za-z0-9_-]{30}$" }
}

shape! {
    /// Options of a WebAuthn ceremony in their JSON form.
    WebauthnOptions, {
        "type": "object",
        "properties": { "challenge": { "type": "string" } },
        "required": ["challenge"],
    }
}

shape! {
    /// What a browser answers to a new passkey: RegistrationResponseJSON of WebAuthn level 3.
    NewCredential, {
        "type": "object",
        "properties": {
            "id": { "type": "string" },
            "rawId": { "type": "string" },
            "type": { "const": "public-key" },
            "response": {
                "type": "object",
                "properties": {
                    "clientDataJSON": { "type": "string" },
                    "attestationObject": { "type": "string" },
                },
                "required": ["clientDataJSON", "attestationObject"],
            },
        },
        "required": ["id", "rawId", "type", "response"],
    }
}

shape! {
    /// What a browser answers with a passkey: AuthenticationResponseJSON of WebAuthn level 3.
    Credential, {
        "type": "object",
        "properties": {
            "id": { "type": "string" },
            "rawId": { "type": "string" },
            "type": { "const": "public-key" },
            "response": {
                "type": "object",
                "properties": {
                    "clientDataJSON": { "type": "string" },
                    "authenticatorData": { "type": "string" },
                    "signature": { "type": "string" },
                    "userHandle": { "type": "string" },
                },
                "required": ["clientDataJSON", "authenticatorData", "signature"],
            },
        },
        "required": ["id", "rawId", "type", "response"],
    }
}

shape! {
    /// A name in requests and paths: of a role, a kind of resource, an action.
    Name, { "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,49}$", "examples": ["editors"] }
}

shape! {
    /// What a person or device is called: something to see, nothing that hides or steers.
    Label, {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "pattern": concat!("^[^", unseen!(), "]*[^\\s", unseen!(), "][^", unseen!(), "]*$"),
        "examples": ["Ann"],
    }
}
