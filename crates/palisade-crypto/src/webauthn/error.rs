//! The reasons for refusing a response.

use std::{error, fmt};

/// The reason why a registration or an authentication is refused, for logs and decisions. Palisade tells clients the
/// reason only for registrations and malformed responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WebauthnError {
    /// A part is too long, or has too many keys or certificates.
    TooLarge,
    /// A part isn't canonical base64url: it has padding, a different alphabet or unused bits.
    BadEncoding,
    /// The response's `type` isn't `public-key`.
    WrongCredentialType,
    /// `id` and `rawId` differ.
    IdDiffersFromRawId,
    /// `clientDataJSON` isn't JSON of the expected form.
    BadClientData,
    /// The response belongs to the other ceremony.
    WrongCeremony,
    /// The challenge isn't the expected one.
    WrongChallenge,
    /// The origin isn't one of the relying party's.
    WrongOrigin,
    /// The page was in a frame on a page of another origin.
    CrossOrigin,
    /// The CBOR can't be read or doesn't have the expected structure.
    BadCbor,
    /// The CBOR is nested deeper than eight levels.
    TooDeep,
    /// A CBOR map has a duplicate key.
    DuplicateKey,
    /// Bytes follow the end of the data.
    TrailingBytes,
    /// The authenticator data ends too early.
    TruncatedAuthenticatorData,
    /// The authenticator data is for a different RP ID.
    WrongRelyingParty,
    /// The authenticator didn't confirm that a user was present.
    UserNotPresent,
    /// The authenticator didn't verify its user, although this is required.
    UserNotVerified,
    /// The credential is backed up but not eligible for backup.
    BackedUpButNotEligible,
    /// A credential that wasn't eligible for backup is now, and this isn't accepted.
    BackupEligibilityGained,
    /// A credential that was eligible for backup says that it isn't: the authenticator may have been cloned.
    BackupEligibilityLost,
    /// The registration contains no credential.
    NoCredentialData,
    /// The authentication contains a new credential.
    UnexpectedCredentialData,
    /// The extension flag is set, but there is no extension data, or it isn't a valid map.
    BadExtensions,
    /// The credential's id is too short or too long.
    BadCredentialId,
    /// The credential id in the authenticator data differs from the one in the response.
    CredentialIdMismatch,
    /// The response belongs to a credential other than the stored one.
    WrongCredential,
    /// The credential belongs to another user.
    WrongUser,
    /// The public key isn't valid for its algorithm: the type, curve, length or point is wrong.
    BadKey,
    /// The algorithm isn't supported.
    UnsupportedAlgorithm,
    /// The algorithm is supported but wasn't offered.
    AlgorithmNotOffered,
    /// The signature was not made with the credential's key.
    BadSignature,
    /// The signature counter of a credential that isn't eligible for backup didn't increase: the authenticator may have
    /// been cloned.
    CounterWentBack,
    /// Attestation is required, and its format is unknown.
    UnknownAttestation,
    /// The attestation statement is malformed or wrong.
    BadAttestation,
    /// The attestation's certificate breaks the rules for its format.
    BadAttestationCertificate,
    /// Attestation is required, but there is none, or its format isn't accepted as proof.
    AttestationRequired,
    /// The attestation's certificates don't chain to a trusted root.
    UntrustedAttestation,
    /// A certificate of the attestation isn't valid yet or has expired.
    AttestationExpired,
}

impl fmt::Display for WebauthnError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "a part of the response is too large",
            Self::BadEncoding => "a part of the response isn't base64url without padding",
            Self::WrongCredentialType => "the response's type isn't public-key",
            Self::IdDiffersFromRawId => "the response's id and rawId differ",
            Self::BadClientData => "the client data is malformed",
            Self::WrongCeremony => "the response belongs to the other ceremony",
            Self::WrongChallenge => "the challenge isn't the expected one",
            Self::WrongOrigin => "the origin isn't allowed",
            Self::CrossOrigin => "the response comes from a page in a frame on another origin",
            Self::BadCbor => "the CBOR is malformed",
            Self::TooDeep => "the CBOR is nested too deeply",
            Self::DuplicateKey => "the CBOR has a duplicate key",
            Self::TrailingBytes => "unexpected bytes follow the end of the data",
            Self::TruncatedAuthenticatorData => "the authenticator data ends too early",
            Self::WrongRelyingParty => "the authenticator data is for another relying party",
            Self::UserNotPresent => "the authenticator didn't confirm that a user was present",
            Self::UserNotVerified => "the authenticator didn't verify its user",
            Self::BackedUpButNotEligible => {
                "the credential is backed up but not eligible for backup"
            }
            Self::BackupEligibilityGained => "the credential has become eligible for backup",
            Self::BackupEligibilityLost => "the credential is no longer eligible for backup",
            Self::NoCredentialData => "the registration contains no credential",
            Self::UnexpectedCredentialData => "the authentication contains a new credential",
            Self::BadExtensions => "the extension data is missing or malformed",
            Self::BadCredentialId => "the credential's id is too short or too long",
            Self::CredentialIdMismatch => "the authenticator data is for another credential",
            Self::WrongCredential => "the response is from another credential",
            Self::WrongUser => "the credential belongs to another user",
            Self::BadKey => "the public key is malformed",
            Self::UnsupportedAlgorithm => "the key's algorithm isn't supported",
            Self::AlgorithmNotOffered => "the key's algorithm wasn't offered",
            Self::BadSignature => "the signature wasn't made with the credential's key",
            Self::CounterWentBack => "the signature counter didn't increase",
            Self::UnknownAttestation => {
                "the attestation's format is unknown; only packed and fido-u2f are accepted"
            }
            Self::BadAttestation => "the attestation is malformed or wrong",
            Self::BadAttestationCertificate => {
                "the attestation's certificate breaks the rules for its format"
            }
            Self::AttestationRequired => {
                "a trusted attestation in the format packed or fido-u2f is required"
            }
            Self::UntrustedAttestation => {
                "the attestation's certificates don't chain to a trusted root"
            }
            Self::AttestationExpired => "an attestation certificate isn't valid yet or has expired",
        })
    }
}

impl error::Error for WebauthnError {}
