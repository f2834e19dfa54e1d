//! The keys in memory, and which of them signs.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use palisade_crypto::seal::{KeyRing, SealingKey};
use palisade_crypto::token::{Algorithm, TokenKey, Verifier};
use palisade_db::{Timestamp, args};

use super::{PEPPER, RETIRED_VERIFIES_FOR, ROOT, algorithm, wrapping};
use crate::app::App;
use crate::error::{Error, Result};
use crate::settings::TokenFormat;

/// An unknown key ID makes the process reload the keys, at most this often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The keys in memory.
#[derive(Default)]
pub struct Keys(RwLock<InMemory>);

#[derive(Default)]
struct InMemory {
    ring: Option<Arc<Ring>>,
    /// The number of times that the keys were discarded.
    discarded: u64,
}

/// The keys that are in use at one time, for signing, verifying and sealing password hashes.
pub struct Ring {
    signers: Vec<Signer>,
    /// The verifier of tokens signed with a current key or a recently retired one.
    pub verifier: Verifier,
    /// The key ring that seals password hashes.
    pub pepper: KeyRing,
    loaded: Duration,
}

/// A key that signs tokens for a time.
struct Signer {
    key: Arc<TokenKey>,
    version: i64,
    signs_from: Timestamp,
    retired_at: Option<Timestamp>,
}

impl Signer {
    fn signs(&self, now: Timestamp) -> bool {
        self.signs_from <= now && self.retired_at.is_none_or(|at| now < at)
    }

    /// Returns whether the key may sign where one of the algorithm `wanted` should. Until verifiers know the first key
    /// of another algorithm, the earlier algorithm continues. `v4.local` encrypts, and no other algorithm does.
    fn stands_for(&self, wanted: Algorithm) -> bool {
        let own = self.key.algorithm();
        let alike = own.is_jwt() == wanted.is_jwt() && wanted != Algorithm::PasetoV4Local;
        own == wanted || alike
    }
}

impl Ring {
    /// Returns the key that signs tokens of this format now. Every process chooses by its clock, so all of them begin
    /// to use a new key at the same time.
    ///
    /// # Errors
    /// Returns an error if there is no such key, which startup prevents.
    pub fn signing(&self, app: &App, format: TokenFormat) -> Result<Arc<TokenKey>> {
        let now = app.clock.now();
        let wanted = algorithm(&app.settings, format);
        let usable = || self.signers.iter().filter(|signer| signer.stands_for(wanted));
        // SECURITY: no verifier may know a key yet that doesn't sign yet (test: a_new_key_is_published_before_it_signs).
        let signs = usable().filter(|signer| signer.signs(now)).max_by_key(|signer| {
            (signer.key.algorithm() == wanted, signer.signs_from, signer.version)
        });
        // The clock may have gone back to a time before the first key.
        let earliest =
            || usable().min_by_key(|signer| (signer.key.algorithm() != wanted, signer.signs_from));
        let signer = signs.or_else(earliest);
        let key = signer.map(|signer| Arc::clone(&signer.key));
        key.ok_or_else(|| Error::internal("there is no key for this token format"))
    }

    /// Returns all keys that verify tokens: those that sign or have signed, newest first, then those that don't sign
    /// yet.
    pub fn tokens(&self, now: Timestamp) -> impl Iterator<Item = &TokenKey> {
        let (signed, waiting): (Vec<_>, Vec<_>) =
            self.signers.iter().partition(|signer| signer.signs_from <= now);
        signed.into_iter().chain(waiting).map(|signer| &*signer.key)
    }
}

/// Returns the current keys.
///
/// # Errors
/// Returns an error if the keys aren't in memory and the database fails.
pub async fn ring(app: &App) -> Result<Arc<Ring>> {
    match in_memory(app).0 {
        Some(ring) => Ok(ring),
        None => load(app).await,
    }
}

/// Returns the current keys, and reads them again unless they were read a moment ago. Used for a token with an unknown
/// key ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn look_again(app: &App) -> Result<Arc<Ring>> {
    let now = app.clock.monotonic();
    match in_memory(app).0 {
        Some(ring) if now.saturating_sub(ring.loaded) < LOOK_AGAIN_AFTER => Ok(ring),
        _ => load(app).await,
    }
}

fn in_memory(app: &App) -> (Option<Arc<Ring>>, u64) {
    let memory = app.state::<Keys>().0.read().unwrap_or_else(PoisonError::into_inner);
    (memory.ring.clone(), memory.discarded)
}

fn memory(app: &App) -> RwLockWriteGuard<'_, InMemory> {
    app.state::<Keys>().0.write().unwrap_or_else(PoisonError::into_inner)
}

/// Discards the keys in memory, so that they are read again.
pub fn expire(app: &App) {
    let mut memory = memory(app);
    memory.ring = None;
    memory.discarded += 1;
}

pub(super) async fn reload(app: &App) -> Result<()> {
    load(app).await.map(drop)
}

pub(super) async fn load(app: &App) -> Result<Arc<Ring>> {
    loop {
        let (_, discarded) = in_memory(app);
        let ring = Arc::new(read(app).await?);
        let mut memory = memory(app);
        // SECURITY: keys that were read before a notice arrived may include dropped ones (test:
        // a_dropped_key_is_refused_at_once_beside_requests).
        if memory.discarded == discarded {
            memory.ring = Some(Arc::clone(&ring));
            return Ok(ring);
        }
    }
}

type Row = (String, String, i64, Vec<u8>, String, Timestamp, Option<Timestamp>);

async fn read(app: &App) -> Result<Ring> {
    let loaded = app.clock.monotonic();
    let rows: Vec<Row> = app
        .db
        .all(
            "select purpose, algorithm, version, wrapped, kid, signs_from, retired_at from keys
             where purpose <> $1 and dropped_at is null and (retired_at is null or retired_at > $2)
             order by version desc",
            args![ROOT, app.clock.now().minus(RETIRED_VERIFIES_FOR)],
        )
        .await?;
    let (mut signers, mut peppers) = (Vec::new(), Vec::new());
    for (purpose, algorithm, version, wrapped, kid, signs_from, retired_at) in rows {
        let key = wrapping(app).open(kid.as_bytes(), &wrapped).map_err(Error::internal)?;
        if purpose == PEPPER {
            let bytes: [u8; 32] = key.expose().try_into().map_err(Error::internal)?;
            let version = u32::try_from(version).map_err(Error::internal)?;
            peppers.push((version, SealingKey::from_bytes(bytes)));
        } else if let Some(algorithm) = Algorithm::parse(&algorithm) {
            let key = TokenKey::from_private(algorithm, key.expose()).map_err(Error::internal)?;
            signers.push(Signer { key: Arc::new(key), version, signs_from, retired_at });
        }
    }
    let settings = &app.settings.tokens;
    Ok(Ring {
        verifier: Verifier::new(
            signers.iter().map(|signer| signer.key.verification()).collect(),
            &settings.issuer,
            &settings.audience,
        ),
        signers,
        pepper: KeyRing::new(peppers).map_err(Error::internal)?,
        loaded,
    })
}
