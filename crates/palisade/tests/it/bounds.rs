//! Every text, list and number that a request may hold has a bound in `/openapi.json`, and the bound is enforced.

use axum::http::{Method, StatusCode};
use palisade::id::UserId;
use palisade::testing::{Answer, Call, On, PASSWORD, Plan, TestApp};
use serde_json::{Map, Value, json};

palisade::on_both! {
    every_bound_is_described_and_enforced => |on| super::every_bound(on);
    an_error_repeats_little_of_what_was_sent => |on| super::short_answers(on);
}

/// The schema that a schema stands for; of one that may be null, the other.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let there = document.pointer(reference.trim_start_matches('#')).unwrap();
        return resolved(document, there);
    }
    let one_of = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array());
    let inner = one_of.and_then(|all| all.iter().find(|one| one["type"] != "null"));
    inner.map_or(schema, |inner| resolved(document, inner))
}

fn is_of(schema: &Value, kind: &str) -> bool {
    let kinds = &schema["type"];
    kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
}

/// A place in a body or a parameter that has a bound, with a value beyond it.
struct Beyond {
    /// The members and the entries (`0`) that lead to it.
    path: Vec<String>,
    value: Value,
}

/// Collects what is bounded, and names what isn't.
struct Walk<'a> {
    document: &'a Value,
    beyond: Vec<Beyond>,
    unbounded: Vec<String>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, path: &[String], what: &str) {
        let document = self.document;
        let schema = resolved(document, schema);
        let mut note = |value: Option<Value>| match value {
            Some(value) => self.beyond.push(Beyond { path: path.to_vec(), value }),
            None => self.unbounded.push(format!("{what} /{}", path.join("/"))),
        };
        if schema.get("enum").is_some() || schema.get("const").is_some() || is_of(schema, "boolean")
        {
            note(Some(json!("no such value")));
        } else if path.last().is_some_and(|last| last == "device_name") {
            // It is cut to its length instead of refused: what_clients_send::a_device_name_is_never_refused.
        } else if is_of(schema, "string") {
            note(schema["maxLength"].as_u64().map(|most| json!("a".repeat(most as usize + 1))));
        } else if is_of(schema, "integer") || is_of(schema, "number") {
            note(schema["maximum"].as_u64().map(|most| json!(most + 1)));
        } else if is_of(schema, "array") {
            let entry = resolved(document, &schema["items"]);
            let example = entry["examples"][0].clone();
            let entries = schema["maxItems"].as_u64().map(|most| vec![example; most as usize + 1]);
            note(entries.map(Value::from));
            self.schema(entry, &[path, &["0".to_owned()]].concat(), what);
        } else if is_of(schema, "object") || schema.get("properties").is_some() {
            let members = schema["properties"].as_object();
            if members.is_none_or(Map::is_empty) {
                note(None);
            }
            for (name, member) in members.into_iter().flatten() {
                self.schema(member, &[path, std::slice::from_ref(name)].concat(), what);
            }
        } else {
            note(None);
        }
    }
}

/// A body with everything that its schema names.
fn example(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    let first = [&schema["examples"][0], &schema["example"], &schema["enum"][0], &schema["const"]];
    if let Some(given) = first.into_iter().find(|given| !given.is_null()) {
        return given.clone();
    }
    if let Some(members) = schema["properties"].as_object() {
        let members =
            members.iter().map(|(name, member)| (name.clone(), example(document, member)));
        return Value::Object(members.collect());
    }
    if is_of(schema, "array") {
        return json!([example(document, &schema["items"])]);
    }
    if is_of(schema, "integer") {
        return json!(1);
    }
    json!("AAAA")
}

/// Puts a value at a place.
fn put(body: &mut Value, path: &[String], value: Value) {
    match path {
        [] => *body = value,
        [first, rest @ ..] => {
            let member = match body {
                Value::Array(entries) => &mut entries[first.parse::<usize>().unwrap()],
                other => &mut other[first.as_str()],
            };
            put(member, rest, value);
        }
    }
}

