//! The target of a guess, and the client that guesses.

use palisade_crypto::mac;

use super::Device;
use crate::app::App;
use crate::id::UserId;

/// The target of a guess: the password of a user, the password for an email address without an account, the password
/// that a link requires, or a user's second factor.
#[derive(Clone, Debug)]
pub struct Account {
    pub(super) key: Vec<u8>,
    pub(super) user: Option<UserId>,
    /// The prefix of the client's name, so that locking the second factor doesn't lock the password.
    pub(super) part: &'static str,
}

impl Account {
    /// Returns the account of a user, or of `email` if there is no user.
    pub fn of(app: &App, user: Option<UserId>, email: &str) -> Self {
        match user {
            Some(user) => Self::named(app, "lockout accounts", user.0.as_bytes(), Some(user)),
            None => Self::named(app, "lockout emails", email.as_bytes(), None),
        }
    }

    /// Returns the account for guesses at the password that a link requires. It has a separate count, which can't be
    /// reached without the link.
    pub fn of_link(app: &App, link: &str) -> Self {
        Self::named(app, "lockout links", link.as_bytes(), None)
    }

    /// SECURITY: each kind has a separate key, because a client may enter any text as the email address (test:
    /// no_sign_in_reaches_the_count_of_a_link). The table doesn't reveal email addresses without an account.
    fn named(app: &App, kind: &'static str, name: &[u8], user: Option<UserId>) -> Self {
        let secret = app.root.derive_bytes(kind);
        Self { key: mac::keyed_digest(&secret, name).to_vec(), user, part: PASSWORD }
    }

    /// Returns the account for guesses at a user's second factor, by a client that has entered the password or is
    /// signed in.
    pub fn second_factor(app: &App, user: UserId) -> Self {
        Self { part: SECOND_FACTOR, ..Self::of(app, Some(user), "") }
    }

    /// Returns the name under which the table stores a client's count for this account.
    pub(super) fn count_of(&self, client: Client) -> String {
        format!("{}{}", self.part, client.text())
    }
}

const PASSWORD: &str = "";
pub(super) const SECOND_FACTOR: &str = "second factor ";

/// The client that makes a guess, as far as its identity has been proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Any client.
    Unknown,
    /// A device that has signed in to this account since the account's password was last changed.
    Known(Device),
    /// Any device that last signed in before the account's password was changed. All such devices share one count,
    /// because an attacker who knew the earlier password may have registered a thousand of them.
    Former,
    /// A client that is signed in to this account and is asked for the password again.
    SignedIn,
}

impl Client {
    /// Classifies a device for an account whose password, if it has one, has this generation.
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
