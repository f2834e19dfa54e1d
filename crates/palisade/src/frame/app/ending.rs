//! The types that describe endings: acts, kinds of credential, and what happens to the credentials. The table of acts
//! is in [`credentials`](crate::credentials).

use futures_util::future::BoxFuture;
use palisade_db::Timestamp;

use super::App;
use super::change::Change;
use crate::error::Result;
use crate::id::{SessionId, UserId};

/// An act on an account that may end its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The owner changes the password.
    PasswordChanged,
    /// A new password is chosen with a link.
    PasswordReset,
    /// The operator sets a password.
    PasswordSet,
    /// The owner confirms another email address.
    EmailChanged,
    /// An administrator gives the account another email address.
    EmailSet,
    /// A change of email address is undone with a link sent to the old email address.
    EmailRestored,
    /// The owner adds a second factor.
    FactorAdded,
    /// The owner removes a second factor.
    FactorRemoved,
    /// Every second factor is removed by an administrator, by the operator or through a link.
    FactorsReset,
    /// The owner ends all other sessions.
    OthersEnded,
    /// An administrator or the operator ends all sessions.
    Revoked,
    /// The user is disabled.
    Disabled,
    /// The owner requests the deletion of the account.
    DeletionAsked,
    /// The account is deleted.
    Deleted,
}

/// A kind of credential, link or factor that can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sessions, with their access tokens, refresh tokens and cookies.
    Sessions,
    /// API keys.
    ApiKeys,
    /// Challenges of pending sign-ins and pending fresh proofs of identity.
    Challenges,
    /// Links for choosing a password: reset links and invitation links.
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
    /// The right of a passkey to sign in without the password.
    PasswordlessPasskeys,
    /// A kind that an application adds and that isn't in the table.
    Own(&'static OwnKind),
}

/// A kind that an application adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnKind {
    /// Its title in the documentation.
    pub title: &'static str,
    /// The kinds that it ends with.
    pub ends_with: EndsWith,
}

/// The kinds that an application's own kind ends with: all its credentials end with every act that ends credentials of
/// these kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndsWith {
    /// Sessions and API keys: it ends when either of them ends.
    #[default]
    Either,
    /// Sessions.
    Sessions,
    /// API keys.
    ApiKeys,
}

impl EndsWith {
    /// Returns the kinds that it ends with.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Either => &[Kind::Sessions, Kind::ApiKeys],
            Self::Sessions => &[Kind::Sessions],
            Self::ApiKeys => &[Kind::ApiKeys],
        }
    }
}

impl Kind {
    /// Every kind in the table, in the order in which they end.
    pub const ALL: [Self; 11] = [
        Self::Challenges,
        Self::PasswordLinks,
        Self::EmailLinks,
        Self::UndoLinks,
        Self::FactorLinks,
        Self::VerificationLinks,
        Self::PasswordlessPasskeys,
        Self::Factors,
        Self::RecoveryCodes,
        Self::Sessions,
        Self::ApiKeys,
    ];

    /// Returns its position in the order in which kinds end. The kinds of applications come last.
    pub fn order(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or(Self::ALL.len())
    }

    /// Returns the heading in the documentation.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sessions => "Sessions",
            Self::ApiKeys => "API keys",
            Self::Challenges => "Challenges",
            Self::PasswordLinks => "Reset and invitation links",
            Self::EmailLinks => "Email change links",
            Self::UndoLinks => "Undo links",
            Self::FactorLinks => "Lost factor links",
            Self::VerificationLinks => "Verification links",
            Self::Factors => "TOTP and passkeys",
            Self::RecoveryCodes => "Recovery codes",
            Self::PasswordlessPasskeys => "Passkey sign-in without password",
            Self::Own(own) => own.title,
        }
    }
}

/// What happens to the credentials of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They stay.
    Kept,
    /// All end.
    Ended,
    /// All end except the session that requested the act.
    Others,
    /// Those that were started with only a password end.
    WithoutFactor,
    /// Those that were set up after a given time end.
    Since,
}

impl Fate {
    /// Returns a note for the documentation that states which credentials end.
    pub fn which(self) -> &'static str {
        match self {
            Self::Kept | Self::Ended => "",
            Self::Others => " (all except the current one)",
            Self::WithoutFactor => " (those without a factor)",
            Self::Since => " (those newer than the change)",
        }
    }
}

/// An act on an account, with the values that its line in the table requires.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The user whose credentials end.
    pub user: UserId,
    /// The act on the account.
    pub act: Act,
    /// The session that requested the act, which is kept.
    pub keeping: Option<SessionId>,
    /// The time after which changes are treated as not made by the owner.
    pub since: Option<Timestamp>,
}

impl End {
    /// Creates an `End` that keeps no session.
    pub fn of(user: UserId, act: Act) -> Self {
        Self { user, act, keeping: None, since: None }
    }
}

/// How the credentials of a kind end, declared by a slice.
#[derive(Clone, Copy)]
pub struct Ending {
    /// The kind.
    pub kind: Kind,
    /// Ends the credentials within the change that performs the act, and returns how many ended. Never called for
    /// credentials that are kept.
    pub end: for<'a> fn(&'a mut Change, End, Fate) -> BoxFuture<'a, Result<usize>>,
    /// Finds users who have such credentials, for ending the credentials of all users. Returns users after the given
    /// one, in the order of their ids, up to the given number. `None` for a kind that isn't ended in that way.
    pub owners: Option<FindOwners>,
}

/// Finds users; see [`Ending::owners`].
pub type FindOwners = for<'a> fn(&'a App, UserId, i64) -> BoxFuture<'a, Result<Vec<UserId>>>;
