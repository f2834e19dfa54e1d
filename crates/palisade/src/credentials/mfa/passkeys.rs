//! Passkeys (W3C Web Authentication, level 3): as a second factor, or as the only factor if the passkey verified its
//! user. `assertions.rs` verifies their responses at sign-ins.

use palisade_crypto::seal::SealingKey;
use palisade_crypto::webauthn::{
    self, Algorithm, AttestationConveyance, AttestationPolicy, CreationOptions,
    CredentialDescriptor, NewCredential, PublicKey, RegistrationExpectation, RegistrationResponse,
    RelyingParty, RequestOptions, ResidentKey, UserEntity, UserVerification, WebauthnError,
};
use palisade_db::{Timestamp, args, row_struct};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::makers::Makers;
use super::{ADDED, REMOVED, added, amr, factors, recovery_codes, removed, site};
use crate::access::{AuthLevel, Caller};
use crate::app::{App, Change, Hold};
use crate::challenges::{self, Client, LIVES, NewChallenge, Purpose};
use crate::error::{Error, Kind, Result, bad_token};
use crate::id::{PasskeyId, UserId};
use crate::sessions::Proof;
use crate::settings::Attestation;
use crate::{shape, users};
use palisade_crypto::secret::SecretString;

/// The maximum number of passkeys per user: more than anyone carries.
const MOST: i64 = 25;

/// Returns the relying party: a domain, and the origins whose pages may use its passkeys.
pub(super) fn relying_party(app: &App) -> Result<RelyingParty> {
    let server = &app.settings.server.public_url;
    let id = app.settings.mfa.rp_id.clone().unwrap_or_else(|| server.host().to_owned());
    if id.starts_with('[') || id.parse::<std::net::Ipv4Addr>().is_ok() {
        let detail =
            "Passkeys require a domain name, but the public URL of this server has an IP address.";
        return Err(Error::new(Kind::Conflict, "mfa.no_domain", detail));
    }
    let related = app.settings.mfa.related_origins.iter().map(|origin| origin.as_str().to_owned());
    Ok(RelyingParty { id, origins: std::iter::once(server.to_string()).chain(related).collect() })
}

/// Options for `navigator.credentials` in a browser, in the JSON form that the WebAuthn
/// specification defines.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "WebauthnOptions")]
pub struct Options(#[schemars(with = "shape::WebauthnOptions")] serde_json::Value);

impl From<Options> for serde_json::Value {
    fn from(options: Options) -> Self {
        options.0
    }
}

fn written(options: &impl Serialize) -> Result<Options> {
    serde_json::to_value(options).map(Options).map_err(Error::internal)
}

fn lives_in_milliseconds() -> u32 {
    u32::try_from(LIVES.as_millis()).unwrap_or(300_000)
}

row_struct! {
    /// A passkey, as shown to its owner.
    #[derive(Clone, Debug, Serialize, JsonSchema)]
    #[schemars(rename = "Passkey")]
    pub struct PasskeyView {
        id: PasskeyId,
        /// The name of the passkey.
        name: String,
        /// Whether the passkey can be copied to other devices of its owner.
        backup_eligible: bool,
        /// Whether the passkey had been copied when it was last used.
        backed_up: bool,
        /// The model of the authenticator (AAGUID); all zeros if it is not known.
        #[schemars(with = "shape::Uuid")]
        aaguid: Uuid,
        #[schemars(with = "shape::DateTime")]
        created_at: Timestamp,
        #[schemars(with = "Option<shape::DateTime>")]
        last_used_at: Option<Timestamp>,
    }
}

/// Returns a user's passkeys, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(app: &App, user: UserId) -> Result<Vec<PasskeyView>> {
    let sql = "select id, name, backup_eligible, backed_up, aaguid, created_at, last_used_at from passkeys
         where user_id = $1 order by created_at, id";
    Ok(app.db.all(sql, args![user]).await?)
}

async fn descriptors(change: &mut Change, user: UserId) -> Result<Vec<CredentialDescriptor>> {
    let rows: Vec<(Vec<u8>, String)> = change
        .all(
            "select credential_id, transports from passkeys where user_id = $1 order by created_at, id",
            args![user],
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|(id, transports)| {
            let transports: Vec<String> =
                transports.split_whitespace().map(str::to_owned).collect();
            CredentialDescriptor::new(&id, &transports)
        })
        .collect())
}

fn room(count: i64) -> Result<()> {
    if count < MOST {
        return Ok(());
    }
    let detail = "This account already has 25 passkeys. Remove one first.";
    Err(Error::new(Kind::Conflict, "mfa.too_many_passkeys", detail))
}

