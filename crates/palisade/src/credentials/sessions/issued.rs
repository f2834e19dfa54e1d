//! What a sign-in, a refresh or a new proof of identity gives to the client.

use palisade_crypto::secret::SecretString;

use super::{Session, Transport};
use crate::app::Change;
use crate::error::Result;
use crate::tokens::{self, Grant, UserClaims};

/// A session and the secret that continues it, which is shown once.
pub struct Issued {
    /// The session.
    pub session: Session,
    /// A refresh token, or the value of a cookie.
    pub secret: SecretString,
    /// The claims about the user in the access token.
    user_claims: UserClaims,
}

impl Issued {
    /// Completes what a change issues. Checks before the commit that the access token can be issued.
    pub(super) async fn new(
        change: &mut Change,
        session: Session,
        secret: SecretString,
    ) -> Result<Self> {
        let mut issued = Self { session, secret, user_claims: UserClaims::default() };
        if issued.session.transport == Transport::Token {
            issued.user_claims = UserClaims::read(change, issued.session.user).await?;
            tokens::check(change.app(), &issued.grant())?;
        }
        Ok(issued)
    }

    /// Returns the contents of the access token.
    pub(super) fn grant(&self) -> Grant {
        let session = &self.session;
        Grant {
            user: session.user,
            session: session.id,
            format: session.format,
            generation: session.generation,
            authenticated_at: session.authenticated_at,
            amr: session.amr.split(' ').map(str::to_owned).collect(),
            session_ends_at: session.expires_at,
            user_claims: self.user_claims.clone(),
        }
    }
}
