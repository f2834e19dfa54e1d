//! The methods of a kind of credential: how its tokens are recognized, verified, introspected and revoked.
//!
//! A slice declares them once ([`CredentialMethods`], in its `MODULE`), and so does an application. The gate, changes,
//! introspection, revocation and the revocation feed all use one list ([`CredentialList`]).
//!
//! # Promises
//!
//! - Only this module determines which kind a token belongs to, and a token belongs to at most one kind.
//! - A change requested with a credential starts only if the credential's kind reports that the credential is active
//!   and that the presented secret is still valid.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::request::Parts as RequestParts;
use futures_util::future::BoxFuture;
use palisade_db::Timestamp;
use uuid::Uuid;

use super::{App, AuthLevel, Change, ending};
use crate::cookie::CookieName;
use crate::credential::{Credential, CredentialKind, Introspection, TokenShape};
use crate::error::{Error, Kind, Result};
use crate::feed::ENDED;
use crate::id::{SessionId, UserId};
use crate::limits::Decision;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The credential that authenticated the caller.
    pub credential: Credential,
    /// The current permissions.
    pub permissions: Arc<BTreeSet<String>>,
    /// When the user last proved their identity with a password or another factor.
    pub authenticated_at: Timestamp,
    /// The level of that proof.
    pub proved_with: AuthLevel,
    /// The account's strongest factor, which a fresh proof requires.
    pub required_level: AuthLevel,
    /// Whether the user must set up a second factor before they do anything else.
    pub must_enrol: bool,
    /// The remaining quota under the credential's own limit. `None` if its requests count against the limit of its
    /// account.
    pub limit: Option<Decision>,
}

impl Identity {
    /// Returns the id of the session.
    ///
    /// # Errors
    /// Fails with `access.session_needed` if the credential is not a session.
    pub fn session(&self) -> Result<SessionId> {
        self.credential.session().ok_or_else(session_needed)
    }
}

pub(crate) fn session_needed() -> Error {
    let detail = "This operation requires a session. Sign in; an API key is not accepted.";
    Error::new(Kind::Denied, "access.session_needed", detail)
}

/// Checks, in the change that depends on it, that a credential of this user is active: that it has not ended or
/// expired, and that the presented secret has not been replaced. Whether the user is disabled is checked elsewhere.
pub type IsAlive =
    for<'a> fn(&'a mut Change, UserId, Credential) -> BoxFuture<'a, Result<Option<LiveCredential>>>;

/// Ends one of a user's credentials, in a change that holds the account exclusively, and records the event and the
/// notice. The error is "not found" if it has ended or belongs to another user.
pub type Revoke = for<'a> fn(&'a mut Change, UserId, Uuid) -> BoxFuture<'a, Result<()>>;

/// Authenticates the sender of a token. The request is passed so that other conditions can be checked, such as the
/// client's IP address. In a recheck ([`is_recheck`](crate::access::is_recheck)), this doesn't count as a use of the
/// credential.
pub type Prove = for<'a> fn(&'a App, &'a str, &'a RequestParts) -> BoxFuture<'a, Result<Identity>>;

/// Returns the state of a token, without using it up. `None` or `access.invalid_token` if it is not
/// active.
pub type Introspect = for<'a> fn(&'a App, &'a str) -> BoxFuture<'a, Result<Option<Introspection>>>;

/// Finds the user and the id of the credential that a token belongs to, so that it can be revoked.
pub type Locate = for<'a> fn(&'a App, &'a str) -> BoxFuture<'a, Result<Option<(UserId, Uuid)>>>;

/// The methods of a kind of credential, declared by the slice that stores it. The acts that end it are declared
/// separately, in `MODULE.endings`.
#[derive(Clone, Copy)]
pub struct CredentialMethods {
    /// The kind.
    pub kind: &'static CredentialKind,
    /// The forms in which it is sent.
    pub forms: &'static [CredentialForm],
    /// The kind under which its ending is listed, which determines the acts that end it. A module of the app must list
    /// that ending.
    pub ends_as: ending::Kind,
    /// The topic of the notices about its endings, such as `sessions.ended`.
    pub ended: &'static str,
    /// Checks whether a credential of this kind is active.
    pub is_alive: IsAlive,
    /// Ends a credential of this kind.
    pub revoke: Revoke,
}

/// A form in which a credential is sent.
#[derive(Clone, Copy)]
pub struct CredentialForm {
    /// Its name in the documentation.
    pub name: &'static str,
    /// Its description, for people.
    pub summary: &'static str,
    /// How it is distinguished from other forms.
    pub shape: TokenShape,
    /// How a request is authenticated with it. `None` if it doesn't authenticate requests.
    pub prove: Option<Prove>,
    /// How it is introspected. `None` if it is never reported as active.
    pub introspect: Option<Introspect>,
    /// How its credential is found for revocation. `None` if it can't be revoked by this form.
    pub locate: Option<Locate>,
}

/// The state of the credential that a change depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCredential {
    /// When its user last proved their identity, and at which level. `None` if the credential can't provide a fresh
    /// proof.
    pub proved: Option<(Timestamp, AuthLevel)>,
    /// The permissions that it was created with. `None` means all of its user's permissions.
    pub permissions: Option<BTreeSet<String>>,
    /// The strongest factor of its user's account, if the account was read together with the credential, exists and is
    /// not disabled. `None` if the account must still be read.
    pub required_level: Option<AuthLevel>,
}

