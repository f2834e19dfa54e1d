//! Users and their rights: users, roles, grants and mail.

pub mod grants;
pub mod mail;
pub mod roles;
pub mod users;
