//! The foundation of everything else. It knows no users, no database rows and no HTTP routes.

pub mod cache;
pub mod clock;
pub mod cookie;
pub mod error;
pub mod hashing;
pub mod id;
pub mod limits;
pub mod net;
pub mod runtime;
pub mod settings;
pub mod shape;
pub mod visible;
