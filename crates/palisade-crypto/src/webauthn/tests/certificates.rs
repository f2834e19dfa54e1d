//! Authenticator certificates that each break one rule, and invalid paths to a root.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use ciborium::Value as Cbor;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::*;

const NOW: i64 = 1_790_000_000;
const AAGUID: [u8; 16] = [0x11; 16];

fn named(unit: &str, name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CountryName, "AA");
    names.push(DnType::OrganizationName, "Example");
    names.push(DnType::OrganizationalUnitName, unit);
    names.push(DnType::CommonName, name);
    names
}

fn params(names: DistinguishedName) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = names;
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 1000).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + 1000).unwrap();
    params
}

fn leaf() -> CertificateParams {
    let mut leaf = params(named("Authenticator Attestation", "Model 1"));
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.custom_extensions = vec![aaguid_extension(&[&[4, 16], AAGUID.as_slice()].concat())];
    leaf
}

fn aaguid_extension(content: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 45724, 1, 1, 4], content.to_vec())
}

fn ca(name: &str, path_length: Option<u8>) -> CertificateParams {
    let mut ca = params(named("CA", name));
    ca.is_ca =
        IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, |length| {
            BasicConstraints::Constrained(length)
        }));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca
}

fn issuer(params: CertificateParams) -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().der().to_vec(), Issuer::new(params, key))
}

/// An intermediate certificate of `above`.
fn below(
    above: &Issuer<'_, KeyPair>,
    params: CertificateParams,
) -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, above).unwrap().der().to_vec(), Issuer::new(params, key))
}

/// A certificate of `issuer`, and what signs with it.
fn issue(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> (Vec<u8>, EcdsaKeyPair) {
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, issuer).unwrap().der().to_vec();
    let law = &ECDSA_P256_SHA256_ASN1_SIGNING;
    (der, EcdsaKeyPair::from_pkcs8(law, key.serialized_der()).unwrap())
}

/// The verdict on a `packed` statement with this chain, signed by `key`.
fn verdict(
    chain: &[Vec<u8>],
    key: &EcdsaKeyPair,
    roots: &[Vec<u8>],
    now: i64,
) -> Result<(), WebauthnError> {
    let mut authenticator = authenticator(Algorithm::Es256);
    authenticator.aaguid = AAGUID;
    let data = authenticator.registration_data(RP_ID);
    let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
    let message = [data.as_slice(), &Sha256::digest(&client_data)].concat();
    let signature = key.sign(&SystemRandom::new(), &message).unwrap();
    let statement = vec![
        ("alg".into(), (-7).into()),
        ("sig".into(), Cbor::Bytes(signature.as_ref().to_vec())),
        ("x5c".into(), Cbor::Array(chain.iter().cloned().map(Cbor::Bytes).collect())),
    ];
    let policy = AttestationPolicy::Trusted { roots, now };
    let expected = RegistrationExpectation { attestation: &policy, ..registration_expectation() };
    let object = attestation_object("packed", statement, &data);
    register_for(&expected, &registration(&authenticator, &object)).map(|_| ())
}

/// The verdict on a certificate made of these parameters, straight below the root.
fn with_leaf(params: &CertificateParams) -> Result<(), WebauthnError> {
    let (root, issuer) = issuer(ca("Root", None));
    let (der, key) = issue(params, &issuer);
    verdict(&[der], &key, &[root], NOW)
}

#[test]
fn a_certificate_for_packed_attestation_is_held_to_its_rules() {
    assert_eq!(with_leaf(&leaf()), Ok(()));
    let mut without_model = leaf();
    without_model.custom_extensions.clear();
    assert_eq!(with_leaf(&without_model), Ok(()));

    let broken: [fn(&mut CertificateParams); 9] = [
        |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |leaf| leaf.is_ca = IsCa::NoCa,
        |leaf| leaf.distinguished_name = named("Authenticator attestation", "Model 1"),
        |leaf| leaf.distinguished_name = named("Authenticator Attestation", ""),
        |leaf| leaf.distinguished_name.remove(DnType::CountryName).then_some(()).unwrap(),
        |leaf| leaf.distinguished_name.remove(DnType::OrganizationName).then_some(()).unwrap(),
        |leaf| {
            leaf.custom_extensions = vec![aaguid_extension(&[&[4, 16], &[0x12; 16][..]].concat())]
        },
        |leaf| leaf.custom_extensions = vec![aaguid_extension(&AAGUID)],
        |leaf| leaf.custom_extensions.iter_mut().for_each(|one| one.set_criticality(true)),
    ];
    for (index, bend) in broken.iter().enumerate() {
        let mut leaf = leaf();
        bend(&mut leaf);
        let refusal = with_leaf(&leaf);
        assert_eq!(refusal, Err(WebauthnError::BadAttestationCertificate), "{index}");
    }
}

