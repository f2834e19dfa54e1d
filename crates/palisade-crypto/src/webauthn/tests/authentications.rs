//! Sign-ins that are altered in one detail each, and the exact error.

use super::super::testing::{
    HAS_CREDENTIAL, HAS_EXTENSIONS, USER_PRESENT, USER_VERIFIED, cbor, encode,
};
use super::*;

fn es256() -> SoftAuthenticator {
    authenticator(Algorithm::Es256)
}

/// The verdict on an answer, for the credential of `authenticator`, last seen with `sign_count`.
fn judge_at(
    authenticator: &SoftAuthenticator,
    sign_count: u32,
    answer: &Value,
) -> Result<Authenticated, WebauthnError> {
    judge_by(&authentication_expectation(), authenticator, sign_count, answer)
}

fn judge_by(
    expected: &AuthenticationExpectation<'_>,
    authenticator: &SoftAuthenticator,
    sign_count: u32,
    answer: &Value,
) -> Result<Authenticated, WebauthnError> {
    let stored = StoredCredential {
        id: &authenticator.id,
        public_key: &PublicKey::from_bytes(&authenticator.cose_key()).unwrap(),
        sign_count,
        backup_eligible: authenticator.flags & BACKUP_ELIGIBLE != 0,
        user_handle: b"user 1",
    };
    let response = serde_json::from_value(answer.clone()).unwrap();
    verify_authentication(&rp(), expected, &stored, &response)
}

fn judge(answer: &Value) -> Result<Authenticated, WebauthnError> {
    judge_at(&es256(), 0, answer)
}

fn with_client_data(client_data: &[u8]) -> WebauthnError {
    let data = es256().authenticator_data(RP_ID);
    judge(&es256().authentication(client_data, &data)).unwrap_err()
}

fn with_data(data: &[u8]) -> Result<Authenticated, WebauthnError> {
    let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
    judge(&es256().authentication(&client_data, data))
}

fn with_flags(flags: u8) -> Result<Authenticated, WebauthnError> {
    let mut data = es256().authenticator_data(RP_ID);
    data[32] = flags;
    with_data(&data)
}

#[test]
fn the_client_data_is_held_to_its_rules() {
    assert!(judge(&good_authentication(&es256())).is_ok());
    for (ceremony, challenge, origin, refusal) in [
        ("webauthn.create", CHALLENGE, ORIGIN, WebauthnError::WrongCeremony),
        ("webauthn.get", [0; 32], ORIGIN, WebauthnError::WrongChallenge),
        ("webauthn.get", CHALLENGE, "https://example.com", WebauthnError::WrongOrigin),
        ("webauthn.get", CHALLENGE, "https://sub.example.org", WebauthnError::WrongOrigin),
    ] {
        assert_eq!(with_client_data(&client_data(ceremony, &challenge, origin)), refusal);
    }
    let framed = json!({
        "type": "webauthn.get",
        "challenge": encode(&CHALLENGE),
        "origin": ORIGIN,
        "crossOrigin": true,
    });
    assert_eq!(with_client_data(framed.to_string().as_bytes()), WebauthnError::CrossOrigin);
}

#[test]
fn data_for_another_relying_party_is_refused() {
    let data = es256().authenticator_data("example.com");
    assert_eq!(with_data(&data), Err(WebauthnError::WrongRelyingParty));
}

#[test]
fn the_flags_are_held_to_their_rules() {
    let good = USER_PRESENT | USER_VERIFIED;
    assert!(with_flags(good).is_ok());
    for (flags, refusal) in [
        (USER_VERIFIED, WebauthnError::UserNotPresent),
        (USER_PRESENT, WebauthnError::UserNotVerified),
        (good | BACKED_UP, WebauthnError::BackedUpButNotEligible),
        (good | BACKUP_ELIGIBLE, WebauthnError::BackupEligibilityGained),
        (good | HAS_EXTENSIONS, WebauthnError::BadExtensions),
        (good | HAS_CREDENTIAL, WebauthnError::TruncatedAuthenticatorData),
    ] {
        assert_eq!(with_flags(flags), Err(refusal), "{flags:#x}");
    }
    let mut eligible = es256();
    eligible.flags |= BACKUP_ELIGIBLE;
    let answer = good_authentication(&es256());
    assert_eq!(judge_at(&eligible, 0, &answer), Err(WebauthnError::BackupEligibilityLost));
}

#[test]
fn an_answer_that_carries_a_new_credential_is_refused() {
    let data = es256().registration_data(RP_ID);
    assert_eq!(with_data(&data), Err(WebauthnError::UnexpectedCredentialData));
}

