//! No input makes the verification panic, and it accepts only the authenticator's own responses.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::testing::encode;
use super::*;

static AUTHENTICATOR: LazyLock<SoftAuthenticator> =
    LazyLock::new(|| authenticator(Algorithm::EdDsa));
static REGISTRATION: LazyLock<Value> = LazyLock::new(|| {
    let data = AUTHENTICATOR.registration_data(RP_ID);
    let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
    let signature = AUTHENTICATOR.sign(&client_data, &data);
    // Signed by itself, so that no change of what it says can go unnoticed.
    let statement =
        vec![("alg".into(), (-8).into()), ("sig".into(), ciborium::Value::Bytes(signature))];
    AUTHENTICATOR.registration(&client_data, &attestation_object("packed", statement, &data))
});
static AUTHENTICATION: LazyLock<Value> = LazyLock::new(|| good_authentication(&AUTHENTICATOR));

fn authenticate(answer: &Value) -> Result<Authenticated, WebauthnError> {
    let stored = StoredCredential {
        id: &AUTHENTICATOR.id,
        public_key: &PublicKey::from_bytes(&AUTHENTICATOR.cose_key()).unwrap(),
        sign_count: 0,
        backup_eligible: false,
        user_handle: b"user 1",
    };
    let response = serde_json::from_value(answer.clone()).unwrap();
    verify_authentication(&rp(), &authentication_expectation(), &stored, &response)
}

fn part(answer: &Value, member: &str) -> Vec<u8> {
    use base64::Engine;
    let text = answer["response"][member].as_str().unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn with(answer: &Value, member: &str, bytes: &[u8]) -> Value {
    let mut changed = answer.clone();
    changed["response"][member] = json!(encode(bytes));
    changed
}

#[test]
fn no_change_of_one_bit_and_no_cut_is_accepted() {
    assert!(register(&REGISTRATION).is_ok() && authenticate(&AUTHENTICATION).is_ok());
    for member in ["clientDataJSON", "authenticatorData", "signature"] {
        let good = part(&AUTHENTICATION, member);
        for bit in 0..good.len() * 8 {
            let mut bent = good.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(authenticate(&with(&AUTHENTICATION, member, &bent)).is_err(), "{member} {bit}");
        }
        for length in 0..good.len() {
            let cut = with(&AUTHENTICATION, member, &good[..length]);
            assert!(authenticate(&cut).is_err(), "{member} {length}");
        }
    }
    for member in ["clientDataJSON", "attestationObject"] {
        let good = part(&REGISTRATION, member);
        let format = good.windows(6).position(|bytes| bytes == b"packed");
        let format = format.map_or(0..0, |start| start..start + 6);
        for bit in 0..good.len() * 8 {
            let mut bent = good.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            match register(&with(&REGISTRATION, member, &bent)) {
                Ok(made) => {
                    // The format's name isn't signed. With another one, the statement proves nothing.
                    assert!(format.contains(&(bit / 8)), "{member} {bit}");
                    assert_eq!(made.attestation, AttestationFormat::Unknown);
                }
                Err(why) => assert_ne!(why, WebauthnError::UnknownAttestation, "{member} {bit}"),
            }
        }
        for length in 0..good.len() {
            let cut = with(&REGISTRATION, member, &good[..length]);
            assert!(register(&cut).is_err(), "{member} {length}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        for member in ["clientDataJSON", "attestationObject"] {
            prop_assert!(register(&with(&REGISTRATION, member, &bytes)).is_err());
        }
        for member in ["clientDataJSON", "authenticatorData", "signature"] {
            prop_assert!(authenticate(&with(&AUTHENTICATION, member, &bytes)).is_err());
        }
        prop_assert!(client_challenge(&bytes).is_err());
        let _ = PublicKey::from_bytes(&bytes);
    }

    #[test]
    fn bytes_put_anywhere_are_refused(at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 1..20)) {
        for member in ["clientDataJSON", "attestationObject"] {
            let mut changed = part(&REGISTRATION, member);
            let at = at.index(changed.len() + 1);
            changed.splice(at..at, bytes.iter().copied());
            let registered = register(&with(&REGISTRATION, member, &changed));
            prop_assert!(registered.is_err());
        }
        for member in ["authenticatorData", "signature"] {
            let mut changed = part(&AUTHENTICATION, member);
            let at = at.index(changed.len() + 1);
            changed.splice(at..at, bytes.iter().copied());
            prop_assert!(authenticate(&with(&AUTHENTICATION, member, &changed)).is_err());
        }
    }
}