#[test]
fn a_critical_extension_that_is_not_understood_is_refused() {
    let mut leaf = leaf();
    let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
    unknown.set_criticality(true);
    leaf.custom_extensions.push(unknown);
    assert_eq!(with_leaf(&leaf), Err(WebauthnError::BadAttestationCertificate));
}

#[test]
fn a_certificate_outside_its_time_is_refused() {
    let (root, issuer) = issuer(ca("Root", None));
    let (der, key) = issue(&leaf(), &issuer);
    for (now, refusal) in [
        (NOW - 1001, Some(WebauthnError::AttestationExpired)),
        (NOW - 1000, None),
        (NOW + 1000, None),
        (NOW + 1001, Some(WebauthnError::AttestationExpired)),
        (i64::MAX, Some(WebauthnError::AttestationExpired)),
    ] {
        let roots = [root.clone()];
        assert_eq!(verdict(std::slice::from_ref(&der), &key, &roots, now).err(), refusal, "{now}");
    }
    let mut old = ca("Root", None);
    old.not_after = OffsetDateTime::from_unix_timestamp(NOW - 1).unwrap();
    let (root, issuer) = self::issuer(old);
    let (der, key) = issue(&leaf(), &issuer);
    assert_eq!(verdict(&[der], &key, &[root], NOW), Err(WebauthnError::AttestationExpired));
}

#[test]
fn a_root_of_the_same_name_with_another_key_is_not_trusted() {
    let (root, issuer) = issuer(ca("Root", None));
    let (other, _) = self::issuer(ca("Root", None));
    let (der, key) = issue(&leaf(), &issuer);
    let chain = [der.clone(), root.clone()];
    assert_eq!(
        verdict(&chain, &key, std::slice::from_ref(&other), NOW),
        Err(WebauthnError::UntrustedAttestation)
    );
    // Some authenticators send the root as well, and an operator may trust several.
    assert_eq!(verdict(&chain, &key, &[other, vec![1, 2, 3], root], NOW), Ok(()));
}

#[test]
fn an_intermediate_must_be_a_ca_within_the_length_of_its_path() {
    let (root, top) = issuer(ca("Root", None));
    let roots = [root];
    let mut not_for_certificates = ca("Intermediate", None);
    not_for_certificates.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut no_ca = params(named("CA", "Intermediate"));
    no_ca.is_ca = IsCa::ExplicitNoCa;
    let mut unmarked = params(named("CA", "Intermediate"));
    unmarked.is_ca = IsCa::NoCa;
    for (params, accepted) in [
        (ca("Intermediate", None), true),
        (ca("Intermediate", Some(0)), true),
        (not_for_certificates, false),
        (no_ca, false),
        (unmarked, false),
    ] {
        let (middle, middle_issuer) = below(&top, params);
        let (der, key) = issue(&leaf(), &middle_issuer);
        let refusal = verdict(&[der, middle], &key, &roots, NOW).err();
        assert_eq!(refusal, (!accepted).then_some(WebauthnError::UntrustedAttestation));
    }
    let (first, first_issuer) = below(&top, ca("First", Some(0)));
    let (second, second_issuer) = below(&first_issuer, ca("Second", None));
    let (der, key) = issue(&leaf(), &second_issuer);
    let chain = [der, second, first];
    assert_eq!(verdict(&chain, &key, &roots, NOW), Err(WebauthnError::UntrustedAttestation));
}

