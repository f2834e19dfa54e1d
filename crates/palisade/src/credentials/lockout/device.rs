//! Devices that have signed in before, and the tokens that prove it (OWASP, "Device cookies").
//!
//! A device token contains the ids of the user and the device, the time of its creation, and the generation of the
//! password. It is sealed, is valid only for that user's account, and reveals nothing to its holder. It is not a
//! credential: alone it gives no access. The device's guesses are counted separately, and a device that has lost the
//! response to a refresh needs it to continue its session (`sessions/lost_answer.rs`).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_crypto::seal::SealingKey;
use palisade_crypto::secret::SecretString;
use palisade_db::Timestamp;
use uuid::Uuid;

use crate::app::App;
use crate::id::UserId;

const PREFIX: &str = "pal_dv_";
const CONTEXT: &[u8] = b"device token v2";
/// How long a device is known after its last sign-in.
pub const KNOWN_FOR: Duration = Duration::from_secs(180 * 24 * 3600);
/// The maximum length of a token that is read. A token is about 120 characters long.
const LONGEST: usize = 200;

/// A device that has signed in to an account before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The id of the device.
    pub id: Uuid,
    /// The user of the account.
    pub user: UserId,
    /// The generation of the account's password when the device last signed in.
    pub password: i64,
}

fn key(app: &App) -> SealingKey {
    app.root.derive("device tokens")
}

impl Device {
    /// Creates a device that signs in to an account for the first time.
    pub fn new(app: &App, user: UserId, password: i64) -> Self {
        Self { id: app.new_id(), user, password }
    }

    /// Reads the token that a client presents. Returns `None` if Palisade didn't create it, or if it was altered or is
    /// too old.
    pub fn open(app: &App, token: &str) -> Option<Self> {
        let encoded = token.strip_prefix(PREFIX).filter(|_| token.len() <= LONGEST)?;
        let sealed = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let opened = key(app).open(CONTEXT, &sealed).ok()?;
        let (user, rest) = opened.expose().split_first_chunk::<16>()?;
        let (id, made) = rest.split_first_chunk::<16>()?;
        let (made, password) = made.split_first_chunk::<8>()?;
        let made = Timestamp::from_micros(i64::from_be_bytes(*made));
        let password = i64::from_be_bytes(password.try_into().ok()?);
        let now = app.clock.now();
        let (id, user) = (Uuid::from_bytes(*id), UserId(Uuid::from_bytes(*user)));
        (now < made.plus(KNOWN_FOR)).then_some(Self { id, user, password })
    }

    /// Returns the token that the client keeps. It is valid for [`KNOWN_FOR`].
    pub fn token(&self, app: &App) -> SecretString {
        let made = app.clock.now().as_micros().to_be_bytes();
        let password = self.password.to_be_bytes();
        let plain = [self.user.0.as_bytes().as_slice(), self.id.as_bytes(), &made, &password];
        let plain = plain.concat();
        let sealed = key(app).seal(&*app.random, CONTEXT, &plain);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)).into()
    }
}
