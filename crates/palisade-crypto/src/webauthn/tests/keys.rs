//! Invalid public keys.

use ciborium::Value as Cbor;

use super::super::testing::{HAS_EXTENSIONS, cbor};
use super::*;

fn cose(members: &[(i64, Cbor)]) -> Result<Algorithm, WebauthnError> {
    let members = members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
    PublicKey::from_bytes(&cbor(&Cbor::Map(members))).map(|key| key.algorithm())
}

fn point() -> (Cbor, Cbor) {
    let key = authenticator(Algorithm::Es256).cose_key();
    (Cbor::Bytes(key[10..42].to_vec()), Cbor::Bytes(key[45..77].to_vec()))
}

fn bytes(length: usize) -> Cbor {
    Cbor::Bytes(vec![0xff; length])
}

#[test]
fn a_key_whose_members_contradict_each_other_is_refused() {
    let (x, y) = point();
    let key = |kty: i64, alg: i64, crv: i64| {
        cose(&[
            (1, kty.into()),
            (3, alg.into()),
            (-1, crv.into()),
            (-2, x.clone()),
            (-3, y.clone()),
        ])
    };
    assert_eq!(key(2, -7, 1), Ok(Algorithm::Es256));
    for (kty, alg, crv) in
        [(1, -7, 1), (3, -7, 1), (2, -7, 2), (2, -35, 1), (2, -36, 1), (2, -35, 2)]
    {
        assert_eq!(key(kty, alg, crv), Err(WebauthnError::BadKey), "{kty} {alg} {crv}");
    }
    assert_eq!(key(2, -257, 1), Err(WebauthnError::BadKey));
    assert_eq!(key(2, -8, 6), Err(WebauthnError::BadKey));
}

#[test]
fn a_key_of_an_unknown_algorithm_is_refused() {
    let (x, y) = point();
    for alg in [-47, -37, -65_535, -258, 0, 7, -9, -53] {
        let members =
            [(1, 2.into()), (3, alg.into()), (-1, 1.into()), (-2, x.clone()), (-3, y.clone())];
        assert_eq!(cose(&members), Err(WebauthnError::UnsupportedAlgorithm), "{alg}");
    }
    let ed448 = [(1, 1.into()), (3, (-8).into()), (-1, 7.into()), (-2, bytes(57))];
    assert_eq!(cose(&ed448), Err(WebauthnError::UnsupportedAlgorithm));
}

#[test]
fn a_point_that_is_not_on_the_curve_is_refused() {
    let (x, y) = point();
    let key = |x: &Cbor, y: &Cbor| {
        cose(&[(1, 2.into()), (3, (-7).into()), (-1, 1.into()), (-2, x.clone()), (-3, y.clone())])
    };
    assert_eq!(key(&x, &y), Ok(Algorithm::Es256));
    let zero = Cbor::Bytes(vec![0; 32]);
    for (x, y) in [(&y, &x), (&x, &x), (&zero, &zero), (&bytes(32), &bytes(32)), (&x, &bytes(31))] {
        assert_eq!(key(x, y), Err(WebauthnError::BadKey));
    }
    assert_eq!(key(&x, &Cbor::Bool(true)), Err(WebauthnError::BadKey), "compressed");
    let missing = [(1, 2.into()), (3, (-7).into()), (-1, 1.into()), (-2, x.clone())];
    assert_eq!(cose(&missing), Err(WebauthnError::BadKey));
}

#[test]
fn a_member_too_many_is_refused() {
    let (x, y) = point();
    let members =
        [(1, 2.into()), (3, (-7).into()), (-1, 1.into()), (-2, x), (-3, y), (-4, bytes(32))];
    assert_eq!(cose(&members), Err(WebauthnError::BadKey));
    let seed = [(1, 1.into()), (3, (-8).into()), (-1, 6.into()), (-2, bytes(32)), (-4, bytes(32))];
    assert_eq!(cose(&seed), Err(WebauthnError::BadKey));
}

#[test]
fn an_ed25519_key_has_32_bytes() {
    for (length, accepted) in [(0, false), (31, false), (32, true), (33, false), (57, false)] {
        let members =
            [(1, 1.into()), (3, (-8).into()), (-1, 6.into()), (-2, Cbor::Bytes(vec![1; length]))];
        let refusal = (!accepted).then_some(WebauthnError::BadKey);
        assert_eq!(cose(&members).err(), refusal, "{length}");
    }
}

