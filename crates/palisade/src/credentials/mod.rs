//! The table of acts and the credentials that each act ends, and the operation that applies it.
//!
//! Each slice lists the endings of its own kinds ([`Ending`], in its `MODULE`). A single session or API key is not
//! ended here: see `sessions::end` and `api_keys::revoke`. A kind that an application adds ([`OwnKind`]) is not in the
//! table. It ends with sessions, with API keys or with either.
//!
//! # Promises
//!
//! - Every act that ends credentials of an account ends them here, according to [`TABLE`], which `docs/sessions.md`
//!   shows.
//! - No credential ends while another change depends on it, because the change that ends it holds the account
//!   exclusively.

pub mod api_keys;
pub mod challenges;
pub mod keys;
pub mod lockout;
pub mod mfa;
pub mod passwords;
pub mod sessions;
pub mod tokens;

use crate::app::{Change, Hold};
use crate::error::{Error, Result};

pub use crate::app::{Act, End, Ending, EndsWith, Fate, Kind, OwnKind};

/// A line of the table: an act, the credentials that it ends, and the reason.
pub struct Line {
    /// The act.
    pub act: Act,
    /// A human-readable description of the act.
    pub summary: &'static str,
    /// The kinds of credentials that end.
    pub ends: &'static [(Kind, Fate)],
    /// The reason why these kinds end and the others stay.
    pub because: &'static str,
}

