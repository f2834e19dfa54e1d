//! Rules that combine several settings, and the settings that development and production refuse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::listeners;
use super::load::Reader;
use super::{
    Attestation, CorsOrigin, EmailVerification, Environment, PasswordCost, RegistrationMode,
    Settings, SmtpTls,
};

/// Checks the combination of settings that are valid individually.
pub(super) fn check(settings: &Settings, reader: &mut Reader<'_>) {
    server(settings, reader);
    database(settings, reader);
    sessions(settings, reader);
    mail(settings, reader);
    custom_cost(settings, reader);
    passkeys(settings, reader);
    match settings.server.environment {
        Environment::Development => development(settings, reader),
        Environment::Production => production(settings, reader),
    }
}

fn server(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    if trusts_the_internet(&server.trusted_proxies) {
        reader.refuse(
            &["server.trusted_proxies"],
            "this trusts forwarded headers from almost anyone: together, these networks contain \
             more public IP addresses than any proxy needs (the limit is an IPv4 /8 or IPv6 /20)",
            "Name the networks of your own proxies, such as 10.0.0.0/8",
        );
    }
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        reader.refuse(
            &["server.proxy_protocol", "server.trusted_proxies"],
            "the header of the PROXY protocol is accepted only from trusted proxies, and there are none",
            "Add the networks of your proxies to server.trusted_proxies, or set server.proxy_protocol \
             to false",
        );
    }
    hsts(settings, reader);
    reports(settings, reader);
    listeners::check(settings, reader);
    if !server.public_url.is_https() && !server.public_url.is_loopback() {
        reader.refuse(
            &["server.public_url"],
            format!("{} sends passwords unencrypted over a network", server.public_url),
            "Use https://; http is for localhost only",
        );
    }
}

/// The shortest `max_age` with which browser vendors add a host to their preload lists.
const PRELOADED: Duration = Duration::from_secs(365 * 86_400);

fn hsts(settings: &Settings, reader: &mut Reader<'_>) {
    let hsts = &settings.server.hsts;
    if hsts.preload && (!hsts.include_subdomains || hsts.max_age < PRELOADED) {
        reader.refuse(
            &["server.hsts.preload", "server.hsts.include_subdomains", "server.hsts.max_age"],
            "the HSTS preload list accepts only hosts that enforce HTTPS for a year, with all subdomains",
            "Set server.hsts.include_subdomains to true and server.hsts.max_age to 365d or more, or \
             set server.hsts.preload to false",
        );
    }
}

fn reports(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    if let Some(url) = &server.csp_report_to
        && !url.origin().is_https()
        && *url.origin() != server.public_url
    {
        reader.refuse(
            &["server.csp_report_to", "server.public_url"],
            format!("reports would be sent to {} unencrypted", url.as_str()),
            "Use an https:// URL, or one that begins with server.public_url",
        );
    }
}

/// The maximum number of public IP addresses that trusted proxies may have: an IPv4 /8 and an IPv6 /20. The largest
/// public proxy networks have only a fraction of that; a list that covers the whole internet in pieces exceeds it.
const MOST_PUBLIC_V4: u128 = 1 << (32 - 8);
const MOST_PUBLIC_V6: u128 = 1 << (128 - 20);

/// Networks in which no host on the internet has an IP address (RFC 6890): private, shared, loopback and link-local
/// ones.
const NOT_PUBLIC_V4: [([u8; 4], u8); 6] = [
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
];
const NOT_PUBLIC_V6: [(u16, u8); 2] = [(0xfc00, 7), (0xfe80, 10)];

/// IPv6 prefixes that contain all of IPv4, with their length and the bit at which the IPv4 address begins: mapped IP
/// addresses (RFC 4291), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), and Teredo by its servers (RFC 4380).
const IPV4_WITHIN: [(Ipv6Addr, u8, u8); 5] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 96),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, 96),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 16),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 32),
];

