//! What people do over several steps, made of people and credentials.

pub mod account;
pub mod compat;
pub mod login;
pub mod recovery;
pub mod registration;
pub mod verifiers;
