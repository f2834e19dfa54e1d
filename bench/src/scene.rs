//! A Palisade server as it is shipped, with its own new database, and the users that the benchmarks create.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Result;
use crate::client::{Connection, Request};
use crate::floor::PATH;
use crate::process::Process;

const PASSWORD: &str = "seven purple teapots orbit";
/// Rate limits that this load from one IP address and a few accounts would exceed. They are raised, not switched off:
/// requests are still counted against them.
const WIDENED: [&str; 4] = ["login_ip", "register_ip", "refresh_ip", "account"];

/// A running server and its directory.
pub(crate) struct Scene {
    pub(crate) process: Process,
    pub(crate) directory: TempDir,
}

impl Scene {
    /// Starts the server, on the named cores if any, with default settings except for [`WIDENED`]: SQLite, the default
    /// password cost, and JSON log lines written to a file.
    pub(crate) fn start(program: &Path, cores: Option<&str>) -> Result<Self> {
        Self::start_with(program, cores, &[])
    }

    /// Starts the server with more settings, as `KEY=VALUE`. If a key occurs twice, the later value applies.
    pub(crate) fn start_with(program: &Path, cores: Option<&str>, more: &[String]) -> Result<Self> {
        let directory = TempDir::new()?;
        let data = directory.path().join("data");
        let mut settings = vec![
            format!("data.directory={}", data.display()),
            "server.listen=127.0.0.1:0".to_owned(),
            "server.admin_listen=127.0.0.1:0".to_owned(),
            "telemetry.log_format=json".to_owned(),
        ];
        settings.extend(WIDENED.map(|rule| format!("limits.rules.{rule}.burst=1000000")));
        // All reads come from one account, so its limit must refill within a second.
        settings.push("limits.rules.account.per=1s".to_owned());
        settings.extend_from_slice(more);
        let mut arguments = vec!["--json".to_owned()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
        arguments.push("serve".to_owned());
        let log = directory.path().join("log");
        let process = Process::start(cores, program, &arguments, &log)?;
        Ok(Self { process, directory })
    }

    /// Creates a user.
    pub(crate) async fn register(&self, email: &str) -> Result<()> {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/api/v1/auth/register", &body, 202).await?;
        Ok(())
    }

    /// Signs in, and returns a request for the user's own data with a bearer token of this format.
    pub(crate) async fn bearer(&self, email: &str, format: &str) -> Result<Arc<Request>> {
        let body = json!({ "email": email, "password": PASSWORD, "token_format": format });
        let (_, body) = self.post("/api/v1/auth/login", &body, 200).await?;
        let body: Value = serde_json::from_str(&body)?;
        let token = body["access_token"].as_str().ok_or("no access token")?;
        Ok(Arc::new(Request::get(PATH, &format!("authorization: Bearer {token}\r\n"))))
    }

    /// Signs in, and returns a request for the user's own data with a session cookie.
    pub(crate) async fn cookie(&self, email: &str) -> Result<Arc<Request>> {
        let body = json!({ "email": email, "password": PASSWORD, "transport": "cookie" });
        let (head, _) = self.post("/api/v1/auth/login", &body, 200).await?;
        let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = set.and_then(|set| set.split(';').next()).ok_or("no cookie")?;
        Ok(Arc::new(Request::get(PATH, &format!("cookie: {cookie}\r\n"))))
    }

    async fn post(&self, path: &str, body: &Value, status: u16) -> Result<(String, String)> {
        let mut connection = Connection::open(self.process.address).await?;
        let answer = connection.exchange(&Request::post(path, body)).await?;
        let text = String::from_utf8_lossy(answer.body).into_owned();
        if answer.status != status {
            return Err(format!("{path} returned {}: {text}", answer.status).into());
        }
        Ok((answer.head.to_owned(), text))
    }
}

/// Builds a sign-in request with the correct password.
pub(crate) fn sign_in(email: &str) -> Request {
    Request::post("/api/v1/auth/login", &json!({ "email": email, "password": PASSWORD }))
}
