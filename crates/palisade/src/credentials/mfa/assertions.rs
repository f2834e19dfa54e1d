//! Assertions: the responses of passkeys at sign-ins and within sessions (W3C Web Authentication, level 3, section 7.2).

use palisade_crypto::secret;
use palisade_crypto::webauthn::{
    self, Authenticated, AuthenticationExpectation, AuthenticationResponse, BackupEligibility,
    StoredCredential, UserVerification, WebauthnError,
};
use palisade_db::args;
use uuid::Uuid;

use super::passkeys::{bad_member, open, relying_party};
use super::{ALTERED, BACKUP_ELIGIBLE, COPIED, Judged, amr, notify_owner};
use crate::access::AuthLevel;
use crate::app::{App, Change};
use crate::challenges;
use crate::error::{Error, Result};
use crate::id::{PasskeyId, UserId};
use crate::sessions::Proof;
use crate::settings::Attestation;

/// Refuses input that can't be the response of any passkey.
///
/// # Errors
/// Fails with `mfa.bad_passkey` at the invalid member.
pub fn check_answer(answer: &AuthenticationResponse) -> Result<()> {
    match answer.malformed() {
        Some((member, why)) => Err(bad_member(member, why)),
        None => Ok(()),
    }
}

/// Returns the digest of the challenge that a passkey's response is for, or `None` if Palisade didn't create the
/// challenge.
pub fn asked_by(answer: &AuthenticationResponse) -> Option<[u8; 32]> {
    challenges::passkey_digest(&answer.challenge().ok()?)
}

/// Returns the owner that a passkey's response identifies, in a sign-in without an email address.
pub fn owner_of(answer: &AuthenticationResponse) -> Option<UserId> {
    let handle = answer.user_handle().ok()??;
    Some(UserId(Uuid::from_bytes(handle.try_into().ok()?)))
}

type StoredRow = (PasskeyId, Vec<u8>, i64, bool, bool);

/// Checks a passkey's response, in the change that depends on it. `asked` is the digest of the challenge that was
/// created.
pub(super) async fn judge(
    change: &mut Change,
    user: UserId,
    answer: &AuthenticationResponse,
    asked: Option<[u8; 32]>,
    verification: UserVerification,
) -> Result<Judged> {
    let app = change.app().clone();
    let (Ok(party), Ok(id), Ok(bytes)) =
        (relying_party(&app), answer.credential_id(), answer.challenge())
    else {
        return Ok(Judged::Wrong);
    };
    // SECURITY: the answer belongs to the challenge that was counted (test: a_passkey_answers_its_own_challenge).
    let same = is_for(&bytes, asked);
    if !same {
        return Ok(Judged::Wrong);
    }
    let row: Option<StoredRow> = change
        .maybe(
            "select id, sealed, sign_count, backup_eligible, passwordless from passkeys
             where credential_id = $1 and user_id = $2",
            args![id.clone(), user],
        )
        .await?;
    let Some((row, sealed, sign_count, backup_eligible, passwordless)) = row else {
        return unknown_or_wrong(change, &id).await;
    };
    let is_passwordless = verification == UserVerification::Required;
    // SECURITY: a passkey that existed before the account was recovered may be an attacker's. It must first be used
    // together with the new password (test: a_planted_passkey_does_not_outlive_the_password_alone).
    if is_passwordless && !passwordless {
        return Ok(Judged::Wrong);
    }
    let Some(public_key) = open(&app, user, &id, &sealed) else {
        tracing::error!(passkey = %row, "a stored passkey differs from the one that its user \
                                         registered");
        change.note(ALTERED.about(user).detail("passkey", row.to_string()));
        return Ok(Judged::Wrong);
    };
    let stored = StoredCredential {
        id: &id,
        public_key: &public_key,
        sign_count: u32::try_from(sign_count).map_err(Error::internal)?,
        backup_eligible,
        user_handle: user.0.as_bytes(),
    };
    let expected = AuthenticationExpectation {
        challenge: &bytes,
        user_verification: verification,
        backup_eligibility: accepted_changes(&app),
    };
    let good = match webauthn::verify_authentication(&party, &expected, &stored, answer) {
        Ok(good) => good,
        Err(why) => {
            note_refusal(change, user, row, &why);
            return Ok(Judged::Wrong);
        }
    };
    let had = Had { row, sign_count, backup_eligible };
    let proof = Proof { amr: amr(good.backup_eligible), level: AuthLevel::Passkey };
    Ok(if keep(change, user, had, &good).await? { Judged::Right(proof) } else { Judged::Used })
}

