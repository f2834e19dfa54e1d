//! Slices for operators and developers: the audit log, the API reference, and the state of the server.

pub mod audit;
pub mod reference;
pub mod system;
pub mod telemetry;
