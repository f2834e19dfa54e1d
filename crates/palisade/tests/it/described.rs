//! The API's description against the routes. Every answer that a test gets is held against it too, by the client.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use axum::http::{Method, StatusCode};
use palisade::access::Who;
use palisade::http::Route;
use palisade::testing::{Call, Description, On, TestApp, settings};
use serde_json::{Value, json};

static DESCRIPTION: LazyLock<Arc<Description>> = LazyLock::new(|| Description::of(&builder()));

fn builder() -> palisade::Builder {
    let random = Arc::new(palisade_crypto::random::SeededRandom::new(1));
    palisade::Builder::new(settings(&[]), palisade::clock::Clock::system(), random)
}

fn is_page(route: &Route) -> bool {
    let path = route.path.as_str();
    path.starts_with("/assets/")
        || path.starts_with("/account/")
        || path.starts_with("/favicon.")
        || ["/setup", "/docs", "/mailbox", "/openapi.json"].contains(&path)
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = DESCRIPTION.document();
    let mut expected = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for route in builder().routes().iter().filter(|route| !is_page(route)) {
        let method = route.method.as_str().to_ascii_lowercase();
        let line = format!("{method} {}", route.path);
        let operation = &document["paths"][&route.path][&method];
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
            let detail = operation["description"].as_str().unwrap();
            assert!(detail.contains(permission.name), "{line} hides its permission");
        }
        let names = operation["parameters"].as_array().into_iter().flatten();
        let in_path = names.filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, route.path.matches('{').count(), "{line}");
        expected.insert(line);
    }
    let described: BTreeSet<String> = document["paths"]
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
    let document = DESCRIPTION.document();
    assert_eq!(document["openapi"], "3.1.1");
    let mut references = Vec::new();
    all(document, "$ref", &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut properties = Vec::new();
    all(&document["components"], "properties", &mut properties);
    let mut examples = 0;
    for schema in properties.iter().flat_map(|fields| fields.as_object().unwrap().values()) {
        for example in schema["examples"].as_array().into_iter().flatten() {
            assert_eq!(DESCRIPTION.broken(schema, example), [""; 0], "{example}");
            examples += 1;
        }
    }
    assert!(examples > 10, "{examples}");
}

#[test]
fn a_body_with_a_field_too_many_does_not_fit() {
    let schema = json!({ "$ref": "#/components/schemas/LoginBody" });
    let body = json!({ "email": "ann@example.com", "password": "x" });
    assert!(DESCRIPTION.broken(&schema, &body).is_empty());
    for (field, value) in [("admin", json!(true)), ("transport", json!("pigeon"))] {
        let mut body = body.clone();
        body[field] = value;
        assert!(!DESCRIPTION.broken(&schema, &body).is_empty(), "{field}");
    }
}

#[tokio::test]
async fn the_server_gives_out_its_own_description() {
    let app = TestApp::on(On::Sqlite).await;
    let answer = app.anyone().get("/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.body, builder().openapi());
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