/// SECURITY: checks the total, because two halves can cover the whole internet as well as one network can (test:
/// networks_that_cover_everybody_in_pieces_are_refused). IPv4 within IPv6 counts too, because every IPv4 client may
/// come through a gateway (test: networks_that_hold_ipv4_in_ipv6_count_as_ipv4).
fn trusts_the_internet(networks: &[IpNet]) -> bool {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in networks {
        match network {
            IpNet::V4(network) => v4.push(*network),
            IpNet::V6(network) => {
                v4.extend(ipv4_within(network));
                v6.push(*network);
            }
        }
    }
    v4.retain(|network| !is_never_public_v4(network));
    v6.retain(|network| !is_never_public_v6(network));
    // Aggregated, so that no IP address counts twice.
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(|n| 1u128 << (32 - n.prefix_len()));
    let v6 = Ipv6Net::aggregate(&v6)
        .into_iter()
        .map(|n| 1u128.checked_shl(128 - u32::from(n.prefix_len())).unwrap_or(u128::MAX));
    v4.sum::<u128>() > MOST_PUBLIC_V4 || v6.fold(0, u128::saturating_add) > MOST_PUBLIC_V6
}

/// Returns the IPv4 networks whose clients may come from IP addresses in `network`.
fn ipv4_within(network: &Ipv6Net) -> impl Iterator<Item = Ipv4Net> {
    IPV4_WITHIN.iter().filter_map(move |(ip, length, begins)| {
        let all = Ipv6Net::new(*ip, *length).ok()?;
        if network.contains(&all) {
            return Some(Ipv4Net::default());
        }
        let embedded = (network.addr().to_bits() << begins) >> (128 - 32);
        let embedded = Ipv4Addr::from_bits(u32::try_from(embedded).ok()?);
        let length = network.prefix_len().saturating_sub(*begins).min(32);
        let found = Ipv4Net::new(embedded, length).ok()?.trunc();
        all.contains(network).then_some(found)
    })
}

fn is_never_public_v4(network: &Ipv4Net) -> bool {
    NOT_PUBLIC_V4.iter().any(|(ip, length)| {
        Ipv4Net::new(Ipv4Addr::from(*ip), *length).is_ok_and(|private| private.contains(network))
    })
}

fn is_never_public_v6(network: &Ipv6Net) -> bool {
    NOT_PUBLIC_V6.iter().any(|(first, length)| {
        Ipv6Net::new(Ipv6Addr::new(*first, 0, 0, 0, 0, 0, 0, 0), *length)
            .is_ok_and(|private| private.contains(network))
    })
}

fn database(settings: &Settings, reader: &mut Reader<'_>) {
    let database = &settings.database;
    for plaintext in database.plaintext_networks.iter() {
        let is_private = match &plaintext.network {
            IpNet::V4(network) => is_never_public_v4(network),
            IpNet::V6(network) => is_never_public_v6(network),
        };
        if !is_private {
            reader.refuse(
                &["database.plaintext_networks"],
                format!("{} contains public IP addresses", plaintext.network),
                "Name private networks only, such as 10.0.0.0/16. Use ?sslmode=verify-full for all \
                 other hosts",
            );
        }
    }
    let networks = settings.plaintext_networks();
    let urls = [
        ("database.url", Some(&database.url)),
        ("database.migrate_url", database.migrate_url.as_ref()),
    ];
    for (key, url) in urls {
        let Some(url) = url else { continue };
        if let Err(error) = palisade_db::check_url(url.expose(), &networks) {
            reader.refuse(
                &[key, "database.plaintext_networks"],
                error.to_string(),
                "Write sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME. A host other than this \
                 machine requires ?sslmode=verify-full",
            );
        }
        let is_sqlite = palisade_db::sqlite_file(url.expose()).is_some();
        if is_sqlite && key == "database.migrate_url" {
            reader.refuse(&[key], "this is not the URL of a PostgreSQL database", ON_POSTGRESQL);
        } else if is_sqlite && (database.schema.is_some() || database.migrate_url.is_some()) {
            let key =
                if database.schema.is_some() { "database.schema" } else { "database.migrate_url" };
            let wrong = "this has no effect, because database.url names a SQLite file";
            reader.refuse(&[key, "database.url"], wrong, ON_POSTGRESQL);
        }
    }
}

const ON_POSTGRESQL: &str = "Remove it, or use PostgreSQL";

fn sessions(settings: &Settings, reader: &mut Reader<'_>) {
    let sessions = &settings.sessions;
    for (key, idle) in [
        ("sessions.idle_timeout", sessions.idle_timeout),
        ("sessions.cookie_idle_timeout", sessions.cookie_idle_timeout),
    ] {
        if idle > sessions.absolute_timeout {
            reader.refuse(
                &[key, "sessions.absolute_timeout"],
                "this is longer than sessions.absolute_timeout, after which every session ends",
                "Shorten it, or increase sessions.absolute_timeout",
            );
        }
    }
}

