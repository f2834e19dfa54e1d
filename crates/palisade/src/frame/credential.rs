//! The credentials of requests. The methods of a kind are declared as
//! [`CredentialMethods`](crate::app::CredentialMethods).
//!
//! Actors, identities and audit records carry the kind and the id of a credential, whatever kind it is: an application
//! can add its own kinds.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::cookie::CookieName;
use crate::id::{SessionId, UserId};

/// A kind of credential.
#[derive(Debug, PartialEq, Eq)]
pub struct CredentialKind {
    /// The name in the audit log, such as `session` or `api_key`. With the suffix `_id`, the name of the field in the
    /// revocation feed.
    pub name: &'static str,
    /// Whether it is a session, which belongs to a person who can provide a fresh proof of identity. Routes about
    /// sessions, passwords and factors accept no other kind. Only the kind of [`sessions`](crate::sessions) is a
    /// session.
    pub session: bool,
}

/// A credential used by a caller: its kind, its id, and the presented secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The kind.
    pub kind: &'static CredentialKind,
    /// The id of the session, the API key, or another object that the kind stores.
    pub id: Uuid,
    /// The presented secret.
    pub secret: SecretRef,
}

impl Credential {
    /// Returns the id of the session, if the credential is a session.
    pub fn session(&self) -> Option<SessionId> {
        self.kind.session.then_some(SessionId(self.id))
    }
}

/// Identifies a secret of a credential, so that a later check can determine whether it is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// The credential has one secret for its whole lifetime.
    Only,
    /// The secrets of this generation. A new proof of identity begins the next generation.
    Generation(i64),
    /// The secret with this digest.
    Digest([u8; 32]),
}

impl SecretRef {
    /// Returns the generation, if it identifies the secret.
    pub fn generation(self) -> Option<i64> {
        match self {
            Self::Generation(generation) => Some(generation),
            Self::Only | Self::Digest(_) => None,
        }
    }

    /// Returns the digest, if it identifies the secret.
    pub fn digest(self) -> Option<[u8; 32]> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Only | Self::Generation(_) => None,
        }
    }
}

/// How credentials of one kind are recognized in a request.
#[derive(Clone, Copy, Debug)]
pub enum TokenShape {
    /// A token with this prefix, such as `pal_ak_`.
    Prefix(&'static str),
    /// A signed token: any other token that contains a dot, as JWTs and PASETOs do.
    Signed,
    /// The value of this cookie. A request with cookies of two kinds is refused. Signing in to a cookie session removes
    /// the cookies of other kinds; the code that ends a credential of another kind must remove its cookie.
    Cookie(CookieName),
}

impl TokenShape {
    /// Returns how it is sent.
    pub fn via(self) -> Via {
        match self {
            Self::Prefix(_) | Self::Signed => Via::Bearer,
            Self::Cookie(_) => Via::Cookie,
        }
    }
}

/// How a credential is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// In the `Authorization` header, which a browser never sends on its own.
    Bearer,
    /// In a cookie, which a browser sends regardless of the page that caused the request.
    Cookie,
}

/// The state of a token (RFC 7662 section 2.2).
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(default)]
pub struct Introspection {
    /// Whether this server accepts the token now.
    pub active: bool,
    /// `Bearer` for an access token or an API key. Accept no other token as the credential of a request.
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
    /// When the user last proved their identity, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    /// The methods used to sign in (RFC 8176).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    /// The current permissions, separated by spaces: those of the user, or those that an API key can use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The names of the user's roles. An API key has permissions, but no roles. A refresh token has neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// The user's email address, if the caller has the permission `users:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The user's name, if the caller has the permission `users:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The networks from which an API key can be used, if they are restricted. The service that
    /// introspects the key must check the IP address from which it received the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_networks: Option<Vec<String>>,
}
