//! The API's description against the routes, and against every answer that any test here gets.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex};

use axum::http::{HeaderMap, Method, StatusCode};
use jsonschema::Validator;
use palisade::access::Who;
use palisade::http::Route;
use serde_json::{Value, json};

use crate::app::{Call, On, TestApp, settings};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| builder().openapi());

/// Made once each: a schema with everything it refers to.
static VALIDATORS: LazyLock<Mutex<HashMap<String, std::sync::Arc<Validator>>>> =
    LazyLock::new(Mutex::default);

fn builder() -> palisade::Builder {
    let random = std::sync::Arc::new(palisade_crypto::random::SeededRandom::new(1));
    palisade::Builder::new(settings(&[]), palisade::clock::Clock::system(), random)
}

fn validator(schema: &Value) -> std::sync::Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    let made = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = schema.clone();
        whole["components"] = DOCUMENT["components"].clone();
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        std::sync::Arc::new(options.build(&whole).unwrap())
    });
    std::sync::Arc::clone(made)
}

fn fits(schema: &Value, value: &Value, what: &str) {
    let validator = validator(schema);
    let broken: Vec<String> =
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(broken.is_empty(), "{what} doesn't fit its description: {broken:?}\n{value}");
}

/// The path's template in the description. A fixed segment is better than one that varies.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (one, two) = (template.split('/'), path.split('/'));
        one.clone().count() == two.clone().count()
            && one.zip(two).all(|(one, two)| one == two || one.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str);
    paths.filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
}

/// Holds an answer against the description: the status, the problem's code, the body.
pub fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, raw: &str) {
    let Some(template) = template(path) else { return };
    let name = method.as_str().to_ascii_lowercase();
    let Some(operation) = DOCUMENT["paths"][template].get(&name) else { return };
    let what = format!("{status} of {method} {template}");
    let media = headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_str(raw).unwrap_or_else(|_| json!(raw));
    if let Some(described) = operation["responses"].get(status.as_str()) {
        match &described["content"] {
            Value::Object(content) => {
                let media = media.unwrap_or_else(|| panic!("{what} has no media type"));
                let media = media.split(';').next().unwrap();
                let schema = content.get(media).unwrap_or_else(|| panic!("{what} is {media}"));
                fits(&schema["schema"], &body, &what);
            }
            _ => assert_eq!(raw, "", "{what} has a body"),
        }
        if let Some(code) = body["code"].as_str().filter(|_| !status.is_success()) {
            let says = described["description"].as_str().unwrap();
            assert!(says.contains(&format!("`{code}`")), "{what} has the code {code}, not {says}");
        }
    } else {
        let faults = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];
        assert!(faults.contains(&status), "{what} is not described: {raw}");
        fits(&json!({ "$ref": "#/components/schemas/Problem" }), &body, &what);
    }
}

fn is_page(route: &Route) -> bool {
    let path = route.path.as_str();
    path.starts_with("/assets/")
        || path.starts_with("/account/")
        || ["/setup", "/docs", "/mailbox", "/openapi.json"].contains(&path)
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut expected = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for route in builder().routes().iter().filter(|route| !is_page(route)) {
        let method = route.method.as_str().to_ascii_lowercase();
        let line = format!("{method} {}", route.path);
        let operation = &DOCUMENT["paths"][&route.path][&method];
        assert!(operation.is_object(), "{line} is not described");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{line} says nothing");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{line}: id twice");
        let answers = operation["responses"].as_object().unwrap();
        let succeeds = |status: &String| status.starts_with('2') || status == "303";
        assert!(answers.keys().any(succeeds), "{line} never succeeds");
        let security = operation["security"].as_array().unwrap();
        assert_eq!(security.is_empty(), route.access.who == Who::Anyone, "{line}");
        assert!(security.is_empty() || answers.contains_key("401"), "{line}");
        if let Who::Holds(permission) = route.access.who {
            let says = operation["description"].as_str().unwrap();
            assert!(says.contains(permission.name), "{line} hides its permission");
        }
        let names = operation["parameters"].as_array().into_iter().flatten();
        let in_path = names.filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, route.path.matches('{').count(), "{line}");
        expected.insert(line);
    }
    let described: BTreeSet<String> = DOCUMENT["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(described, expected);
}

/// Every value below `value` whose key is `key`.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if name == key {
                    found.push(value);
                }
                all(value, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, key, found)),
        _ => {}
    }
}

#[test]
fn the_description_refers_to_what_it_holds_and_its_examples_fit() {
    assert_eq!(DOCUMENT["openapi"], "3.1.1");
    let mut references = Vec::new();
    all(&DOCUMENT, "$ref", &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut properties = Vec::new();
    all(&DOCUMENT["components"], "properties", &mut properties);
    let mut examples = 0;
    for schema in properties.iter().flat_map(|fields| fields.as_object().unwrap().values()) {
        for example in schema["examples"].as_array().into_iter().flatten() {
            fits(schema, example, "an example");
            examples += 1;
        }
    }
    assert!(examples > 10, "{examples}");
}

#[test]
fn a_body_with_a_field_too_many_does_not_fit() {
    let schema = json!({ "$ref": "#/components/schemas/LoginBody" });
    let body = json!({ "email": "ann@example.com", "password": "x" });
    assert!(validator(&schema).is_valid(&body));
    for (field, value) in [("admin", json!(true)), ("transport", json!("pigeon"))] {
        let mut body = body.clone();
        body[field] = value;
        assert!(!validator(&schema).is_valid(&body), "{field}");
    }
}

#[tokio::test]
async fn the_server_gives_out_its_own_description() {
    let app = TestApp::on(On::Sqlite).await;
    let answer = app.anyone().get("/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.body, *DOCUMENT);
    let page = app.anyone().get("/docs").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"), "{policy}");
    // Only the page's own script carries the nonce, and no two answers share one.
    let nonce = page.raw.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(
        nonce.len() >= 22 && policy.contains(&format!("script-src 'nonce-{nonce}'")),
        "{policy}"
    );
    assert_eq!(page.raw.matches("<script").count(), page.raw.matches(nonce).count());
    assert!(!app.anyone().get("/docs").await.raw.contains(nonce));
    // Nothing inline, nothing from elsewhere.
    for mark in ["<style", "style=", "onclick", "http://", "https://", "//"] {
        assert!(!page.raw.contains(mark), "{mark}");
    }
    let head = app.anyone().send(Call::new(Method::HEAD, "/docs")).await;
    assert_eq!((head.status, head.raw.as_str()), (StatusCode::OK, ""));
    app.stop().await;
}
