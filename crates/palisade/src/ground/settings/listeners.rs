//! The rules about listeners: their TLS, and their IP addresses and ports.

use super::Settings;
use super::load::Reader;

pub(super) fn check(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    match (&server.tls.certificate, &server.tls.key) {
        (Some(_), None) => reader.refuse(
            &["server.tls.key", "server.tls.certificate"],
            "server.tls.certificate is set, but the key is not",
            "Set both, or neither",
        ),
        (None, Some(_)) => reader.refuse(
            &["server.tls.certificate", "server.tls.key"],
            "server.tls.key is set, but the certificate is not",
            "Set both, or neither",
        ),
        _ => {}
    }
    different_ports(settings, reader);
    redirect(settings, reader);
}

fn different_ports(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    let mut taken = vec![("server.listen", server.listen)];
    let others = [
        ("server.admin_listen", Some(server.admin_listen)),
        ("server.tls.redirect_from", server.tls.redirect_from),
    ];
    for (key, address) in others {
        let Some(address) = address else { continue };
        let same = taken.iter().find(|(_, other)| *other == address && address.port() != 0);
        if let Some((other, _)) = same {
            reader.refuse(
                &[key, other],
                format!("{address} is also the IP address and port of {other}"),
                "Use another port",
            );
        }
        taken.push((key, address));
    }
}

fn redirect(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    if server.tls.redirect_from.is_none() {
        return;
    }
    if server.tls.certificate.is_none() {
        reader.refuse(
            &["server.tls.redirect_from", "server.tls.certificate"],
            "plain HTTP can only be redirected to this server if it serves HTTPS, and no certificate is set",
            "Set server.tls.certificate and server.tls.key, or remove server.tls.redirect_from and \
             redirect in the proxy that terminates TLS",
        );
    } else if !server.public_url.is_https() {
        reader.refuse(
            &["server.tls.redirect_from", "server.public_url"],
            format!("{} is not https, so a redirect to it would loop", server.public_url),
            "Set server.public_url to the https:// origin at which users reach the server",
        );
    }
}
