use axum::http::HeaderValue;
use proptest::prelude::*;

use super::super::serve::Proxy;
use super::*;

const PROXY: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn trusted() -> TrustedProxies {
    TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()])
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// A connection from `peer`.
fn from(peer: IpAddr, tls: bool) -> Connection {
    let local = "127.0.0.1:443".parse().unwrap();
    Connection { peer: SocketAddr::new(peer, 50_000), local, tls, proxy: None }
}

/// Returns the client's IP address when the trusted proxy sends these lines.
fn behind_proxy(lines: &[(&str, &str)]) -> IpAddr {
    let found = client_ip(&from(ip(PROXY), false), &headers(lines), &trusted());
    assert_eq!(found.forwarded, found.ip != ip(PROXY));
    found.ip
}

fn scheme_behind_proxy(lines: &[(&str, &str)]) -> Scheme {
    scheme(&from(ip(PROXY), false), &headers(lines), &trusted())
}

#[test]
fn a_mapped_network_is_the_ipv4_network_that_it_stands_for() {
    let mapped = TrustedProxies::new(vec!["::ffff:10.0.0.0/104".parse().unwrap()]);
    for proxy in ["10.1.2.3", "::ffff:10.1.2.3"] {
        assert!(mapped.contains(ip(proxy)), "{proxy}");
    }
    for other in ["11.0.0.1", "::ffff:11.0.0.1", "::a00:1"] {
        assert!(!mapped.contains(ip(other)), "{other}");
    }
}

#[test]
fn bytes_that_a_client_sends_do_not_hide_what_the_proxy_adds() {
    let client = ip("203.0.113.9");
    for garbage in ["ü", "a, ü b", "198.51.100.1, \u{202e}"] {
        let line = format!("{garbage}, 203.0.113.9");
        assert_eq!(behind_proxy(&[("x-forwarded-for", &line)]), client, "{garbage:?}");
        // In the last place, they are the proxy's own, and so nothing is known about the client.
        let last = format!("203.0.113.9, {garbage}");
        assert_eq!(behind_proxy(&[("x-forwarded-for", &last)]), ip(PROXY), "{garbage:?}");
    }
    let quoted = "for=203.0.113.9;host=\"b\u{fc}cher.example\";proto=https";
    assert_eq!(behind_proxy(&[("forwarded", quoted)]), client);
    assert_eq!(scheme_behind_proxy(&[("forwarded", quoted)]), Scheme::Https);
    let unquoted = "for=203.0.113.9;host=b\u{fc}cher.example;proto=https";
    assert_eq!(behind_proxy(&[("forwarded", unquoted)]), ip(PROXY));
    assert_eq!(scheme_behind_proxy(&[("forwarded", unquoted)]), Scheme::Contradictory);
    assert_eq!(
        scheme_behind_proxy(&[("x-forwarded-proto", "https, \u{fc}")]),
        Scheme::Contradictory
    );
}

#[test]
fn forged_headers_from_a_stranger_change_nothing() {
    const FORGED: [&str; 20] = [
        "x-forwarded-for",
        "x-forwarded",
        "forwarded-for",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-pseudo-ipv4",
        "fastly-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-originating-ip",
        "x-remote-ip",
        "x-remote-addr",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "x-envoy-external-address",
        "x-host",
        "via",
    ];
    let stranger = ip("203.0.113.9");
    for name in FORGED {
        for value in
            ["127.0.0.1", "10.0.0.1", "for=127.0.0.1;proto=https", "198.51.100.1, 10.0.0.2"]
        {
            let headers = headers(&[(name, value), ("x-forwarded-proto", "https")]);
            let found = client_ip(&from(stranger, false), &headers, &trusted());
            assert_eq!(found, ClientIp { ip: stranger, forwarded: false }, "{name}: {value}");
            assert_eq!(scheme(&from(stranger, false), &headers, &trusted()), Scheme::Http);
        }
    }
}