#[test]
fn extension_data_is_signed_and_ends_the_data() {
    let mut data = es256().authenticator_data(RP_ID);
    data[32] |= HAS_EXTENSIONS;
    let map = cbor(&ciborium::Value::Map(vec![("uvm".into(), true.into())]));
    assert!(with_data(&[data.as_slice(), &map].concat()).is_ok());
    let longer = [data.as_slice(), &map, &[0]].concat();
    assert_eq!(with_data(&longer), Err(WebauthnError::TrailingBytes));
}

#[test]
fn data_that_ends_early_or_late_is_refused() {
    let data = es256().authenticator_data(RP_ID);
    for length in 0..data.len() {
        let refusal = with_data(&data[..length]);
        assert_eq!(refusal, Err(WebauthnError::TruncatedAuthenticatorData), "{length}");
    }
    let longer = [data.as_slice(), &[0]].concat();
    assert_eq!(with_data(&longer), Err(WebauthnError::TrailingBytes));
}

#[test]
fn the_counter_must_grow_where_there_is_one() {
    for (stored, sent, accepted) in [
        (0, 0, true),
        (0, 1, true),
        (7, 8, true),
        (7, u32::MAX, true),
        (7, 7, false),
        (7, 6, false),
        (7, 0, false),
        (u32::MAX, u32::MAX, false),
    ] {
        let mut authenticator = es256();
        authenticator.sign_count = sent;
        let verdict = judge_at(&authenticator, stored, &good_authentication(&authenticator));
        if accepted {
            assert_eq!(verdict.unwrap().sign_count, sent);
        } else {
            assert_eq!(verdict, Err(WebauthnError::CounterWentBack), "{stored} {sent}");
        }
    }
}

#[test]
fn the_counter_of_a_credential_that_is_eligible_for_backup_is_not_compared() {
    for (stored, sent) in [(0, 0), (7, 8), (7, 7), (7, 6), (7, 0), (u32::MAX, 1)] {
        let mut synced = es256();
        synced.flags |= BACKUP_ELIGIBLE;
        synced.sign_count = sent;
        let verdict = judge_at(&synced, stored, &good_authentication(&synced));
        assert_eq!(verdict.unwrap().sign_count, sent, "{stored} {sent}");
    }
}

#[test]
fn backup_eligibility_is_gained_only_where_it_may_be_and_never_lost() {
    let good = USER_PRESENT | USER_VERIFIED;
    let gaining = AuthenticationExpectation {
        user_verification: UserVerification::Preferred,
        backup_eligibility: BackupEligibility::MayBeGained,
        ..authentication_expectation()
    };
    let fixed =
        AuthenticationExpectation { backup_eligibility: BackupEligibility::Fixed, ..gaining };
    let verdict = |expected, stored: u8, count: u32, flags: u8| {
        let (mut before, mut now) = (es256(), es256());
        before.flags |= stored;
        (now.flags, now.sign_count) = (flags, 7);
        let verdict = judge_by(expected, &before, count, &good_authentication(&now));
        verdict.map(|verdict| (verdict.backup_eligible, verdict.backed_up))
    };
    let gained = Err(WebauthnError::BackupEligibilityGained);
    let synced = good | BACKUP_ELIGIBLE;
    for (flags, backed_up) in [(synced, false), (synced | BACKED_UP, true)] {
        assert_eq!(verdict(&gaining, 0, 6, flags), Ok((true, backed_up)));
        assert_eq!(verdict(&fixed, 0, 6, flags), gained);
        // Without user verification, also where a sign-in without it is accepted.
        assert_eq!(verdict(&gaining, 0, 6, flags & !USER_VERIFIED), gained);
        // Bound to one device until now: its counter counts once more.
        assert_eq!(verdict(&gaining, 0, 7, flags), Err(WebauthnError::CounterWentBack));
        for expected in [&gaining, &fixed] {
            assert_eq!(verdict(expected, BACKUP_ELIGIBLE, 9, flags), Ok((true, backed_up)));
        }
    }
    for expected in [&gaining, &fixed] {
        assert_eq!(verdict(expected, 0, 6, USER_PRESENT), Ok((false, false)));
        assert_eq!(
            verdict(expected, BACKUP_ELIGIBLE, 6, good),
            Err(WebauthnError::BackupEligibilityLost)
        );
        let odd = verdict(expected, 0, 6, good | BACKED_UP);
        assert_eq!(odd, Err(WebauthnError::BackedUpButNotEligible));
    }
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let other = SoftAuthenticator::new(Algorithm::Es256, &SeededRandom::new(8));
    let mut answer = good_authentication(&es256());
    let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
    let signature = other.sign(&client_data, &es256().authenticator_data(RP_ID));
    answer["response"]["signature"] = json!(encode(&signature));
    // Also where the counter went back, which only the key's holder is told.
    for stored in [0, 5] {
        let verdict = judge_at(&es256(), stored, &answer);
        assert_eq!(verdict, Err(WebauthnError::BadSignature), "{stored}");
    }
    let mut eligible = es256();
    eligible.flags |= BACKUP_ELIGIBLE;
    assert_eq!(judge_at(&eligible, 0, &answer), Err(WebauthnError::BadSignature));
}