/// The keys of the settings for a custom cost.
const CUSTOM: [&str; 3] =
    ["passwords.argon2_memory", "passwords.argon2_passes", "passwords.argon2_lanes"];

/// The pairs of memory in MiB and passes that OWASP's password storage cheat sheet regards as equally strong; each is a
/// minimum.
const OWASP_MINIMUM: [(u64, u32); 5] = [(46, 1), (19, 2), (12, 3), (9, 4), (7, 5)];

fn custom_cost(settings: &Settings, reader: &mut Reader<'_>) {
    let passwords = &settings.passwords;
    let is_custom = passwords.cost == PasswordCost::Custom;
    for key in CUSTOM {
        let is_given = reader.is_given(key);
        if is_custom && !is_given {
            reader.refuse(
                &[key, "passwords.cost"],
                "passwords.cost is custom, but this is not set",
                "Set it, or set passwords.cost to standard",
            );
        } else if is_given && !is_custom {
            reader.refuse(
                &[key, "passwords.cost"],
                "this has no effect, because passwords.cost is not custom",
                "Remove it, or set passwords.cost to custom",
            );
        }
    }
}

fn mail(settings: &Settings, reader: &mut Reader<'_>) {
    let mail = &settings.mail;
    if mail.smtp_url.is_some() && mail.from.is_none() {
        reader.refuse(
            &["mail.from", "mail.smtp_url"],
            "mail.smtp_url is set, but the sender is not",
            "Set it, for example to Example <no-reply@example.com>",
        );
    }
    let removed = "Set mail.smtp_url, or remove this setting";
    for (key, set) in [
        ("mail.root_certificate", mail.root_certificate.is_some()),
        ("mail.helo_name", mail.helo_name.is_some()),
    ] {
        if mail.smtp_url.is_none() && set {
            let wrong = "this has no effect, because mail.smtp_url is not set";
            reader.refuse(&[key, "mail.smtp_url"], wrong, removed);
        }
    }
    let unencrypted = mail.smtp_url.as_ref().is_some_and(|url| url.tls() == SmtpTls::Never);
    if settings.is_production() && unencrypted {
        reader.refuse(
            &["mail.smtp_url", "server.environment"],
            "production refuses ?tls=never, with which emails are sent unencrypted",
            "Remove ?tls=never, or use smtps://",
        );
    }
    let verified = settings.registration.email_verification != EmailVerification::Off;
    if settings.is_production() && verified && mail.smtp_url.is_none() {
        reader.refuse(
            &["registration.email_verification", "mail.smtp_url", "server.environment"],
            "email addresses can't be confirmed without a mail server",
            "Set mail.smtp_url and mail.from, or set registration.email_verification to off",
        );
    }
}

/// SECURITY: development protects an installation less, and shows emails to anyone on the machine (tests:
/// development_refuses_to_listen_off_loopback, production_refuses_to_expose_development).
fn development(settings: &Settings, reader: &mut Reader<'_>) {
    if settings.server.expose_development {
        return;
    }
    let server = &settings.server;
    let redirect = server.tls.redirect_from.map(|address| ("server.tls.redirect_from", address));
    let both = [("server.listen", server.listen), ("server.admin_listen", server.admin_listen)];
    for (key, address) in both.into_iter().chain(redirect) {
        if !address.ip().to_canonical().is_loopback() {
            reader.refuse(
                &[key, "server.environment", "server.expose_development"],
                format!("{address} can be reached from other machines, which development refuses"),
                "Listen on 127.0.0.1 or [::1], or set server.environment to production. In a \
                 container for development, set server.expose_development to true",
            );
        }
    }
}

fn production(settings: &Settings, reader: &mut Reader<'_>) {
    if settings.server.expose_development {
        reader.refuse(
            &["server.expose_development", "server.environment"],
            "this is for development only",
            "Remove it. Production listens on every IP address",
        );
    }
    transport(settings, reader);
    protections(settings, reader);
    weak_custom_cost(settings, reader);
}

