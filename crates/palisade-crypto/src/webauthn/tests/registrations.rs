//! Registrations that are altered in one detail each, and the exact error.

use ciborium::Value as Cbor;

use super::super::testing::{
    HAS_CREDENTIAL, HAS_EXTENSIONS, USER_PRESENT, USER_VERIFIED, cbor, encode,
};
use super::*;

fn es256() -> SoftAuthenticator {
    authenticator(Algorithm::Es256)
}

/// The refusal of a registration with this client data.
fn with_client_data(client_data: &[u8]) -> WebauthnError {
    let authenticator = es256();
    let data = authenticator.registration_data(RP_ID);
    let object = attestation_object("none", vec![], &data);
    register(&authenticator.registration(client_data, &object)).unwrap_err()
}

/// The verdict on a registration with this authenticator data.
fn with_data(data: &[u8]) -> Result<NewCredential, WebauthnError> {
    register(&registration(&es256(), &attestation_object("none", vec![], data)))
}

fn with_flags(flags: u8) -> Result<NewCredential, WebauthnError> {
    let mut data = es256().registration_data(RP_ID);
    data[32] = flags;
    with_data(&data)
}

fn with_object(object: &[u8]) -> WebauthnError {
    register(&registration(&es256(), object)).unwrap_err()
}

#[test]
fn an_origin_that_is_not_listed_is_refused() {
    for origin in [
        "http://example.org",
        "https://example.org:8443",
        "https://example.org/",
        "https://EXAMPLE.org",
        "https://evil.example.org",
        "https://example.org.evil.test",
        "null",
        "",
    ] {
        let client_data = client_data("webauthn.create", &CHALLENGE, origin);
        assert_eq!(with_client_data(&client_data), WebauthnError::WrongOrigin, "{origin}");
    }
}

#[test]
fn another_challenge_is_refused_and_so_is_an_empty_or_short_one() {
    let longer = [CHALLENGE.as_slice(), &[0]].concat();
    for challenge in [[0x5b; 32].as_slice(), &longer, &CHALLENGE[..31], &[]] {
        let client_data = client_data("webauthn.create", challenge, ORIGIN);
        assert_eq!(with_client_data(&client_data), WebauthnError::WrongChallenge);
        let client_data = client_data_of(&encode(challenge));
        let expected = RegistrationExpectation { challenge: &[], ..registration_expectation() };
        let object = attestation_object("none", vec![], &es256().registration_data(RP_ID));
        let answer = es256().registration(&client_data, &object);
        assert_eq!(register_for(&expected, &answer).unwrap_err(), WebauthnError::WrongChallenge);
    }
    let object = attestation_object("none", vec![], &es256().registration_data(RP_ID));
    for (length, long_enough) in [(0, false), (1, false), (15, false), (16, true)] {
        let challenge = &CHALLENGE[..length];
        let expected = RegistrationExpectation { challenge, ..registration_expectation() };
        let client_data = client_data("webauthn.create", challenge, ORIGIN);
        let answer = es256().registration(&client_data, &object);
        assert_eq!(register_for(&expected, &answer).is_ok(), long_enough, "{length}");
    }
}

fn client_data_of(challenge: &str) -> Vec<u8> {
    json!({"type": "webauthn.create", "challenge": challenge, "origin": ORIGIN})
        .to_string()
        .into_bytes()
}

#[test]
fn a_challenge_with_padding_or_of_another_alphabet_is_refused() {
    let good = encode(&CHALLENGE);
    for challenge in [format!("{good}="), format!("{good} "), good.replace('W', "+"), "*".into()] {
        let client_data = client_data_of(&challenge);
        assert_eq!(with_client_data(&client_data), WebauthnError::BadEncoding, "{challenge}");
        assert_eq!(client_challenge(&client_data), Err(WebauthnError::BadEncoding));
    }
}

#[test]
fn an_answer_of_the_other_ceremony_is_refused() {
    for ceremony in ["webauthn.get", "webauthn.Create", "payment.get", ""] {
        let client_data = client_data(ceremony, &CHALLENGE, ORIGIN);
        assert_eq!(with_client_data(&client_data), WebauthnError::WrongCeremony, "{ceremony}");
    }
}

#[test]
fn an_answer_from_a_frame_of_another_origin_is_refused() {
    for extra in [json!({"crossOrigin": true}), json!({"topOrigin": "https://example.com"})] {
        let mut data: Value = serde_json::from_slice(&client_data_of(&encode(&CHALLENGE))).unwrap();
        data.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(with_client_data(data.to_string().as_bytes()), WebauthnError::CrossOrigin);
    }
}

