//! Operations built on `people` and `credentials`, such as signing in, registration and recovery.

pub mod compat;
pub mod deletion;
pub mod email_change;
pub mod export;
pub mod factor_recovery;
pub mod introspection;
pub mod invitations;
pub mod login;
pub mod recovery;
pub mod registration;
