//! Credentials: what a request comes with, and what a kind of credential brings.
//!
//! A slice declares its kind once ([`CredentialKind`], in its `MODULE`), and an application declares its own in
//! the same way: the gate, changes, introspection, revocation and the feed of endings all ask one list
//! ([`CredentialKinds`]). Actors, identities and audit records carry the kind and the id ([`Credential`]).
//!
//! Promises:
//! - Which kind a token belongs to is decided here alone, and a token belongs to one kind at most.
//! - A change rests on a credential that its own kind calls alive, with the secret that was presented.
//!
//! Tables: none.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::request::Parts as RequestParts;
use futures_util::future::BoxFuture;
use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::access::{Identity, Strength};
use crate::app::App;
use crate::change::Change;
use crate::error::{Error, Result};
use crate::feed::ENDED;
use crate::http::CookieName;
use crate::id::{SessionId, UserId};

/// A credential that was used: of which kind, which one, and with which of its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The kind.
    pub kind: &'static CredentialKind,
    /// The id of the session, key or whatever else the kind keeps.
    pub id: Uuid,
    /// The secret that was presented.
    pub secret: SecretRef,
}

impl Credential {
    /// The session, if it is one.
    pub fn session(&self) -> Option<SessionId> {
        self.kind.session.then_some(SessionId(self.id))
    }
}

/// Names a secret of a credential, as far as it takes to find out later whether it is still a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// The credential has one secret, for as long as it lives.
    Only,
    /// Secrets of this generation: a new proof of identity begins the next.
    Generation(i64),
    /// The secret of this digest.
    Digest([u8; 32]),
}

impl SecretRef {
    /// The generation, where that names it.
    pub fn generation(self) -> Option<i64> {
        match self {
            SecretRef::Generation(generation) => Some(generation),
            SecretRef::Only | SecretRef::Digest(_) => None,
        }
    }

    /// The digest, where that names it.
    pub fn digest(self) -> Option<[u8; 32]> {
        match self {
            SecretRef::Digest(digest) => Some(digest),
            SecretRef::Only | SecretRef::Generation(_) => None,
        }
    }
}

/// Says whether a credential of this user is alive, in the change that rests on it: not ended, not expired, and the
/// presented secret not replaced. Whether the user is disabled is asked elsewhere.
pub type IsAlive =
    for<'a> fn(&'a mut Change, UserId, Credential) -> BoxFuture<'a, Result<Option<LiveCredential>>>;

/// Ends one credential of a user, in a change that holds the account alone, and notes the event and the news. Not
/// found, if it isn't alive or not theirs.
pub type Revoke = for<'a> fn(&'a mut Change, UserId, Uuid) -> BoxFuture<'a, Result<()>>;

/// Proves who sent a token. The request is for what else must fit, such as the client's address; where
/// [`is_recheck`](crate::access::is_recheck), it is no use of the credential, and not counted as one.
pub type Prove = for<'a> fn(&'a App, &'a str, &'a RequestParts) -> BoxFuture<'a, Result<Identity>>;

/// Says what a token is worth, without using it up; none, or `access.invalid_token`, for nothing.
pub type Introspect = for<'a> fn(&'a App, &'a str) -> BoxFuture<'a, Result<Option<Introspection>>>;

/// Finds whose credential a token belongs to, and its id, so that it can be revoked.
pub type Locate = for<'a> fn(&'a App, &'a str) -> BoxFuture<'a, Result<Option<(UserId, Uuid)>>>;

/// A kind of credential, declared by the slice that keeps it. What acts on an account end of it is declared beside
/// it, in `MODULE.endings`.
pub struct CredentialKind {
    /// The word in the audit log: `session`, `api_key`. With `_id` behind it, the field in the feed of endings.
    pub name: &'static str,
    /// Whether it is a session: a person is behind it, who can give a fresh proof of identity. Routes about sessions,
    /// passwords and factors take nothing else.
    pub session: bool,
    /// In which forms it travels.
    pub forms: &'static [CredentialForm],
    /// The topic of the news that one has ended: `sessions.ended`.
    pub ended: &'static str,
    /// Whether one is alive.
    pub is_alive: IsAlive,
    /// Ends one.
    pub revoke: Revoke,
}

impl fmt::Debug for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Names are unique in an app.
impl PartialEq for CredentialKind {
    fn eq(&self, other: &CredentialKind) -> bool {
        self.name == other.name
    }
}

impl Eq for CredentialKind {}

/// A form in which a credential travels.
#[derive(Clone, Copy)]
pub struct CredentialForm {
    /// What it is called in the documentation.
    pub name: &'static str,
    /// What it is, for people.
    pub says: &'static str,
    /// How it is told from others.
    pub shape: TokenShape,
    /// How a request is proved by it; none, if it lets nobody in.
    pub prove: Option<Prove>,
    /// What it is worth to other services; none: nothing.
    pub introspect: Option<Introspect>,
    /// How its credential is found, to be revoked; none, if it can't be by this form.
    pub locate: Option<Locate>,
}