fn transport(settings: &Settings, reader: &mut Reader<'_>) {
    let server = &settings.server;
    if server.tls.certificate.is_none() && server.trusted_proxies.is_empty() {
        reader.refuse(
            &["server.trusted_proxies", "server.tls.certificate", "server.environment"],
            "production needs TLS: neither a certificate nor a trusted proxy is set",
            "Set server.tls.certificate and server.tls.key, or add the proxy that terminates TLS \
             to server.trusted_proxies",
        );
    }
    // Any other http origin is refused in development too.
    if !server.public_url.is_https() && server.public_url.is_loopback() {
        reader.refuse(
            &["server.public_url", "server.environment"],
            format!("{} is not https, which production requires", server.public_url),
            "Set the https:// origin at which users reach the server",
        );
    }
    if !is_internal(server.admin_listen) {
        reader.refuse(
            &["server.admin_listen", "server.environment"],
            format!("{} may expose the health endpoints to other machines", server.admin_listen),
            "Listen on 127.0.0.1, [::1] or a private IP address of this machine",
        );
    }
    if settings.cors.origins.contains(&CorsOrigin::Any) {
        reader.refuse(
            &["cors.origins", "server.environment"],
            "`*` lets the pages of every site call the API, which production refuses",
            "Name the exact origins, such as https://app.example.com",
        );
    }
}

/// Rejects passkey settings that browsers would refuse (WebAuthn level 3, section 5.1.3), and attestation settings that
/// no passkey could satisfy.
fn passkeys(settings: &Settings, reader: &mut Reader<'_>) {
    let host = settings.server.public_url.host();
    if let Some(id) = &settings.mfa.rp_id
        && host != id
        && !host.strip_suffix(id.as_str()).is_some_and(|above| above.ends_with('.'))
    {
        reader.refuse(
            &["mfa.rp_id", "server.public_url"],
            format!("browsers refuse passkeys for {id} on {host}"),
            "Use the host of server.public_url, or a parent domain",
        );
    }
    if settings.mfa.attestation == Attestation::Direct && settings.mfa.attestation_roots.is_none() {
        reader.refuse(
            &["mfa.attestation_roots", "mfa.attestation"],
            "mfa.attestation requires a proof, but no root certificates are set to verify it",
            "Set it to a PEM file with the manufacturers' root certificates, or set \
             mfa.attestation to none",
        );
    }
}

/// Returns whether an IP address is loopback or private (RFC 1918, RFC 4193).
fn is_internal(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

fn protections(settings: &Settings, reader: &mut Reader<'_>) {
    let open = settings.registration.mode == RegistrationMode::Open;
    if open && settings.registration.email_verification == EmailVerification::Off {
        reader.refuse(
            &["registration.mode", "registration.email_verification", "server.environment"],
            "production refuses open registration while registration.email_verification is off",
            "Set registration.mode to closed, or set mail.smtp_url and mail.from, and set \
             registration.email_verification to required",
        );
    }
    if !settings.limits.enabled {
        reader.refuse(
            &["limits.enabled", "server.environment"],
            "rate limits can't be switched off in production",
            "Remove it. To relax a limit, raise limits.rules.NAME.burst",
        );
    }
    if !settings.lockout.enabled {
        reader.refuse(
            &["lockout.enabled", "server.environment"],
            "lockout can't be switched off in production",
            "Remove it. To allow more wrong passwords, raise lockout.threshold",
        );
    }
    for (name, rule) in &settings.limits.rules {
        if !rule.enabled {
            let key = format!("limits.rules.{name}.enabled");
            reader.refuse(
                &[&key, "server.environment"],
                "a rate limit can't be switched off in production",
                "Remove it. To relax the rule, raise its burst",
            );
        }
    }
}

fn weak_custom_cost(settings: &Settings, reader: &mut Reader<'_>) {
    let passwords = &settings.passwords;
    let (Some(memory), Some(passes)) = (passwords.argon2_memory, passwords.argon2_passes) else {
        return;
    };
    let is_enough = OWASP_MINIMUM
        .iter()
        .any(|(mebibytes, least)| memory >= mebibytes << 20 && passes >= *least);
    if passwords.cost == PasswordCost::Custom && !is_enough {
        reader.refuse(
            &[CUSTOM[0], CUSTOM[1], "passwords.cost", "server.environment"],
            "this is below OWASP's minimum for Argon2id at this number of passes",
            "The minimum is 46MiB with 1 pass, 19MiB with 2, 12MiB with 3, 9MiB with 4, 7MiB with \
             5",
        );
    }
}
