//! The test vectors of the specification (W3C Web Authentication Level 3, section "Test Vectors"). The README next to
//! their file states where they come from.

use serde_json::Value;

use super::super::testing::encode;
use super::*;

/// 2026, inside the certificates' thousand years.
const NOW: i64 = 1_790_000_000;

struct Vector {
    json: Value,
    rp: RelyingParty,
}

fn vectors() -> (Vec<u8>, Vec<Vector>) {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/webauthn.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap().iter();
    let vectors = vectors.map(|json| Vector { json: json.clone(), rp: rp() }).collect::<Vec<_>>();
    assert_eq!(vectors.len(), 15);
    (hex(&file["attestation_ca_cert"]), vectors)
}

fn hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

impl Vector {
    fn name(&self) -> &str {
        self.json["name"].as_str().unwrap()
    }

    fn register(&self, policy: &AttestationPolicy<'_>) -> Result<NewCredential, WebauthnError> {
        let part = &self.json["registration"];
        let id = encode(&hex(&self.json["credential_id"]));
        let response = serde_json::from_value(json!({
            "id": id,
            "rawId": id,
            "type": "public-key",
            "response": {
                "clientDataJSON": encode(&hex(&part["client_data_json"])),
                "attestationObject": encode(&hex(&part["attestation_object"])),
            },
        }));
        let expected = RegistrationExpectation {
            challenge: &hex(&part["challenge"]),
            user_verification: UserVerification::Preferred,
            algorithms: &Algorithm::ALL,
            attestation: policy,
        };
        verify_registration(&self.rp, &expected, &response.unwrap())
    }

    fn authenticate(&self, credential: &NewCredential) -> Result<Authenticated, WebauthnError> {
        let part = &self.json["authentication"];
        let id = encode(&credential.id);
        let response = serde_json::from_value(json!({
            "id": id,
            "rawId": id,
            "type": "public-key",
            "response": {
                "clientDataJSON": encode(&hex(&part["client_data_json"])),
                "authenticatorData": encode(&hex(&part["authenticator_data"])),
                "signature": encode(&hex(&part["signature"])),
            },
        }));
        let expected = AuthenticationExpectation {
            challenge: &hex(&part["challenge"]),
            user_verification: UserVerification::Preferred,
            backup_eligibility: BackupEligibility::Fixed,
        };
        let stored = StoredCredential {
            id: &credential.id,
            public_key: &credential.public_key,
            sign_count: credential.sign_count,
            backup_eligible: credential.backup_eligible,
            user_handle: b"",
        };
        verify_authentication(&self.rp, &expected, &stored, &response.unwrap())
    }
}

/// What is refused whatever the policy: frames of other origins, and Ed448.
fn refusal(name: &str) -> Option<WebauthnError> {
    match name {
        "none.ES256.crossOrigin" | "none.ES256.topOrigin" => Some(WebauthnError::CrossOrigin),
        "packed.Ed448" => Some(WebauthnError::UnsupportedAlgorithm),
        _ => None,
    }
}

#[test]
fn without_attestation_every_supported_credential_registers_and_signs_in() {
    for vector in vectors().1 {
        let registered = vector.register(&AttestationPolicy::None);
        if let Some(refusal) = refusal(vector.name()) {
            assert_eq!(registered.unwrap_err(), refusal, "{}", vector.name());
            continue;
        }
        let credential = registered.unwrap_or_else(|error| panic!("{}: {error}", vector.name()));
        assert_eq!(credential.id, hex(&vector.json["credential_id"]));
        let number = match vector.name().rsplit('.').next().unwrap() {
            "ES384" => -35,
            "ES512" => -36,
            "RS256" => -257,
            "EdDSA" => -8,
            _ => -7,
        };
        assert_eq!(credential.public_key.algorithm().number(), number, "{}", vector.name());
        let signed_in = vector.authenticate(&credential);
        assert!(signed_in.is_ok(), "{}: {signed_in:?}", vector.name());
    }
}

#[test]
fn with_trusted_roots_only_packed_with_certificates_and_fido_u2f_register() {
    let (root, vectors) = vectors();
    let roots = [root];
    let mut accepted = Vec::new();
    for vector in vectors {
        let registered = vector.register(&AttestationPolicy::Trusted { roots: &roots, now: NOW });
        match registered {
            Ok(_) => accepted.push(vector.name().to_owned()),
            Err(error) => assert_eq!(
                error,
                refusal(vector.name()).unwrap_or(WebauthnError::AttestationRequired),
                "{}",
                vector.name()
            ),
        }
    }
    assert_eq!(
        accepted,
        [
            "packed.ES256",
            "packed.ES384",
            "packed.ES512",
            "packed.RS256",
            "packed.EdDSA",
            "fido-u2f.ES256"
        ]
    );
}

#[test]
fn without_their_root_or_outside_its_time_no_attestation_is_trusted() {
    let (root, vectors) = vectors();
    let roots = [root];
    for vector in vectors {
        if !["packed.ES256", "fido-u2f.ES256"].contains(&vector.name()) {
            continue;
        }
        let register = |roots, now| {
            vector.register(&AttestationPolicy::Trusted { roots, now }).map(|_| ()).unwrap_err()
        };
        assert_eq!(register(&[], NOW), WebauthnError::UntrustedAttestation);
        assert_eq!(register(&roots, 1_704_067_199), WebauthnError::AttestationExpired);
        assert_eq!(register(&roots, 33_261_235_201), WebauthnError::AttestationExpired);
    }
}

#[test]
fn no_statement_is_good_for_another_registration() {
    let (root, vectors) = vectors();
    let roots = [root];
    let policy = AttestationPolicy::Trusted { roots: &roots, now: NOW };
    for vector in vectors.iter().filter(|vector| vector.register(&policy).is_ok()) {
        // A member that browsers may add: the same meaning, another hash.
        let mut changed = Vector { json: vector.json.clone(), rp: rp() };
        let data = hex(&vector.json["registration"]["client_data_json"]);
        let mut data: Value = serde_json::from_slice(&data).unwrap();
        data["added"] = json!(true);
        let text = data.to_string().bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        changed.json["registration"]["client_data_json"] = json!(text);
        assert_eq!(changed.register(&policy).unwrap_err(), WebauthnError::BadAttestation);
        assert!(changed.register(&AttestationPolicy::None).is_ok());
    }
}

#[test]
fn without_user_verification_a_vector_is_refused_where_it_is_required() {
    let vectors = vectors().1;
    let vector = vectors.iter().find(|vector| vector.name() == "none.ES256").unwrap();
    let part = &vector.json["registration"];
    let challenge = hex(&part["challenge"]);
    let id = encode(&hex(&vector.json["credential_id"]));
    let expected = RegistrationExpectation { challenge: &challenge, ..registration_expectation() };
    let answer = json!({
        "id": id,
        "rawId": id,
        "type": "public-key",
        "response": {
            "clientDataJSON": encode(&hex(&part["client_data_json"])),
            "attestationObject": encode(&hex(&part["attestation_object"])),
        },
    });
    assert_eq!(register_for(&expected, &answer).unwrap_err(), WebauthnError::UserNotVerified);
}
