//! The foundation of all other code. It doesn't depend on users, database rows or HTTP routes.

pub mod cache;
pub mod clock;
pub mod cookie;
pub mod error;
pub mod files;
pub mod hashing;
pub mod id;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod runtime;
pub mod scheduling;
pub mod settings;
pub mod shape;
pub mod trace;
pub mod visible;