/// Judges the response of a passkey that is not one of the user's, or that identifies no user who can sign in.
///
/// SECURITY: browsers delete a passkey that is reported as unknown. It is unknown only if no user has it, never because
/// the response names another user, or one who is disabled (test: only_a_passkey_that_no_user_has_is_unknown).
async fn unknown_or_wrong(change: &mut Change, id: &[u8]) -> Result<Judged> {
    let row: Option<(PasskeyId,)> = change
        .maybe("select id from passkeys where credential_id = $1", args![id.to_vec()])
        .await?;
    Ok(if row.is_some() { Judged::Wrong } else { Judged::Unknown })
}

/// Judges the response of a passkey that identifies no user who can sign in. It is refused in any case.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn judge_without_user(
    change: &mut Change,
    answer: &AuthenticationResponse,
) -> Result<Judged> {
    match answer.credential_id() {
        Ok(id) => unknown_or_wrong(change, &id).await,
        Err(_) => Ok(Judged::Wrong),
    }
}

/// Returns the accepted changes of a passkey's backup eligibility. The deviation is described in `docs/deviations.md`.
fn accepted_changes(app: &App) -> BackupEligibility {
    match app.settings.mfa.attestation {
        Attestation::None => BackupEligibility::MayBeGained,
        // SECURITY: an operator who requires devices of certain makers doesn't accept what leaves them (test:
        // where_attestation_is_required_no_passkey_gains_backup_eligibility).
        Attestation::Direct => BackupEligibility::Fixed,
    }
}

/// The stored state of a passkey that a response was compared with.
struct Had {
    row: PasskeyId,
    sign_count: i64,
    backup_eligible: bool,
}

/// Stores the state of a passkey whose response is correct. Returns `false` if another response of the passkey was
/// accepted in the meantime. If the passkey has become eligible for backup, this is recorded, and its owner is notified.
async fn keep(change: &mut Change, user: UserId, had: Had, good: &Authenticated) -> Result<bool> {
    let now = change.now();
    // SECURITY: the stored counter must still be the one that was compared, so that of several simultaneous responses
    // with the same counter above 0, only one is accepted (test: the_counter_of_a_passkey_is_kept_from_use_to_use). The
    // counter of a passkey that is eligible for backup isn't compared. Eligibility must still be what it was too, so
    // that only one response gains it (test: of_simultaneous_responses_one_gains_backup_eligibility).
    let used = change
        .run(
            "update passkeys set sign_count = $2, backed_up = $3, last_used_at = $4, passwordless = $5,
                backup_eligible = $6
             where id = $1 and backup_eligible = $7 and (backup_eligible or sign_count = $8)",
            args![
                had.row,
                i64::from(good.sign_count),
                good.backed_up,
                now,
                true,
                good.backup_eligible,
                had.backup_eligible,
                had.sign_count
            ],
        )
        .await?;
    if used == 1 && good.backup_eligible && !had.backup_eligible {
        change.note(BACKUP_ELIGIBLE.about(user).detail("passkey", had.row.to_string()));
        notify_owner(change, user, "a passkey can now be copied to other devices").await?;
    }
    Ok(used == 1)
}

/// Returns whether a response is for the issued challenge.
fn is_for(answered: &[u8], asked: Option<[u8; 32]>) -> bool {
    let both = challenges::passkey_digest(answered).zip(asked);
    both.is_some_and(|(answered, asked)| secret::constant_time_eq(&answered, &asked))
}

fn note_refusal(change: &mut Change, user: UserId, row: PasskeyId, why: &WebauthnError) {
    if matches!(why, WebauthnError::CounterWentBack | WebauthnError::BackupEligibilityLost) {
        change.note(COPIED.about(user).detail("passkey", row.to_string()));
    }
    tracing::debug!(%why, "a passkey was refused");
}
