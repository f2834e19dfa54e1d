#![no_main]
//! Forwarded headers, from a trusted proxy and from an untrusted client.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::http::client::{TrustedProxies, client_ip, scheme};

fuzz_target!(|lines: Vec<(u8, Vec<u8>)>| {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = ["forwarded", "x-forwarded-for", "x-forwarded-proto"][usize::from(name % 3)];
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let stranger: IpAddr = "192.0.2.1".parse().expect("an IP address");
    let proxy: IpAddr = "10.0.0.1".parse().expect("an IP address");
    for tls in [false, true] {
        let _ = scheme(proxy, tls, &headers, &trusted);
        let _ = scheme(stranger, tls, &headers, &trusted);
    }
    let _ = client_ip(proxy, &headers, &trusted);
    let found = client_ip(stranger, &headers, &trusted);
    assert!(found.ip == stranger && !found.forwarded);
});
