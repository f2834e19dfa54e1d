//! WebAuthn (passkeys and security keys): creates options and verifies registrations and sign-ins,
//! as specified in W3C Web Authentication Level 3, sections 7.1 and 7.2.
//!
//! # Promises
//!
//! - This module doesn't store ceremonies. The caller creates the challenge, looks up its ceremony by
//!   [`RegistrationResponse::challenge`] or [`AuthenticationResponse::challenge`], marks it as used, and passes in the
//!   expected bytes; they are compared in constant time.
//! - Origins are compared as whole strings. Pages framed by another origin (`crossOrigin`, `topOrigin`) are refused.
//! - Every input is bounded before it is decoded. CBOR may be nested eight levels deep at most, maps must not have
//!   duplicate keys, no bytes may follow the data, and only canonical base64url is accepted.
//! - A key is checked when it is registered: its type, curve, algorithm and point must agree, and the algorithm must be
//!   one of those offered. An Ed25519 point is checked only with each signature.
//! - No attestation statement is required or trusted unless the caller requests [`AttestationPolicy::Trusted`]. A
//!   statement must still be well formed, and self attestation must be correct. The statement of an unknown format isn't
//!   read. With `Trusted`, only `packed` and `fido-u2f` with a chain to one of the given roots are accepted. Self
//!   attestation, TPM, Android, Apple and unknown formats are refused.
//! - The signature counter of a credential that isn't eligible for backup must increase. Backup eligibility is never
//!   lost, and is gained only if the caller allows it and the user is verified.
//! - Each reason for a refusal has its own variant of [`WebauthnError`].
//!
//! # Example
//!
//! ```
//! use palisade_crypto::webauthn::{Algorithm, CreationOptions, RelyingParty, UserEntity};
//!
//! let rp = RelyingParty { id: "example.org".into(), origins: vec!["https://example.org".into()] };
//! let user = UserEntity { id: b"user 1", name: "ada@example.org", display_name: "Ada" };
//! let options = CreationOptions::new(&rp, "Example", &user, &[7; 32], &Algorithm::OFFERED);
//! let json = serde_json::to_value(&options)?;
//! assert_eq!(json["pubKeyCredParams"][0]["alg"], -8);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod attestation;
mod authenticate;
mod authenticator_data;
mod cbor;
mod certificate;
mod client_data;
mod error;
mod options;
mod public_key;
mod register;
mod response;
#[cfg(feature = "testing")]
pub mod testing;

use serde::Serialize;

pub use attestation::{AttestationFormat, AttestationPolicy};
pub use authenticate::{
    Authenticated, AuthenticationExpectation, BackupEligibility, StoredCredential,
    verify_authentication,
};
pub use client_data::client_challenge;
pub use error::WebauthnError;
pub use options::{
    AttestationConveyance, CreationOptions, CredentialDescriptor, RequestOptions, ResidentKey,
    UserEntity,
};
pub use public_key::{Algorithm, PublicKey};
pub use register::{NewCredential, RegistrationExpectation, verify_registration};
pub use response::{AuthenticationResponse, RegistrationResponse};

/// The maximum length of `clientDataJSON`, in bytes.
pub const LONGEST_CLIENT_DATA: usize = 4 * 1024;
/// The maximum length of an attestation object, in bytes.
pub const LONGEST_ATTESTATION_OBJECT: usize = 64 * 1024;
/// The maximum length of authenticator data, in bytes.
pub const LONGEST_AUTHENTICATOR_DATA: usize = 32 * 1024;
/// The minimum length of a new credential's id, in bytes (section 4, credential ID).
pub const SHORTEST_CREDENTIAL_ID: usize = 16;
/// The maximum length of a credential's id, in bytes (section 7.1, step 25).
pub const LONGEST_CREDENTIAL_ID: usize = 1023;
/// The maximum length of a user handle, in bytes (section 5.4.3).
pub const LONGEST_USER_HANDLE: usize = 64;

/// The relying party: this service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    /// The RP ID, a domain without a scheme or port (section 4). Credentials are bound to it for their whole lifetime.
    pub id: String,
    /// The origins that may use its credentials, as browsers write them: `https://host[:port]`.
    pub origins: Vec<String>,
}

/// Whether the authenticator must verify the user, by PIN or biometrics (section 5.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserVerification {
    /// Verification is required: a response without it is refused.
    Required,
    /// Verification is requested, but a response without it is accepted.
    Preferred,
    /// Verification isn't requested.
    Discouraged,
}

#[cfg(test)]
mod tests;
