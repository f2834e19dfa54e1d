//! The options sent to browsers: the JSON of `PublicKeyCredentialCreationOptionsJSON` and
//! `PublicKeyCredentialRequestOptionsJSON` (sections 5.4 and 5.5), for
//! `PublicKeyCredential.parseCreationOptionsFromJSON()` and `PublicKeyCredential.parseRequestOptionsFromJSON()`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::{Algorithm, RelyingParty, UserVerification};

/// The account that a credential will be for.
#[derive(Clone, Copy, Debug)]
pub struct UserEntity<'a> {
    /// The user handle: 1 to 64 bytes that identify the account and reveal nothing about the person
    /// (section 14.6.1).
    pub id: &'a [u8],
    /// A name that distinguishes the account from others: an email address.
    pub name: &'a str,
    /// The person's name, for display.
    pub display_name: &'a str,
}

/// A descriptor that identifies a credential to a browser (section 5.8.3).
#[derive(Clone, Debug, Serialize)]
pub struct CredentialDescriptor {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transports: Vec<String>,
}

impl CredentialDescriptor {
    /// Creates a descriptor from the credential's id and the transports recorded at registration.
    #[must_use]
    pub fn new(id: &[u8], transports: &[String]) -> Self {
        let id = URL_SAFE_NO_PAD.encode(id);
        Self { kind: "public-key", id, transports: transports.to_vec() }
    }
}

/// Whether the credential should be discoverable without its id, as passkeys are (section 5.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResidentKey {
    /// A discoverable credential is required.
    Required,
    /// A discoverable credential is preferred.
    Preferred,
    /// A discoverable credential is discouraged.
    Discouraged,
}

/// Which attestation statement is requested (section 5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationConveyance {
    /// None.
    None,
    /// The authenticator's own statement, for a policy with trusted roots.
    Direct,
}

/// The options for a registration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationOptions {
    rp: RpJson,
    user: UserJson,
    challenge: String,
    pub_key_cred_params: Vec<ParameterJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u32>,
    exclude_credentials: Vec<CredentialDescriptor>,
    authenticator_selection: SelectionJson,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    attestation: AttestationConveyance,
}

#[derive(Clone, Debug, Serialize)]
struct RpJson {
    id: String,
    name: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserJson {
    id: String,
    name: String,
    display_name: String,
}

#[derive(Clone, Debug, Serialize)]
struct ParameterJson {
    #[serde(rename = "type")]
    kind: &'static str,
    alg: Algorithm,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SelectionJson {
    resident_key: ResidentKey,
    require_resident_key: bool,
    user_verification: UserVerification,
}

impl CreationOptions {
    /// Creates options with `algorithms` in order of preference. No credential is excluded, no attestation is
    /// requested, and a passkey and user verification are preferred.
    #[must_use]
    pub fn new(
        rp: &RelyingParty,
        rp_name: &str,
        user: &UserEntity<'_>,
        challenge: &[u8],
        algorithms: &[Algorithm],
    ) -> Self {
        let parameter = |alg: &Algorithm| ParameterJson { kind: "public-key", alg: *alg };
        Self {
            rp: RpJson { id: rp.id.clone(), name: rp_name.to_owned() },
            user: UserJson {
                id: URL_SAFE_NO_PAD.encode(user.id),
                name: user.name.to_owned(),
                display_name: user.display_name.to_owned(),
            },
            challenge: URL_SAFE_NO_PAD.encode(challenge),
            pub_key_cred_params: algorithms.iter().map(parameter).collect(),
            timeout: None,
            exclude_credentials: Vec::new(),
            authenticator_selection: SelectionJson {
                resident_key: ResidentKey::Preferred,
                require_resident_key: false,
                user_verification: UserVerification::Preferred,
            },
            hints: Vec::new(),
            attestation: AttestationConveyance::None,
        }
    }

    /// Sets a time limit in milliseconds, which browsers may ignore.
    #[must_use]
    pub fn timeout(mut self, milliseconds: u32) -> Self {
        self.timeout = Some(milliseconds);
        self
    }

    /// Excludes the credentials that the user already has.
    #[must_use]
    pub fn exclude(mut self, credentials: Vec<CredentialDescriptor>) -> Self {
        self.exclude_credentials = credentials;
        self
    }

    /// Sets the requirements for the authenticator.
    #[must_use]
    pub fn select(mut self, resident_key: ResidentKey, verification: UserVerification) -> Self {
        self.authenticator_selection = SelectionJson {
            resident_key,
            require_resident_key: resident_key == ResidentKey::Required,
            user_verification: verification,
        };
        self
    }

    /// Requests an attestation statement.
    #[must_use]
    pub fn attestation(mut self, conveyance: AttestationConveyance) -> Self {
        self.attestation = conveyance;
        self
    }

    /// Adds hints for the browser's dialog: `security-key`, `client-device`, `hybrid`.
    #[must_use]
    pub fn hints(mut self, hints: Vec<String>) -> Self {
        self.hints = hints;
        self
    }
}

/// The options for a sign-in.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestOptions {
    challenge: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u32>,
    rp_id: String,
    allow_credentials: Vec<CredentialDescriptor>,
    user_verification: UserVerification,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
}

impl RequestOptions {
    /// Creates options that allow any passkey of the relying party and prefer user verification.
    #[must_use]
    pub fn new(rp: &RelyingParty, challenge: &[u8]) -> Self {
        Self {
            challenge: URL_SAFE_NO_PAD.encode(challenge),
            timeout: None,
            rp_id: rp.id.clone(),
            allow_credentials: Vec::new(),
            user_verification: UserVerification::Preferred,
            hints: Vec::new(),
        }
    }

    /// Sets a time limit in milliseconds, which browsers may ignore.
    #[must_use]
    pub fn timeout(mut self, milliseconds: u32) -> Self {
        self.timeout = Some(milliseconds);
        self
    }

    /// Allows only these credentials. An empty list allows any passkey.
    #[must_use]
    pub fn allow(mut self, credentials: Vec<CredentialDescriptor>) -> Self {
        self.allow_credentials = credentials;
        self
    }

    /// Sets the requirement for user verification.
    #[must_use]
    pub fn user_verification(mut self, verification: UserVerification) -> Self {
        self.user_verification = verification;
        self
    }

    /// Adds hints for the browser's dialog: `security-key`, `client-device`, `hybrid`.
    #[must_use]
    pub fn hints(mut self, hints: Vec<String>) -> Self {
        self.hints = hints;
        self
    }
}
