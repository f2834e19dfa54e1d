//! Verification of a sign-in (section 7.2).

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::authenticator_data::AuthenticatorData;
use super::client_data::{self, Ceremony};
use super::{AuthenticationResponse, PublicKey, RelyingParty, UserVerification, WebauthnError};

/// The values that a sign-in must match.
#[derive(Clone, Copy, Debug)]
pub struct AuthenticationExpectation<'a> {
    /// The issued challenge, 16 bytes or more, used only for this sign-in.
    pub challenge: &'a [u8],
    /// The requested user verification.
    pub user_verification: UserVerification,
    /// Which changes of the credential's backup eligibility are accepted.
    pub backup_eligibility: BackupEligibility,
}

/// Which changes of a credential's backup eligibility are accepted at a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupEligibility {
    /// None, as section 7.2 requires.
    Fixed,
    /// A credential that was not eligible may become eligible, at a sign-in that verifies the user. The opposite change
    /// is refused.
    MayBeGained,
}

/// The stored credential, which the caller has looked up by [`AuthenticationResponse::credential_id`].
#[derive(Clone, Copy, Debug)]
pub struct StoredCredential<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Its key.
    pub public_key: &'a PublicKey,
    /// The last signature counter seen. It is compared only if the credential is not eligible for backup.
    pub sign_count: u32,
    /// Whether the credential is eligible for backup, as last stored.
    pub backup_eligible: bool,
    /// The owner's user handle: the value of `user.id` at registration.
    pub user_handle: &'a [u8],
}

/// A verified sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The signature counter, to be stored.
    pub sign_count: u32,
    /// Whether the authenticator verified its user, by PIN or biometrics, in addition to using the key.
    pub user_verified: bool,
    /// Whether the credential is eligible for backup, to be stored. Differs from the stored value only with
    /// [`BackupEligibility::MayBeGained`].
    pub backup_eligible: bool,
    /// Whether the credential is backed up now, to be stored.
    pub backed_up: bool,
}

/// Verifies a sign-in. The caller must already have looked up the ceremony by [`AuthenticationResponse::challenge`],
/// marked it as used, and checked that the ceremony allows this credential.
///
/// # Errors
///
/// Returns the reason for the refusal, as a variant of [`WebauthnError`].
pub fn verify_authentication(
    rp: &RelyingParty,
    expected: &AuthenticationExpectation<'_>,
    credential: &StoredCredential<'_>,
    response: &AuthenticationResponse,
) -> Result<Authenticated, WebauthnError> {
    if response.credential_id()? != credential.id {
        return Err(WebauthnError::WrongCredential);
    }
    if let Some(handle) = response.user_handle()?
        && !bool::from(handle.ct_eq(credential.user_handle))
    {
        return Err(WebauthnError::WrongUser);
    }
    let client_data_json = response.client_data_json()?;
    client_data::check(&client_data_json, Ceremony::Get, expected.challenge, rp)?;

    let bytes = response.authenticator_data()?;
    let data = AuthenticatorData::parse(&bytes)?;
    data.check(rp, expected.user_verification)?;
    if data.credential.is_some() {
        return Err(WebauthnError::UnexpectedCredentialData);
    }
    let hash: [u8; 32] = Sha256::digest(&client_data_json).into();
    credential.public_key.verify(&[bytes.as_slice(), &hash].concat(), &response.signature()?)?;
    // SECURITY: eligibility and the counter are checked after the signature, so that only the key's holder learns of the
    // stored ones (test: a_signature_of_another_key_is_refused).
    // SECURITY: only a user who is verified makes a credential one that can be copied, and no credential that was copied
    // passes for one that wasn't (test: backup_eligibility_is_gained_only_where_it_may_be_and_never_lost).
    let may_be_gained = expected.backup_eligibility == BackupEligibility::MayBeGained;
    match (credential.backup_eligible, data.backup_eligible()) {
        (false, true) if may_be_gained && data.user_verified() => {}
        (false, true) => return Err(WebauthnError::BackupEligibilityGained),
        (true, false) => return Err(WebauthnError::BackupEligibilityLost),
        (false, false) | (true, true) => {}
    }
    // Copies of a synced credential don't share a counter, and some password managers stop counting, so the counter of
    // a credential that is eligible for backup means nothing. One that becomes eligible now is judged for the last time.
    let counts =
        !credential.backup_eligible && (data.sign_count != 0 || credential.sign_count != 0);
    if counts && data.sign_count <= credential.sign_count {
        return Err(WebauthnError::CounterWentBack);
    }
    Ok(Authenticated {
        sign_count: data.sign_count,
        user_verified: data.user_verified(),
        backup_eligible: data.backup_eligible(),
        backed_up: data.backed_up(),
    })
}
