//! The responses that browsers send: the JSON of `PublicKeyCredential.toJSON()` (section 5.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::client_data::client_challenge;
use super::{
    LONGEST_ATTESTATION_OBJECT, LONGEST_AUTHENTICATOR_DATA, LONGEST_CLIENT_DATA,
    LONGEST_CREDENTIAL_ID, LONGEST_USER_HANDLE, WebauthnError,
};

/// The maximum length of a signature, in bytes. No supported algorithm has longer ones.
const LONGEST_SIGNATURE: usize = 1024;

/// `RegistrationResponseJSON`: the result of `navigator.credentials.create()`.
///
/// Other members, which some browsers add, are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResponse {
    id: String,
    raw_id: String,
    #[serde(rename = "type")]
    kind: String,
    response: AttestationPart,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestationPart {
    #[serde(rename = "clientDataJSON")]
    client_data_json: String,
    attestation_object: String,
    #[serde(default)]
    transports: Option<Vec<String>>,
}

/// `AuthenticationResponseJSON`: the result of `navigator.credentials.get()`.
///
/// Other members, which some browsers add, are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationResponse {
    id: String,
    raw_id: String,
    #[serde(rename = "type")]
    kind: String,
    response: AssertionPart,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssertionPart {
    #[serde(rename = "clientDataJSON")]
    client_data_json: String,
    authenticator_data: String,
    signature: String,
    #[serde(default)]
    user_handle: Option<String>,
}

impl RegistrationResponse {
    /// Returns the challenge that the response answers, not yet verified, for looking up the ceremony.
    ///
    /// # Errors
    ///
    /// Returns an error if the client data is too large or malformed.
    pub fn challenge(&self) -> Result<Vec<u8>, WebauthnError> {
        client_challenge(&self.client_data_json()?)
    }

    /// Returns the first malformed member, if any: its position in the response, and the reason.
    #[must_use]
    pub fn malformed(&self) -> Option<(&'static str, WebauthnError)> {
        bad_id(self.credential_id())
            .or_else(|| bad("/response/clientDataJSON", self.challenge()))
            .or_else(|| bad("/response/attestationObject", self.attestation_object()))
    }

    pub(super) fn credential_id(&self) -> Result<Vec<u8>, WebauthnError> {
        credential_id(&self.kind, &self.id, &self.raw_id)
    }

    pub(super) fn client_data_json(&self) -> Result<Vec<u8>, WebauthnError> {
        decode(&self.response.client_data_json, LONGEST_CLIENT_DATA)
    }

    pub(super) fn attestation_object(&self) -> Result<Vec<u8>, WebauthnError> {
        decode(&self.response.attestation_object, LONGEST_ATTESTATION_OBJECT)
    }

    pub(super) fn transports(&self) -> &[String] {
        self.response.transports.as_deref().unwrap_or_default()
    }
}

impl AuthenticationResponse {
    /// Returns the challenge that the response answers, not yet verified, for looking up the ceremony.
    ///
    /// # Errors
    ///
    /// Returns an error if the client data is too large or malformed.
    pub fn challenge(&self) -> Result<Vec<u8>, WebauthnError> {
        client_challenge(&self.client_data_json()?)
    }

    /// Returns the first malformed member, if any: its position in the response, and the reason.
    #[must_use]
    pub fn malformed(&self) -> Option<(&'static str, WebauthnError)> {
        bad_id(self.credential_id())
            .or_else(|| bad("/response/clientDataJSON", self.challenge()))
            .or_else(|| bad("/response/authenticatorData", self.authenticator_data()))
            .or_else(|| bad("/response/signature", self.signature()))
            .or_else(|| bad("/response/userHandle", self.user_handle()))
    }

    /// Returns the id of the credential that the response names, not yet verified, for looking up the credential.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is malformed or too long, or if `id` and `rawId` differ.
    pub fn credential_id(&self) -> Result<Vec<u8>, WebauthnError> {
        credential_id(&self.kind, &self.id, &self.raw_id)
    }

    /// Returns the user handle that the response names, not yet verified. A sign-in without a username requires one
    /// (section 7.2, step 6); [`super::verify_authentication`] compares it with the owner's. An empty handle counts as
    /// absent: Safari returns it for security keys that store no handle, and no user has one (section 5.4.3).
    ///
    /// # Errors
    ///
    /// Returns an error if the handle is malformed or longer than 64 bytes.
    pub fn user_handle(&self) -> Result<Option<Vec<u8>>, WebauthnError> {
        let handle = self.response.user_handle.as_deref();
        let handle = handle.filter(|text| !text.is_empty());
        handle.map(|text| decode(text, LONGEST_USER_HANDLE)).transpose()
    }

    pub(super) fn client_data_json(&self) -> Result<Vec<u8>, WebauthnError> {
        decode(&self.response.client_data_json, LONGEST_CLIENT_DATA)
    }

    pub(super) fn authenticator_data(&self) -> Result<Vec<u8>, WebauthnError> {
        decode(&self.response.authenticator_data, LONGEST_AUTHENTICATOR_DATA)
    }

    pub(super) fn signature(&self) -> Result<Vec<u8>, WebauthnError> {
        decode(&self.response.signature, LONGEST_SIGNATURE)
    }
}

fn bad<T>(
    member: &'static str,
    read: Result<T, WebauthnError>,
) -> Option<(&'static str, WebauthnError)> {
    read.err().map(|why| (member, why))
}

fn bad_id<T>(read: Result<T, WebauthnError>) -> Option<(&'static str, WebauthnError)> {
    let why = read.err()?;
    Some((if why == WebauthnError::WrongCredentialType { "/type" } else { "/id" }, why))
}

fn credential_id(kind: &str, id: &str, raw_id: &str) -> Result<Vec<u8>, WebauthnError> {
    if kind != "public-key" {
        return Err(WebauthnError::WrongCredentialType);
    }
    if id != raw_id {
        return Err(WebauthnError::IdDiffersFromRawId);
    }
    match decode(raw_id, LONGEST_CREDENTIAL_ID) {
        Err(WebauthnError::TooLarge) => Err(WebauthnError::BadCredentialId),
        other => other,
    }
}

/// Decodes base64url into at most `longest` bytes. The length is checked before any other work is done.
fn decode(text: &str, longest: usize) -> Result<Vec<u8>, WebauthnError> {
    if text.len() > (longest * 4).div_ceil(3) {
        return Err(WebauthnError::TooLarge);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| WebauthnError::BadEncoding)
}
