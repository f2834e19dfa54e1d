//! The types that describe grants: resources, actions and subjects.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::id::UserId;
use crate::roles::RoleName;
use crate::shape;

/// Declares a name type with the characters of [`RoleName`].
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(RoleName);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<$name, ()> {
                text.parse().map($name)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                shape::Name::json_schema(generator)
            }
        }
    };
}

name_type! {
    /// A type of resource, named by the application, such as `document`.
    ResourceType
}
name_type! {
    /// An action on a resource, named by the application, such as `read`. `share` allows granting.
    Action
}

/// The id of a resource within its type: 1 to 200 of the characters `A-Z a-z 0-9 - . _ ~`, which a path may contain
/// (RFC 3986). It doesn't begin with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceId(String);

impl ResourceId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        // Clients take `.` and `..` for steps within the path.
        let good = text.chars().all(unreserved) && !text.starts_with('.');
        if (1..=200).contains(&text.len()) && good { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl JsonSchema for ResourceId {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ResourceId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 200, "pattern": "^[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,199}$" })
    }
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The type.
    pub kind: ResourceType,
    /// The id within the type.
    pub id: ResourceId,
}

/// The subject of a grant: the users to whom it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user.
    User(UserId),
    /// All users with a role.
    Role(RoleName),
    /// Anyone, signed in or not.
    Anyone,
}

impl Subject {
    /// Returns the user's id, if the subject is a user.
    pub fn user(&self) -> Option<UserId> {
        if let Self::User(user) = self { Some(*user) } else { None }
    }

    /// Returns the role's name, if the subject is a role.
    pub fn role(&self) -> Option<&str> {
        if let Self::Role(role) = self { Some(role.as_str()) } else { None }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Role(role) => write!(f, "role:{}", role.as_str()),
            Self::Anyone => f.write_str("anyone"),
        }
    }
}

impl FromStr for Subject {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "anyone" => Ok(Self::Anyone),
            Some(("user", id)) => id.parse().map(Subject::User).map_err(|_| ()),
            Some(("role", name)) => name.parse().map(Subject::Role),
            _ => Err(()),
        }
    }
}

impl JsonSchema for Subject {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Subject".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        let pattern = format!("^(user:{uuid}|role:[a-z][a-z0-9_-]{{0,49}}|anyone)$");
        json_schema!({ "type": "string", "maxLength": 55, "pattern": pattern, "examples": ["role:editors"] })
    }
}
