//! Attestation objects and the statements in them (sections 6.5 and 8).

use ciborium::Value;

use super::authenticator_data::AttestedCredential;
use super::cbor::{self, Map};
use super::certificate::{self, Certificate};
use super::{Algorithm, LONGEST_ATTESTATION_OBJECT, PublicKey, WebauthnError};

/// Which attestation statements are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationPolicy<'a> {
    /// No statement is required, and none is trusted. A statement of a known format must still be a CBOR map. One of the
    /// format `none` must be empty, and self attestation must be correct. Other statements are not verified, and a
    /// statement of an unknown format is not read.
    None,
    /// The statement must be `packed` with certificates, or `fido-u2f`, and its certificates must chain to a root.
    Trusted {
        /// The trusted root certificates, X.509 in DER.
        roots: &'a [Vec<u8>],
        /// The current time, in seconds since 1970, for checking the certificates' validity.
        now: i64,
    },
}

/// The format of a statement (section 8 and the IANA registry of RFC 8809).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttestationFormat {
    /// No statement.
    None,
    /// The compact format designed for WebAuthn, with certificates or as self attestation.
    Packed,
    /// The format of FIDO U2F authenticators.
    FidoU2f,
    /// The format of Trusted Platform Modules.
    Tpm,
    /// The format of the Android Keystore.
    AndroidKey,
    /// The format of Android's discontinued SafetyNet.
    AndroidSafetynet,
    /// The format of Apple's devices.
    Apple,
    /// A format that isn't listed here, such as `compound`. Its statement isn't read.
    Unknown,
}

/// The maximum length of a format's name, in bytes (RFC 8809, section 2.1).
const LONGEST_FORMAT: usize = 32;

impl AttestationFormat {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Packed,
        Self::FidoU2f,
        Self::Tpm,
        Self::AndroidKey,
        Self::AndroidSafetynet,
        Self::Apple,
    ];

    /// Returns the format with this name. A name that can't be in the registry is an error (RFC 8809, section 2.1).
    fn named(name: &str) -> Result<Self, WebauthnError> {
        let printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if !(1..=LONGEST_FORMAT).contains(&name.len()) || !name.bytes().all(printable) {
            return Err(WebauthnError::BadAttestation);
        }
        let known = Self::ALL.into_iter().find(|format| format.as_str() == name);
        Ok(known.unwrap_or(Self::Unknown))
    }

    /// Returns the format's name in the registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Packed => "packed",
            Self::FidoU2f => "fido-u2f",
            Self::Tpm => "tpm",
            Self::AndroidKey => "android-key",
            Self::AndroidSafetynet => "android-safetynet",
            Self::Apple => "apple",
            Self::Unknown => "unknown",
        }
    }
}

/// A parsed attestation object.
pub(super) struct AttestationObject {
    pub(super) format: AttestationFormat,
    statement: Map,
    pub(super) authenticator_data: Vec<u8>,
}

/// The data that a statement covers.
pub(super) struct Attested<'a> {
    pub(super) authenticator_data: &'a [u8],
    pub(super) client_data_hash: [u8; 32],
    pub(super) rp_id_hash: &'a [u8; 32],
    pub(super) credential: &'a AttestedCredential<'a>,
    pub(super) public_key: &'a PublicKey,
}

impl AttestationObject {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WebauthnError> {
        if bytes.len() > LONGEST_ATTESTATION_OBJECT {
            return Err(WebauthnError::TooLarge);
        }
        let map = cbor::whole_map(bytes)?;
        let name = map.text_key("fmt").and_then(Value::as_text).ok_or(WebauthnError::BadCbor)?;
        let format = AttestationFormat::named(name)?;
        let authenticator_data =
            map.text_key("authData").and_then(Value::as_bytes).ok_or(WebauthnError::BadCbor)?;
        let authenticator_data = authenticator_data.clone();
        let statement = match format {
            // Of any type: that of `compound` is an array.
            AttestationFormat::Unknown => map.text_key("attStmt").map(|_| Map::empty()),
            _ => map.into_map("attStmt"),
        };
        let statement = statement.ok_or(WebauthnError::BadCbor)?;
        Ok(Self { format, statement, authenticator_data })
    }
}

