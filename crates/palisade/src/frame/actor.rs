//! Actors: a user with a credential, a client that isn't signed in, the operator, or the server.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::credential::Credential;
use crate::id::{RequestId, UserId};

/// An actor and where it acts from, as recorded in the audit log.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// The kind of actor.
    pub kind: ActorKind,
    /// The signed-in user, if there is one.
    pub user: Option<UserId>,
    /// The credential used.
    pub credential: Option<Credential>,
    /// The client's IP address.
    pub ip: Option<IpAddr>,
    /// The client's own description of itself, cut to 200 characters.
    pub user_agent: Option<String>,
    /// The id of the request.
    pub request: Option<RequestId>,
    /// The permission that the operation requires, if any. The value `admin`, which is the name of a role and not a
    /// permission, requires that role.
    pub permission: Option<&'static str>,
    /// Whether the operation requires a fresh proof of identity.
    pub fresh: bool,
    /// Becomes true once any part of the request is committed. From then on, the request can't be run again.
    pub committed: Option<Arc<AtomicBool>>,
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
    /// The server itself.
    System,
}

impl ActorKind {
    /// Returns the name used in the audit log.
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
    /// Creates the actor for the operator of the machine, who uses the command line.
    pub fn operator() -> Self {
        Self { kind: ActorKind::Operator, ..Self::default() }
    }

    /// Creates the actor for the server itself.
    pub fn system() -> Self {
        Self { kind: ActorKind::System, ..Self::default() }
    }
}
