#![no_main]
//! Registrations and sign-ins with passkeys: only the authenticator's own unchanged responses may be accepted. The
//! first byte selects the part that the other bytes replace.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use palisade_crypto::random::SeededRandom;
use palisade_crypto::webauthn::testing::{
    SoftAuthenticator, attestation_object, client_data, encode,
};
use palisade_crypto::webauthn::{
    Algorithm, AttestationPolicy, AuthenticationExpectation, BackupEligibility, PublicKey,
    RegistrationExpectation, RelyingParty, StoredCredential, UserVerification, client_challenge,
    verify_authentication, verify_registration,
};
use serde_json::{Value, json};

const CHALLENGE: [u8; 32] = [0x5a; 32];
const RP_ID: &str = "a.example";
const ORIGIN: &str = "https://a.example";

static RP: LazyLock<RelyingParty> =
    LazyLock::new(|| RelyingParty { id: RP_ID.to_owned(), origins: vec![ORIGIN.to_owned()] });
static AUTHENTICATOR: LazyLock<SoftAuthenticator> =
    LazyLock::new(|| SoftAuthenticator::new(Algorithm::EdDsa, &SeededRandom::new(1)));
static REGISTRATION: LazyLock<Value> = LazyLock::new(|| {
    let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
    AUTHENTICATOR.registration(&client_data, &[])
});
static AUTHENTICATION: LazyLock<Value> = LazyLock::new(|| {
    let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
    AUTHENTICATOR.authentication(&client_data, &AUTHENTICATOR.authenticator_data(RP_ID))
});
static KEY: LazyLock<PublicKey> =
    LazyLock::new(|| PublicKey::from_bytes(&AUTHENTICATOR.cose_key()).expect("a key"));

/// Registers under a policy and returns whether the registration was accepted.
fn registers(answer: &Value, attestation: &AttestationPolicy<'_>) -> bool {
    let expected = RegistrationExpectation {
        challenge: &CHALLENGE,
        user_verification: UserVerification::Required,
        algorithms: &Algorithm::ALL,
        attestation,
    };
    let Ok(response) = serde_json::from_value(answer.clone()) else { return false };
    let Ok(credential) = verify_registration(&RP, &expected, &response) else { return false };
    // Whatever is registered can be stored and read again.
    PublicKey::from_bytes(credential.public_key.as_bytes()).expect("a stored key");
    true
}

fn signs_in(answer: &Value) -> bool {
    let expected = AuthenticationExpectation {
        challenge: &CHALLENGE,
        user_verification: UserVerification::Required,
        backup_eligibility: BackupEligibility::MayBeGained,
    };
    let credential = StoredCredential {
        id: &AUTHENTICATOR.id,
        public_key: &KEY,
        sign_count: 0,
        backup_eligible: false,
        user_handle: b"",
    };
    let Ok(response) = serde_json::from_value(answer.clone()) else { return false };
    verify_authentication(&RP, &expected, &credential, &response).is_ok()
}

fn with(answer: &Value, member: &str, bytes: &[u8]) -> Value {
    let mut changed = answer.clone();
    changed["response"][member] = json!(encode(bytes));
    changed
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    // The certificate is no one's: what leads to it is a forgery.
    let roots = [bytes.to_vec()];
    let trusted = AttestationPolicy::Trusted { roots: &roots, now: 1_900_000_000 };
    match choice % 7 {
        0 => {
            let answer = with(&REGISTRATION, "attestationObject", bytes);
            // Without attestation anyone may make a credential of their own.
            let _ = registers(&answer, &AttestationPolicy::None);
            let _ = registers(&answer, &trusted);
        }
        1 => {
            let key = AUTHENTICATOR.registration_data_of(RP_ID, bytes);
            let object = attestation_object("none", vec![], &key);
            let _ = registers(
                &with(&REGISTRATION, "attestationObject", &object),
                &AttestationPolicy::None,
            );
            assert!(!registers(&with(&REGISTRATION, "attestationObject", &object), &trusted));
        }
        2 => {
            let _ = client_challenge(bytes);
            let own = client_data("webauthn.get", &CHALLENGE, ORIGIN);
            assert!(bytes == own || !signs_in(&with(&AUTHENTICATION, "clientDataJSON", bytes)));
        }
        3 => {
            let own = AUTHENTICATOR.authenticator_data(RP_ID);
            assert!(bytes == own || !signs_in(&with(&AUTHENTICATION, "authenticatorData", bytes)));
        }
        4 => {
            // Signed by the authenticator itself: only what it would never say is refused.
            let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
            let _ = signs_in(&AUTHENTICATOR.authentication(&client_data, bytes));
            let _ = signs_in(
                &AUTHENTICATOR.authentication(bytes, &AUTHENTICATOR.authenticator_data(RP_ID)),
            );
        }
        5 => {
            if let Ok(key) = PublicKey::from_bytes(bytes) {
                assert_eq!(key.as_bytes(), bytes);
            }
        }
        _ => {
            if let Ok(answer) = serde_json::from_slice::<Value>(bytes) {
                let _ = registers(&answer, &AttestationPolicy::None);
                let known = &AUTHENTICATION["response"]["signature"];
                assert!(answer["response"]["signature"] == *known || !signs_in(&answer));
            }
        }
    }
});
