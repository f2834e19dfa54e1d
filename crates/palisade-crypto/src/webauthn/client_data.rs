//! `clientDataJSON`: what the browser states about the page (section 5.8.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{LONGEST_CLIENT_DATA, RelyingParty, WebauthnError};

/// The minimum length of a challenge, in bytes (section 13.4.3).
const SHORTEST_CHALLENGE: usize = 16;

/// The checked members of `clientDataJSON`. Other members are ignored, as the specification requires; a member listed
/// here that occurs twice is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    ceremony: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: Option<bool>,
    #[serde(default)]
    top_origin: Option<String>,
}

/// The two ceremonies, each with the `type` that the browser writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ceremony {
    Create,
    Get,
}

impl Ceremony {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "webauthn.create",
            Self::Get => "webauthn.get",
        }
    }
}

/// Returns the challenge in `clientDataJSON`, not yet verified, for looking up the ceremony.
///
/// # Errors
///
/// Returns an error if the client data is too large or malformed, or if the challenge is not strict base64url.
pub fn client_challenge(client_data_json: &[u8]) -> Result<Vec<u8>, WebauthnError> {
    decode(&parse(client_data_json)?.challenge)
}

/// Checks the ceremony, the challenge, the origin and the frame: steps 7 to 11 of section 7.1 and 10 to 14 of 7.2.
pub(super) fn check(
    client_data_json: &[u8],
    ceremony: Ceremony,
    challenge: &[u8],
    rp: &RelyingParty,
) -> Result<(), WebauthnError> {
    let data = parse(client_data_json)?;
    if data.ceremony != ceremony.as_str() {
        return Err(WebauthnError::WrongCeremony);
    }
    let answered = decode(&data.challenge)?;
    // SECURITY: an empty expected challenge would match a response with an empty challenge, and a short one could be
    // guessed (test: another_challenge_is_refused_and_so_is_an_empty_or_short_one).
    if challenge.len() < SHORTEST_CHALLENGE || !bool::from(answered.ct_eq(challenge)) {
        return Err(WebauthnError::WrongChallenge);
    }
    if !rp.origins.contains(&data.origin) {
        return Err(WebauthnError::WrongOrigin);
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(WebauthnError::CrossOrigin);
    }
    Ok(())
}

fn parse(client_data_json: &[u8]) -> Result<ClientData, WebauthnError> {
    if client_data_json.len() > LONGEST_CLIENT_DATA {
        return Err(WebauthnError::TooLarge);
    }
    serde_json::from_slice(client_data_json).map_err(|_| WebauthnError::BadClientData)
}

fn decode(challenge: &str) -> Result<Vec<u8>, WebauthnError> {
    URL_SAFE_NO_PAD.decode(challenge).map_err(|_| WebauthnError::BadEncoding)
}