#[test]
fn client_data_that_is_not_one_object_with_single_members_is_refused() {
    let good = String::from_utf8(client_data_of(&encode(&CHALLENGE))).unwrap();
    let doubled = good.replacen('{', &format!("{{\"origin\":\"{ORIGIN}\","), 1);
    let typed = good.replacen('{', "{\"crossOrigin\":\"no\",", 1);
    for text in [
        "",
        "{}",
        "[]",
        "null",
        good.trim_start_matches('{'),
        &format!("{good} x"),
        &doubled,
        &typed,
    ] {
        assert_eq!(with_client_data(text.as_bytes()), WebauthnError::BadClientData, "{text}");
    }
    assert_eq!(with_client_data(b"\xff{}"), WebauthnError::BadClientData);
    let padded = |length: usize| {
        let rest = length - good.len() - "\"pad\":\"\",".len();
        good.replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(rest)), 1)
    };
    assert_eq!(client_challenge(padded(4096).as_bytes()), Ok(CHALLENGE.to_vec()));
    let long = padded(4097);
    assert_eq!(with_client_data(long.as_bytes()), WebauthnError::TooLarge);
    assert_eq!(client_challenge(long.as_bytes()), Err(WebauthnError::TooLarge));
}

#[test]
fn data_for_another_relying_party_is_refused() {
    for rp_id in ["example.com", "www.example.org", "EXAMPLE.ORG", ""] {
        let data = es256().registration_data(rp_id);
        assert_eq!(with_data(&data).unwrap_err(), WebauthnError::WrongRelyingParty, "{rp_id}");
    }
}

#[test]
fn the_flags_are_held_to_their_rules() {
    let good = USER_PRESENT | USER_VERIFIED | HAS_CREDENTIAL;
    assert!(with_flags(good).is_ok());
    // Reserved bits mean nothing yet.
    assert!(with_flags(good | 0x22).is_ok());
    for (flags, refusal) in [
        (good & !USER_PRESENT, WebauthnError::UserNotPresent),
        (good & !USER_VERIFIED, WebauthnError::UserNotVerified),
        (good | BACKED_UP, WebauthnError::BackedUpButNotEligible),
        (good & !HAS_CREDENTIAL, WebauthnError::TrailingBytes),
        (good | HAS_EXTENSIONS, WebauthnError::BadExtensions),
    ] {
        assert_eq!(with_flags(flags).unwrap_err(), refusal, "{flags:#x}");
    }
    let bare = es256().authenticator_data(RP_ID);
    assert_eq!(with_data(&bare).unwrap_err(), WebauthnError::NoCredentialData);
}

#[test]
fn user_verification_is_required_only_where_it_is_asked_for() {
    let mut authenticator = es256();
    authenticator.flags = USER_PRESENT;
    for verification in [UserVerification::Preferred, UserVerification::Discouraged] {
        let expected = RegistrationExpectation {
            user_verification: verification,
            ..registration_expectation()
        };
        let registered = register_for(&expected, &good_registration(&authenticator)).unwrap();
        assert!(!registered.user_verified);
    }
}

#[test]
fn ids_that_differ_are_refused_and_so_is_an_id_in_another_spelling() {
    let mut answer = good_registration(&es256());
    answer["id"] = json!(encode(&[9; 32]));
    assert_eq!(register(&answer).unwrap_err(), WebauthnError::IdDiffersFromRawId);
    answer["rawId"] = answer["id"].clone();
    assert_eq!(register(&answer).unwrap_err(), WebauthnError::CredentialIdMismatch);
    for id in [encode(&es256().id) + "=", format!("{} ", encode(&es256().id)), "*".into()] {
        answer["id"] = json!(id);
        answer["rawId"] = json!(id);
        assert_eq!(register(&answer).unwrap_err(), WebauthnError::BadEncoding, "{id}");
    }
    let mut answer = good_registration(&es256());
    answer["type"] = json!("password");
    assert_eq!(register(&answer).unwrap_err(), WebauthnError::WrongCredentialType);
}

/// The first malformed member of a response to a registration.
fn malformed(answer: &Value) -> Option<(String, WebauthnError)> {
    let response: RegistrationResponse = serde_json::from_value(answer.clone()).unwrap();
    response.malformed().map(|(place, why)| (place.to_owned(), why))
}

