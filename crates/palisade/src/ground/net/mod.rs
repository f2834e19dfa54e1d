//! Connections: the listener, and whose they are.

pub mod client;
pub mod serve;
