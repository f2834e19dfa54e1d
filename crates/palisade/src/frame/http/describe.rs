//! Derives the description of a route (OpenAPI 3.1) from the signature of its handler.
//!
//! Every type that a handler takes or returns declares here what it means on the wire, so a
//! description can't differ from the code: changing the body's type changes the description.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::answer::{Accepted, Asset, Created, Elsewhere, Html, NoContent, Written};
use super::form::Form;
use super::input::{Body, Id, List, MaybeBody, Params, Segments};
use super::serve::Stopping;
use crate::access::{Admission, Caller};
use crate::error::Error;

/// A type that a handler takes or returns, and what it means on the wire.
pub trait Describe {
    /// Adds this type to the description of the handler.
    fn describe(handler: &mut Description);
}

/// A handler whose signature states what it takes and returns.
pub trait Described<T> {
    /// Describes the handler.
    fn describe(description: &mut Description);
}

/// The description of a handler, derived from its signature. The schemas of all handlers share their definitions.
pub struct Description {
    /// Schemas of the variable segments of the path, in order.
    pub(super) path: Vec<Value>,
    /// The query parameters, as an object's schema.
    pub(super) query: Option<Value>,
    /// The body's schema, and whether a body is required.
    pub(super) body: Option<(Value, bool)>,
    /// Whether the body is a form, not JSON.
    pub(super) form: bool,
    /// Responses that are not errors.
    pub(super) answers: Vec<Answered>,
    /// Whether it returns a page for people, which is not part of the API.
    pub(super) page: bool,
    pub(super) taken: SchemaGenerator,
    pub(super) given: SchemaGenerator,
}

/// A response that a handler may return.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// The description of the response.
    pub summary: &'static str,
    /// Media type and schema of its body.
    pub body: Option<(&'static str, Value)>,
}

impl Description {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            path: Vec::new(),
            query: None,
            body: None,
            form: false,
            answers: Vec::new(),
            page: false,
            taken: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
        }
    }

    /// Clears the description of the handler and keeps the definitions.
    pub(super) fn next(&mut self) {
        self.path.clear();
        self.query = None;
        self.body = None;
        self.form = false;
        self.answers.clear();
        self.page = false;
    }

    /// Returns the definitions that the schemas refer to.
    pub(super) fn definitions(&mut self) -> Map<String, Value> {
        let mut all = self.taken.take_definitions(true);
        all.extend(self.given.take_definitions(true));
        all
    }

    /// Excludes the route from the description, because its response is for people.
    pub fn for_people(&mut self) {
        self.page = true;
    }

    /// Adds a response with a JSON body.
    pub fn answers_json<T: JsonSchema>(&mut self, status: StatusCode, summary: &'static str) {
        let schema = self.given.subschema_for::<T>().to_value();
        let body = Some(("application/json", schema));
        self.answers.push(Answered { status, summary, body });
    }

    /// Adds a response.
    pub fn answers(&mut self, answered: Answered) {
        self.answers.push(answered);
    }
}

/// Implements `Describe` for types that add nothing to the description, because their values don't come from the path,
/// the query or the body.
macro_rules! silent {
    ($([$($generic:ident)?] $type:ty,)+) => {$(
        impl$(<$generic>)? Describe for $type {
            fn describe(_: &mut Description) {}
        }
    )+};
}

silent! {
    [S] State<S>,
    [T] Extension<T>,
    [] Caller,
    [] HeaderMap,
    [] Stopping,
    [] Admission,
}

impl<T: JsonSchema> Describe for Body<T> {
    fn describe(handler: &mut Description) {
        handler.body = Some((handler.taken.subschema_for::<T>().to_value(), true));
    }
}

impl<T: JsonSchema> Describe for Form<T> {
    fn describe(handler: &mut Description) {
        Body::<T>::describe(handler);
        handler.form = true;
    }
}