async fn bound_app(on: On) -> (TestApp, UserId) {
    let settings = vec![
        ("limits.enabled", "false"),
        ("lockout.enabled", "false"),
        ("compat.login_form", "true"),
        ("mail.smtp_url", "smtp://127.0.0.1:9"),
        ("mail.from", "palisade@example.com"),
    ];
    let app = TestApp::with(on, Plan { settings, ..Plan::default() }).await;
    let ann = app.admin("ann@example.com").await;
    (app, ann)
}

fn form(body: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in body.as_object().unwrap() {
        form.append_pair(name, value.as_str().unwrap_or_default());
    }
    form.finish()
}

/// One operation of the description.
struct Case<'a> {
    document: &'a Value,
    method: Method,
    path: &'a str,
    operation: &'a Value,
}

impl Case<'_> {
    fn walk(&self, schema: &Value, path: &[String], unbounded: &mut Vec<String>) -> Vec<Beyond> {
        let mut walk = Walk { document: self.document, beyond: vec![], unbounded: vec![] };
        walk.schema(schema, path, &format!("{} {}", self.method, self.path));
        unbounded.append(&mut walk.unbounded);
        walk.beyond
    }

    /// The path with this value for one parameter and something for the others.
    fn uri(&self, user: UserId, parameter: &str, value: &str) -> String {
        let uri = self.path.replace(&format!("{{{parameter}}}"), value);
        let uri = uri.replace("{id}", &user.to_string()).replace("{type}", "notes");
        let uri = uri.replace("{subject}", "anyone").replace("{role}", "editors");
        let uri = uri.replace("{name}", "editors").replace("{key}", &user.to_string());
        assert!(!uri.contains('{'), "{}: name a value for its parameters here", self.path);
        uri
    }

    fn bodies(&self) -> Vec<(&str, &Value)> {
        let content = self.operation["requestBody"]["content"].as_object();
        let all = content.into_iter().flatten();
        all.map(|(media, content)| (media.as_str(), &content["schema"])).collect()
    }
}

/// What was tried, and what didn't go as it should.
#[derive(Default)]
struct Tried {
    number: usize,
    unbounded: Vec<String>,
    let_through: Vec<String>,
}

impl Tried {
    fn note(&mut self, answer: &Answer, wanted: StatusCode, named: Option<&str>, what: &str) {
        self.number += 1;
        let names = named.is_none_or(|name| answer.body["errors"].to_string().contains(name));
        if answer.status != wanted || !names {
            self.let_through.push(format!("{what}: {} {}", answer.status, answer.raw));
        }
    }
}

async fn parameters(case: &Case<'_>, app: &TestApp, ann: UserId, tried: &mut Tried) {
    for parameter in case.operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let place = [name.to_owned()];
        for beyond in case.walk(&parameter["schema"], &place, &mut tried.unbounded) {
            let text = beyond.value.as_str().map_or(beyond.value.to_string(), str::to_owned);
            let in_path = parameter["in"] == "path";
            let (uri, wanted) = if in_path {
                // What no id can be names nothing.
                (case.uri(ann, name, &text), StatusCode::NOT_FOUND)
            } else {
                (
                    format!("{}?{name}={text}", case.uri(ann, "", "")),
                    StatusCode::UNPROCESSABLE_ENTITY,
                )
            };
            let mut call = Call::new(case.method.clone(), &uri).same_origin();
            if let Some((_, schema)) = case.bodies().first() {
                call = call.json(example(case.document, schema));
            }
            let answer = app.token("ann@example.com").await.send(call).await;
            let what = format!("{} {} {name}", case.method, case.path);
            tried.note(&answer, wanted, (!in_path).then_some(name), &what);
        }
    }
}

