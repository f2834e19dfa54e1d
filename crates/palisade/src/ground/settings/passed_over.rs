//! Environment variables that begin with `PALISADE_` and are not settings, because other programs write them.

use std::net::{IpAddr, SocketAddr};

/// Returns whether a variable is not meant for Palisade: the version that container images record, or one of those that
/// Kubernetes and Docker write for a service whose name begins with `palisade`.
///
/// Both the name and the value must have the form that Kubernetes writes, so that a mistyped setting is not taken for
/// one of these.
pub(super) fn is_passed_over(name: &str, value: &str) -> bool {
    name == "PALISADE_VERSION" || is_service_link(name, value)
}

/// The protocols of a service, in the form of names and of values.
const PROTOCOLS: [(&str, &str); 3] = [("TCP", "tcp"), ("UDP", "udp"), ("SCTP", "sctp")];

fn is_service_link(name: &str, value: &str) -> bool {
    let of_service = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !name.chars().all(of_service) {
        return false;
    }
    if name.ends_with("_SERVICE_HOST") && is_ip(value) {
        return true;
    }
    let port_name = name.split_once("_SERVICE_PORT_").is_some_and(|(_, port)| !port.is_empty());
    if (port_name || name.ends_with("_SERVICE_PORT")) && is_port(value) {
        return true;
    }
    if name.ends_with("_PORT") && PROTOCOLS.iter().any(|(_, of)| is_url(value, of).is_some()) {
        return true;
    }
    let Some((_, of_port)) = name.rsplit_once("_PORT_") else { return false };
    let mut parts = of_port.split('_');
    let (Some(port), Some(protocol)) = (parts.next(), parts.next()) else { return false };
    let Some((_, protocol)) = PROTOCOLS.iter().find(|(of, _)| *of == protocol) else {
        return false;
    };
    is_port(port)
        && match (parts.next(), parts.next()) {
            (None, _) => is_url(value, protocol).is_some_and(|of| of.port().to_string() == port),
            (Some("PROTO"), None) => value == *protocol,
            (Some("PORT"), None) => value == port,
            (Some("ADDR"), None) => is_ip(value),
            _ => false,
        }
}

fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Returns the IP address and port of a URL such as `tcp://10.0.0.1:80`.
fn is_url(text: &str, protocol: &str) -> Option<SocketAddr> {
    text.strip_prefix(protocol)?.strip_prefix("://")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_writes_is_passed_over_and_nothing_else() {
        for (name, value) in [
            ("PALISADE_VERSION", "1.2.3"),
            ("PALISADE_SERVICE_HOST", "10.0.171.239"),
            ("PALISADE_SERVICE_HOST", "fd00::1"),
            ("PALISADE_SERVICE_PORT", "80"),
            ("PALISADE_SERVICE_PORT_HTTP", "80"),
            ("PALISADE_SERVICE_PORT_HTTP_WEB", "8080"),
            ("PALISADE_PORT", "tcp://10.0.171.239:80"),
            ("PALISADE_PORT", "tcp://[fd00::1]:80"),
            ("PALISADE_PORT_80_TCP", "tcp://10.0.171.239:80"),
            ("PALISADE_PORT_80_TCP_PROTO", "tcp"),
            ("PALISADE_PORT_80_TCP_PORT", "80"),
            ("PALISADE_PORT_80_TCP_ADDR", "10.0.171.239"),
            ("PALISADE_PORT_53_UDP", "udp://10.0.171.239:53"),
            ("PALISADE_PORT_53_UDP_PROTO", "udp"),
            ("PALISADE_PORT_9_SCTP_PROTO", "sctp"),
            ("PALISADE_WEB_SERVICE_HOST", "10.0.171.239"),
            ("PALISADE_WEB_2_PORT_80_TCP_ADDR", "fd00::1"),
            ("PALISADE_SERVICE_SERVICE_HOST", "10.0.171.239"),
            ("PALISADE_SERVICE_PORT", "tcp://10.0.171.239:80"),
            ("PALISADE_PORT_SERVICE_PORT", "80"),
            ("PALISADE_PORT_PORT_80_TCP_PORT", "80"),
        ] {
            assert!(is_passed_over(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("PALISADE_VERSIONS", "1.2.3"),
            ("PALISADE_SERVICE_HOST", "db.example.com"),
            ("PALISADE_SERVICE_HOST", ""),
            ("PALISADE_SERVICE_HOSTS", "10.0.171.239"),
            ("PALISADE_SERVICE_PORT", "http"),
            ("PALISADE_SERVICE_PORT", "0"),
            ("PALISADE_SERVICE_PORT", "+80"),
            ("PALISADE_SERVICE_PORT", "65536"),
            ("PALISADE_SERVICE_PORT_", "80"),
            ("PALISADE_SERVICE_port", "80"),
            ("PALISADE_PORT", "80"),
            ("PALISADE_PORT", "http://10.0.171.239:80"),
            ("PALISADE_PORT", "tcp://web:80"),
            ("PALISADE_PORT_80_TCP", "tcp://10.0.171.239:81"),
            ("PALISADE_PORT_80_TCP", "udp://10.0.171.239:80"),
            ("PALISADE_PORT_80_TCP_PROTO", "udp"),
            ("PALISADE_PORT_80_TCP_PORT", "81"),
            ("PALISADE_PORT_80_TCP_NAME", "80"),
            ("PALISADE_PORT_80_TCP_PORT_NAME", "80"),
            ("PALISADE_PORT_80_HTTP_PORT", "80"),
            ("PALISADE_PORT_X_TCP_PORT", "X"),
            ("PALISADE_SERVER__LISTN", "127.0.0.1:80"),
        ] {
            assert!(!is_passed_over(name, value), "{name}={value}");
        }
    }
}
