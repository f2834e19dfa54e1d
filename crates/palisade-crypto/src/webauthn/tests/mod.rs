//! Valid ceremonies. The other files contain the W3C's vectors, altered responses, certificates and
//! properties.

mod authentications;
mod certificates;
mod keys;
mod properties;
mod registrations;
mod vectors;

use serde_json::{Value, json};

use super::testing::{
    BACKED_UP, BACKUP_ELIGIBLE, SoftAuthenticator, attestation_object, client_data,
};
use super::*;
use crate::random::SeededRandom;

const RP_ID: &str = "example.org";
const ORIGIN: &str = "https://example.org";
const CHALLENGE: [u8; 32] = [0x5a; 32];
const NO_ATTESTATION: AttestationPolicy<'static> = AttestationPolicy::None;

fn rp() -> RelyingParty {
    RelyingParty {
        id: RP_ID.to_owned(),
        origins: vec!["https://www.example.org".to_owned(), ORIGIN.to_owned()],
    }
}

fn authenticator(algorithm: Algorithm) -> SoftAuthenticator {
    let mut authenticator = SoftAuthenticator::new(algorithm, &SeededRandom::new(7));
    authenticator.user_handle = b"user 1".to_vec();
    authenticator
}

fn registration_expectation() -> RegistrationExpectation<'static> {
    RegistrationExpectation {
        challenge: &CHALLENGE,
        user_verification: UserVerification::Required,
        algorithms: &Algorithm::OFFERED,
        attestation: &NO_ATTESTATION,
    }
}

fn authentication_expectation() -> AuthenticationExpectation<'static> {
    AuthenticationExpectation {
        challenge: &CHALLENGE,
        user_verification: UserVerification::Required,
        backup_eligibility: BackupEligibility::Fixed,
    }
}

fn register(answer: &Value) -> Result<NewCredential, WebauthnError> {
    register_for(&registration_expectation(), answer)
}

fn register_for(
    expected: &RegistrationExpectation<'_>,
    answer: &Value,
) -> Result<NewCredential, WebauthnError> {
    verify_registration(&rp(), expected, &serde_json::from_value(answer.clone()).unwrap())
}

/// The answer with this attestation object to the usual challenge.
fn registration(authenticator: &SoftAuthenticator, object: &[u8]) -> Value {
    let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
    authenticator.registration(&client_data, object)
}

fn good_registration(authenticator: &SoftAuthenticator) -> Value {
    let data = authenticator.registration_data(RP_ID);
    registration(authenticator, &attestation_object("none", vec![], &data))
}

fn good_authentication(authenticator: &SoftAuthenticator) -> Value {
    let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
    authenticator.authentication(&client_data, &authenticator.authenticator_data(RP_ID))
}

#[test]
fn a_credential_is_registered_and_signs_in() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let mut authenticator = authenticator(algorithm);
        authenticator.sign_count = 1;
        authenticator.flags |= BACKUP_ELIGIBLE | BACKED_UP;
        authenticator.aaguid = [3; 16];

        let user = UserEntity { id: b"user 9", name: "ada@example.org", display_name: "Ada" };
        let options =
            CreationOptions::new(&rp(), "Example", &user, &CHALLENGE, &Algorithm::OFFERED);
        let answer = authenticator.register(&serde_json::to_value(&options).unwrap(), ORIGIN);
        let credential = register(&answer).unwrap();
        assert_eq!(credential.id, authenticator.id);
        assert_eq!(credential.public_key.algorithm(), algorithm);
        assert_eq!((credential.sign_count, credential.aaguid), (1, [3; 16]));
        assert!(credential.user_verified && credential.backup_eligible && credential.backed_up);
        assert_eq!(credential.attestation, AttestationFormat::None);
        assert_eq!(credential.transports, ["hybrid", "internal"]);

        let options = RequestOptions::new(&rp(), &CHALLENGE);
        let answer = authenticator.authenticate(&serde_json::to_value(&options).unwrap(), ORIGIN);
        let response: AuthenticationResponse = serde_json::from_value(answer).unwrap();
        assert_eq!(response.challenge().unwrap(), CHALLENGE);
        assert_eq!(response.credential_id().unwrap(), credential.id);
        assert_eq!(response.user_handle().unwrap().unwrap(), b"user 9");
        let key = PublicKey::from_bytes(credential.public_key.as_bytes()).unwrap();
        let stored = StoredCredential {
            id: &credential.id,
            public_key: &key,
            sign_count: credential.sign_count,
            backup_eligible: credential.backup_eligible,
            user_handle: b"user 9",
        };
        assert_eq!(
            verify_authentication(&rp(), &authentication_expectation(), &stored, &response),
            Ok(Authenticated {
                sign_count: 2,
                user_verified: true,
                backup_eligible: true,
                backed_up: true
            })
        );
    }
}

#[test]
fn what_browsers_add_is_ignored() {
    let authenticator = authenticator(Algorithm::Es256);
    let mut answer = good_registration(&authenticator);
    answer["somethingNew"] = json!({"a": [1]});
    answer["response"]["publicKeyAlgorithm"] = json!(-7);
    answer["response"]["transports"] = json!(["usb", "carrier-pigeon", "usb"]);
    assert_eq!(register(&answer).unwrap().transports, ["usb"]);
    answer["response"]["transports"] = Value::Null;
    assert!(register(&answer).unwrap().transports.is_empty());
}

#[test]
fn options_have_the_shape_that_browsers_read() {
    let user = UserEntity { id: b"user 1", name: "ada@example.org", display_name: "Ada" };
    let known = CredentialDescriptor::new(&[1, 2, 3], &["usb".to_owned()]);
    let creation = CreationOptions::new(&rp(), "Example", &user, &[0xff; 16], &Algorithm::OFFERED)
        .timeout(300_000)
        .exclude(vec![known.clone()])
        .select(ResidentKey::Required, UserVerification::Required)
        .attestation(AttestationConveyance::Direct)
        .hints(vec!["security-key".to_owned()]);
    assert_eq!(
        serde_json::to_value(&creation).unwrap(),
        json!({
            "rp": {"id": RP_ID, "name": "Example"},
            "user": {"id": "dXNlciAx", "name": "ada@example.org", "displayName": "Ada"},
            "challenge": "_____________________w",
            "pubKeyCredParams": [
                {"type": "public-key", "alg": -8},
                {"type": "public-key", "alg": -7},
                {"type": "public-key", "alg": -257},
            ],
            "timeout": 300_000,
            "excludeCredentials": [{"type": "public-key", "id": "AQID", "transports": ["usb"]}],
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": true,
                "userVerification": "required",
            },
            "hints": ["security-key"],
            "attestation": "direct",
        })
    );
    let request = RequestOptions::new(&rp(), &[0xff; 16])
        .timeout(60_000)
        .allow(vec![known])
        .user_verification(UserVerification::Discouraged);
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({
            "challenge": "_____________________w",
            "timeout": 60_000,
            "rpId": RP_ID,
            "allowCredentials": [{"type": "public-key", "id": "AQID", "transports": ["usb"]}],
            "userVerification": "discouraged",
        })
    );
}
