//! The certificates of authenticators (section 8.2.1) and their path to a root (RFC 5280 6.1).
//!
//! `x509-parser` parses them; aws-lc-rs verifies every signature.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo};

use super::{Algorithm, WebauthnError};

/// The maximum number of certificates in a chain; authenticators have one or two.
pub(super) const LONGEST_CHAIN: usize = 6;

/// The maximum length of a certificate, in bytes.
const LONGEST_CERTIFICATE: usize = 16 * 1024;

/// `id-fido-gen-ce-aaguid`.
const AAGUID_EXTENSION: &str = "1.3.6.1.4.1.45724.1.1.4";
/// The beginning of that extension's value, an octet string of 16 bytes.
const AAGUID_HEADER: [u8; 2] = [0x04, 0x10];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    P256,
    P384,
    P521,
    Ed25519,
    Rsa,
}

/// A parsed certificate.
pub(super) struct Certificate<'a>(X509Certificate<'a>);

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, WebauthnError> {
        if der.len() > LONGEST_CERTIFICATE {
            return Err(WebauthnError::TooLarge);
        }
        match X509Certificate::from_der(der) {
            // The signed part and the unsigned part must name the same algorithm (RFC 5280 4.1.1.2).
            Ok(([], certificate))
                if certificate.signature_algorithm == certificate.tbs_certificate.signature
                    && certificate.signature_value.unused_bits == 0 =>
            {
                Ok(Self(certificate))
            }
            _ => Err(WebauthnError::BadAttestationCertificate),
        }
    }

    /// Verifies that the certificate's key signed `message` with `algorithm`.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), WebauthnError> {
        let law: &'static dyn VerificationAlgorithm = match (algorithm, key(self.0.public_key())) {
            (Algorithm::EdDsa, Some(Key::Ed25519)) => &ED25519,
            (Algorithm::Es256, Some(Key::P256)) => &ECDSA_P256_SHA256_ASN1,
            (Algorithm::Es384, Some(Key::P384)) => &ECDSA_P384_SHA384_ASN1,
            (Algorithm::Es512, Some(Key::P521)) => &ECDSA_P521_SHA512_ASN1,
            (Algorithm::Rs256, Some(Key::Rsa)) => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(WebauthnError::BadAttestation),
        };
        UnparsedPublicKey::new(law, self.0.public_key().subject_public_key.data.as_ref())
            .verify(message, signature)
            .map_err(|_| WebauthnError::BadAttestation)
    }

    /// Checks the requirements for the certificate of a `packed` statement (section 8.2.1).
    pub(super) fn check_packed(&self, aaguid: &[u8; 16]) -> Result<(), WebauthnError> {
        let subject = self.0.subject();
        let country = only(subject.iter_country());
        let unit = only(subject.iter_organizational_unit());
        let named = only(subject.iter_organization()).is_some_and(|name| !name.is_empty())
            && only(subject.iter_common_name()).is_some_and(|name| !name.is_empty());
        let fits = self.0.version() == X509Version::V3
            && country.is_some_and(|code| code.len() == 2)
            && unit == Some("Authenticator Attestation")
            && matches!(self.0.basic_constraints(), Ok(Some(found)) if !found.value.ca)
            && named;
        if !fits {
            return Err(WebauthnError::BadAttestationCertificate);
        }
        self.check_aaguid(aaguid)
    }

    /// Checks that the certificate isn't marked as a CA's. For `fido-u2f`: older certificates don't state whether they
    /// belong to a CA.
    pub(super) fn check_is_no_ca(&self) -> Result<(), WebauthnError> {
        match self.0.basic_constraints() {
            Ok(None) => Ok(()),
            Ok(Some(found)) if !found.value.ca => Ok(()),
            _ => Err(WebauthnError::BadAttestationCertificate),
        }
    }

    fn check_aaguid(&self, aaguid: &[u8; 16]) -> Result<(), WebauthnError> {
        let mut found =
            self.0.iter_extensions().filter(|one| one.oid.to_id_string() == AAGUID_EXTENSION);
        let Some(extension) = found.next() else { return Ok(()) };
        let fits = !extension.critical
            && extension.value == [AAGUID_HEADER.as_slice(), aaguid].concat()
            && found.next().is_none();
        if fits { Ok(()) } else { Err(WebauthnError::BadAttestationCertificate) }
    }

    fn check_time(&self, now: i64) -> Result<(), WebauthnError> {
        let now = ASN1Time::from_timestamp(now).map_err(|_| WebauthnError::AttestationExpired)?;
        let valid = self.0.validity().is_valid_at(now);
        if valid { Ok(()) } else { Err(WebauthnError::AttestationExpired) }
    }

    /// SECURITY: a certificate with a critical extension that isn't understood must not be used (RFC 5280 4.2). The
    /// extensions named here are checked, or don't limit this use (test:
    /// a_critical_extension_that_is_not_understood_is_refused).
    fn check_extensions(&self) -> Result<(), WebauthnError> {
        let understood = self.0.iter_extensions().all(|extension| {
            !extension.critical
                || matches!(
                    extension.parsed_extension(),
                    ParsedExtension::BasicConstraints(_)
                        | ParsedExtension::KeyUsage(_)
                        | ParsedExtension::SubjectAlternativeName(_)
                )
        });
        if understood { Ok(()) } else { Err(WebauthnError::BadAttestationCertificate) }
    }

    /// Returns whether `issuer` was allowed to issue this certificate and did so, with `below` other issuers between
    /// `issuer` and the authenticator's certificate.
    fn is_issued_by(&self, issuer: &Certificate<'_>, below: usize) -> bool {
        let may_issue = match issuer.0.basic_constraints() {
            Ok(Some(constraints)) => {
                let longest = constraints.value.path_len_constraint;
                constraints.value.ca
                    && longest.is_none_or(|longest| u64::from(longest) >= below as u64)
            }
            _ => false,
        };
        let for_certificates = match issuer.0.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        may_issue
            && for_certificates
            && self.0.issuer().as_raw() == issuer.0.subject().as_raw()
            && self.is_signed_by(issuer)
    }

    fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        let issuer_key = issuer.0.public_key();
        let name = self.0.signature_algorithm.algorithm.to_id_string();
        let Some(law) = key(issuer_key).and_then(|key| law(&name, key)) else { return false };
        UnparsedPublicKey::new(law, issuer_key.subject_public_key.data.as_ref())
            .verify(self.0.tbs_certificate.as_ref(), &self.0.signature_value.data)
            .is_ok()
    }
}

