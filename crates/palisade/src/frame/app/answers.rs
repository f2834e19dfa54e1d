//! What a slice answers about its own tables to slices below it, which may not read them.
//!
//! A slice of a lower level knows neither the table nor its owner. It asks everyone who answers, through the
//! functions that the owners name in their `MODULE`.

use futures_util::future::BoxFuture;

use super::Change;
use crate::error::Result;
use crate::id::UserId;

/// The questions that a slice answers.
#[derive(Clone, Copy)]
pub struct Answers {
    /// What it opens to users and roles, beside permissions.
    pub rights: Option<Rights>,
    /// Whether an email address is kept for a former owner: no new account gets it meanwhile.
    pub email_is_reserved: Option<EmailIsReserved>,
}

impl Answers {
    /// No question is answered.
    pub const NONE: Self = Self { rights: None, email_is_reserved: None };
}

/// Rights that a slice gives out beside permissions.
#[derive(Clone, Copy)]
pub struct Rights {
    /// Whether something is open to the first user that isn't open to the second, or not for as long.
    pub open_more: for<'a> fn(&'a mut Change, UserId, UserId) -> BoxFuture<'a, Result<bool>>,
    /// Whether something is open to anyone who holds this role.
    pub open_to_role: for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>,
    /// The permission that stands for all of them.
    pub managed_by: &'static str,
}

/// Whether the email address of this key may still go back to a former owner.
pub type EmailIsReserved = for<'a> fn(&'a mut Change, &'a str) -> BoxFuture<'a, Result<bool>>;
