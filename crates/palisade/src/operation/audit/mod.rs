//! Reading and verifying the audit log: for administrators, for users about themselves, and for the operator.
//!
//! # Promises
//!
//! - Verification finds any change, deletion, insertion or swap of chained records, and any change or insertion of
//!   records that aren't chained yet, that was made without the root key. It reports the first bad record.
//!   `docs/audit.md` lists what it doesn't detect, such as an older copy of the whole database.
//! - A personal key that is missing without a recorded erasure is reported.
//! - Users see what they did and what was done to them, but not the personal details of others, such as the IP address
//!   of an administrator.
//!
//! The log is kept by [`audit_log`](crate::audit_log).

mod http;
mod verify;

use crate::module::{Module, Permission};

pub use verify::{Fault, verify};

/// Allows reading the audit log.
pub const READ: Permission = Permission { name: "audit:read", summary: "Read the audit log" };

/// The slice's table of contents.
pub const MODULE: Module =
    Module { name: "audit", routes: http::routes, permissions: &[READ], ..Module::EMPTY };
