//! Who acts: a user with a session or an API key, a client that isn't signed in, the operator, the server.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::id::{ApiKeyId, RequestId, SessionId, UserId};

/// Who acts, from where: what the audit log says of a change.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// What kind of actor it is.
    pub kind: ActorKind,
    /// The signed-in user, if there is one.
    pub user: Option<UserId>,
    /// The session it came through.
    pub session: Option<SessionId>,
    /// Which of that session's credentials it came with.
    pub presented: Option<Presented>,
    /// The API key it came with.
    pub api_key: Option<ApiKeyId>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's own description of itself, cut to 200 characters.
    pub user_agent: Option<String>,
    /// The request.
    pub request: Option<RequestId>,
    /// The permission that lets them, if one was asked for; the name of the role `admin`, which no permission has,
    /// asks for that role.
    pub permission: Option<&'static str>,
    /// Whether what they do asks for a fresh proof of identity.
    pub fresh: bool,
    /// Becomes true once something of the request is committed: from then on it can't be run again.
    pub committed: Option<Arc<AtomicBool>>,
}

/// A credential of a session, as far as it takes to find out later whether it is still a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// An access token of this generation of the session's credentials.
    AccessToken(i64),
    /// The cookie of this digest.
    Cookie([u8; 32]),
}

impl Presented {
    pub(super) fn generation(self) -> Option<i64> {
        match self {
            Self::AccessToken(generation) => Some(generation),
            Self::Cookie(_) => None,
        }
    }

    pub(super) fn digest(self) -> Option<[u8; 32]> {
        match self {
            Self::AccessToken(_) => None,
            Self::Cookie(digest) => Some(digest),
        }
    }
}

/// The kinds of actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActorKind {
    /// A client that isn't signed in.
    #[default]
    Anyone,
    /// A signed-in user.
    User,
    /// The operator of the machine, through the command line.
    Operator,
    /// The server, on its own account.
    System,
}

impl ActorKind {
    /// The word in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::User => "user",
            Self::Operator => "operator",
            Self::System => "system",
        }
    }
}

impl Actor {
    /// The operator of the machine, through the command line.
    pub fn operator() -> Self {
        Self { kind: ActorKind::Operator, ..Self::default() }
    }

    /// The server, on its own account.
    pub fn system() -> Self {
        Self { kind: ActorKind::System, ..Self::default() }
    }
}