/// How the forms of credentials are told apart.
#[derive(Clone, Copy, Debug)]
pub enum TokenShape {
    /// A token that begins so: `pal_ak_`.
    Prefix(&'static str),
    /// A signed token: any other that has a dot in it, as JWT and PASETO have.
    Signed,
    /// The value of this cookie.
    Cookie(CookieName),
}

impl TokenShape {
    /// How it travels.
    pub fn via(self) -> Via {
        match self {
            TokenShape::Prefix(_) | TokenShape::Signed => Via::Bearer,
            TokenShape::Cookie(_) => Via::Cookie,
        }
    }
}

/// How a credential travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// In the `Authorization` header: never sent by a browser on its own.
    Bearer,
    /// In a cookie, which a browser sends regardless of the page that caused the request.
    Cookie,
}

/// What a change must know of the credential that it rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveCredential {
    /// When its user last proved who they are, and with what; none, if it can't be a fresh proof.
    pub proved: Option<(Timestamp, Strength)>,
    /// The permissions that it was made for; none: all of its user's.
    pub permissions: Option<BTreeSet<String>>,
}

/// What a change must know of the account that it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Whether the permission is still held that was asked for, if one was.
    pub permitted: bool,
    /// The strongest factor that the account has.
    pub strongest: Strength,
}

/// Looks up an account within a change, and whether it holds a permission; none, if it is gone or disabled.
pub type FindAccount = for<'a> fn(
    &'a mut Change,
    UserId,
    Option<&'static str>,
) -> BoxFuture<'a, Result<Option<AccountState>>>;

/// The state of a token (RFC 7662 section 2.2).
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(default)]
pub struct Introspection {
    /// Whether this server accepts the token now.
    pub active: bool,
    /// `Bearer` for a token that is sent with requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<UserId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The client that the token was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The id of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// When the token was issued, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// When the token expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When the user last proved their identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    /// The methods used to sign in (RFC 8176).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    /// The current permissions of an API key, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The networks from which an API key can be used, if they are restricted. The caller must
    /// check where a request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
}

/// The kinds of credential of an app.
pub struct CredentialKinds(Vec<&'static CredentialKind>);

impl CredentialKinds {
    /// The list, if nothing in it is ambiguous.
    ///
    /// # Errors
    /// Internal, naming what stands twice or can't be told apart: a mistake of the module that brings it.
    pub fn new(kinds: Vec<&'static CredentialKind>) -> Result<CredentialKinds> {
        let list = CredentialKinds(kinds);
        for (number, kind) in list.0.iter().enumerate() {
            let others = list.0.iter().take(number);
            if others.clone().any(|other| other.name == kind.name || other.ended == kind.ended) {
                let says = format!("two kinds of credential have the name or topic of {kind:?}");
                return Err(Error::internal(says));
            }
            if !kind.ended.ends_with(ENDED) {
                let says = format!("the topic {} does not end in {ENDED}", kind.ended);
                return Err(Error::internal(says));
            }
        }
        // SECURITY: one kind judges a token, whatever the order of the modules
        // (test: credentials_that_can_not_be_told_apart_are_refused).
        let shapes: Vec<TokenShape> = list.forms().map(|(_, form)| form.shape).collect();
        for (number, shape) in shapes.iter().enumerate() {
            if shapes.iter().take(number).any(|other| overlap(*shape, *other)) {
                return Err(Error::internal(format!("{shape:?} fits tokens of two kinds")));
            }
        }
        Ok(list)
    }

    /// The kinds, in the order of the modules.
    pub fn kinds(&self) -> impl Iterator<Item = &'static CredentialKind> {
        self.0.iter().copied()
    }

    fn forms(&self) -> impl Iterator<Item = (&'static CredentialKind, &'static CredentialForm)> {
        self.kinds().flat_map(|kind| kind.forms.iter().map(move |form| (kind, form)))
    }

    /// What a token is that was sent as text: in the `Authorization` header, or to be introspected or revoked.
    pub fn of_token(
        &self,
        token: &str,
    ) -> Option<(&'static CredentialKind, &'static CredentialForm)> {
        let begins = |form: &CredentialForm| match form.shape {
            TokenShape::Prefix(prefix) => token.starts_with(prefix),
            TokenShape::Signed | TokenShape::Cookie(_) => false,
        };
        let signed = |form: &CredentialForm| matches!(form.shape, TokenShape::Signed);
        self.forms()
            .find(|(_, form)| begins(form))
            .or_else(|| self.forms().find(|(_, form)| signed(form)).filter(|_| token.contains('.')))
    }

    /// The cookies that let requests in, and how they are proved.
    pub fn cookies(&self) -> impl Iterator<Item = (CookieName, Prove)> {
        self.forms().filter_map(|(_, form)| match form.shape {
            TokenShape::Cookie(name) => form.prove.map(|prove| (name, prove)),
            TokenShape::Prefix(_) | TokenShape::Signed => None,
        })
    }

    /// The kind whose endings have this topic.
    pub fn of_topic(&self, topic: &str) -> Option<&'static CredentialKind> {
        self.kinds().find(|kind| kind.ended == topic)
    }
}

/// Whether one text may have both shapes.
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