/// Begins the registration of a new passkey for the signed-in user.
pub(super) async fn begin(app: &App, caller: &Caller) -> Result<Options> {
    let me = caller.signed_in()?;
    let party = relying_party(app)?;
    let user = users::current(app, me.user).await?.ok_or_else(bad_token)?;
    let (bytes, digest) = challenges::passkey_bytes(app);
    let mut change = app.change(&caller.actor).await?;
    let had = descriptors(&mut change, me.user).await?;
    room(i64::try_from(had.len()).unwrap_or(MOST))?;
    let digest = digest.ok_or_else(|| Error::internal("a new challenge has no digest"))?;
    let new = NewChallenge {
        digest,
        purpose: Purpose::Registration,
        user: Some(me.user),
        client: Client::within(app, me.session()?),
        passkey: Some(digest),
        details: String::new(),
    };
    challenges::open(&mut change, new).await?;
    change
        .commit_quietly("the registration of a passkey begins; its completion is an event")
        .await?;
    let name = user.name.as_deref().unwrap_or(&user.email);
    let entity = UserEntity { id: me.user.0.as_bytes(), name: &user.email, display_name: name };
    let conveyance = match app.settings.mfa.attestation {
        Attestation::None => AttestationConveyance::None,
        Attestation::Direct => AttestationConveyance::Direct,
    };
    let options = CreationOptions::new(&party, site(app), &entity, &bytes, &Algorithm::OFFERED)
        .timeout(lives_in_milliseconds())
        .exclude(had)
        .select(ResidentKey::Preferred, UserVerification::Preferred)
        .attestation(conveyance);
    written(&options)
}

/// A newly registered passkey, and recovery codes if there were none.
pub(super) struct Made {
    pub(super) passkey: PasskeyView,
    pub(super) codes: Vec<SecretString>,
}

/// Registers a new passkey.
pub(super) async fn finish(
    app: &App,
    caller: &Caller,
    answer: &RegistrationResponse,
    name: String,
) -> Result<Made> {
    let me = caller.signed_in()?;
    if let Some((member, why)) = answer.malformed() {
        return Err(bad_member(member, why));
    }
    let party = relying_party(app)?;
    let bytes = answer.challenge().map_err(|why| refused(&why))?;
    let digest = challenges::passkey_digest(&bytes)
        .ok_or_else(|| refused(&WebauthnError::WrongChallenge))?;
    let client = Client::within(app, me.session()?);
    let asked =
        challenges::attempt(app, &caller.actor, Purpose::Registration, digest, client).await?;
    let asked = asked.filter(|asked| asked.user == Some(me.user));
    let asked = asked.ok_or_else(|| refused(&WebauthnError::WrongChallenge))?;
    let roots = &app.state::<Makers>().0;
    let policy = match app.settings.mfa.attestation {
        Attestation::None => AttestationPolicy::None,
        Attestation::Direct => {
            AttestationPolicy::Trusted { roots, now: app.clock.now().as_seconds() }
        }
    };
    let expected = RegistrationExpectation {
        challenge: &bytes,
        user_verification: UserVerification::Preferred,
        algorithms: &Algorithm::OFFERED,
        attestation: &policy,
    };
    let made = webauthn::verify_registration(&party, &expected, answer);
    let made = made.map_err(|why| refused(&why))?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    // SECURITY: a concurrent sign-in goes first, as in `totp::confirm` (test:
    // a_sign_in_beside_the_first_factor_does_not_slip_through).
    users::may_sign_in(&mut change, me.user).await?.ok_or_else(bad_token)?;
    room(i64::try_from(descriptors(&mut change, me.user).await?.len()).unwrap_or(MOST))?;
    if !challenges::close(&mut change, &asked).await? {
        return Err(refused(&WebauthnError::WrongChallenge));
    }
    let passkey = insert(&mut change, me.user, &made, name).await?;
    let amr = amr(made.backup_eligible);
    added(&mut change, caller, Proof { amr, level: AuthLevel::Passkey }, "a passkey").await?;
    let left = factors(&mut change, me.user).await?.recovery_codes_left;
    let codes =
        if left == 0 { recovery_codes::make(&mut change, me.user).await? } else { Vec::new() };
    let entry = ADDED.about(me.user).detail("factor", "passkey");
    change.commit(entry.detail("passkey", passkey.id.to_string())).await?;
    Ok(Made { passkey, codes })
}

async fn insert(
    change: &mut Change,
    user: UserId,
    made: &NewCredential,
    name: String,
) -> Result<PasskeyView> {
    let (id, now) = (PasskeyId(change.app().new_id()), change.now());
    let aaguid = Uuid::from_bytes(made.aaguid);
    let app = change.app().clone();
    let sealed = key(&app).seal(&*app.random, &context(user, &made.id), made.public_key.as_bytes());
    // SECURITY: a credential has only one owner (WebAuthn level 3, section 7.1, step 26) (test:
    // a_passkey_has_one_owner).
    let stored = change
        .run(
            "insert into passkeys (id, user_id, credential_id, sealed, name, sign_count, backup_eligible,
                backed_up, aaguid, transports, created_at, passwordless)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             on conflict (credential_id) do nothing",
            args![
                id,
                user,
                made.id.clone(),
                sealed,
                name.clone(),
                i64::from(made.sign_count),
                made.backup_eligible,
                made.backed_up,
                aaguid,
                made.transports.join(" "),
                now,
                true
            ],
        )
        .await?;
    if stored == 0 {
        let detail = "This passkey is already registered.";
        return Err(Error::new(Kind::Conflict, "mfa.passkey_taken", detail));
    }
    Ok(PasskeyView {
        id,
        name,
        backup_eligible: made.backup_eligible,
        backed_up: made.backed_up,
        aaguid,
        created_at: now,
        last_used_at: None,
    })
}

