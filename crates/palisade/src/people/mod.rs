//! Users, their rights (roles and grants), and mail.

pub mod grants;
pub mod mail;
pub mod roles;
pub mod users;
