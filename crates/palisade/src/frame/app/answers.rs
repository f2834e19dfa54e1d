//! Functions through which a slice answers questions about its own tables. Lower-level slices, which may not read these
//! tables, call them.
//!
//! A lower-level slice depends neither on the table nor on the slice that owns it. It calls every slice that provides
//! such functions, as listed in the owners' `MODULE`.

use futures_util::future::BoxFuture;
use palisade_crypto::secret::SecretString;

use super::{App, Change};
use crate::error::Result;
use crate::id::UserId;

/// The functions through which a slice answers questions about its tables, and acts on them, for slices of lower levels.
#[derive(Clone, Copy)]
pub struct Answers {
    /// The rights that it gives to users and roles in addition to permissions.
    pub rights: Option<Rights>,
    /// Whether an email address is reserved for a former owner. While it is reserved, no new account can get it.
    pub email_is_reserved: Option<EmailIsReserved>,
    /// Who received an emailed link, by its token.
    pub link_recipient: Option<LinkRecipient>,
    /// Makes earlier access tokens outdated, because claims in them have changed.
    pub outdate: Option<Outdate>,
}

impl Answers {
    /// The value for a slice that answers no questions.
    pub const NONE: Self =
        Self { rights: None, email_is_reserved: None, link_recipient: None, outdate: None };
}

/// Rights that a slice gives in addition to permissions.
#[derive(Clone, Copy)]
pub struct Rights {
    /// Returns whether the first user holds a right that the second user lacks or holds for a shorter time.
    pub open_more: for<'a> fn(&'a mut Change, UserId, UserId) -> BoxFuture<'a, Result<bool>>,
    /// Returns whether this role gives its holders such a right.
    pub open_to_role: for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>,
    /// The permission that covers all of these rights.
    pub managed_by: &'static str,
}

/// Returns whether the email address with this key may still be restored to a former owner.
pub type EmailIsReserved = for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>;

/// Returns the email address that received the link with this token, as long as the link can be used.
pub type LinkRecipient =
    for<'a> fn(&'a App, &'a SecretString) -> BoxFuture<'a, Result<Option<String>>>;

/// The users whose claims have changed.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// One user, whose row the change has locked.
    User(UserId),
    /// All users who hold this role.
    Role(&'a str),
}

/// Makes the access tokens of these users outdated.
pub type Outdate = for<'a> fn(&'a mut Change, Whose<'a>) -> BoxFuture<'a, Result<()>>;
