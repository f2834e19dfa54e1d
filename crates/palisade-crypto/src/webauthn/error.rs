//! Why a response is refused.

use std::{error, fmt};

/// Why a registration or an authentication is refused. For logs and decisions; a client learns only
/// that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WebauthnError {
    /// A part is longer than allowed.
    TooLarge,
    /// A part isn't canonical base64url: padding, another alphabet, unused bits.
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
    /// The page was in a frame of another origin.
    CrossOrigin,
    /// CBOR that can't be read, or isn't of the expected shape.
    BadCbor,
    /// CBOR nested deeper than eight levels.
    TooDeep,
    /// A CBOR map has a key twice.
    DuplicateKey,
    /// Bytes follow the end of the data.
    TrailingBytes,
    /// The authenticator data ends too early.
    TruncatedAuthenticatorData,
    /// The authenticator data is for another RP ID.
    WrongRelyingParty,
    /// The authenticator did not confirm that a user was present.
    UserNotPresent,
    /// The authenticator didn't verify its user, though that is required.
    UserNotVerified,
    /// Backed up, but not eligible for backup.
    BackedUpButNotEligible,
    /// The eligibility for backup differs from that at registration.
    BackupEligibilityChanged,
    /// A registration without a credential.
    NoCredentialData,
    /// An authentication that carries a new credential.
    UnexpectedCredentialData,
    /// The extension flag is set, but there is no extension data, or it is not a map.
    BadExtensions,
    /// The credential's id is too short or too long.
    BadCredentialId,
    /// The credential id in the authenticator data differs from the one in the response.
    CredentialIdMismatch,
    /// The response belongs to a credential other than the stored one.
    WrongCredential,
    /// The credential belongs to another user.
    WrongUser,
    /// Not a valid public key for its algorithm: the type, curve, length or point is wrong.
    BadKey,
    /// An algorithm that isn't supported.
    UnsupportedAlgorithm,
    /// A supported algorithm that wasn't offered.
    AlgorithmNotOffered,
    /// The signature was not made with the credential's key.
    BadSignature,
    /// The signature counter didn't grow: the authenticator may have been copied.
    CounterWentBack,
    /// An attestation format that isn't known.
    UnknownAttestation,
    /// An attestation statement that is malformed or wrong.
    BadAttestation,
    /// The attestation's certificate breaks the rules for its format.
    BadAttestationCertificate,
    /// Attestation is required, but there is none, or its format isn't accepted as proof.
    AttestationRequired,
    /// The attestation's certificates lead to no trusted root.
    UntrustedAttestation,
    /// A certificate of the attestation isn't valid yet or has expired.
    AttestationExpired,
}

impl fmt::Display for WebauthnError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "a part of the response is too large",
            Self::BadEncoding => "a part of the response isn't base64url without padding",
            Self::WrongCredentialType => "the response is not of a public key credential",
            Self::IdDiffersFromRawId => "the response has two different ids",
            Self::BadClientData => "the client data is malformed",
            Self::WrongCeremony => "the response belongs to the other ceremony",
            Self::WrongChallenge => "the challenge isn't the expected one",
            Self::WrongOrigin => "the origin isn't allowed",
            Self::CrossOrigin => "the response comes from a frame of another origin",
            Self::BadCbor => "the CBOR is malformed",
            Self::TooDeep => "the CBOR is nested too deeply",
            Self::DuplicateKey => "the CBOR has a key twice",
            Self::TrailingBytes => "something follows the end of the data",
            Self::TruncatedAuthenticatorData => "the authenticator data ends too early",
            Self::WrongRelyingParty => "the authenticator data is for another relying party",
            Self::UserNotPresent => "the authenticator did not confirm that a user was present",
            Self::UserNotVerified => "the authenticator didn't verify its user",
            Self::BackedUpButNotEligible => "the credential is backed up but not eligible for it",
            Self::BackupEligibilityChanged => "the credential's eligibility for backup has changed",
            Self::NoCredentialData => "the registration has no credential",
            Self::UnexpectedCredentialData => "the authentication carries a new credential",
            Self::BadExtensions => "the extension data is missing or malformed",
            Self::BadCredentialId => "the credential's id is too short or too long",
            Self::CredentialIdMismatch => "the authenticator names another credential",
            Self::WrongCredential => "the response is of another credential",
            Self::WrongUser => "the credential is of another user",
            Self::BadKey => "the public key is malformed",
            Self::UnsupportedAlgorithm => "the key's algorithm isn't supported",
            Self::AlgorithmNotOffered => "the key's algorithm wasn't offered",
            Self::BadSignature => "the signature isn't the credential's",
            Self::CounterWentBack => "the signature counter didn't grow",
            Self::UnknownAttestation => "the attestation's format isn't known",
            Self::BadAttestation => "the attestation is malformed or wrong",
            Self::BadAttestationCertificate => "the attestation's certificate breaks its rules",
            Self::AttestationRequired => "an attestation that can be trusted is required",
            Self::UntrustedAttestation => "the attestation leads to no trusted root",
            Self::AttestationExpired => "a certificate of the attestation isn't valid now",
        })
    }
}

impl error::Error for WebauthnError {}