#[test]
fn a_signature_with_any_bit_changed_is_refused() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let authenticator = authenticator(algorithm);
        let client_data = client_data("webauthn.get", &CHALLENGE, ORIGIN);
        let signature = authenticator.sign(&client_data, &authenticator.authenticator_data(RP_ID));
        let mut answer = good_authentication(&authenticator);
        for bit in 0..signature.len() * 8 {
            let mut bent = signature.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            answer["response"]["signature"] = json!(encode(&bent));
            let verdict = judge_at(&authenticator, 0, &answer);
            assert_eq!(verdict, Err(WebauthnError::BadSignature), "{bit}");
        }
        for bad in [vec![], vec![0; 64], [signature.as_slice(), &[0]].concat()] {
            answer["response"]["signature"] = json!(encode(&bad));
            let verdict = judge_at(&authenticator, 0, &answer);
            assert_eq!(verdict, Err(WebauthnError::BadSignature));
        }
    }
}

#[test]
fn client_data_changed_after_the_signature_is_refused() {
    let mut answer = good_authentication(&es256());
    let text = json!({
        "type": "webauthn.get",
        "challenge": encode(&CHALLENGE),
        "origin": "https://www.example.org",
    });
    answer["response"]["clientDataJSON"] = json!(encode(text.to_string().as_bytes()));
    assert_eq!(judge(&answer), Err(WebauthnError::BadSignature));
}

#[test]
fn an_answer_of_another_credential_is_refused() {
    let mut answer = good_authentication(&es256());
    answer["id"] = json!(encode(&[9; 32]));
    assert_eq!(judge(&answer), Err(WebauthnError::IdDiffersFromRawId));
    answer["rawId"] = answer["id"].clone();
    assert_eq!(judge(&answer), Err(WebauthnError::WrongCredential));
    answer["type"] = json!("password");
    assert_eq!(judge(&answer), Err(WebauthnError::WrongCredentialType));
}

#[test]
fn the_user_handle_of_another_user_is_refused() {
    let mut answer = good_authentication(&es256());
    for (handle, refusal) in [
        (encode(b"user 2"), Some(WebauthnError::WrongUser)),
        (encode(b"user 11"), Some(WebauthnError::WrongUser)),
        (encode(&[b'u'; 65]), Some(WebauthnError::TooLarge)),
        (encode(b"user 1") + "=", Some(WebauthnError::BadEncoding)),
        ("=".to_owned(), Some(WebauthnError::BadEncoding)),
        (encode(b"user 1"), None),
    ] {
        answer["response"]["userHandle"] = json!(handle);
        assert_eq!(judge(&answer).err(), refusal, "{handle}");
    }
    // Authenticators leave it out where the request named the credential. Safari then writes an empty one.
    for absent in [Value::Null, json!("")] {
        answer["response"]["userHandle"] = absent;
        assert!(judge(&answer).is_ok());
        let response: AuthenticationResponse = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(response.user_handle(), Ok(None));
        assert!(response.malformed().is_none());
    }
    answer["response"].as_object_mut().unwrap().remove("userHandle");
    assert!(judge(&answer).is_ok());
}

#[test]
fn the_parts_are_strict_base64url_within_their_bounds() {
    for member in ["clientDataJSON", "authenticatorData", "signature"] {
        let mut answer = good_authentication(&es256());
        let good = answer["response"][member].as_str().unwrap().to_owned();
        for bad in [format!("{good}="), format!("{good}\n"), format!("+{good}")] {
            answer["response"][member] = json!(bad);
            assert_eq!(judge(&answer), Err(WebauthnError::BadEncoding), "{member}");
        }
        answer["response"][member] = json!("A".repeat(50_000));
        assert_eq!(judge(&answer), Err(WebauthnError::TooLarge), "{member}");
        let response: AuthenticationResponse = serde_json::from_value(answer).unwrap();
        let place = format!("/response/{member}");
        assert_eq!(response.malformed(), Some((place.as_str(), WebauthnError::TooLarge)));
    }
}