/// Verifies an attestation statement: steps 21 to 24 of section 7.1.
pub(super) fn verify(
    object: &AttestationObject,
    attested: &Attested<'_>,
    policy: &AttestationPolicy<'_>,
) -> Result<(), WebauthnError> {
    let statement = &object.statement;
    match (policy, object.format) {
        (AttestationPolicy::None, AttestationFormat::None) if statement.len() != 0 => {
            Err(WebauthnError::BadAttestation)
        }
        (AttestationPolicy::None, AttestationFormat::Packed)
            if statement.text_key("x5c").is_none() =>
        {
            verify_self(statement, attested)
        }
        (AttestationPolicy::None, _) => Ok(()),
        (AttestationPolicy::Trusted { roots, now }, AttestationFormat::Packed)
            if statement.text_key("x5c").is_some() =>
        {
            verify_packed(statement, attested)?;
            certificate::check_chain(&chain(statement)?, roots, *now)
        }
        (AttestationPolicy::Trusted { roots, now }, AttestationFormat::FidoU2f) => {
            verify_fido_u2f(statement, attested)?;
            certificate::check_chain(&chain(statement)?, roots, *now)
        }
        (AttestationPolicy::Trusted { .. }, AttestationFormat::Unknown) => {
            Err(WebauthnError::UnknownAttestation)
        }
        (AttestationPolicy::Trusted { .. }, _) => Err(WebauthnError::AttestationRequired),
    }
}

/// Verifies self attestation (section 8.2): a signature with the credential's own key.
fn verify_self(statement: &Map, attested: &Attested<'_>) -> Result<(), WebauthnError> {
    if algorithm(statement)? != attested.public_key.algorithm() {
        return Err(WebauthnError::BadAttestation);
    }
    attested
        .public_key
        .verify(&signed_by_packed(attested), signature(statement)?)
        .map_err(|_| WebauthnError::BadAttestation)
}

/// Verifies a `packed` statement with certificates (section 8.2).
fn verify_packed(statement: &Map, attested: &Attested<'_>) -> Result<(), WebauthnError> {
    let chain = chain(statement)?;
    let leaf = Certificate::parse(chain.first().ok_or(WebauthnError::BadAttestation)?)?;
    leaf.verify(algorithm(statement)?, &signed_by_packed(attested), signature(statement)?)?;
    leaf.check_packed(&attested.credential.aaguid)
}

/// Verifies a `fido-u2f` statement (section 8.6): one certificate with a P-256 key, and a signature over a different
/// message than for `packed`.
fn verify_fido_u2f(statement: &Map, attested: &Attested<'_>) -> Result<(), WebauthnError> {
    let [leaf] = chain(statement)?[..] else { return Err(WebauthnError::BadAttestation) };
    let point = match (attested.public_key.algorithm(), &attested.public_key.point) {
        (Algorithm::Es256, Some(point)) => point,
        _ => return Err(WebauthnError::BadAttestation),
    };
    let message = [
        &[0],
        attested.rp_id_hash.as_slice(),
        &attested.client_data_hash,
        attested.credential.id,
        point,
    ]
    .concat();
    let leaf = Certificate::parse(leaf)?;
    leaf.verify(Algorithm::Es256, &message, signature(statement)?)?;
    leaf.check_is_no_ca()
}

fn signed_by_packed(attested: &Attested<'_>) -> Vec<u8> {
    [attested.authenticator_data, &attested.client_data_hash].concat()
}

fn algorithm(statement: &Map) -> Result<Algorithm, WebauthnError> {
    let number = statement.text_key("alg").and_then(cbor::integer);
    number.and_then(Algorithm::from_number).ok_or(WebauthnError::BadAttestation)
}

fn signature(statement: &Map) -> Result<&[u8], WebauthnError> {
    let value = statement.text_key("sig").and_then(Value::as_bytes);
    value.map(Vec::as_slice).ok_or(WebauthnError::BadAttestation)
}

/// Returns the certificates in DER, starting with the authenticator's.
fn chain(statement: &Map) -> Result<Vec<&[u8]>, WebauthnError> {
    let items = statement.text_key("x5c").and_then(Value::as_array);
    let items = items.ok_or(WebauthnError::BadAttestation)?;
    if items.len() > certificate::LONGEST_CHAIN {
        return Err(WebauthnError::TooLarge);
    }
    let bytes = |item| Value::as_bytes(item).map(Vec::as_slice);
    items.iter().map(bytes).collect::<Option<_>>().ok_or(WebauthnError::BadAttestation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_limited() {
        let refusal = |length: usize| {
            let bytes = &vec![0; length];
            AttestationObject::parse(bytes).err()
        };
        let of_content = refusal(LONGEST_ATTESTATION_OBJECT);
        assert!(of_content.is_some() && of_content != Some(WebauthnError::TooLarge));
        assert_eq!(refusal(LONGEST_ATTESTATION_OBJECT + 1), Some(WebauthnError::TooLarge));
        assert_eq!(refusal(LONGEST_ATTESTATION_OBJECT + 100), Some(WebauthnError::TooLarge));
    }
}
