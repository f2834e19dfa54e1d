//! One's own factors, and the administrators' way to remove them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{recovery_codes, reset, totp};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Body, Id, NoContent, Routes, limit};
use crate::id::UserId;
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users;

/// Setting up factors, by account.
pub(super) const CHANGE: Rule = Rule {
    name: "mfa_change_account",
    burst: 30,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    says: "Too many attempts to set up a factor for this account; wait a while.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users/me")
        .post("/totp", SIGNED_IN.fresh().enrolling(), enrol)
        .says(
            "Makes a secret for an authenticator app (RFC 6238).\n\nIt counts once a code of it was confirmed; one \
             that counted before does so until then.",
        )
        .or(Kind::TooMany, "request.too_many")
        .post("/totp/confirm", SIGNED_IN.fresh().enrolling(), confirm)
        .says(
            "Confirms the secret with its first code. From now on a password alone isn't enough, and every session \
             that was begun without a second factor is over but this one.",
        )
        .or(Kind::TooMany, "request.too_many")
        .delete("/totp", SIGNED_IN.fresh(), remove)
        .says("Removes the authenticator app; ends all other sessions.")
        .or(Kind::NotFound, "request.not_found")
        .or(Kind::Conflict, "mfa.required")
        .post("/recovery-codes", SIGNED_IN.fresh(), renew_codes)
        .says("Makes ten new recovery codes; those before are good no more.")
        .or(Kind::Conflict, "mfa.no_factor")
        .and(
            Routes::at("/users/{id}")
                .post("/reset-mfa", needs(users::WRITE).fresh(), reset_mfa)
                .says("Removes every second factor of a user and ends all their sessions.")
                .or(Kind::Denied, "access.exceeds_own"),
        )
}

/// A secret for an authenticator app, shown once.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TotpEnrolment")]
struct EnrolmentAnswer {
    /// In base32, to be typed.
    secret: String,
    /// What the app reads: `otpauth://totp/…`.
    otpauth_uri: String,
    /// The same as a QR code: an SVG image.
    qr_svg: String,
}

/// Codes that are shown once; each works once.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RecoveryCodes")]
pub(super) struct CodesAnswer {
    /// Ten codes.
    pub(super) recovery_codes: Vec<String>,
}

impl CodesAnswer {
    fn new(codes: &[SecretString]) -> Json<CodesAnswer> {
        let recovery_codes = codes.iter().map(|code| code.expose().to_owned()).collect();
        Json(CodesAnswer { recovery_codes })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CodeBody {
    /// Six digits.
    #[schemars(with = "shape::Secret", example = &"123456")]
    code: SecretString,
}

async fn enrol(State(app): State<App>, caller: Caller) -> Result<Json<EnrolmentAnswer>> {
    count(&app, &caller)?;
    let made = totp::enrol(&app, &caller).await?;
    Ok(Json(EnrolmentAnswer {
        secret: made.secret.expose().to_owned(),
        otpauth_uri: made.uri.expose().to_owned(),
        qr_svg: made.qr_svg,
    }))
}

async fn confirm(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CodeBody>,
) -> Result<Json<CodesAnswer>> {
    count(&app, &caller)?;
    Ok(CodesAnswer::new(&totp::confirm(&app, &caller, body.code.expose()).await?))
}

async fn remove(State(app): State<App>, caller: Caller) -> Result<NoContent> {
    totp::remove(&app, &caller).await?;
    Ok(NoContent)
}

async fn renew_codes(State(app): State<App>, caller: Caller) -> Result<Json<CodesAnswer>> {
    Ok(CodesAnswer::new(&recovery_codes::renew(&app, &caller).await?))
}

async fn reset_mfa(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    users::within_reach(&app, &caller, id).await?;
    reset(app.change(&caller.actor).await?, id).await?;
    Ok(NoContent)
}

fn count(app: &App, caller: &Caller) -> Result<()> {
    limit(app, &CHANGE, app.limiter.account(&caller.signed_in()?.user.to_string())).map(drop)
}
