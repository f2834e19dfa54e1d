//! The locks that a change holds while it is open, and the order in which they are taken.
//!
//! A change depends on objects that other changes may end in the meantime: the session that requested it, the account
//! that signs in, the role that allows it. The change holds these objects, shared with other changes; an ending holds
//! the object exclusively. A change therefore either precedes the ending, which then also ends what the change created,
//! or follows it, checks again, and is refused.
//!
//! **The order of locks**, for the whole product:
//!
//! 1. [`Hold`]s, before anything is read, in the order of their keys: [`Hold::Administrators`], [`Hold::Roles`], then
//!    accounts. [`Db::begin_holding`](palisade_db::Db::begin_holding) sorts them.
//! 2. The row of a link or a registration that is used up (`recovery_tokens`, `email_changes`, `registrations`,
//!    `setup_links`): one change locks it, and other changes that use the same link wait for that change.
//! 3. Rows of `roles` (by name), then `users`, `passwords`, `challenges`, `totp_secrets`, `passkeys`, `recovery_codes`,
//!    `lockout_counts`, `factor_recoveries`, `sessions`, `session_secrets`, `api_keys`, `grants`. This order matters to
//!    changes that share an account; a change that holds the account exclusively has no concurrent changes. Nothing
//!    enforces this order except the sequence of the statements; `./test rigs pairs` detects deadlocks. Endings write
//!    in the order of [`Kind::ALL`](super::Kind::ALL), holding the account exclusively.
//! 4. Rows inserted and never waited for: `outbox`, `audit_events`, `feed`.
//!
//! Columns of `users` that belong to other slices (factors, a lockout) are written together with the rows of those
//! slices, while the user's row is locked.
//!
//! A change that writes rows of an account or refers to the account holds it, because deleting the account deletes all
//! these rows together. Changes that touch a single row and don't depend on a credential hold nothing: counting a guess
//! or an attempt, recording that a session or an API key was used, and requesting a link.
//!
//! On SQLite, which writes one change at a time, no lock is taken, and the same requests are refused.

use palisade_db::Lock;

use crate::id::UserId;

/// A lock that a change holds until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// An account that the change depends on or writes rows of, shared with other changes: none of its credentials ends
    /// during the change.
    Shared(UserId),
    /// An account whose credentials the change ends: no other change touches it during the change.
    Alone(UserId),
    /// The set of administrators: for changes that may remove an administrator or add the first one.
    Administrators,
    /// The permissions of roles: for changes to roles.
    Roles,
    /// The permissions of roles, shared with other changes: for changes that depend on rights. A change that requires a
    /// permission holds it automatically.
    RolesShared,
}

/// The key for the set of administrators. It is below every key of an account, whose two highest bits are `10`, as in
/// every UUID (RFC 9562, section 4.1), and whose other 62 bits are random.
const ADMINISTRATORS: i64 = i64::MIN;
const ROLES: i64 = i64::MIN + 1;

impl Hold {
    pub(super) fn lock(self) -> Lock {
        match self {
            Self::Shared(user) => Lock { key: account(user), alone: false },
            Self::Alone(user) => Lock { key: account(user), alone: true },
            Self::Administrators => Lock { key: ADMINISTRATORS, alone: true },
            Self::Roles => Lock { key: ROLES, alone: true },
            Self::RolesShared => Lock { key: ROLES, alone: false },
        }
    }
}

/// Returns the key of an account: the random half of its id. If two accounts ever have the same key, their changes wait
/// for each other, without further effect.
fn account(user: UserId) -> i64 {
    let (_, random) = user.0.as_u64_pair();
    i64::from_ne_bytes(random.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_after_what_all_share_and_differ() {
        let random = palisade_crypto::random::OsRandom;
        let id = || UserId(crate::id::uuid_v7(palisade_db::Timestamp::from_seconds(1), &random));
        let (one, other) = (Hold::Alone(id()).lock(), Hold::Shared(id()).lock());
        assert_ne!(one.key, other.key);
        assert!(one.alone && !other.alone);
        assert!([one.key, other.key].iter().all(|key| *key > ROLES));
    }
}
