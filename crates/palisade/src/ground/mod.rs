//! What everything stands on: no users, no database rows, no HTTP routes.

pub mod clock;
pub mod cookie;
pub mod error;
pub mod hashing;
pub mod id;
pub mod limits;
pub mod memory;
pub mod net;
pub mod runtime;
pub mod settings;
pub mod shape;
pub mod visible;
