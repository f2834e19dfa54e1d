//! The audit log for those who read it: administrators, users about themselves, and the operator who verifies it.
//!
//! # Promises
//!
//! - Verification finds any change, deletion, insertion or swap of records by a user who doesn't hold the root key, and
//!   names the first bad one.
//! - A missing key of a person without a recorded erasure is reported.
//! - Users see what they did and what was done to them, but not the personal details of others, such as the IP address
//!   of an administrator.
//!
//! The log is kept by [`audit_log`](crate::audit_log).

mod http;
mod verify;

use crate::module::{Module, Permission};

pub use verify::{Fault, verify};

/// May read the audit log.
pub const READ: Permission = Permission { name: "audit:read", summary: "Read the audit log" };

/// The slice's table of contents.
pub const MODULE: Module =
    Module { name: "audit", routes: http::routes, permissions: &[READ], ..Module::EMPTY };