#[test]
fn a_chain_with_a_link_missing_or_too_long_is_refused() {
    let (root, top) = issuer(ca("Root", None));
    let (middle, middle_issuer) = below(&top, ca("Intermediate", None));
    let (der, key) = issue(&leaf(), &middle_issuer);
    let verdict = |chain: &[Vec<u8>]| verdict(chain, &key, std::slice::from_ref(&root), NOW);
    assert_eq!(verdict(&[der.clone(), middle.clone()]), Ok(()));
    assert_eq!(verdict(std::slice::from_ref(&der)), Err(WebauthnError::UntrustedAttestation));
    assert_eq!(verdict(&[der.clone(), root.clone()]), Err(WebauthnError::UntrustedAttestation));
    assert_eq!(verdict(&[middle, der.clone()]), Err(WebauthnError::BadAttestation));
    assert_eq!(verdict(&[]), Err(WebauthnError::BadAttestation));
    assert_eq!(verdict(&vec![der.clone(); 6]), Err(WebauthnError::UntrustedAttestation));
    assert_eq!(verdict(&vec![der.clone(); 7]), Err(WebauthnError::TooLarge));
    assert_eq!(verdict(&[vec![0x30; 20_000]]), Err(WebauthnError::TooLarge));
    let longer = [der.as_slice(), &[0]].concat();
    assert_eq!(verdict(&[longer]), Err(WebauthnError::BadAttestationCertificate));
}

#[test]
fn a_statement_signed_by_another_key_than_the_certificates_is_refused() {
    let (root, issuer) = issuer(ca("Root", None));
    let (der, _) = issue(&leaf(), &issuer);
    let (_, other) = issue(&leaf(), &issuer);
    assert_eq!(verdict(&[der], &other, &[root], NOW), Err(WebauthnError::BadAttestation));
}

/// Between the two lies the algorithm once more, unsigned, of which the parser doesn't mind the tag.
#[test]
fn a_certificate_with_any_byte_changed_in_what_is_signed_or_in_the_signature_is_refused() {
    let (root, issuer) = issuer(ca("Root", None));
    let (der, key) = issue(&leaf(), &issuer);
    let roots = [root];
    let signed = 4 + 4 + usize::from(u16::from_be_bytes([der[6], der[7]]));
    let signature = signed + 12;
    for index in (0..signed).chain(signature..der.len()) {
        let mut bent = der.clone();
        bent[index] ^= 1;
        assert!(verdict(&[bent], &key, &roots, NOW).is_err(), "{index}");
    }
}

#[test]
fn a_certificate_for_fido_u2f_is_alone_and_no_ca() {
    let (root, issuer) = issuer(ca("Root", None));
    let authenticator = authenticator(Algorithm::Es256);
    let data = authenticator.registration_data(RP_ID);
    let client_data = client_data("webauthn.create", &CHALLENGE, ORIGIN);
    let key = PublicKey::from_bytes(&authenticator.cose_key()).unwrap();
    let message = [
        &[0],
        Sha256::digest(RP_ID).as_slice(),
        &Sha256::digest(&client_data),
        &authenticator.id,
        key.point.as_ref().unwrap(),
    ]
    .concat();
    let verdict = |is_ca: IsCa, also: Option<&Vec<u8>>| {
        let mut leaf = params(named("U2F", "Model 1"));
        leaf.is_ca = is_ca;
        let (der, key) = issue(&leaf, &issuer);
        let signature = key.sign(&SystemRandom::new(), &message).unwrap();
        let chain = [&der].into_iter().chain(also).cloned().map(Cbor::Bytes).collect();
        let statement = vec![
            ("sig".into(), Cbor::Bytes(signature.as_ref().to_vec())),
            ("x5c".into(), Cbor::Array(chain)),
        ];
        let policy = AttestationPolicy::Trusted { roots: std::slice::from_ref(&root), now: NOW };
        let expected =
            RegistrationExpectation { attestation: &policy, ..registration_expectation() };
        let object = attestation_object("fido-u2f", statement, &data);
        register_for(&expected, &registration(&authenticator, &object)).map(|_| ())
    };
    assert_eq!(verdict(IsCa::ExplicitNoCa, None), Ok(()));
    assert_eq!(verdict(IsCa::NoCa, None), Ok(()), "it need not say so");
    assert_eq!(verdict(IsCa::NoCa, Some(&root)), Err(WebauthnError::BadAttestation));
    assert_eq!(
        verdict(IsCa::Ca(BasicConstraints::Unconstrained), None),
        Err(WebauthnError::BadAttestationCertificate)
    );
}
