//! `palisade health`: asks the server of this machine, on `server.admin_listen`, whether it is live and ready.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Output;
use crate::sources;

/// How long each step may take: a check of a container usually has five seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// The responses are far shorter.
const LONGEST_RESPONSE: u64 = 64 * 1024;

/// Prints that the server is live and ready.
pub(crate) fn run(cli: &Cli, output: Output) -> Result<(), Failure> {
    let server = reachable(sources::settings(cli)?.settings.server.admin_listen);
    let (live, _) = ask(server, "/livez")?;
    let (ready, body) = ask(server, "/readyz")?;
    if live != 200 || ready != 200 {
        let what = if live == 200 { "not ready" } else { "not live" };
        let mut failure = Failure::failed(format!("the server at {server} is {what}"));
        let checks = body["checks"].as_object().into_iter().flatten();
        failure.details.extend(
            checks
                .map(|(check, state)| format!("{check}: {}", state.as_str().unwrap_or("unknown"))),
        );
        return Err(failure);
    }
    let result = json!({ "live": true, "ready": true, "checks": body["checks"] });
    output.result(&result, || "The server is live and ready.".to_owned());
    Ok(())
}

/// Returns the address at which a listener on all IP addresses is reached from this machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listen
}

/// Sends a request. Returns the status and the JSON of the response.
fn ask(server: SocketAddr, path: &str) -> Result<(u16, Value), Failure> {
    let response = exchange(server, path).map_err(|error| {
        let detail = format!("the server at {server} (server.admin_listen) does not respond");
        Failure::failed(detail).because(error)
    })?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| {
        Failure::failed(format!("what listens at {server} (server.admin_listen) is not Palisade"))
    })?;
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

fn exchange(server: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    connection.take(LONGEST_RESPONSE).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_ip_addresses_is_asked_on_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.1.2.3:9000", "10.1.2.3:9000"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
