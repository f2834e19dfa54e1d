//! The promises of the crate, kept by real databases.
#![cfg(test)]

mod contract;
mod files;
mod migrating;
mod outage;
mod shared_commit;
mod tls;
mod transactions;
mod watching;
