//! One-time codes of an authenticator app (RFC 6238).

use std::time::Duration;

use palisade_crypto::seal::SealingKey;
use palisade_crypto::secret::SecretString;
use palisade_crypto::totp::{DIGITS, TotpSecret};
use palisade_db::{Timestamp, args};

use super::typed::typed;
use super::{ADDED, Judged, REMOVED, added, bad_code, recovery_codes, removed, site};
use crate::access::{AuthLevel, Caller};
use crate::app::{App, Change, Hold};
use crate::error::{Error, Result, bad_token};
use crate::id::UserId;
use crate::sessions::Proof;
use crate::users;

/// How long a user may take to confirm a new secret with the first code.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// A secret that is shown once.
pub(super) struct Enrolment {
    /// The secret, for manual entry.
    pub(super) secret: SecretString,
    /// The URI, to be opened as a link.
    pub(super) uri: SecretString,
    /// The URI as a QR code, in SVG format.
    pub(super) qr_svg: String,
}

/// Creates a secret, which takes effect when it is confirmed with a code. A repeated request of the same session returns
/// the same secret, because a client that sends two requests may show the response to either. It doesn't extend the time
/// to confirm the secret.
pub(super) async fn enrol(app: &App, caller: &Caller) -> Result<Enrolment> {
    let me = caller.signed_in()?;
    let user = users::current(app, me.user).await?.ok_or_else(bad_token)?;
    let secret = TotpSecret::generate(&*app.random);
    let sealed = key(app).seal(&*app.random, me.user.0.as_bytes(), secret.as_bytes());
    let mut change = app.change(&caller.actor).await?;
    let now = change.now();
    // SECURITY: another session gets another secret, and so does this session after a new proof of identity. The one who
    // requested the earlier secret may not be the owner, and must not know the one that the owner confirms (test:
    // a_secret_is_repeated_to_the_session_that_requested_it_alone).
    let sql = "insert into totp_enrolments (user_id, session_id, sealed, requested_at) values ($1, $2, $3, $4)
         on conflict (user_id) do update
         set session_id = excluded.session_id, requested_at = excluded.requested_at, sealed = excluded.sealed
         where not (totp_enrolments.session_id = excluded.session_id
            and totp_enrolments.requested_at > $5 and totp_enrolments.requested_at >= $6)";
    let since = now.minus(CONFIRMED_WITHIN);
    let row = args![me.user, me.session()?, sealed, now, since, me.authenticated_at];
    change.run(sql, row).await?;
    // Of two requests at the same moment, the second one finds the secret of the first.
    let (sealed,): (Vec<u8>,) =
        change.one("select sealed from totp_enrolments where user_id = $1", args![me.user]).await?;
    change.commit_quietly("a secret is not confirmed yet; its confirmation is an event").await?;
    let secret = open(app, me.user, &sealed)?;
    let uri = secret.otpauth_uri(site(app), &user.email);
    let uri = uri.ok_or_else(|| Error::internal("the email address can't be part of a URI"))?;
    Ok(Enrolment { secret: secret.base32(), qr_svg: qr_svg(uri.expose())?, uri })
}

fn qr_svg(text: &str) -> Result<String> {
    use qrcode::render::svg::Color;
    let code = qrcode::QrCode::new(text).map_err(Error::internal)?;
    Ok(code
        .render::<Color<'_>>()
        .min_dimensions(240, 240)
        .dark_color(Color("#000"))
        .light_color(Color("#fff"))
        .build())
}

/// Confirms the secret with its first code. The secret replaces any earlier one. Returns new recovery codes.
pub(super) async fn confirm(app: &App, caller: &Caller, code: &str) -> Result<Vec<SecretString>> {
    let me = caller.signed_in()?;
    if !is_code(code) {
        return Err(bad_code());
    }
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    let now = change.now();
    // SECURITY: a sign-in that has read the factors and not yet written its session goes first, and its session is
    // ended below (test: a_sign_in_beside_the_first_factor_does_not_slip_through).
    users::may_sign_in(&mut change, me.user).await?.ok_or_else(bad_token)?;
    let row: Option<(Vec<u8>,)> = change
        .maybe(
            "select sealed from totp_enrolments where user_id = $1 and requested_at > $2",
            args![me.user, now.minus(CONFIRMED_WITHIN)],
        )
        .await?;
    let Some((sealed,)) = row else {
        let detail = "Request a secret first, with POST /api/v1/users/me/totp. It \
                    must be confirmed within 15 minutes.";
        return Err(Error::bad_field("/code", "mfa.no_enrolment", detail));
    };
    let grace = app.settings.mfa.totp_grace;
    let secret = open(app, me.user, &sealed)?;
    let step = digits(code).and_then(|code| secret.step_of(code.expose(), now.as_seconds(), grace));
    let Some(step) = step else {
        let detail = "This code is wrong or has expired. Check the code in the app and the clock \
                    of its device.";
        return Err(Error::bad_field("/code", "mfa.wrong_code", detail));
    };
    change
        .run(
            "insert into totp_secrets (user_id, sealed, used_step, created_at) values ($1, $2, $3, $4)
             on conflict (user_id) do update set sealed = excluded.sealed, used_step = excluded.used_step,
                created_at = excluded.created_at, last_used_at = null",
            args![me.user, sealed, step, now],
        )
        .await?;
    change.run("delete from totp_enrolments where user_id = $1", args![me.user]).await?;
    let proof = Proof { amr: "otp mfa", level: AuthLevel::Code };
    added(&mut change, caller, proof, "an authenticator app").await?;
    let codes = recovery_codes::make(&mut change, me.user).await?;
    change.commit(ADDED.about(me.user).detail("factor", "totp")).await?;
    Ok(codes)
}