/// Checks that the chain, which starts with the authenticator's certificate, leads to one of the roots, and that every
/// certificate on the path is valid at `now`.
pub(super) fn check_chain(
    chain: &[&[u8]],
    roots: &[Vec<u8>],
    now: i64,
) -> Result<(), WebauthnError> {
    let roots = roots.iter().filter_map(|der| Certificate::parse(der).ok()).collect::<Vec<_>>();
    let mut links = chain.iter().enumerate().peekable();
    while let Some((below, der)) = links.next() {
        let certificate = Certificate::parse(der)?;
        certificate.check_time(now)?;
        certificate.check_extensions()?;
        let trusted = roots.iter().find(|root| certificate.is_issued_by(root, below));
        if let Some(root) = trusted {
            root.check_time(now)?;
            return root.check_extensions();
        }
        let Some((_, issuer)) = links.peek() else { break };
        if !certificate.is_issued_by(&Certificate::parse(issuer)?, below) {
            break;
        }
    }
    Err(WebauthnError::UntrustedAttestation)
}

/// Returns the attribute's value if there is exactly one attribute of its kind.
fn only<'a>(
    mut attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Option<&'a str> {
    let first = attributes.next()?.as_str().ok()?;
    attributes.next().is_none().then_some(first)
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    match info.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(Key::Rsa),
        "1.3.101.112" => Some(Key::Ed25519),
        "1.2.840.10045.2.1" => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            match curve.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => Some(Key::P256),
                "1.3.132.0.34" => Some(Key::P384),
                "1.3.132.0.35" => Some(Key::P521),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns the implementation that verifies signatures with this algorithm (RFC 5758 3.2, RFC 4055 5, RFC 8410 3) and
