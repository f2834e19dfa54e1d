//! The answers of a slice about its own tables, for slices of lower levels, which may not read them.
//!
//! A slice of a lower level knows neither the table nor its owner. It asks every slice that answers, through the
//! functions that the owners list in their `MODULE`.

use futures_util::future::BoxFuture;

use super::Change;
use crate::error::Result;
use crate::id::UserId;

/// The questions that a slice answers.
#[derive(Clone, Copy)]
pub struct Answers {
    /// The rights that it gives to users and roles in addition to permissions.
    pub rights: Option<Rights>,
    /// Whether an email address is reserved for a former owner, so that no new account gets it in
    /// the meantime.
    pub email_is_reserved: Option<EmailIsReserved>,
}

impl Answers {
    /// No question is answered.
    pub const NONE: Self = Self { rights: None, email_is_reserved: None };
}

/// Rights that a slice gives in addition to permissions.
#[derive(Clone, Copy)]
pub struct Rights {
    /// Whether the first user holds a right that the second doesn't hold, or doesn't hold for as long.
    pub open_more: for<'a> fn(&'a mut Change, UserId, UserId) -> BoxFuture<'a, Result<bool>>,
    /// Whether this role gives its holders such a right.
    pub open_to_role: for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>,
    /// The permission that covers all of these rights.
    pub managed_by: &'static str,
}

/// Whether the email address with this key may still be restored to a former owner.
pub type EmailIsReserved = for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>;
