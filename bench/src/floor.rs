//! The floor: a bare axum route that returns the bytes of a recorded response, and does nothing else.

use std::path::Path;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::{Result, say};

/// The route that is measured on both servers.
pub(crate) const PATH: &str = "/api/v1/users/me";

/// The recorded response that is returned to every request.
#[derive(Clone)]
struct Recorded {
    headers: HeaderMap,
    body: Bytes,
}

/// Serves the response recorded in a file until the process is stopped.
pub(crate) fn run(answer: &Path) -> Result<()> {
    let recorded = Recorded::parse(&std::fs::read(answer)?)?;
    let runtime = palisade::runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&format!("\"listening\": \"http://{}\"", listener.local_addr()?))?;
        let router = Router::new().route(PATH, get(answer_recorded)).with_state(recorded);
        Ok(axum::serve(listener, router).await?)
    })
}

async fn answer_recorded(State(recorded): State<Recorded>) -> Response {
    let mut response = Response::new(Body::from(recorded.body));
    *response.headers_mut() = recorded.headers;
    response
}

impl Recorded {
    /// Parses a recorded response. Keeps all header lines except those that the HTTP library adds itself.
    fn parse(answer: &[u8]) -> Result<Self> {
        let head = memchr::memmem::find(answer, b"\r\n\r\n").ok_or("no head")?;
        let mut headers = HeaderMap::new();
        for line in std::str::from_utf8(&answer[..head])?.lines().skip(1) {
            let (name, value) = line.split_once(": ").ok_or("invalid header line")?;
            if !matches!(name, "date" | "content-length") {
                headers.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
            }
        }
        Ok(Self { headers, body: Bytes::copy_from_slice(&answer[head + 4..]) })
    }
}
