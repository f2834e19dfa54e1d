//! The routes for managing the caller's own factors, and for administrators to remove the factors of other users.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use palisade_crypto::secret::SecretString;
use palisade_crypto::webauthn::RegistrationResponse;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::passkeys::{self, Options, PasskeyView};
use super::{recovery_codes, reset, totp};
use crate::access::{ANYONE, Caller, SIGNED_IN, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result};
use crate::http::{Asset, Body, Created, Html, Id, List, NoContent, Routes, limit};
use crate::id::{PasskeyId, UserId};
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::settings::PasskeyOrigin;
use crate::shape;
use crate::users::{self, check_name};

/// Limits attempts to set up factors, by account.
pub(super) const CHANGE: Rule = Rule {
    name: "mfa_change_account",
    burst: 30,
    per: Duration::from_secs(15 * 60),
    key: Key::Account,
    summary: "Too many attempts to set up a factor for this account. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users/me")
        .post("/totp", SIGNED_IN.fresh().enrolling(), enrol)
        .summary(
            "Creates a secret for an authenticator app (RFC 6238).\n\nThe secret takes effect once \
             it is confirmed with a code. Until then, an earlier secret stays in effect.",
        )
        .or(Kind::TooMany, "request.too_many")
        .post("/totp/confirm", SIGNED_IN.fresh().enrolling(), confirm)
        .summary(
            "Confirms the secret with its first code.\n\nFrom then on, a password alone is not \
             enough to sign in. Every session that began without a second factor ends, except the \
             current one. The response contains ten new recovery codes, and any earlier codes stop \
             working.",
        )
        .or(Kind::TooMany, "request.too_many")
        .delete("/totp", SIGNED_IN.fresh(), remove)
        .summary("Removes the authenticator app and ends all other sessions.")
        .or(Kind::NotFound, "request.not_found")
        .or(Kind::Conflict, "mfa.required")
        .post("/recovery-codes", SIGNED_IN.fresh(), renew_codes)
        .destructive()
        .summary("Creates ten new recovery codes.\n\nAny earlier codes stop working.")
        .or(Kind::Conflict, "mfa.no_factor")
        .and(passkey_routes())
        .and(
            Routes::at("/users/{id}")
                .post("/reset-mfa", needs(users::WRITE).fresh(), reset_mfa)
                .destructive()
                .summary("Removes every second factor of a user and ends all their sessions.")
                .or(Kind::Denied, "mfa.own_factors")
                .or(Kind::Denied, "access.exceeds_own"),
        )
}

fn passkey_routes() -> Routes {
    Routes::at("/users/me/passkeys")
        .get("/", SIGNED_IN, list)
        .summary("Lists your passkeys.")
        .post("/begin", SIGNED_IN.fresh().enrolling(), begin)
        .summary(
            "Begins the registration of a passkey.\n\nReturns the options for \
             `navigator.credentials.create` (WebAuthn level 3, \
             PublicKeyCredentialCreationOptionsJSON).",
        )
        .or(Kind::Conflict, "mfa.no_domain")
        .or(Kind::Conflict, "mfa.too_many_passkeys")
        .or(Kind::TooMany, "request.too_many")
        .post("/finish", SIGNED_IN.fresh().enrolling(), finish)
        .summary(
            "Registers the new passkey.\n\nFrom then on, a password alone is not enough to sign \
             in. Every session that began without a second factor ends, except the current one.",
        )
        .or(Kind::Conflict, "mfa.no_domain")
        .or(Kind::Conflict, "mfa.passkey_taken")
        .or(Kind::TooMany, "request.too_many")
        .patch("/{id}", SIGNED_IN.fresh(), rename)
        .summary("Renames a passkey.")
        .delete("/{id}", SIGNED_IN.fresh(), remove_passkey)
        .summary("Removes a passkey and ends all other sessions.")
        .or(Kind::Conflict, "mfa.required")
        .and(
            Routes::root()
                .get("/.well-known/passkey-endpoints", ANYONE, endpoints)
                .summary(
                    "Returns the URLs of the pages where users set up and manage passkeys (W3C, \"A \
                     Well-Known URL for Relying Party Passkey Endpoints\").",
                )
                .get("/.well-known/webauthn", ANYONE, related)
                .summary(
                    "Lists the origins whose pages may use the same passkeys (WebAuthn level 3, \
                     section 5.11).",
                )
                .or(Kind::NotFound, "request.not_found")
                .get(PATH, ANYONE, page)
                .get("/assets/factors.js", ANYONE, || async { FACTORS_SCRIPT })
                .get("/assets/security.js", ANYONE, || async { SCRIPT }),
        )
}

/// The path of the page where users view and change their factors.
const PATH: &str = "/account/security";

const SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../../pages/security.js"),
};
/// The script for second factors, used by every page that signs a user in.
const FACTORS_SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../../pages/factors.js"),
};

