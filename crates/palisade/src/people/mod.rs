//! Who there is and what they may do: users, roles, grants, and how email reaches them.

pub mod grants;
pub mod mail;
pub mod roles;
pub mod users;
