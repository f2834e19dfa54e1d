//! Authenticator data: what the authenticator signs (section 6.1).

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    LONGEST_AUTHENTICATOR_DATA, LONGEST_CREDENTIAL_ID, RelyingParty, SHORTEST_CREDENTIAL_ID,
    UserVerification, WebauthnError, cbor, public_key,
};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;
const HAS_CREDENTIAL: u8 = 0x40;
const HAS_EXTENSIONS: u8 = 0x80;

/// Parsed authenticator data. It can't be trusted until a signature over its bytes is verified.
pub(super) struct AuthenticatorData<'a> {
    pub(super) rp_id_hash: [u8; 32],
    flags: u8,
    pub(super) sign_count: u32,
    pub(super) credential: Option<AttestedCredential<'a>>,
}

/// A new credential (section 6.5.1).
pub(super) struct AttestedCredential<'a> {
    pub(super) aaguid: [u8; 16],
    pub(super) id: &'a [u8],
    /// The COSE key, without the bytes that follow it.
    pub(super) public_key: &'a [u8],
}

impl<'a> AuthenticatorData<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, WebauthnError> {
        if bytes.len() > LONGEST_AUTHENTICATOR_DATA {
            return Err(WebauthnError::TooLarge);
        }
        let (rp_id_hash, rest) = take(bytes)?;
        let (&[flags], rest) = take(rest)?;
        let (count, mut rest) = take(rest)?;
        let mut credential = None;
        if flags & HAS_CREDENTIAL != 0 {
            let (found, after) = AttestedCredential::parse(rest)?;
            credential = Some(found);
            rest = after;
        }
        if flags & HAS_EXTENSIONS != 0 {
            rest = match cbor::first_map(rest) {
                Err(WebauthnError::BadCbor) => return Err(WebauthnError::BadExtensions),
                other => other?.1,
            };
        }
        if !rest.is_empty() {
            return Err(WebauthnError::TrailingBytes);
        }
        Ok(Self {
            rp_id_hash: *rp_id_hash,
            flags,
            sign_count: u32::from_be_bytes(*count),
            credential,
        })
    }

    /// Checks the RP ID and the flags: steps 14 to 18 of section 7.1 and 15 to 19 of 7.2.
    pub(super) fn check(
        &self,
        rp: &RelyingParty,
        user_verification: UserVerification,
    ) -> Result<(), WebauthnError> {
        let expected: [u8; 32] = Sha256::digest(rp.id.as_bytes()).into();
        if !bool::from(self.rp_id_hash.ct_eq(&expected)) {
            return Err(WebauthnError::WrongRelyingParty);
        }
        if self.flags & USER_PRESENT == 0 {
            return Err(WebauthnError::UserNotPresent);
        }
        if user_verification == UserVerification::Required && !self.user_verified() {
            return Err(WebauthnError::UserNotVerified);
        }
        if self.backed_up() && !self.backup_eligible() {
            return Err(WebauthnError::BackedUpButNotEligible);
        }
        Ok(())
    }

    pub(super) fn user_verified(&self) -> bool {
        self.flags & USER_VERIFIED != 0
    }

    pub(super) fn backup_eligible(&self) -> bool {
        self.flags & BACKUP_ELIGIBLE != 0
    }

    pub(super) fn backed_up(&self) -> bool {
        self.flags & BACKED_UP != 0
    }
}

impl<'a> AttestedCredential<'a> {
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WebauthnError> {
        let (aaguid, rest) = take(bytes)?;
        let (length, rest) = take(rest)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if !(SHORTEST_CREDENTIAL_ID..=LONGEST_CREDENTIAL_ID).contains(&length) {
            return Err(WebauthnError::BadCredentialId);
        }
        let (id, key_and_rest) =
            rest.split_at_checked(length).ok_or(WebauthnError::TruncatedAuthenticatorData)?;
        if key_and_rest.is_empty() {
            return Err(WebauthnError::TruncatedAuthenticatorData);
        }
        let length = match public_key::malformed_length(key_and_rest) {
            Some(length) => length,
            None => key_and_rest.len() - cbor::first_map(key_and_rest)?.1.len(),
        };
        let (public_key, rest) =
            key_and_rest.split_at_checked(length).ok_or(WebauthnError::BadCbor)?;
        Ok((Self { aaguid: *aaguid, id, public_key }, rest))
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), WebauthnError> {
    bytes.split_first_chunk().ok_or(WebauthnError::TruncatedAuthenticatorData)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_limited() {
        let refusal = |length: usize| {
            let bytes = &vec![0; length];
            AuthenticatorData::parse(bytes).err()
        };
        let of_content = refusal(LONGEST_AUTHENTICATOR_DATA);
        assert!(of_content.is_some() && of_content != Some(WebauthnError::TooLarge));
        assert_eq!(refusal(LONGEST_AUTHENTICATOR_DATA + 1), Some(WebauthnError::TooLarge));
        assert_eq!(refusal(LONGEST_AUTHENTICATOR_DATA + 100), Some(WebauthnError::TooLarge));
    }
}