/// type of key.
fn law(name: &str, key: Key) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (name, key) {
        ("1.2.840.10045.4.3.2", Key::P256) => &ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.2", Key::P384) => &ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.2", Key::P521) => &ECDSA_P521_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Key::P256) => &ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.3", Key::P384) => &ECDSA_P384_SHA384_ASN1,
        ("1.2.840.10045.4.3.3", Key::P521) => &ECDSA_P521_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", Key::P256) => &ECDSA_P256_SHA512_ASN1,
        ("1.2.840.10045.4.3.4", Key::P384) => &ECDSA_P384_SHA512_ASN1,
        ("1.2.840.10045.4.3.4", Key::P521) => &ECDSA_P521_SHA512_ASN1,
        ("1.2.840.113549.1.1.11", Key::Rsa) => &RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", Key::Rsa) => &RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", Key::Rsa) => &RSA_PKCS1_2048_8192_SHA512,
        ("1.3.101.112", Key::Ed25519) => &ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    struct Sample {
        key: &'static str,
        digest: &'static str,
        root: Vec<u8>,
        leaf: Vec<u8>,
        signature: Vec<u8>,
    }

    fn samples() -> Vec<Sample> {
        let text = include_str!("../../tests/vectors/certificates.txt");
        let decode = |text: &str| STANDARD.decode(text).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let fields: Vec<_> = line.split(' ').collect();
                let [key, digest, root, leaf, signature] = fields[..] else { panic!("{line}") };
                let [root, leaf, signature] = [root, leaf, signature].map(decode);
                Sample { key, digest, root, leaf, signature }
            })
            .collect()
    }

    #[test]
    fn certificates_of_every_type_of_key_and_digest_lead_to_their_root_and_to_no_other() {
        let samples = samples();
        assert_eq!(samples.len(), 13);
        for (at, sample) in samples.iter().enumerate() {
            let name = format!("{} {}", sample.key, sample.digest);
            let verdict = |root: &[u8], leaf: &[u8]| check_chain(&[leaf], &[root.to_vec()], NOW);
            assert_eq!(verdict(&sample.root, &sample.leaf), Ok(()), "{name}");
            let other = &samples[(at + 1) % samples.len()];
            let refused = Err(WebauthnError::UntrustedAttestation);
            assert_eq!(verdict(&other.root, &sample.leaf), refused, "{name}");
            let mut bent = sample.leaf.clone();
            *bent.last_mut().unwrap() ^= 1;
            assert!(verdict(&sample.root, &bent).is_err(), "{name}");
        }
    }

    #[test]
    fn a_certificate_verifies_what_its_key_signed() {
        let algorithms = [
            (Algorithm::Es256, "P-256"),
            (Algorithm::Es384, "P-384"),
            (Algorithm::Es512, "P-521"),
            (Algorithm::Rs256, "RSA"),
            (Algorithm::EdDsa, "Ed25519"),
        ];
        for sample in samples() {
            let leaf = Certificate::parse(&sample.leaf).unwrap();
            for (algorithm, key) in algorithms {
                let verdict = leaf.verify(algorithm, b"attested", &sample.signature);
                assert_eq!(verdict.is_ok(), key == sample.key, "{algorithm:?} {}", sample.key);
                assert!(leaf.verify(algorithm, b"Attested", &sample.signature).is_err());
            }
        }
    }

    #[test]
    fn a_certificate_has_a_limited_length_and_one_algorithm() {
        let sample = samples().remove(0);
        assert!(Certificate::parse(&sample.leaf).is_ok());
        let longest = [&sample.leaf[..], &vec![0; 16 * 1024 - sample.leaf.len()]].concat();
        let refusal = |der: &[u8]| Certificate::parse(der).err();
        assert_eq!(refusal(&longest), Some(WebauthnError::BadAttestationCertificate));
        assert_eq!(refusal(&[&longest[..], &[0]].concat()), Some(WebauthnError::TooLarge));
        // The last one is beside the signature, the first one is signed.
        let law = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let at = sample.leaf.windows(law.len()).rposition(|window| window == law).unwrap();
        let mut other = sample.leaf.clone();
        other[at + law.len() - 1] = 0x03;
        assert_eq!(refusal(&other), Some(WebauthnError::BadAttestationCertificate));
        // The signature, a bit string, begins with the number of its unused bits.
        let mut unused = sample.leaf.clone();
        unused[at + law.len() + 2] = 1;
        assert_eq!(refusal(&unused), Some(WebauthnError::BadAttestationCertificate));
    }
}
