//! The hashing threads, their configuration, and their queue.

use std::sync::Arc;
use std::time::Duration;

use palisade_crypto::password::{self, Cost, Memory};

use super::{Blocklist, LONGEST, Rules};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::hashing::{self, Help, Lane, NotDone, QueueLimits, WorkPool};
use crate::metrics::Metric;
use crate::settings::{PasswordAlgorithm, PasswordCost, Settings};
use crate::trace;

/// How long work waits before the helper thread steps in. An honest sign-in should complete within two seconds, even on
/// busy cores and during a flood: it waits for this long, for a pause as long as four hashes, and for one turn of
/// another client.
const STARVED_AFTER: Duration = Duration::from_millis(600);
/// The same, while other programs keep the cores busy and no other work of this process needs protection.
const CROWDED_AFTER: Duration = Duration::from_millis(100);
/// How long memory for hashing is kept when no one signs in.
const MEMORY_KEPT_FOR: Duration = Duration::from_secs(10);
/// How many hashes may wait per thread: a few seconds of work.
const QUEUE_PER_THREAD: usize = 64;

/// The hashing threads, and the password rules.
pub(super) struct Hashing {
    pool: WorkPool<Memory>,
    pub(super) cost: Cost,
    pub(super) dummy: Arc<str>,
    pub(super) rules: Arc<Rules>,
}

impl Hashing {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let cost = cost(settings);
        // Otherwise, an invalid cost would be found only when the first password is hashed.
        cost.validate()
            .map_err(|wrong| Error::internal(format!("the password cost is invalid: {wrong:?}")))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let total = threads * QUEUE_PER_THREAD;
        let pool = WorkPool::start(hashing::Setup {
            threads,
            queue: QueueLimits { total, per_group: total / 2 },
            help: Some(Help::new(STARVED_AFTER, CROWDED_AFTER)),
            idle_release: MEMORY_KEPT_FOR,
            scratch: Memory::new,
        });
        Ok(Self {
            pool: pool.map_err(Error::internal)?,
            dummy: password::dummy(&cost).into(),
            cost,
            rules: Arc::new(Rules {
                min_length: usize::try_from(settings.passwords.min_length).unwrap_or(LONGEST),
                min_strength: settings.passwords.min_strength,
                blocklist: blocklist(settings)?,
                site: vec![settings.server.public_url.host().to_owned()],
            }),
        })
    }
}

/// Returns the cost that the settings specify.
fn cost(settings: &Settings) -> Cost {
    let passwords = &settings.passwords;
    match (passwords.algorithm, passwords.cost) {
        (PasswordAlgorithm::Bcrypt, _) => Cost::Bcrypt { cost: passwords.bcrypt_cost },
        (PasswordAlgorithm::Argon2id, PasswordCost::Standard) => Cost::STANDARD,
        (PasswordAlgorithm::Argon2id, PasswordCost::Light) => Cost::LIGHT,
        (PasswordAlgorithm::Argon2id, PasswordCost::Custom) => {
            let kib = passwords.argon2_memory.map(|bytes| bytes / 1024);
            match (kib.map(u32::try_from), passwords.argon2_passes, passwords.argon2_lanes) {
                (Some(Ok(memory_kib)), Some(passes), Some(lanes)) => {
                    Cost::Argon2id { memory_kib, passes, lanes }
                }
                // The settings require all three. If one were missing, the standard cost would be used, and no weaker
                // one.
                _ => Cost::STANDARD,
            }
        }
    }
}

fn blocklist(settings: &Settings) -> Result<Blocklist> {
    Blocklist::open(settings.passwords.blocklist_path.as_deref()).map_err(unreadable)
}

pub(super) fn unreadable(error: std::io::Error) -> Error {
    let detail = "The file in passwords.blocklist_path can't be read.";
    Error::unavailable("passwords.blocklist_unreadable", detail).because(error)
}

/// The place of a client's work in the queue. IP addresses take turns, so that a flood from one of them leaves room for
/// the others.
#[derive(Clone, Copy, Debug)]
pub struct QueueSlot {
    group: u64,
    lane: Lane,
}

impl QueueSlot {
    /// Returns the slot of a client.
    pub fn of(ip: Option<std::net::IpAddr>) -> Self {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        ip.map(crate::http::client::rate_key).hash(&mut hasher);
        Self { group: hasher.finish(), lane: Lane::Unknown }
    }

