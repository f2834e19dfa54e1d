//! Verification of a registration (section 7.1).

use sha2::{Digest, Sha256};

use super::attestation::{self, AttestationFormat, AttestationObject, AttestationPolicy, Attested};
use super::authenticator_data::AuthenticatorData;
use super::client_data::{self, Ceremony};
use super::{
    Algorithm, PublicKey, RegistrationResponse, RelyingParty, UserVerification, WebauthnError,
};

/// The transports that options may name: ways to reach an authenticator (section 5.8.4).
const TRANSPORTS: [&str; 6] = ["ble", "hybrid", "internal", "nfc", "smart-card", "usb"];

/// The values that a registration must match.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationExpectation<'a> {
    /// The issued challenge, 16 bytes or more, used only for this registration.
    pub challenge: &'a [u8],
    /// The requested user verification.
    pub user_verification: UserVerification,
    /// The offered algorithms.
    pub algorithms: &'a [Algorithm],
    /// Which attestation statements are trusted.
    pub attestation: &'a AttestationPolicy<'a>,
}

/// A new credential, to be stored with its owner.
///
/// The caller must still check that no user has a credential with this id (section 7.1, step 26).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredential {
    /// Its id, 16 to 1023 bytes.
    pub id: Vec<u8>,
    /// Its key.
    pub public_key: PublicKey,
    /// The signature counter; 0 if the authenticator has none.
    pub sign_count: u32,
    /// Whether the authenticator verified its user.
    pub user_verified: bool,
    /// Whether the credential may be backed up, like a passkey that several devices share. Never changes, unless the
    /// caller accepts [`BackupEligibility::MayBeGained`](super::BackupEligibility::MayBeGained).
    pub backup_eligible: bool,
    /// Whether it is backed up now.
    pub backed_up: bool,
    /// The model of the authenticator. It is verified only by a `packed` statement with [`AttestationPolicy::Trusted`].
    pub aaguid: [u8; 16],
    /// The format of the attestation statement.
    pub attestation: AttestationFormat,
    /// The transports that the browser reports: known values only, each listed once.
    pub transports: Vec<String>,
}

/// Verifies a registration. The caller must already have looked up the ceremony by
/// [`RegistrationResponse::challenge`] and marked it as used.
///
/// # Errors
///
/// Returns the reason for the refusal, as a variant of [`WebauthnError`].
pub fn verify_registration(
    rp: &RelyingParty,
    expected: &RegistrationExpectation<'_>,
    response: &RegistrationResponse,
) -> Result<NewCredential, WebauthnError> {
    let id = response.credential_id()?;
    let client_data_json = response.client_data_json()?;
    client_data::check(&client_data_json, Ceremony::Create, expected.challenge, rp)?;

    let object = AttestationObject::parse(&response.attestation_object()?)?;
    let data = AuthenticatorData::parse(&object.authenticator_data)?;
    data.check(rp, expected.user_verification)?;
    let credential = data.credential.as_ref().ok_or(WebauthnError::NoCredentialData)?;
    // SECURITY: sign-ins look up the id from the browser, but the authenticator signs its own, so both must be equal
    // (test: ids_that_differ_are_refused_and_so_is_an_id_in_another_spelling).
    if credential.id != id {
        return Err(WebauthnError::CredentialIdMismatch);
    }
    let public_key = PublicKey::registered(credential.public_key)?;
    if !expected.algorithms.contains(&public_key.algorithm()) {
        return Err(WebauthnError::AlgorithmNotOffered);
    }
    let attested = Attested {
        authenticator_data: &object.authenticator_data,
        client_data_hash: Sha256::digest(&client_data_json).into(),
        rp_id_hash: &data.rp_id_hash,
        credential,
        public_key: &public_key,
    };
    attestation::verify(&object, &attested, expected.attestation)?;
    Ok(NewCredential {
        id,
        sign_count: data.sign_count,
        user_verified: data.user_verified(),
        backup_eligible: data.backup_eligible(),
        backed_up: data.backed_up(),
        aaguid: credential.aaguid,
        attestation: object.format,
        transports: known(response.transports()),
        public_key,
    })
}

fn known(transports: &[String]) -> Vec<String> {
    let named = |word: &&str| transports.iter().any(|transport| transport == word);
    TRANSPORTS.into_iter().filter(named).map(str::to_owned).collect()
}