#[test]
fn a_response_states_its_challenge_and_its_malformed_member() {
    let good = good_registration(&es256());
    let response: RegistrationResponse = serde_json::from_value(good.clone()).unwrap();
    assert_eq!(response.challenge(), Ok(CHALLENGE.to_vec()));
    assert_eq!(malformed(&good), None);
    for (member, value, why) in [
        ("type", "password", WebauthnError::WrongCredentialType),
        ("id", "AAAA", WebauthnError::IdDiffersFromRawId),
    ] {
        let mut answer = good.clone();
        answer[member] = json!(value);
        assert_eq!(malformed(&answer), Some((format!("/{member}"), why)));
    }
}

#[test]
fn the_parts_are_strict_base64url_within_their_bounds() {
    for member in ["clientDataJSON", "attestationObject"] {
        for (suffix, refusal) in
            [("=", WebauthnError::BadEncoding), ("\n", WebauthnError::BadEncoding)]
        {
            let mut answer = good_registration(&es256());
            let text = answer["response"][member].as_str().unwrap().to_owned() + suffix;
            answer["response"][member] = json!(text);
            assert_eq!(register(&answer).unwrap_err(), refusal, "{member}");
        }
        let mut answer = good_registration(&es256());
        answer["response"][member] = json!("A".repeat(100_000));
        assert_eq!(register(&answer).unwrap_err(), WebauthnError::TooLarge, "{member}");
        let place = format!("/response/{member}");
        assert_eq!(malformed(&answer), Some((place, WebauthnError::TooLarge)));
    }
    let mut data = es256().registration_data(RP_ID);
    data.resize(LONGEST_AUTHENTICATOR_DATA + 1, 0);
    assert_eq!(with_data(&data).unwrap_err(), WebauthnError::TooLarge);
}

#[test]
fn an_id_outside_16_to_1023_bytes_is_refused() {
    for (length, accepted) in
        [(0, false), (15, false), (16, true), (1023, true), (1024, false), (65_535, false)]
    {
        let mut authenticator = es256();
        authenticator.id = vec![1; length.min(1200)];
        let mut data = authenticator.registration_data(RP_ID);
        data[53..55].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        let object = attestation_object("none", vec![], &data);
        let registered = register(&registration(&authenticator, &object));
        let refusal = registered.map(|_| ()).err();
        assert_eq!(refusal, (!accepted).then_some(WebauthnError::BadCredentialId), "{length}");
    }
}

#[test]
fn data_that_ends_early_is_refused_at_every_length() {
    let data = es256().registration_data(RP_ID);
    for length in 0..data.len() {
        let refusal = with_data(&data[..length]).unwrap_err();
        let expected = if length <= 87 {
            WebauthnError::TruncatedAuthenticatorData
        } else {
            WebauthnError::BadCbor
        };
        assert_eq!(refusal, expected, "{length}");
    }
}

#[test]
fn nothing_may_follow_the_data_or_the_attestation_object() {
    let data = es256().registration_data(RP_ID);
    let longer = [data.as_slice(), &[0]].concat();
    assert_eq!(with_data(&longer).unwrap_err(), WebauthnError::TrailingBytes);
    let object = attestation_object("none", vec![], &data);
    for more in [[0], [0xa0], [0xff]] {
        let longer = [object.as_slice(), &more].concat();
        assert_eq!(with_object(&longer), WebauthnError::TrailingBytes);
    }
}

#[test]
fn extension_data_is_one_map_that_ends_the_data() {
    let mut data = es256().registration_data(RP_ID);
    data[32] |= HAS_EXTENSIONS;
    let with = |more: &[u8]| with_data(&[data.as_slice(), more].concat()).map(|_| ());
    let map = cbor(&Cbor::Map(vec![("credProtect".into(), 2.into())]));
    assert_eq!(with(&map), Ok(()));
    assert_eq!(with(&[]), Err(WebauthnError::BadExtensions));
    assert_eq!(with(&[0x80]), Err(WebauthnError::BadExtensions));
    assert_eq!(with(&[0xa1]), Err(WebauthnError::BadExtensions));
    assert_eq!(with(&[map.as_slice(), &[0]].concat()), Err(WebauthnError::TrailingBytes));
}