async fn bodies(case: &Case<'_>, app: &TestApp, ann: UserId, tried: &mut Tried) {
    for (media, schema) in case.bodies() {
        for beyond in case.walk(schema, &[], &mut tried.unbounded) {
            let mut body = example(case.document, schema);
            let is_choice = beyond.value == "no such value";
            put(&mut body, &beyond.path, beyond.value);
            if beyond.path[0] == "expires_in" {
                // It stands in place of the other.
                body.as_object_mut().unwrap().remove("expires_at");
            }
            let call = Call::new(case.method.clone(), &case.uri(ann, "", "")).same_origin();
            let call = if media == "application/json" {
                call.json(body)
            } else {
                call.header("content-type", media).body(form(&body))
            };
            // Each from a new sign-in: what a body says may end the session.
            let answer = app.token("ann@example.com").await.send(call).await;
            let what = format!("{} {} /{}", case.method, case.path, beyond.path.join("/"));
            // Beside a value that doesn't exist another rule may be broken first.
            let named = (!is_choice).then_some(beyond.path[0].as_str());
            // A form is for OAuth clients (RFC 6749 section 5.2).
            let of_json = media == "application/json";
            let wanted =
                if of_json { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            tried.note(&answer, wanted, named, &what);
        }
    }
}

async fn every_bound(on: On) {
    let (app, ann) = bound_app(on).await;
    let client = app.token("ann@example.com").await;
    let made = client.post("/api/v1/service-accounts", json!({ "name": "a program" })).await;
    let program: UserId = made.text("id").parse().unwrap();
    let document = app.builder.openapi();
    let mut tried = Tried::default();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let case = Case { document: &document, method, path, operation };
            // Only of a program may someone else make the keys.
            let ann = if path.ends_with("/{id}/api-keys") { program } else { ann };
            parameters(&case, &app, ann, &mut tried).await;
            bodies(&case, &app, ann, &mut tried).await;
        }
    }
    assert!(tried.unbounded.is_empty(), "without a bound: {:#?}", tried.unbounded);
    assert!(tried.let_through.is_empty(), "{:#?}", tried.let_through);
    assert!(tried.number > 100, "{}", tried.number);
    app.stop().await;
}

fn is_short(answer: &Answer, what: &str) {
    assert_eq!(answer.code(), "request.invalid", "{what}: {}", answer.raw);
    assert!(answer.raw.len() < 4096, "{what} is answered by {} bytes", answer.raw.len());
    let unseen = |c: char| palisade::visible::is_unseen(c);
    assert!(!answer.raw.contains(unseen), "{what}: {:?}", answer.raw);
    for error in answer.body["errors"].as_array().unwrap() {
        for part in ["pointer", "detail"] {
            let text = error[part].as_str().unwrap();
            assert!(!text.contains(unseen), "{what}: {text:?}");
        }
    }
}

async fn short_answers(on: On) {
    let (app, _) = bound_app(on).await;
    let ann = app.token("ann@example.com").await;
    let login = "/api/v1/auth/login";
    let body = |member: &str, value: Value| {
        let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
        body[member] = value;
        body
    };
    let long = "x".repeat(900_000);
    let ticks = format!("a`, expected `{}` at line 1", "y".repeat(10_000));
    for name in [
        &long,
        "a\u{202e}b\u{1b}[2J\u{9b}\u{2066}",
        &ticks,
        &"/~".repeat(100_000),
        "expected `",
        "",
    ] {
        is_short(&app.anyone().post(login, body(name, json!(1))).await, "an unknown field");
    }
    for value in
        [json!(long), json!("a\u{202e}\u{9b}b"), json!(ticks), json!([long]), json!({ &long: 1 })]
    {
        for member in ["transport", "token_format"] {
            is_short(&app.anyone().post(login, body(member, value.clone())).await, member);
        }
    }
    // A password that came as a number isn't repeated.
    let answer = app.anyone().post(login, body("password", json!(31_415_926))).await;
    is_short(&answer, "a number as password");
    assert!(!answer.raw.contains("31415926"), "{}", answer.raw);
    let roles = "/api/v1/roles";
    let many: Vec<String> = (0..200).map(|number| format!("no:such-{number}")).collect();
    let role = json!({ "name": "editors", "permissions": many });
    let answer = ann.post(roles, role).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 50, "{}", answer.raw);
    let role = json!({ "name": "editors", "permissions": [long] });
    is_short(&ann.post(roles, role).await, "a permission");
    let raw = format!("/api/v1/users?{}=1", "y".repeat(50_000));
    is_short(&ann.get(&raw).await, "an unknown parameter");
    is_short(&ann.get("/api/v1/users?a%E2%80%AEb%1B=1").await, "a parameter that turns the line");
    let form = Call::new(Method::POST, "/api/v1/login/access-token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("{0}=1&{0}=2", "z".repeat(100_000)));
    is_short(&app.anyone().send(form).await, "a repeated field of a form");
    app.stop().await;
}
