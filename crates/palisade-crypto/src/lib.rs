//! Password hashing, tokens, keys and sealing for Palisade. No I/O, no clock, no SQL.
//!
//! # Promises
//!
//! - Nothing here reads a file, a socket, the environment or a clock. What is needed comes in as an
//!   argument: the time in seconds, randomness as [`random::Random`].
//! - A secret does not show in `Debug`, is wiped when dropped and is compared in constant time.
//! - Text from outside (tokens, password hashes, keys, sealed bytes) is judged by size and cost
//!   before work is spent on it, and no input makes this crate panic.
//! - Every derived key, digest and tag carries a label of its own, so that a value made for one
//!   purpose is worthless for another.

pub mod audit;
mod mac;
pub mod opaque;
pub mod password;
pub mod random;
pub mod root;
pub mod seal;
pub mod secret;
pub mod token;
