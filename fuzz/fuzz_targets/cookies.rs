#![no_main]
//! The session cookie among anything else that a browser or an attacker sends.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::cookie::{Found, HostCookie};
use palisade::sessions;
use palisade::settings::{Settings, Sources};

fuzz_target!(|lines: Vec<Vec<u8>>| {
    let settings = Settings::load(Sources::default()).expect("the defaults").settings;
    let cookie = HostCookie::new(sessions::COOKIE, &settings);
    let mut headers = HeaderMap::new();
    for line in &lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let name = format!("{}=", cookie.name());
    let times: usize = headers
        .get_all(COOKIE)
        .iter()
        .map(|line| line.as_bytes().windows(name.len()).filter(|part| *part == name.as_bytes()).count())
        .sum();
    match cookie.get(&headers) {
        Found::None => {}
        Found::One(value) => assert!(times >= 1 && !value.contains(';')),
        // Also one whose value is not text.
        Found::Several => assert!(times >= 1),
    }
});