/// The page for managing factors. It signs users in itself, and stores nothing.
const PAGE: Page = Page {
    title: "Account security",
    scripts: &["factors.js", "security.js"],
    body: include_str!("../../pages/security.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Html {
    PAGE.show(&app)
}

/// A secret for an authenticator app, shown only once.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TotpEnrolment")]
struct EnrolmentAnswer {
    /// The secret in base32, for manual entry.
    secret: String,
    /// The URI for the app: `otpauth://totp/…`.
    otpauth_uri: String,
    /// The URI as a QR code, in SVG format.
    qr_svg: String,
}

/// Recovery codes, shown only once. Each works once.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RecoveryCodes")]
pub(super) struct CodesAnswer {
    /// Ten codes.
    pub(super) recovery_codes: Vec<String>,
}

impl CodesAnswer {
    fn new(codes: &[SecretString]) -> Json<Self> {
        let recovery_codes = codes.iter().map(|code| code.expose().to_owned()).collect();
        Json(Self { recovery_codes })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CodeBody {
    /// Six digits.
    #[schemars(with = "shape::Code", example = &"123456")]
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
    if caller.signed_in()?.user == id {
        let detail = "Remove your own factors individually, with DELETE /api/v1/users/me/totp and \
                      DELETE /api/v1/users/me/passkeys/{id}.";
        return Err(Error::new(Kind::Denied, "mfa.own_factors", detail));
    }
    let (change, _) = users::change_manageable(&app, &caller, id, &[Hold::Alone(id)]).await?;
    reset(change, id).await?;
    Ok(NoContent)
}

/// The URLs of the pages where users set up and manage passkeys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PasskeyEndpoints")]
struct EndpointsAnswer {
    /// The URL of the page for adding a passkey.
    enroll: String,
    /// The URL of the page for viewing and removing passkeys.
    manage: String,
}

async fn endpoints(State(app): State<App>) -> Json<EndpointsAnswer> {
    let page = format!("{}{PATH}", app.settings.server.public_url);
    Json(EndpointsAnswer { enroll: page.clone(), manage: page })
}

/// Origins whose pages may use the same passkeys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RelatedOrigins")]
struct RelatedAnswer {
    origins: Vec<String>,
}

async fn related(State(app): State<App>) -> Result<Json<RelatedAnswer>> {
    // Apps are not listed here: Android compares them with the Digital Asset Links of the domain.
    let web = app.settings.mfa.related_origins.iter().filter_map(PasskeyOrigin::as_web);
    let origins: Vec<String> = web.map(ToString::to_string).collect();
    if origins.is_empty() {
        return Err(Error::not_found());
    }
    Ok(Json(RelatedAnswer { origins }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasskeyBody {
    /// The result of `navigator.credentials.create`, as `toJSON()` returns it.
    #[schemars(with = "shape::NewCredential")]
    credential: Box<RegistrationResponse>,
    /// The name of the passkey.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NameBody {
    #[schemars(with = "shape::Label")]
    name: String,
}

/// A new passkey.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewPasskey")]
struct MadeAnswer {
    #[serde(flatten)]
    passkey: PasskeyView,
    /// Ten new recovery codes, shown only once. Empty if the account still has unused codes.
    recovery_codes: Vec<String>,
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Json<List<PasskeyView>>> {
    let items = passkeys::list(&app, caller.signed_in()?.user).await?;
    Ok(Json(List { items, next_cursor: None }))
}

async fn begin(State(app): State<App>, caller: Caller) -> Result<Json<Options>> {
    count(&app, &caller)?;
    passkeys::begin(&app, &caller).await.map(Json)
}

async fn finish(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<PasskeyBody>,
) -> Result<Created<MadeAnswer>> {
    count(&app, &caller)?;
    let name = check_name(body.name.as_deref().unwrap_or("Passkey"));
    let name = name.map_err(|broken| broken.at("/name"))?;
    let made = passkeys::finish(&app, &caller, &body.credential, name).await?;
    let recovery_codes = made.codes.iter().map(|code| code.expose().to_owned()).collect();
    Ok(Created(MadeAnswer { passkey: made.passkey, recovery_codes }))
}

async fn rename(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PasskeyId>,
    Body(body): Body<NameBody>,
) -> Result<Json<PasskeyView>> {
    let name = check_name(&body.name).map_err(|broken| broken.at("/name"))?;
    passkeys::rename(&app, &caller, id, name).await.map(Json)
}

async fn remove_passkey(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PasskeyId>,
) -> Result<NoContent> {
    passkeys::remove(&app, &caller, id).await?;
    Ok(NoContent)
}

fn count(app: &App, caller: &Caller) -> Result<()> {
    limit(app, &CHANGE, app.limiter.account(&caller.signed_in()?.user.to_string())).map(drop)
}
