#![no_main]
//! The session cookie among anything else that a browser or an attacker sends.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::sessions::{Found, SessionCookie};
use palisade::settings::{Settings, Sources};

fuzz_target!(|lines: Vec<Vec<u8>>| {
    let settings = Settings::load(Sources::default()).expect("the defaults").settings;
    let cookie = SessionCookie::by(&settings);
    let mut headers = HeaderMap::new();
    for line in &lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let name = format!("{}=", cookie.name());
    let text = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let times: usize = text.map(|line| line.matches(&name).count()).sum();
    match cookie.get(&headers) {
        Found::None => {}
        Found::One(value) => assert!(times >= 1 && !value.contains(';')),
        Found::Several => assert!(times >= 2),
    }
});