#[test]
fn only_the_two_standard_headers_count_from_a_proxy() {
    for name in ["x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip"] {
        assert_eq!(behind_proxy(&[(name, "198.51.100.1")]), ip(PROXY), "{name}");
    }
    assert_eq!(behind_proxy(&[("x-forwarded-for", "198.51.100.1")]), ip("198.51.100.1"));
    assert_eq!(behind_proxy(&[("forwarded", "for=198.51.100.1")]), ip("198.51.100.1"));
}

#[test]
fn the_walk_goes_from_the_right_and_ends_at_the_first_stranger() {
    for (value, expected) in [
        ("198.51.100.1", "198.51.100.1"),
        ("1.2.3.4, 198.51.100.1", "198.51.100.1"),
        ("1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("1.2.3.4,198.51.100.1 ,\t10.0.0.2,10.0.0.3", "198.51.100.1"),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("198.51.100.1, 2001:db8:ffff::7", "198.51.100.1"),
        ("198.51.100.1:4711, [2001:db8:ffff::7]:443", "198.51.100.1"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("::ffff:198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1"),
    ] {
        assert_eq!(behind_proxy(&[("x-forwarded-for", value)]), ip(expected), "{value}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_ends_the_walk_at_the_last_good_hop() {
    for bad in [
        "",
        "unknown",
        "127.0.0.1 1",
        "1.2.3",
        "[::1",
        "_secret",
        "fe80::1%eth0",
        "\u{e9}",
        "1.2.3.4:99999",
    ] {
        let value = format!("198.51.100.1, {bad}");
        assert_eq!(behind_proxy(&[("x-forwarded-for", &value)]), ip(PROXY), "{value}");
        let value = format!("198.51.100.1, {bad}, 10.0.0.2");
        assert_eq!(behind_proxy(&[("x-forwarded-for", &value)]), ip("10.0.0.2"), "{value}");
    }
}

#[test]
fn several_lines_are_one_list_in_order() {
    let lines = [("x-forwarded-for", "1.2.3.4, 198.51.100.1"), ("x-forwarded-for", "10.0.0.2")];
    assert_eq!(behind_proxy(&lines), ip("198.51.100.1"));
    let forged_first = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "198.51.100.1")];
    assert_eq!(behind_proxy(&forged_first), ip("198.51.100.1"));
    let lines = [("forwarded", "for=1.2.3.4, for=198.51.100.1"), ("forwarded", "for=10.0.0.2")];
    assert_eq!(behind_proxy(&lines), ip("198.51.100.1"));
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    for (value, expected) in [
        ("for=\"198.51.100.1:4711\"", "198.51.100.1"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=198.51.100.1;proto=https;by=10.0.0.1", "198.51.100.1"),
        ("by=\"a,b;c\"; FOR=198.51.100.1 , for=\"[2001:db8:ffff::1]\"", "198.51.100.1"),
        ("for=\"198.51\\.100.1\"", "198.51.100.1"),
        ("for=198.51.100.1, for=unknown", PROXY),
        ("for=198.51.100.1, for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("for=198.51.100.1, proto=https", PROXY),
        ("for=1.2.3.4;for=198.51.100.1", PROXY),
        ("for=\"198.51.100.1", PROXY),
        ("for = 198.51.100.1", PROXY),
        ("for=[2001:db8::1]", PROXY),
        ("for=198.51.100.1,", PROXY),
        ("", PROXY),
    ] {
        assert_eq!(behind_proxy(&[("forwarded", value)]), ip(expected), "{value}");
    }
}

#[test]
fn two_headers_that_disagree_are_both_ignored() {
    let disagree = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.2")];
    assert_eq!(behind_proxy(&disagree), ip(PROXY));
    let agree = [("x-forwarded-for", "1.2.3.4, 198.51.100.1"), ("forwarded", "for=198.51.100.1")];
    assert_eq!(behind_proxy(&agree), ip("198.51.100.1"));
    let unreadable = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "nonsense")];
    assert_eq!(behind_proxy(&unreadable), ip(PROXY));
}

#[test]
fn a_peer_is_recognised_in_its_ipv4_mapped_form() {
    let headers = headers(&[("x-forwarded-for", "198.51.100.1")]);
    let found = client_ip(&from(ip("::ffff:10.0.0.1"), false), &headers, &trusted());
    assert_eq!(found.ip, ip("198.51.100.1"));
    let stranger = client_ip(&from(ip("::ffff:203.0.113.9"), false), &headers, &trusted());
    assert_eq!(stranger, ClientIp { ip: ip("203.0.113.9"), forwarded: false });
}

#[test]
fn https_is_tls_or_a_trusted_proxy_that_says_so_without_contradiction() {
    let none = HeaderMap::new();
    assert_eq!(scheme(&from(ip("203.0.113.9"), true), &none, &trusted()), Scheme::Https);
    assert_eq!(scheme_behind_proxy(&[]), Scheme::Unmarked);
    for good in [
        &[("x-forwarded-proto", "https")][..],
        &[("x-forwarded-proto", "HTTPS, https")],
        &[("forwarded", "for=1.2.3.4;proto=https, for=10.0.0.2")],
        &[("x-forwarded-proto", "https"), ("forwarded", "proto=\"https\"")],
    ] {
        assert_eq!(scheme_behind_proxy(good), Scheme::Https, "{good:?}");
    }
    for plain in [
        &[("x-forwarded-proto", "http")][..],
        &[("x-forwarded-proto", " HTTP , http")],
        &[("x-forwarded-proto", "http"), ("forwarded", "for=1.2.3.4;proto=HTTP")],
        &[("forwarded", "proto=\"http\"")],
    ] {
        assert_eq!(scheme_behind_proxy(plain), Scheme::MarkedHttp, "{plain:?}");
    }
    for unclear in [
        &[("x-forwarded-proto", "https, http")][..],
        &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")],
        &[("x-forwarded-proto", "httpss")],
        &[("x-forwarded-proto", "")],
        &[("x-forwarded-proto", "https,")],
        &[("x-forwarded-proto", "https"), ("forwarded", "proto=http")],
        &[("x-forwarded-proto", "https"), ("forwarded", "proto=https;proto=http")],
        &[("x-forwarded-proto", "https\u{e9}")],
    ] {
        assert_eq!(scheme_behind_proxy(unclear), Scheme::Contradictory, "{unclear:?}");
    }
    for silent in [
        &[("forwarded", "for=1.2.3.4")][..],
        &[("x-forwarded-for", "1.2.3.4")],
        &[("x-forwarded-ssl", "on"), ("front-end-https", "on")],
    ] {
        assert_eq!(scheme_behind_proxy(silent), Scheme::Unmarked, "{silent:?}");
    }
}

#[test]
fn a_proxy_that_comes_over_tls_can_still_say_that_its_client_did_not() {
    let over_tls =
        |lines: &[(&str, &str)]| scheme(&from(ip(PROXY), true), &headers(lines), &trusted());
    assert_eq!(over_tls(&[]), Scheme::Https);
    assert_eq!(over_tls(&[("x-forwarded-proto", "https")]), Scheme::Https);
    assert_eq!(over_tls(&[("x-forwarded-proto", "http")]), Scheme::MarkedHttp);
    let stranger = ip("203.0.113.9");
    let forged = headers(&[("x-forwarded-proto", "http")]);
    assert_eq!(scheme(&from(stranger, true), &forged, &trusted()), Scheme::Https);
}

#[test]
fn rate_keys_group_ipv6_networks() {
    assert_eq!(rate_key(ip("2001:db8::1:2:3:4")), rate_key(ip("2001:db8::9")));
    assert_ne!(rate_key(ip("2001:db8:0:1::1")), rate_key(ip("2001:db8::1")));
    assert_eq!(rate_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
}

proptest! {
    #[test]
    fn no_header_makes_the_parsers_panic_or_a_stranger_trusted(
        lines in prop::collection::vec(
            (prop::sample::select(vec!["forwarded", "x-forwarded-for", "x-forwarded-proto"]),
             "[ -~]{0,60}|(for|proto|by)=(\"[ -~]{0,20}\"|[0-9a-f:.\\[\\]]{0,20})([;,] ?for=[0-9.]{0,9})?"),
            0..5),
    ) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        behind_proxy(&lines);
        scheme_behind_proxy(&lines);
        let stranger = ip("203.0.113.9");
        let found = client_ip(&from(stranger, false), &headers(&lines), &trusted());
        prop_assert_eq!(found.ip, stranger);
    }
}

/// A connection that the trusted proxy forwards for `peer`.
fn proxied(peer: &str, tls: bool, client_tls: Option<bool>) -> Connection {
    let proxy = Proxy { ip: ip(PROXY), names_client: true, client_tls };
    Connection { proxy: Some(proxy), ..from(ip(peer), tls) }
}

#[test]
fn a_client_that_the_proxy_protocol_names_is_the_peer() {
    let forged = headers(&[("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1")]);
    for peer in ["203.0.113.9", "2001:db8::1", "127.0.0.1"] {
        let found = client_ip(&proxied(peer, false, None), &forged, &trusted());
        assert_eq!(found, ClientIp { ip: ip(peer), forwarded: true });
    }
    // It is a proxy itself, so its headers count.
    let found = client_ip(&proxied("10.0.0.9", false, None), &forged, &trusted());
    assert_eq!(found, ClientIp { ip: ip("198.51.100.1"), forwarded: true });
    let found = client_ip(&proxied("10.0.0.9", false, None), &HeaderMap::new(), &trusted());
    assert_eq!(found, ClientIp { ip: ip("10.0.0.9"), forwarded: true });
    // The header names no client: anyone may have sent what follows.
    let unnamed = Proxy { ip: ip(PROXY), names_client: false, client_tls: None };
    let unnamed = Connection { proxy: Some(unnamed), ..from(ip(PROXY), false) };
    let found = client_ip(&unnamed, &forged, &trusted());
    assert_eq!(found, ClientIp { ip: ip(PROXY), forwarded: false });
}

#[test]
fn the_proxy_states_the_scheme_of_the_client_that_it_names() {
    let scheme = |tls, client_tls, lines: &[(&str, &str)]| {
        scheme(&proxied("203.0.113.9", tls, client_tls), &headers(lines), &trusted())
    };
    let https = [("x-forwarded-proto", "https")];
    let http = [("x-forwarded-proto", "http")];
    for (tls, client_tls, lines, expected) in [
        (false, None, &[][..], Scheme::Unmarked),
        (false, None, &https, Scheme::Https),
        (false, None, &http, Scheme::MarkedHttp),
        (false, Some(true), &[], Scheme::Https),
        (false, Some(true), &https, Scheme::Https),
        (false, Some(true), &http, Scheme::Contradictory),
        (false, Some(false), &[], Scheme::MarkedHttp),
        (false, Some(false), &https, Scheme::Contradictory),
        (true, None, &[], Scheme::Https),
        (true, None, &http, Scheme::MarkedHttp),
        (true, Some(true), &[], Scheme::Https),
        (true, Some(false), &[], Scheme::Contradictory),
    ] {
        assert_eq!(scheme(tls, client_tls, lines), expected, "{tls} {client_tls:?} {lines:?}");
    }
    // From a proxy that isn't trusted any more, nothing counts.
    let stranger = Proxy { ip: ip("203.0.113.1"), names_client: true, client_tls: Some(true) };
    let connection = Connection { proxy: Some(stranger), ..from(ip("203.0.113.9"), false) };
    assert_eq!(super::scheme(&connection, &headers(&https), &trusted()), Scheme::Http);
}

#[test]
fn any_proxy_that_shows_itself_forwards_the_request() {
    let direct = from(ip("127.0.0.1"), false);
    let none = HeaderMap::new();
    assert!(!is_forwarded(&direct, &none));
    assert!(!is_forwarded(&direct, &headers(&[("host", "localhost"), ("x-request-id", "1")])));
    for name in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded", "Via"] {
        assert!(is_forwarded(&direct, &headers(&[(name, "")])), "{name}");
    }
    for names_client in [true, false] {
        let proxy = Proxy { ip: ip("127.0.0.1"), names_client, client_tls: None };
        assert!(is_forwarded(&Connection { proxy: Some(proxy), ..direct }, &none));
    }
}