#[test]
fn an_rsa_key_has_2048_to_4096_bits_and_a_sound_exponent() {
    let key = |n: Vec<u8>, e: &[u8]| {
        cose(&[
            (1, 3.into()),
            (3, (-257).into()),
            (-1, Cbor::Bytes(n)),
            (-2, Cbor::Bytes(e.to_vec())),
        ])
    };
    let modulus = |first: u8, length| {
        let mut n = vec![0xff; length];
        n[0] = first;
        n
    };
    let usual = [1, 0, 1];
    for n in [modulus(0x80, 256), modulus(0xff, 384), modulus(0xff, 512)] {
        assert_eq!(key(n, &usual), Ok(Algorithm::Rs256));
    }
    assert_eq!(key(modulus(0xff, 256), &[0xff; 4]), Ok(Algorithm::Rs256));
    let mut even = modulus(0xff, 256);
    even[255] = 0xfe;
    for n in [modulus(0xff, 128), modulus(0x7f, 256), modulus(1, 513), modulus(0, 257), even] {
        assert_eq!(key(n, &usual), Err(WebauthnError::BadKey));
    }
    for e in [[].as_slice(), &[3], &[1, 0, 0], &[0, 1, 0, 1], &[1, 0, 0, 0, 1], &[0xff, 0xff]] {
        assert_eq!(key(modulus(0xff, 256), e), Err(WebauthnError::BadKey), "{e:?}");
    }
}

#[test]
fn nothing_may_follow_a_stored_key() {
    let mut key = authenticator(Algorithm::Es256).cose_key();
    assert_eq!(PublicKey::from_bytes(&key).unwrap().as_bytes(), key);
    key.push(0);
    assert_eq!(PublicKey::from_bytes(&key).unwrap_err(), WebauthnError::TrailingBytes);
    assert_eq!(PublicKey::from_bytes(&[]).unwrap_err(), WebauthnError::BadCbor);
}

/// The Ed25519 key of an authenticator as Firefox 115 to 118 write it.
fn malformed(authenticator: &SoftAuthenticator) -> Vec<u8> {
    let point = authenticator.cose_key()[10..].to_vec();
    assert_eq!(point.len(), 32);
    [b"\xa3\x01\x63OKP\x03\x27\x20\x67Ed25519\x21\x58\x20".as_slice(), &point].concat()
}

fn registered(data: &[u8]) -> Result<NewCredential, WebauthnError> {
    let authenticator = authenticator(Algorithm::EdDsa);
    register(&registration(&authenticator, &attestation_object("none", vec![], data)))
}

#[test]
fn the_malformed_ed25519_key_of_firefox_is_registered_well_formed_and_signs_in() {
    let authenticator = authenticator(Algorithm::EdDsa);
    let key = malformed(&authenticator);
    let mut data = authenticator.registration_data_of(RP_ID, &key);
    let credential = registered(&data).unwrap();
    assert_eq!(credential.public_key.as_bytes(), authenticator.cose_key());
    let stored = StoredCredential {
        id: &credential.id,
        public_key: &credential.public_key,
        sign_count: 0,
        backup_eligible: false,
        user_handle: b"user 1",
    };
    let response = serde_json::from_value(good_authentication(&authenticator)).unwrap();
    let signed_in = verify_authentication(&rp(), &authentication_expectation(), &stored, &response);
    assert!(signed_in.is_ok(), "{signed_in:?}");
    // Extension data follows it as it follows any key.
    data[32] |= HAS_EXTENSIONS;
    data.extend(cbor(&Cbor::Map(vec![("credProtect".into(), 2.into())])));
    assert_eq!(registered(&data).unwrap().public_key, credential.public_key);
    // It is read where it is registered, and nowhere else.
    assert!(PublicKey::from_bytes(&key).is_err());
}

#[test]
fn no_other_malformed_key_is_registered() {
    let authenticator = authenticator(Algorithm::EdDsa);
    let good = malformed(&authenticator);
    let with = |key: &[u8]| {
        registered(&authenticator.registration_data_of(RP_ID, key)).map(|_| ()).unwrap_err()
    };
    for index in 0..20 {
        for bit in 0..8 {
            let mut bent = good.clone();
            bent[index] ^= 1 << bit;
            with(&bent);
        }
    }
    for length in 0..good.len() {
        with(&good[..length]);
    }
    assert_eq!(with(&[good.as_slice(), &[0]].concat()), WebauthnError::TrailingBytes);
    let texts = Cbor::Map(vec![
        (1.into(), "OKP".into()),
        (3.into(), (-8).into()),
        ((-1).into(), "Ed25519".into()),
        ((-2).into(), bytes(32)),
    ]);
    assert_eq!(with(&cbor(&texts)), WebauthnError::BadKey);
    let wrong =
        RegistrationExpectation { algorithms: &[Algorithm::Es256], ..registration_expectation() };
    let data = authenticator.registration_data_of(RP_ID, &good);
    let answer = registration(&authenticator, &attestation_object("none", vec![], &data));
    let refused = register_for(&wrong, &answer).unwrap_err();
    assert_eq!(refused, WebauthnError::AlgorithmNotOffered);
}

#[test]
fn rs256_is_offered_last() {
    assert_eq!(Algorithm::OFFERED.last(), Some(&Algorithm::Rs256));
}

#[test]
fn keys_are_equal_if_their_bytes_are_and_are_shown_without_them() {
    let key = |seed: Algorithm| PublicKey::from_bytes(&authenticator(seed).cose_key()).unwrap();
    let (one, other) = (key(Algorithm::Es256), key(Algorithm::EdDsa));
    assert_eq!(one, key(Algorithm::Es256));
    assert_ne!(one, other);
    assert_eq!(format!("{one:?}"), "PublicKey(Es256)");
}
