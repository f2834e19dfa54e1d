//! The promises of the crate, kept by real databases.

mod contract;