#[test]
fn a_map_with_a_key_twice_is_refused_wherever_it_is() {
    let data = es256().registration_data(RP_ID);
    let twice = vec![("a".into(), 1.into()), ("a".into(), 1.into())];
    let object = attestation_object("packed", twice.clone(), &data);
    assert_eq!(with_object(&object), WebauthnError::DuplicateKey);
    let object = cbor(&Cbor::Map(vec![
        ("fmt".into(), "none".into()),
        ("fmt".into(), "none".into()),
        ("attStmt".into(), Cbor::Map(vec![])),
        ("authData".into(), Cbor::Bytes(data.clone())),
    ]));
    assert_eq!(with_object(&object), WebauthnError::DuplicateKey);
    let mut extended = data.clone();
    extended[32] |= HAS_EXTENSIONS;
    extended.extend(cbor(&Cbor::Map(twice)));
    assert_eq!(with_data(&extended).unwrap_err(), WebauthnError::DuplicateKey);
    let mut key = es256().cose_key();
    key[0] += 1;
    key.extend([0x03, 0x26]);
    let data = es256().registration_data_of(RP_ID, &key);
    assert_eq!(with_data(&data).unwrap_err(), WebauthnError::DuplicateKey);
}

#[test]
fn cbor_is_bounded_in_depth_and_keys_and_has_the_right_shape() {
    let data = es256().registration_data(RP_ID);
    let object = |value: Cbor| attestation_object("tpm", vec![("a".into(), value)], &data);
    let nested = |depth| (0..depth).fold(Cbor::Null, |inner, _| Cbor::Array(vec![inner]));
    assert!(register(&registration(&es256(), &object(nested(6)))).is_ok());
    assert_eq!(with_object(&object(nested(7))), WebauthnError::TooDeep);
    assert_eq!(with_object(&vec![0x81; 40_000]), WebauthnError::TooDeep);
    let keys = |count| Cbor::Map((0..count).map(|key: i64| (key.into(), 0.into())).collect());
    assert!(register(&registration(&es256(), &object(keys(64)))).is_ok());
    assert_eq!(with_object(&object(keys(65))), WebauthnError::TooLarge);
    assert_eq!(with_object(&object(Cbor::Array(vec![keys(65)]))), WebauthnError::TooLarge);
    let tag = Cbor::Tag(24, Box::new(Cbor::Null));
    assert_eq!(with_object(&object(tag)), WebauthnError::BadCbor);
    let odd = Cbor::Map(vec![(Cbor::Null, 0.into())]);
    assert_eq!(with_object(&object(odd)), WebauthnError::BadCbor);
    for bytes in [[].as_slice(), &[0x80], &[0xa0], &[0xbf], &[0xa1, 0x63], b"\xa1\x63fmt\x00"] {
        assert_eq!(with_object(bytes), WebauthnError::BadCbor, "{bytes:x?}");
    }
    let text = cbor(&Cbor::Map(vec![
        ("fmt".into(), "none".into()),
        ("attStmt".into(), Cbor::Array(vec![])),
        ("authData".into(), Cbor::Bytes(data.clone())),
    ]));
    assert_eq!(with_object(&text), WebauthnError::BadCbor);
}

#[test]
fn an_algorithm_that_was_not_offered_is_refused() {
    let expected =
        RegistrationExpectation { algorithms: &[Algorithm::EdDsa], ..registration_expectation() };
    let answer = good_registration(&es256());
    assert_eq!(register_for(&expected, &answer).unwrap_err(), WebauthnError::AlgorithmNotOffered);
}

#[test]
fn a_statement_where_there_should_be_none_is_refused() {
    let data = es256().registration_data(RP_ID);
    let object = attestation_object("none", vec![("sig".into(), 1.into())], &data);
    assert_eq!(with_object(&object), WebauthnError::BadAttestation);
}

/// An attestation object whose statement can be of any type.
fn object_with(format: &str, statement: Cbor, data: &[u8]) -> Vec<u8> {
    cbor(&Cbor::Map(vec![
        ("fmt".into(), format.into()),
        ("attStmt".into(), statement),
        ("authData".into(), Cbor::Bytes(data.to_vec())),
    ]))
}

