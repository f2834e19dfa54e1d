//! The words of an ending: acts, kinds of credential, and what becomes of them. The table is in
//! [`credentials`](crate::credentials).

use futures_util::future::BoxFuture;
use palisade_db::Timestamp;

use super::change::Change;
use crate::error::Result;
use crate::id::{SessionId, UserId};

/// What happens to an account that credentials of it may end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The owner changes the password.
    PasswordChanged,
    /// A new password is chosen with a link.
    PasswordReset,
    /// The operator sets a password.
    PasswordSet,
    /// The owner confirms another email address.
    AddressChanged,
    /// An administrator gives the account another email address.
    AddressMoved,
    /// A change of email address is undone from the old one.
    AddressRestored,
    /// The owner adds a second factor.
    FactorAdded,
    /// The owner removes a second factor.
    FactorRemoved,
    /// Every second factor is removed, by an administrator or with a link.
    FactorsReset,
    /// The owner ends all other sessions.
    OthersEnded,
    /// An administrator or the operator ends all sessions.
    Revoked,
    /// The user is disabled.
    Disabled,
    /// The owner asks for the account to be deleted.
    DeletionAsked,
    /// The account is deleted.
    Deleted,
}

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sessions, with their access tokens, refresh tokens and cookies.
    Sessions,
    /// API keys.
    ApiKeys,
    /// What a sign-in or a fresh proof is waiting for.
    Challenges,
    /// Links to choose a password: for a reset, or of an invitation.
    PasswordLinks,
    /// Links that confirm another email address.
    EmailLinks,
    /// Links that undo a change of email address.
    UndoLinks,
    /// Links that remove lost factors.
    FactorLinks,
    /// Links that verify the email address of a registration.
    VerificationLinks,
    /// Authenticator apps and passkeys.
    Factors,
    /// Recovery codes.
    RecoveryCodes,
    /// The right of a passkey to sign in alone, without the password.
    PasskeysAlone,
}

impl Kind {
    /// Every kind, in the order in which they end.
    pub const ALL: [Kind; 11] = [
        Kind::Challenges,
        Kind::PasswordLinks,
        Kind::EmailLinks,
        Kind::UndoLinks,
        Kind::FactorLinks,
        Kind::VerificationLinks,
        Kind::PasskeysAlone,
        Kind::Factors,
        Kind::RecoveryCodes,
        Kind::Sessions,
        Kind::ApiKeys,
    ];

    /// The heading in the documentation.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Sessions => "Sessions",
            Kind::ApiKeys => "API keys",
            Kind::Challenges => "Challenges",
            Kind::PasswordLinks => "Reset and invitation links",
            Kind::EmailLinks => "Email change links",
            Kind::UndoLinks => "Undo links",
            Kind::FactorLinks => "Lost factor links",
            Kind::VerificationLinks => "Verification links",
            Kind::Factors => "TOTP and passkeys",
            Kind::RecoveryCodes => "Recovery codes",
            Kind::PasskeysAlone => "Passkey sign-in without password",
        }
    }
}

/// What becomes of the credentials of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They stay.
    Kept,
    /// All end.
    Ended,
    /// All end but the session that acts.
    Others,
    /// Those end that rest on a password alone.
    WithoutFactor,
    /// Those end that were set up since a moment.
    Since,
}

impl Fate {
    /// Which of them, as the documentation says it.
    pub fn which(self) -> &'static str {
        match self {
            Fate::Kept | Fate::Ended => "",
            Fate::Others => " (all but the one that acts)",
            Fate::WithoutFactor => " (those without a factor)",
            Fate::Since => " (those newer than the change)",
        }
    }
}

/// An act on an account, with what its line in the table needs to know.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Whose credentials.
    pub user: UserId,
    /// What happens.
    pub act: Act,
    /// The session that acts and goes on.
    pub keeping: Option<SessionId>,
    /// Since when something is no longer the owner's.
    pub since: Option<Timestamp>,
}

impl End {
    /// An act after which no session goes on.
    pub fn of(user: UserId, act: Act) -> End {
        End { user, act, keeping: None, since: None }
    }
}

/// How credentials of a kind end: what a slice brings. Answers how many ended.
#[derive(Clone, Copy)]
pub struct Ending {
    /// The kind.
    pub kind: Kind,
    /// Ends them, in the change of the act; never called to keep them.
    pub end: for<'a> fn(&'a mut Change, End, Fate) -> BoxFuture<'a, Result<usize>>,
}