/// The acts, and the kinds of credentials that each act ends. A kind that a line doesn't list is kept.
pub const TABLE: [Line; 14] = [
    Line {
        act: Act::PasswordChanged,
        summary: "The owner changes the password",
        ends: &[
            (Kind::Sessions, Fate::Others),
            (Kind::Challenges, Fate::Ended),
            (Kind::PasswordLinks, Fate::Ended),
            (Kind::EmailLinks, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
        ],
        because: "Everything that began with the old password ends. The owner proved that password, so API keys \
                  and factors stay.",
    },
    Line {
        act: Act::PasswordReset,
        summary: "A new password is chosen with a link",
        ends: RECOVERED,
        because: "An attacker may have had access. Email is not a second factor, so factors stay required.",
    },
    Line {
        act: Act::PasswordSet,
        summary: "The operator sets a password",
        ends: RECOVERED,
        because: "The reasons are the same as for a new password that is chosen with a link.",
    },
    Line {
        act: Act::EmailChanged,
        summary: "The owner confirms another email address",
        ends: &[
            (Kind::PasswordLinks, Fate::Ended),
            (Kind::EmailLinks, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
            (Kind::VerificationLinks, Fate::Ended),
        ],
        because: "Links sent to the old email address stop working, except the undo link.",
    },
    Line {
        act: Act::EmailSet,
        summary: "An administrator changes the email address",
        ends: &[
            (Kind::PasswordLinks, Fate::Ended),
            (Kind::EmailLinks, Fate::Ended),
            (Kind::UndoLinks, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
            (Kind::VerificationLinks, Fate::Ended),
        ],
        because: "Every link that was sent to an earlier email address stops working.",
    },
    Line {
        act: Act::EmailRestored,
        summary: "A change of email address is undone",
        ends: &[
            (Kind::Sessions, Fate::Ended),
            (Kind::ApiKeys, Fate::Ended),
            (Kind::Challenges, Fate::Ended),
            (Kind::PasswordLinks, Fate::Ended),
            (Kind::EmailLinks, Fate::Ended),
            (Kind::UndoLinks, Fate::Since),
            (Kind::FactorLinks, Fate::Ended),
            (Kind::VerificationLinks, Fate::Ended),
            (Kind::Factors, Fate::Since),
            (Kind::RecoveryCodes, Fate::Since),
            (Kind::PasswordlessPasskeys, Fate::Ended),
        ],
        because: "The account was taken over. Everything set up since the change was requested may belong to the attacker.",
    },
    Line {
        act: Act::FactorAdded,
        summary: "The owner adds a second factor",
        ends: &[
            (Kind::Sessions, Fate::WithoutFactor),
            (Kind::Challenges, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
        ],
        because: "A session in which no second factor was used must not stay active.",
    },
    Line {
        act: Act::FactorRemoved,
        summary: "The owner removes a second factor",
        ends: &[(Kind::Sessions, Fate::Others), (Kind::Challenges, Fate::Ended)],
        because: "Other sessions may depend on the removed factor. Recovery codes are removed with the last factor.",
    },
    Line {
        act: Act::FactorsReset,
        summary: "All second factors are removed",
        ends: &[
            (Kind::Sessions, Fate::Ended),
            (Kind::Challenges, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
            (Kind::Factors, Fate::Ended),
            (Kind::RecoveryCodes, Fate::Ended),
        ],
        because: "Sessions may depend on the removed factors. API keys are separate credentials and stay valid.",
    },
    Line {
        act: Act::OthersEnded,
        summary: "The owner ends all other sessions",
        ends: &[(Kind::Sessions, Fate::Others), (Kind::Challenges, Fate::Ended)],
        because: "API keys stay valid: the owner lists and revokes them individually.",
    },
    Line {
        act: Act::Revoked,
        summary: "An administrator or the operator ends all sessions",
        ends: SIGNED_OUT,
        because: "Every credential that an attacker may hold stops working. Only the owner of the mailbox \
                  receives links.",
    },
    Line {
        act: Act::Disabled,
        summary: "The user is disabled",
        ends: &[(Kind::Sessions, Fate::Ended), (Kind::Challenges, Fate::Ended)],
        because: "A disabled user can't use any credential. Those that are kept work again once \
                  the user is enabled.",
    },
    Line {
        act: Act::DeletionAsked,
        summary: "The owner requests deletion of the account",
        ends: SIGNED_OUT,
        because: "A later sign-in cancels the request, so the password and the factors stay until the \
                  deletion.",
    },
    Line {
        act: Act::Deleted,
        summary: "The account is deleted",
        ends: &[
            (Kind::Sessions, Fate::Ended),
            (Kind::ApiKeys, Fate::Ended),
            (Kind::Challenges, Fate::Ended),
            (Kind::PasswordLinks, Fate::Ended),
            (Kind::EmailLinks, Fate::Ended),
            (Kind::UndoLinks, Fate::Ended),
            (Kind::FactorLinks, Fate::Ended),
            (Kind::VerificationLinks, Fate::Ended),
            (Kind::Factors, Fate::Ended),
            (Kind::RecoveryCodes, Fate::Ended),
            (Kind::PasswordlessPasskeys, Fate::Ended),
        ],
        because: "Nothing remains of the account.",
    },
];

const RECOVERED: &[(Kind, Fate)] = &[
    (Kind::Sessions, Fate::Ended),
    (Kind::ApiKeys, Fate::Ended),
    (Kind::Challenges, Fate::Ended),
    (Kind::PasswordLinks, Fate::Ended),
    (Kind::EmailLinks, Fate::Ended),
    (Kind::FactorLinks, Fate::Ended),
    (Kind::PasswordlessPasskeys, Fate::Ended),
];

const SIGNED_OUT: &[(Kind, Fate)] =
    &[(Kind::Sessions, Fate::Ended), (Kind::ApiKeys, Fate::Ended), (Kind::Challenges, Fate::Ended)];

impl Line {
    /// Returns what the act does to a kind. A kind that an application adds ends completely with every act that ends
    /// any of the kinds it is tied to.
    pub fn fate(&self, kind: Kind) -> Fate {
        let named = |kind: Kind| self.ends.iter().find(|(ended, _)| *ended == kind);
        match kind {
            // SECURITY: (test: an_applications_credential_ends_with_every_act_that_should_end_it)
            Kind::Own(own) if own.ends_with.kinds().iter().any(|kind| named(*kind).is_some()) => {
                Fate::Ended
            }
            kind => named(kind).map_or(Fate::Kept, |(_, fate)| *fate),
        }
    }
}

/// Ends the credentials that an act ends, according to the table. Returns how many sessions ended.
///
/// # Errors
/// Returns an internal error if the change doesn't hold the account exclusively, or if the act requires [`End::since`]
/// and it is missing. Also returns an error if the database fails.
pub async fn end(change: &mut Change, end: End) -> Result<usize> {
    // SECURITY: (test: an_ending_that_does_not_hold_the_account_is_refused)
    change.must_hold(Hold::Alone(end.user))?;
    let line = TABLE.iter().find(|line| line.act == end.act);
    let line = line.ok_or_else(|| Error::internal("the act is missing from the table"))?;
    if end.since.is_none() && line.ends.iter().any(|(_, fate)| *fate == Fate::Since) {
        return Err(Error::internal("an act that ends newer credentials has no start time"));
    }
    let app = change.app().clone();
    let mut sessions = 0;
    for ending in &app.endings {
        let fate = line.fate(ending.kind);
        if fate != Fate::Kept {
            let ended = (ending.end)(change, end, fate).await?;
            sessions += if ending.kind == Kind::Sessions { ended } else { 0 };
        }
    }
    Ok(sessions)
}

/// Sorts the endings of an app into the order in which they are carried out.
///
/// # Errors
/// Returns an internal error if a kind that ends with everyone's credentials has no function that finds its owners.
pub fn in_order(mut endings: Vec<Ending>) -> Result<Vec<Ending>> {
    endings.sort_by_key(|ending| ending.kind.order());
    for line in TABLE.iter().filter(|line| line.act == Act::Revoked) {
        let found = |kind| endings.iter().any(|other| other.kind == kind && other.owners.is_some());
        let lost = endings.iter().find(|e| line.fate(e.kind) != Fate::Kept && !found(e.kind));
        if let Some(ending) = lost {
            let detail = format!("the ending of {} has no `owners`", ending.kind.title());
            return Err(Error::internal(detail));
        }
    }
    Ok(endings)
}
