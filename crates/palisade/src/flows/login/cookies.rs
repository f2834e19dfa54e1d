//! The cookies of a sign-in: of a known device, and of a challenge that waits for its answer.

use axum::http::HeaderMap;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;

use crate::app::App;
use crate::http::{CookieName, Found, HostCookie};

/// What a browser shows that has signed in before.
pub(super) const DEVICE: CookieName =
    CookieName { secure: "__Host-palisade-device", plain: "palisade-device" };

/// What a browser's challenge is bound to.
pub(super) const CHALLENGE: CookieName =
    CookieName { secure: "__Host-palisade-challenge", plain: "palisade-challenge" };

const CHALLENGE_PREFIX: &str = "pal_cc_";

/// What a challenge is bound to beside the client's software: in a browser the cookie that it has, or a new one.
pub(super) fn challenge_secret(
    app: &App,
    browser: bool,
    had: Option<SecretString>,
) -> Option<SecretString> {
    if !browser {
        return had;
    }
    // What isn't ours may have been planted.
    let had = had.filter(|secret| opaque::digest(CHALLENGE_PREFIX, secret.expose()).is_some());
    Some(had.unwrap_or_else(|| opaque::generate(CHALLENGE_PREFIX, &*app.random)))
}

pub(super) fn cookie_value(cookie: &HostCookie, headers: &HeaderMap) -> Option<SecretString> {
    match cookie.get(headers) {
        Found::One(value) => Some(value.into()),
        Found::None | Found::Several => None,
    }
}
