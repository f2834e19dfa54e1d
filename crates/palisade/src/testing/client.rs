//! Requests from outside, and their responses.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{PASSWORD, TestApp};
use crate::http::serve::{Carrier, Connection, Stopping};

/// A client that sends requests.
#[derive(Clone)]
pub struct Client<'a> {
    /// The app that it calls.
    pub app: &'a TestApp,
    /// Its access token or API key.
    pub bearer: Option<String>,
    /// Its cookies.
    pub cookie: Option<String>,
    /// The IP address and port that it calls from.
    pub peer: SocketAddr,
}

impl Client<'_> {
    /// Returns the same client with this access token or API key.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// Returns the same client with these cookies.
    pub fn with_cookie(mut self, cookie: impl Into<String>) -> Self {
        self.cookie = Some(cookie.into());
        self
    }

    /// Returns the same client with this IP address.
    pub fn from(mut self, ip: &str) -> Self {
        self.peer = format!("{ip}:50000").parse().unwrap();
        self
    }

    /// Signs in with [`PASSWORD`].
    pub async fn login(&self, email: &str) -> Answer {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/api/v1/auth/login", body).await
    }

    /// Sends a `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Call::new(Method::GET, path)).await
    }

    /// Sends a `POST` with this body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Call::post(path, body)).await
    }

    /// Sends a `POST` without a body.
    pub async fn act(&self, path: &str) -> Answer {
        self.send(Call::new(Method::POST, path).same_origin()).await
    }

    /// Sends a `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Call::new(Method::DELETE, path).same_origin()).await
    }

    /// Sends a request and returns the response without reading its body, which may be endless.
    pub async fn open(&self, call: Call) -> Response {
        let mut request = Request::builder().method(call.method).uri(call.path);
        let headers = request.headers_mut().unwrap();
        *headers = call.headers;
        headers.entry("host").or_insert(HeaderValue::from_static("localhost:8000"));
        if let Some(token) = &self.bearer {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        if let Some(cookie) = &self.cookie {
            headers.insert(COOKIE, cookie.parse().unwrap());
        }
        let mut request = request.body(call.body).unwrap();
        let local = "127.0.0.1:8000".parse().unwrap();
        let connection = Connection { peer: self.peer, local, tls: false, proxy: None };
        request.extensions_mut().insert(Carrier::new(connection, Stopping::default()));
        self.app.service.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request, and checks the response against the API's description.
    pub async fn send(&self, call: Call) -> Answer {
        let (method, path) = (call.method.clone(), call.path.clone());
        let response = self.open(call).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status: parts.status, headers: parts.headers, body, raw };
        self.app.description.check(&method, &path, &answer);
        // A token sent by mail is never returned in a response.
        let by_mail = ["pal_vf_", "pal_rs_", "pal_in_", "pal_em_", "pal_un_", "pal_fr_"];
        let told = by_mail.iter().any(|prefix| answer.raw.contains(prefix));
        assert!(
            !told || path == "/mailbox",
            "{method} {path} returns a token that is only sent by mail"
        );
        answer
    }
}

/// A request to be sent.
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Its path, with the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
}

impl Call {
    /// Creates a request without headers or a body.
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: HeaderMap::new(), body: Body::empty() }
    }

    /// Creates a `POST` request with this body.
    pub fn post(path: &str, body: Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    /// Sets the body, as JSON.
    pub fn json(mut self, body: Value) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Body::from(body.to_string());
        self
    }

    /// Sets the body, without conversion.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds this header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    /// Marks the request as sent by a browser from one of the server's own pages.
    pub fn same_origin(self) -> Self {
        self.header("sec-fetch-site", "same-origin")
    }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. Null if it is not JSON.
    pub body: Value,
    /// Its body as text.
    pub raw: String,
}

impl Answer {
    /// Returns the text in this field of the body.
    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.raw)).to_owned()
    }

    /// Returns the problem's code.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    /// Returns everything that could reveal something to a client. Two responses that must be indistinguishable have
    /// the same value.
    pub fn shown(&self) -> (StatusCode, String, Vec<String>) {
        let request = self.headers["x-request-id"].to_str().unwrap();
        let mut headers: Vec<String> = self
            .headers
            .iter()
            // The former differs with every request; the latter depends on earlier requests from the IP address.
            .filter(|(name, _)| *name != "x-request-id" && *name != "ratelimit")
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        (self.status, self.raw.replace(request, ""), headers)
    }

    /// Returns the session cookie that was set, as `name=value`.
    pub fn cookie(&self) -> String {
        let set = self.headers.get(SET_COOKIE).expect("a cookie").to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

/// Sends a `PUT` without a body.
pub async fn put(client: &Client<'_>, path: &str) -> Answer {
    client.send(Call::new(Method::PUT, path).same_origin()).await
}

/// Sends a `PATCH` with this body.
pub async fn patch(client: &Client<'_>, path: &str, body: Value) -> Answer {
    client.send(Call::new(Method::PATCH, path).json(body)).await
}

/// Returns the status, pointer and code of a refusal. If it names fields, pointer and code are those of the first bad
/// field.
pub fn place(answer: &Answer) -> (u16, &str, &str) {
    let field = &answer.body["errors"][0];
    let pointer = field["pointer"].as_str().unwrap_or("");
    (answer.status.as_u16(), pointer, field["code"].as_str().unwrap_or(answer.code()))
}

/// Returns the claims of an access token that is a JWT.
pub fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let body = token.split('.').nth(1).unwrap();
    let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
    serde_json::from_slice(&body).unwrap()
}