#[test]
fn an_unknown_format_is_none_where_no_attestation_is_required_and_refused_where_it_is() {
    let data = es256().registration_data(RP_ID);
    let trusted = AttestationPolicy::Trusted { roots: &[], now: 0 };
    let required = RegistrationExpectation { attestation: &trusted, ..registration_expectation() };
    let part = Cbor::Map(vec![("fmt".into(), "x".into()), ("attStmt".into(), Cbor::Map(vec![]))]);
    let long = "x".repeat(32);
    for format in ["compound", "None", "x", "a-b:c", long.as_str()] {
        for statement in [
            Cbor::Map(vec![]),
            Cbor::Map(vec![("sig".into(), 1.into())]),
            Cbor::Array(vec![part.clone(), part.clone()]),
        ] {
            let answer = registration(&es256(), &object_with(format, statement, &data));
            let registered = register(&answer).unwrap();
            assert_eq!(registered.attestation, AttestationFormat::Unknown, "{format}");
            let refused = register_for(&required, &answer).unwrap_err();
            assert_eq!(refused, WebauthnError::UnknownAttestation, "{format}");
        }
    }
    // What can't be a name, and what a known format doesn't have.
    for format in ["", "x".repeat(33).as_str(), "a\nb", "a\"b", "a\\b", "é", "\u{7f}"] {
        let object = object_with(format, Cbor::Map(vec![]), &data);
        assert_eq!(with_object(&object), WebauthnError::BadAttestation, "{format:?}");
    }
    for format in ["none", "packed", "tpm"] {
        let object = object_with(format, Cbor::Array(vec![]), &data);
        assert_eq!(with_object(&object), WebauthnError::BadCbor, "{format}");
    }
    // The bounds hold in statements that aren't read.
    let twice = Cbor::Map(vec![("a".into(), 1.into()), ("a".into(), 1.into())]);
    assert_eq!(with_object(&object_with("x", twice, &data)), WebauthnError::DuplicateKey);
    let nested = (0..8).fold(Cbor::Null, |inner, _| Cbor::Array(vec![inner]));
    assert_eq!(with_object(&object_with("x", nested, &data)), WebauthnError::TooDeep);
    let missing = cbor(&Cbor::Map(vec![
        ("fmt".into(), "x".into()),
        ("authData".into(), Cbor::Bytes(data.clone())),
    ]));
    assert_eq!(with_object(&missing), WebauthnError::BadCbor);
}

#[test]
fn self_attestation_must_be_right_and_is_never_trusted() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let authenticator = authenticator(algorithm);
        let data = authenticator.registration_data(RP_ID);
        let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
        let statement = |number: i64, signature: Vec<u8>| {
            vec![("alg".into(), number.into()), ("sig".into(), Cbor::Bytes(signature))]
        };
        let verdict = |statement, policy: &AttestationPolicy<'_>| {
            let object = attestation_object("packed", statement, &data);
            let expected =
                RegistrationExpectation { attestation: policy, ..registration_expectation() };
            register_for(&expected, &authenticator.registration(&client_data, &object)).map(|_| ())
        };
        let signature = authenticator.sign(&client_data, &data);
        let good = statement(algorithm.number(), signature.clone());
        assert_eq!(verdict(good.clone(), &NO_ATTESTATION), Ok(()));
        let trusted = AttestationPolicy::Trusted { roots: &[], now: 0 };
        assert_eq!(verdict(good, &trusted), Err(WebauthnError::AttestationRequired));
        let mut bent = signature.clone();
        bent[10] ^= 1;
        for bad in [
            statement(algorithm.number(), bent),
            statement(-257, signature.clone()),
            statement(-1, signature.clone()),
            vec![("sig".into(), Cbor::Bytes(signature.clone()))],
            vec![("alg".into(), algorithm.number().into())],
            vec![],
        ] {
            assert_eq!(verdict(bad, &NO_ATTESTATION), Err(WebauthnError::BadAttestation));
        }
    }
}

#[test]
fn where_attestation_is_required_a_registration_without_it_is_refused() {
    let trusted = AttestationPolicy::Trusted { roots: &[], now: 0 };
    let expected = RegistrationExpectation { attestation: &trusted, ..registration_expectation() };
    assert_eq!(
        register_for(&expected, &good_registration(&es256())).unwrap_err(),
        WebauthnError::AttestationRequired
    );
}

#[test]
fn a_refusal_says_what_is_wrong_with_the_response() {
    assert_eq!(WebauthnError::WrongOrigin.to_string(), "the origin isn't allowed");
    assert_eq!(WebauthnError::BadCbor.to_string(), "the CBOR is malformed");
}

#[test]
fn the_limits_are_those_of_the_documentation() {
    assert_eq!(LONGEST_CLIENT_DATA, 4_096);
    assert_eq!(LONGEST_ATTESTATION_OBJECT, 65_536);
    assert_eq!(LONGEST_AUTHENTICATOR_DATA, 32_768);
}