fn key(app: &App) -> SealingKey {
    app.root.derive("passkeys")
}

/// Returns the context that binds a sealed key to its user and credential.
fn context(user: UserId, credential: &[u8]) -> Vec<u8> {
    [user.0.as_bytes().as_slice(), credential].concat()
}

/// Returns the public key of a user's passkey, or `None` if it isn't the one stored when the passkey was registered.
///
/// SECURITY: the key is sealed for its user and credential. A key moved to another row, or written without Palisade,
/// can't be opened (test: a_passkey_that_was_moved_or_changed_in_the_database_opens_nothing).
pub(super) fn open(app: &App, user: UserId, credential: &[u8], sealed: &[u8]) -> Option<PublicKey> {
    let opened = key(app).open(&context(user, credential), sealed).ok()?;
    PublicKey::from_bytes(opened.expose()).ok()
}

/// Renames a passkey.
pub(super) async fn rename(
    app: &App,
    caller: &Caller,
    id: PasskeyId,
    name: String,
) -> Result<PasskeyView> {
    let me = caller.signed_in()?;
    let mut change = app.change(&caller.actor).await?;
    let row: Option<PasskeyView> = change
        .maybe(
            "update passkeys set name = $3 where id = $2 and user_id = $1
             returning id, name, backup_eligible, backed_up, aaguid, created_at, last_used_at",
            args![me.user, id, name],
        )
        .await?;
    let passkey = row.ok_or_else(Error::not_found)?;
    change.commit_quietly("renaming a passkey does not change what it gives access to").await?;
    Ok(passkey)
}

/// Removes a passkey.
pub(super) async fn remove(app: &App, caller: &Caller, id: PasskeyId) -> Result<()> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    users::lock_row(&mut change, me.user).await?;
    let gone = change
        .run("delete from passkeys where id = $2 and user_id = $1", args![me.user, id])
        .await?;
    if gone == 0 {
        return Err(Error::not_found());
    }
    removed(&mut change, caller, "a passkey").await?;
    let entry = REMOVED.about(me.user).detail("factor", "passkey");
    change.commit(entry.detail("passkey", id.to_string())).await
}

/// Creates a request for a signature by one of a user's passkeys, for a challenge that the caller creates. Returns
/// `None` if the user has no passkeys or this server doesn't support them.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn ask(change: &mut Change, user: UserId) -> Result<Option<Asked>> {
    let app = change.app().clone();
    let allowed = descriptors(change, user).await?;
    let (false, Ok(party)) = (allowed.is_empty(), relying_party(&app)) else { return Ok(None) };
    let (bytes, digest) = challenges::passkey_bytes(&app);
    let options = RequestOptions::new(&party, &bytes)
        .timeout(lives_in_milliseconds())
        .allow(allowed)
        .user_verification(UserVerification::Preferred);
    let digest = digest.ok_or_else(|| Error::internal("a new challenge has no digest"))?;
    Ok(Some(Asked { options: written(&options)?, digest }))
}

/// Creates a request for a signature by any discoverable passkey.
///
/// # Errors
/// Fails with `mfa.no_domain`.
pub fn ask_anybody(app: &App) -> Result<Asked> {
    let (bytes, digest) = challenges::passkey_bytes(app);
    let options = RequestOptions::new(&relying_party(app)?, &bytes)
        .timeout(lives_in_milliseconds())
        .user_verification(UserVerification::Required);
    let digest = digest.ok_or_else(|| Error::internal("a new challenge has no digest"))?;
    Ok(Asked { options: written(&options)?, digest })
}

/// A request for a passkey's signature.
pub struct Asked {
    /// The options for the browser.
    pub options: Options,
    /// The digest of the bytes to sign, for the table of challenges.
    pub digest: [u8; 32],
}

/// Stops each of a user's passkeys from being accepted as the only factor until it is used together with the new
/// password.
pub(super) async fn require_password(change: &mut Change, user: UserId) -> Result<()> {
    change
        .run("update passkeys set passwordless = $2 where user_id = $1", args![user, false])
        .await?;
    Ok(())
}

/// Returns the error for a passkey that can't be registered. It states the cause, because the problem is in the owner's
/// browser or device.
fn refused(why: &WebauthnError) -> Error {
    use WebauthnError as Why;
    let member = match why {
        Why::WrongCeremony | Why::WrongChallenge | Why::WrongOrigin | Why::CrossOrigin => {
            "/response/clientDataJSON"
        }
        _ => "/response/attestationObject",
    };
    bad_member(member, why)
}

pub(super) fn bad_member(member: &str, why: impl std::fmt::Display) -> Error {
    let detail = format!("This passkey can't be accepted: {why}.");
    Error::bad_field(&format!("/credential{member}"), "mfa.bad_passkey", detail)
}