/// The state of the account that a change depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Whether the account still holds the required permission, if one is required.
    pub permitted: bool,
    /// The strongest factor that the account has.
    pub required_level: AuthLevel,
}

/// Looks up an account within a change, and checks whether it holds a permission. Returns `None` if it is deleted or
/// disabled.
pub type FindAccount = for<'a> fn(
    &'a mut Change,
    UserId,
    Option<&'static str>,
) -> BoxFuture<'a, Result<Option<AccountState>>>;

/// The kinds of credential of an app.
pub struct CredentialList(Vec<CredentialMethods>);

impl CredentialList {
    /// Creates the list, if nothing in it is ambiguous.
    ///
    /// # Errors
    /// Returns an internal error if a module has a bug: two kinds have the same name or topic, or both are sessions;
    /// two forms have the same name, or could match the same token; a topic doesn't end in `.ended`; or the name of a
    /// cookie doesn't start with `__Host-`, so that another host could set it.
    pub fn new(all: Vec<CredentialMethods>) -> Result<Self> {
        for (number, one) in all.iter().enumerate() {
            let mut others = all.iter().take(number);
            if others.any(|other| other.kind.name == one.kind.name || other.ended == one.ended) {
                let name = one.kind.name;
                let detail = format!("two kinds of credential have the name or topic of {name}");
                return Err(Error::internal(detail));
            }
            // SECURITY: with two kinds of session, the id of one could be mistaken for the id of the other (test:
            // credentials_that_can_not_be_told_apart_are_refused).
            if one.kind.session && all.iter().take(number).any(|other| other.kind.session) {
                let detail = format!("{} is a second kind of session", one.kind.name);
                return Err(Error::internal(detail));
            }
            if !one.ended.ends_with(ENDED) {
                let detail = format!("the topic {} does not end in {ENDED}", one.ended);
                return Err(Error::internal(detail));
            }
            for form in one.forms {
                // SECURITY: neither another host nor a page without HTTPS can set a cookie with this prefix (test:
                // credentials_that_can_not_be_told_apart_are_refused).
                if let TokenShape::Cookie(name) = form.shape
                    && !name.secure.starts_with("__Host-")
                {
                    let detail = format!(
                        "the name of the cookie {} does not start with __Host-",
                        name.secure
                    );
                    return Err(Error::internal(detail));
                }
            }
        }
        let list = Self(all);
        // SECURITY: a token belongs to at most one kind, whatever the order of the modules (test:
        // credentials_that_can_not_be_told_apart_are_refused).
        let names: Vec<&str> = list.forms().map(|(_, form)| form.name).collect();
        if let Some((_, name)) = names
            .iter()
            .enumerate()
            .find(|(number, name)| names.iter().take(*number).any(|n| n == *name))
        {
            return Err(Error::internal(format!("two forms of credentials have the name {name}")));
        }
        let shapes: Vec<TokenShape> = list.forms().map(|(_, form)| form.shape).collect();
        for (number, shape) in shapes.iter().enumerate() {
            if shapes.iter().take(number).any(|other| overlap(*shape, *other)) {
                return Err(Error::internal(format!("{shape:?} matches tokens of two kinds")));
            }
        }
        Ok(list)
    }

    fn forms(&self) -> impl Iterator<Item = (&CredentialMethods, &'static CredentialForm)> {
        self.0.iter().flat_map(|methods| methods.forms.iter().map(move |form| (methods, form)))
    }

    /// Returns the methods of a kind, or `None` if no module adds it.
    pub fn of(&self, kind: &CredentialKind) -> Option<&CredentialMethods> {
        self.0.iter().find(|methods| methods.kind.name == kind.name)
    }

    /// Returns the form of a token sent as text: in the `Authorization` header, or to be introspected or revoked.
    pub fn of_token(&self, token: &str) -> Option<(&CredentialMethods, &'static CredentialForm)> {
        let begins = |form: &CredentialForm| match form.shape {
            TokenShape::Prefix(prefix) => token.starts_with(prefix),
            TokenShape::Signed | TokenShape::Cookie(_) => false,
        };
        let signed = |form: &CredentialForm| matches!(form.shape, TokenShape::Signed);
        self.forms()
            .find(|(_, form)| begins(form))
            .or_else(|| self.forms().find(|(_, form)| signed(form)).filter(|_| token.contains('.')))
    }

    /// Returns the cookies that authenticate requests, and how they are verified.
    pub fn cookies(&self) -> impl Iterator<Item = (CookieName, Prove)> {
        self.forms().filter_map(|(_, form)| match form.shape {
            TokenShape::Cookie(name) => form.prove.map(|prove| (name, prove)),
            TokenShape::Prefix(_) | TokenShape::Signed => None,
        })
    }

    /// Returns the kind whose endings have this topic.
    pub fn of_topic(&self, topic: &str) -> Option<&'static CredentialKind> {
        self.0.iter().find(|methods| methods.ended == topic).map(|methods| methods.kind)
    }
}

/// Returns whether the same token could have both shapes.
fn overlap(one: TokenShape, other: TokenShape) -> bool {
    match (one, other) {
        (TokenShape::Prefix(one), TokenShape::Prefix(other)) => {
            one.starts_with(other) || other.starts_with(one)
        }
        (TokenShape::Signed, TokenShape::Signed) => true,
        (TokenShape::Cookie(one), TokenShape::Cookie(other)) => {
            one.secure == other.secure || one.plain == other.plain
        }
        _ => false,
    }
}
