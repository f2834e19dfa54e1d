//! The promises of the crate, kept by real databases.
#![cfg(test)]

mod contract;
mod files;
mod foreign;
mod hosting;
mod migrating;
mod outage;
mod plaintext;
mod poolers;
mod roles;
mod schemas;
mod shared_commit;
mod tls;
mod transactions;
mod watching;
