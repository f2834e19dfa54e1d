//! The API's description, against which every response that a test gets is checked.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::Answer;
use crate::Builder;

/// The API's description of a server, against which responses are checked.
pub struct Description {
    document: Value,
    /// The validators, created once for each schema, with everything that the schema refers to.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// The descriptions created so far, one for each set of routes. They are costly to create, and most tests have the same
/// routes.
static MADE: LazyLock<Mutex<HashMap<Vec<String>, Arc<Description>>>> =
    LazyLock::new(Mutex::default);

impl Description {
    /// Returns the description of a server with these modules.
    pub fn of(builder: &Builder) -> Arc<Self> {
        let routes = builder.routes();
        let key = routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let found = made.entry(key).or_insert_with(|| {
            let validators = Mutex::default();
            Arc::new(Self { document: builder.openapi(), validators })
        });
        Arc::clone(found)
    }

    /// Returns the document (OpenAPI 3.1.1).
    pub fn document(&self) -> &Value {
        &self.document
    }

    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let made = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = self.document["components"].clone();
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&whole).unwrap())
        });
        Arc::clone(made)
    }

    /// Returns where a value violates a schema, which may refer to schemas of the document.
    pub fn broken(&self, schema: &Value, value: &Value) -> Vec<String> {
        let validator = self.validator(schema);
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
    }

    fn fits(&self, schema: &Value, value: &Value, what: &str) {
        let broken = self.broken(schema, value);
        assert!(broken.is_empty(), "{what} doesn't match its description: {broken:?}\n{value}");
    }

    /// Returns the path template in the description that matches a path. A fixed segment takes precedence over a
    /// variable one.
    fn template(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap();
        let fits = |template: &str| {
            let (one, two) = (template.split('/'), path.split('/'));
            one.clone().count() == two.clone().count()
                && one.zip(two).all(|(one, two)| one == two || one.starts_with('{'))
        };
        let paths = self.document["paths"].as_object().unwrap().keys().map(String::as_str);
        paths.filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
    }

    /// Checks a response against the description: the status, the problem's code, the body.
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let Some(template) = self.template(path) else { return };
        let name = method.as_str().to_ascii_lowercase();
        let Some(operation) = self.document["paths"][template].get(&name) else { return };
        let (status, raw) = (answer.status, answer.raw.as_str());
        let what = format!("{status} of {method} {template}");
        let media = answer.headers.get("content-type");
        let media = media.map(|value| value.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_str(raw).unwrap_or_else(|_| json!(raw));
        if let Some(described) = operation["responses"].get(status.as_str()) {
            match &described["content"] {
                Value::Object(content) => {
                    let media = media.unwrap_or_else(|| panic!("{what} has no media type"));
                    let media = media.split(';').next().unwrap();
                    let schema = content.get(media).unwrap_or_else(|| {
                        panic!("{what} has the media type {media}, which is not described")
                    });
                    self.fits(&schema["schema"], &body, &what);
                }
                _ => assert_eq!(raw, "", "{what} has a body, but none is described"),
            }
            if let Some(code) = body["code"].as_str().filter(|_| !status.is_success()) {
                let detail = described["description"].as_str().unwrap();
                let named = detail.contains(&format!("`{code}`"));
                assert!(
                    named,
                    "{what} has the code {code}, which its description does not name: {detail}"
                );
            }
        } else {
            let faults = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];
            assert!(faults.contains(&status), "{what} is not described: {raw}");
            self.fits(&json!({ "$ref": "#/components/schemas/Problem" }), &body, &what);
        }
    }
}
