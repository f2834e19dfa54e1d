//! What is guessed, and by which client.

use palisade_crypto::mac;

use super::Device;
use crate::app::App;
use crate::id::UserId;

/// What is guessed: the password of a user, or of an email address without an account; or a user's second factor.
#[derive(Clone, Debug)]
pub struct Account {
    pub(super) key: Vec<u8>,
    pub(super) user: Option<UserId>,
    /// Stands before the client's name, so that a lock of the factor isn't one of the password.
    pub(super) part: &'static str,
}

impl Account {
    /// The account of a user, or of `email` if there is none.
    pub fn of(app: &App, user: Option<UserId>, email: &str) -> Self {
        let named = match &user {
            Some(user) => user.0.as_bytes(),
            None => email.as_bytes(),
        };
        // An email without an account can't be read from the table.
        let secret = app.root.derive_bytes("lockout accounts");
        Self { key: mac::keyed_digest(&secret, named).to_vec(), user, part: PASSWORD }
    }

    /// The second factor of a user, guessed by a client that knows the password.
    pub fn second_factor(app: &App, user: UserId) -> Self {
        Self { part: SECOND_FACTOR, ..Self::of(app, Some(user), "") }
    }

    /// The count of a client at it, as the table names it.
    pub(super) fn count_of(&self, client: Client) -> String {
        format!("{}{}", self.part, client.text())
    }
}

const PASSWORD: &str = "";
pub(super) const SECOND_FACTOR: &str = "second factor ";

/// The guessing client, as far as its identity is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Any client.
    Unknown,
    /// A device that has signed in to this account before, with the password that it has now.
    Known(Device),
    /// Any of the devices that signed in with an earlier password: they share one count. An attacker who knew that
    /// password may have registered a thousand of them.
    Former,
    /// A client that is signed in to this account and is asked for the password again.
    SignedIn,
}

impl Client {
    /// Classifies a device for an account whose password has this generation, if it has a password.
    ///
    /// SECURITY: (test: devices_of_an_earlier_password_share_one_count)
    pub fn of_device(device: Option<Device>, password: Option<i64>) -> Self {
        match (device, password) {
            (None, _) => Self::Unknown,
            (Some(device), Some(present)) if device.password != present => Self::Former,
            (Some(device), _) => Self::Known(device),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::Known(device) => device.id.simple().to_string(),
            Self::Former => "former".to_owned(),
            Self::SignedIn => "signed in".to_owned(),
        }
    }
}
