//! Recovery codes: ten codes that are shown once and work once each, for users who have lost every factor.

use palisade_crypto::mac;
use palisade_crypto::secret::SecretString;
use palisade_db::{Timestamp, args};

use super::typed::typed;
use super::{CODE_USED, CODE_USED_EMAIL, CODES_MADE, Judged, factors, notify_owner, recount};
use crate::access::Caller;
use crate::app::{App, Change, Hold};
use crate::error::{Error, Kind, Result};
use crate::id::UserId;
use crate::mail::{self, Content};
use crate::sessions::Proof;
use crate::users;

const COUNT: usize = 10;
/// 24 characters of 5 bits each: 120 bits. Secrets of at least 112 bits need no slow hash (NIST SP 800-63B-4, section
/// 3.1.2.2).
const LENGTH: usize = 24;
/// Digits and letters that aren't easily confused (Crockford's base32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Creates ten new codes. Earlier codes are no longer valid.
pub(super) async fn make(change: &mut Change, user: UserId) -> Result<Vec<SecretString>> {
    let (app, now) = (change.app().clone(), change.now());
    forget(change, user).await?;
    let codes: Vec<SecretString> = (0..COUNT).map(|_| generate(&app)).collect();
    for code in &codes {
        change
            .run(
                "insert into recovery_codes (digest, user_id, created_at) values ($1, $2, $3)",
                args![digest(&app, user, code.expose()), user, now],
            )
            .await?;
    }
    recount(change, user).await?;
    Ok(codes)
}

/// Creates ten new codes for a user who has a factor.
pub(super) async fn renew(app: &App, caller: &Caller) -> Result<Vec<SecretString>> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    users::lock_row(&mut change, me.user).await?;
    if !factors(&mut change, me.user).await?.any() {
        let detail = "This account has no second factor. Set one up first.";
        return Err(Error::new(Kind::Conflict, "mfa.no_factor", detail));
    }
    let codes = make(&mut change, me.user).await?;
    notify_owner(&mut change, me.user, "the recovery codes were replaced").await?;
    change.commit(CODES_MADE.about(me.user)).await?;
    Ok(codes)
}

/// Checks a code, which is correct if it belongs to the user and has not been used. A correct code is then marked as
/// used, and the user is notified.
pub(super) async fn use_code(
    change: &mut Change,
    user: UserId,
    code: &str,
    proof: Proof,
) -> Result<Judged> {
    let now = change.now();
    let digest = digest(change.app(), user, code);
    // SECURITY: a code works once, even if two requests arrive at the same moment (test: a_recovery_code_works_once).
    let used = change
        .run(
            "update recovery_codes set used_at = $3
             where digest = $1 and user_id = $2 and used_at is null",
            args![digest, user, now],
        )
        .await?;
    if used == 0 {
        let known: Option<(UserId,)> = change
            .maybe(
                "select user_id from recovery_codes where digest = $1 and user_id = $2",
                args![digest, user],
            )
            .await?;
        return Ok(if known.is_some() { Judged::Used } else { Judged::Wrong });
    }
    let left = recount(change, user).await?.recovery_codes_left.to_string();
    mail::enqueue(change, &CODE_USED_EMAIL, Content::to_user(user).with("left", &left)).await?;
    change.note(CODE_USED.about(user).detail("left", left));
    Ok(Judged::Right(proof))
}

/// Deletes all of a user's codes.
pub(super) async fn forget(change: &mut Change, user: UserId) -> Result<()> {
    change.run("delete from recovery_codes where user_id = $1", args![user]).await?;
    Ok(())
}

/// Deletes a user's codes created at `since` or later.
pub(super) async fn forget_since(
    change: &mut Change,
    user: UserId,
    since: Timestamp,
) -> Result<u64> {
    change
        .run(
            "delete from recovery_codes where user_id = $1 and created_at >= $2",
            args![user, since],
        )
        .await
}

fn generate(app: &App) -> SecretString {
    let mut bytes = [0; LENGTH];
    app.random.fill(&mut bytes);
    let mut text = String::with_capacity(LENGTH + LENGTH / 4);
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push('-');
        }
        let letter = ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'0');
        text.push(char::from(letter));
    }
    text.into()
}

/// Returns whether a text has the form of a code.
pub(super) fn is_code(text: &str) -> bool {
    let plain = plain(text);
    plain.len() == LENGTH && plain.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Returns a code in the form in which it is compared: in lower case, without spaces and dashes of any kind, and with
/// digits in place of letters that look like them. Users may type any of these.
fn plain(code: &str) -> String {
    typed(code)
        .take(LENGTH + 1)
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        })
        .collect()
}

/// Returns the stored digest of a code.
fn digest(app: &App, user: UserId, code: &str) -> [u8; 32] {
    let plain = plain(code);
    let named = [user.0.as_bytes().as_slice(), plain.as_bytes()].concat();
    mac::keyed_digest(&app.root.derive_bytes("recovery codes"), &named)
}