    /// Returns the slot of a client that is signed in or is a known device. Its work waits in a separate lane.
    #[must_use]
    pub fn known(self) -> Self {
        Self { lane: Lane::Known, ..self }
    }
}

/// Refuses a client that would get no slot, before anything is looked up for it.
///
/// # Errors
/// Fails with 503 if the hashing queue is full.
pub fn check_capacity(app: &App, slot: QueueSlot) -> Result<()> {
    app.state::<Hashing>().pool.check_capacity(caller(slot)).map_err(not_done)
}

/// Returns the number of hashes requested from this process since it started, including those for accounts that don't
/// exist. Hashes refused because the queue was full aren't counted.
pub fn hashes_asked_for(app: &App) -> u64 {
    app.state::<Hashing>().pool.accepted()
}

static QUEUE_LENGTH: Metric = Metric::gauge(
    "palisade_hash_queue_length",
    &[],
    "Password hashes that wait for a hashing thread.",
);
static QUEUE_LIMIT: Metric = Metric::gauge(
    "palisade_hash_queue_limit",
    &[],
    "The length of the hashing queue at which sign-ins are refused with `passwords.busy`.",
);
static HASHES: Metric = Metric::counter(
    "palisade_hashes",
    &[],
    "Password hashes that were accepted into the hashing queue.",
);
pub(super) const METRICS: &[&Metric] = &[&QUEUE_LENGTH, &QUEUE_LIMIT, &HASHES];

pub(super) fn measure(app: &App) {
    let pool = &app.state::<Hashing>().pool;
    app.metrics.set(&QUEUE_LENGTH, pool.waiting() as f64, &[]);
    app.metrics.set(&QUEUE_LIMIT, pool.limit() as f64, &[]);
    app.metrics.set(&HASHES, pool.accepted() as f64, &[]);
}

/// Runs `work` when it is this caller's turn.
///
/// # Errors
/// Fails with 503 if the hashing queue is full.
pub(super) async fn run<T: Send + 'static>(
    app: &App,
    slot: QueueSlot,
    work: impl Fn(&mut Memory) -> T + Send + Sync + 'static,
) -> Result<T> {
    let work = app.state::<Hashing>().pool.run(caller(slot), work);
    trace::hashing(work).await.map_err(not_done)
}

fn caller(slot: QueueSlot) -> hashing::Caller {
    hashing::Caller { group: slot.group, lane: slot.lane }
}

fn not_done(cause: NotDone) -> Error {
    match cause {
        NotDone::Busy { retry_after } => Error::new(
            Kind::Unavailable,
            "passwords.busy",
            "Too many users are signing in. Try again later.",
        )
        .retry_after(retry_after),
        NotDone::Panicked | NotDone::Stopped => Error::internal(cause),
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Sources;

    use super::*;

    fn load(flags: &[(&str, &str)]) -> Option<Settings> {
        let flags = flags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Settings::load(Sources { flags, ..Sources::default() }).ok().map(|loaded| loaded.settings)
    }

    #[test]
    fn the_dearest_and_the_cheapest_settings_are_costs_that_can_be_verified() {
        for [memory, passes, lanes, bcrypt] in
            [["1GiB", "16", "16", "15"], ["7MiB", "1", "1", "10"]]
        {
            for algorithm in ["argon2id", "bcrypt"] {
                let settings = load(&[
                    ("passwords.algorithm", algorithm),
                    ("passwords.cost", "custom"),
                    ("passwords.argon2_memory", memory),
                    ("passwords.argon2_passes", passes),
                    ("passwords.argon2_lanes", lanes),
                    ("passwords.bcrypt_cost", bcrypt),
                ]);
                assert_eq!(cost(&settings.unwrap()).validate(), Ok(()));
            }
        }
        for (key, beyond) in [
            ("passwords.argon2_memory", "1025MiB"),
            ("passwords.argon2_passes", "17"),
            ("passwords.argon2_lanes", "17"),
            ("passwords.bcrypt_cost", "16"),
        ] {
            assert!(load(&[(key, beyond)]).is_none(), "{key} = {beyond}");
        }
    }
}
