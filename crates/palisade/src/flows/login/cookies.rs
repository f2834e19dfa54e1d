//! The cookies of a sign-in: one for a known device, and one for a challenge awaiting its response.

use axum::http::HeaderMap;
use palisade_crypto::opaque;
use palisade_crypto::secret::SecretString;

use crate::app::App;
use crate::http::{CookieName, Found, HostCookie};

/// The cookie of a browser that has signed in before.
pub(super) const DEVICE: CookieName =
    CookieName { secure: "__Host-palisade-device", plain: "palisade-device" };

/// The cookie to which a browser's challenge is bound.
pub(super) const CHALLENGE: CookieName =
    CookieName { secure: "__Host-palisade-challenge", plain: "palisade-challenge" };

const CHALLENGE_PREFIX: &str = "pal_cc_";

/// Returns the secret to which a challenge is bound, in addition to the client's software. In a browser, it is the
/// value of the browser's cookie, or a new one.
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