impl<T: JsonSchema> Describe for MaybeBody<T> {
    fn describe(handler: &mut Description) {
        handler.body = Some((handler.taken.subschema_for::<T>().to_value(), false));
    }
}

impl<T: JsonSchema> Describe for Params<T> {
    fn describe(handler: &mut Description) {
        // Parameters stand in the operation itself, not among the definitions.
        handler.query = Some(T::json_schema(&mut handler.taken).to_value());
    }
}

impl<T: JsonSchema> Describe for Id<T> {
    fn describe(handler: &mut Description) {
        handler.path.push(handler.taken.subschema_for::<T>().to_value());
    }
}

impl<A: JsonSchema, B: JsonSchema> Describe for Segments<(A, B)> {
    fn describe(handler: &mut Description) {
        Id::<A>::describe(handler);
        Id::<B>::describe(handler);
    }
}

impl<A: JsonSchema, B: JsonSchema, C: JsonSchema> Describe for Segments<(A, B, C)> {
    fn describe(handler: &mut Description) {
        Segments::<(A, B)>::describe(handler);
        Id::<C>::describe(handler);
    }
}

impl<T: Describe> Describe for Result<T, Error> {
    fn describe(handler: &mut Description) {
        T::describe(handler);
    }
}

impl<T: JsonSchema> Describe for Json<T> {
    fn describe(handler: &mut Description) {
        handler.answers_json::<T>(StatusCode::OK, "Success.");
    }
}

impl<T: JsonSchema> Describe for Written<T> {
    fn describe(handler: &mut Description) {
        Json::<T>::describe(handler);
    }
}

impl<T: JsonSchema> Describe for Created<T> {
    fn describe(handler: &mut Description) {
        handler.answers_json::<T>(StatusCode::CREATED, "Created.");
    }
}

impl<T: JsonSchema> Describe for Accepted<T> {
    fn describe(handler: &mut Description) {
        handler.answers_json::<T>(
            StatusCode::ACCEPTED,
            "Accepted. The response does not reveal the outcome.",
        );
    }
}

impl Describe for NoContent {
    fn describe(handler: &mut Description) {
        let status = StatusCode::NO_CONTENT;
        handler.answers(Answered { status, summary: "Success, without a body.", body: None });
    }
}

impl Describe for Elsewhere {
    fn describe(handler: &mut Description) {
        let status = StatusCode::SEE_OTHER;
        handler.answers(Answered {
            status,
            summary: "The response redirects to `Location`.",
            body: None,
        });
    }
}

impl Describe for Html {
    fn describe(handler: &mut Description) {
        handler.for_people();
    }
}

impl Describe for Asset {
    fn describe(handler: &mut Description) {
        handler.for_people();
    }
}

impl Describe for &'static str {
    fn describe(handler: &mut Description) {
        let body = Some(("text/plain", serde_json::json!({ "type": "string" })));
        handler.answers(Answered { status: StatusCode::OK, summary: "A line of text.", body });
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}List", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({
            "type": "object",
            "description": "One page of a list.",
            "required": ["items", "next_cursor"],
            "properties": {
                "items": { "type": "array", "items": items },
                "next_cursor": {
                    "type": ["string", "null"],
                    "description": "The cursor of the next page: send it as `cursor`. Null on the \
                                    last page.",
                },
            },
        })
    }
}

macro_rules! described {
    ($($input:ident)*) => {
        impl<F, A, M, $($input),*> Described<(M, $($input,)*)> for F
        where
            F: FnOnce($($input),*) -> A,
            A: Future<Output: Describe>,
            $($input: Describe,)*
        {
            fn describe(description: &mut Description) {
                $($input::describe(description);)*
                A::Output::describe(description);
            }
        }
    };
}

// The tuples are those of axum's `Handler`: a mark, and then what the handler takes.
described! {}
described! { T1 }
described! { T1 T2 }
described! { T1 T2 T3 }
described! { T1 T2 T3 T4 }
described! { T1 T2 T3 T4 T5 }
described! { T1 T2 T3 T4 T5 T6 }
