#![no_main]
//! Forwarded headers, from a trusted proxy and from an untrusted client.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::http::client::{TrustedProxies, client_ip, scheme};
use palisade::http::serve::{Connection, Proxy};

fuzz_target!(|lines: Vec<(u8, Vec<u8>)>| {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = ["forwarded", "x-forwarded-for", "x-forwarded-proto"][usize::from(name % 3)];
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let stranger: SocketAddr = "192.0.2.1:50000".parse().expect("an address");
    let proxy: SocketAddr = "10.0.0.1:50000".parse().expect("an address");
    for tls in [false, true] {
        for client_tls in [None, Some(false), Some(true)] {
            let header = Proxy { ip: proxy.ip(), names_client: true, client_tls };
            for (peer, header) in
                [(proxy, None), (stranger, None), (proxy, Some(header)), (stranger, Some(header))]
            {
                let connection = Connection { peer, local: proxy, tls, proxy: header };
                let _ = scheme(&connection, &headers, &trusted);
                let found = client_ip(&connection, &headers, &trusted);
                assert!(
                    peer == proxy || found.ip == peer.ip() && found.forwarded == header.is_some()
                );
            }
        }
    }
});