/// Removes the secret.
pub(super) async fn remove(app: &App, caller: &Caller) -> Result<()> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    users::lock_row(&mut change, me.user).await?;
    let gone = change.run("delete from totp_secrets where user_id = $1", args![me.user]).await?;
    if gone == 0 {
        return Err(Error::not_found());
    }
    removed(&mut change, caller, "the authenticator app").await?;
    change.commit(REMOVED.about(me.user).detail("factor", "totp")).await
}

/// Returns whether a text has the form of a code.
pub(super) fn is_code(text: &str) -> bool {
    digits(text).is_some()
}

/// Returns the six digits of a code in any form in which people type and copy it: with spaces or dashes, and with the
/// digits of another keyboard.
fn digits(text: &str) -> Option<SecretString> {
    let digits: String = typed(text).take(usize::from(DIGITS) + 1).collect();
    let whole = digits.len() == usize::from(DIGITS) && digits.bytes().all(|b| b.is_ascii_digit());
    let digits = SecretString::from(digits);
    whole.then_some(digits)
}

/// Checks a code, which is correct if its step is later than the last used one. The step of a correct code is then
/// marked as used.
pub(super) async fn use_code(
    change: &mut Change,
    user: UserId,
    code: &str,
    proof: Proof,
) -> Result<Judged> {
    let row: Option<(Vec<u8>,)> =
        change.maybe("select sealed from totp_secrets where user_id = $1", args![user]).await?;
    let Some((sealed,)) = row else { return Ok(Judged::Wrong) };
    let (app, now) = (change.app().clone(), change.now());
    let secret = open(&app, user, &sealed)?;
    let grace = app.settings.mfa.totp_grace;
    let step = digits(code).and_then(|code| secret.step_of(code.expose(), now.as_seconds(), grace));
    let Some(step) = step else { return Ok(Judged::Wrong) };
    // SECURITY: a step is used at most once, and never after a later step (test: a_one_time_code_works_once).
    let used = change
        .run(
            "update totp_secrets set used_step = $2, last_used_at = $3
             where user_id = $1 and used_step < $2 and sealed = $4",
            args![user, step, now, sealed.clone()],
        )
        .await?;
    if used == 1 {
        return Ok(Judged::Right(proof));
    }
    // SECURITY: only the code of the step that was accepted last is reported as used (test:
    // duplicates_of_a_right_code_are_no_guesses).
    let same: Option<(i64,)> = change
        .maybe(
            "select used_step from totp_secrets where user_id = $1 and used_step = $2 and sealed = $3",
            args![user, step, sealed],
        )
        .await?;
    Ok(if same.is_some() { Judged::Used } else { Judged::Wrong })
}

/// Deletes a user's secret, and any secret that is not confirmed yet.
pub(super) async fn forget(change: &mut Change, user: UserId) -> Result<()> {
    change.run("delete from totp_secrets where user_id = $1", args![user]).await?;
    change.run("delete from totp_enrolments where user_id = $1", args![user]).await?;
    Ok(())
}

/// Deletes a secret set up at `since` or later, and any secret that is not confirmed yet.
pub(super) async fn forget_since(
    change: &mut Change,
    user: UserId,
    since: Timestamp,
) -> Result<u64> {
    change.run("delete from totp_enrolments where user_id = $1", args![user]).await?;
    change
        .run("delete from totp_secrets where user_id = $1 and created_at >= $2", args![user, since])
        .await
}

/// Deletes secrets that were not confirmed in time.
pub(super) async fn prune(app: &App) -> Result<()> {
    let before = app.clock.now().minus(CONFIRMED_WITHIN);
    let upkeep = app.upkeep("authenticator apps that were not confirmed in time are deleted");
    // The condition is repeated, because a user may request a new secret after the subquery has read the row. The row
    // then contains the new secret.
    let sql = "delete from totp_enrolments where requested_at < $1 and user_id in
         (select user_id from totp_enrolments where requested_at < $1 limit $2)";
    upkeep.in_batches(sql, args![before]).await?;
    Ok(())
}

fn key(app: &App) -> SealingKey {
    app.root.derive("totp secrets")
}

/// SECURITY: the secret is sealed for its user, so a row moved to another user can't be opened (test:
/// a_secret_opens_for_its_user_alone).
fn open(app: &App, user: UserId, sealed: &[u8]) -> Result<TotpSecret> {
    let opened = key(app).open(user.0.as_bytes(), sealed).map_err(Error::internal)?;
    TotpSecret::from_bytes(opened.expose())
        .ok_or_else(|| Error::internal("a stored TOTP secret has the wrong length"))
}
