//! Password hashing, tokens, keys, sealing, one-time codes, passkeys and audit digests for Palisade. No I/O, no clock,
//! no SQL.
//!
//! # Promises
//!
//! - Nothing here reads a file, a socket, the environment or a clock. Everything needed is passed in as an argument:
//!   the time in seconds, randomness as [`random::Random`]. ES256 and `v4.local` are exceptions: the libraries for them
//!   get their randomness from the operating system.
//! - A secret does not appear in `Debug` output, is wiped when dropped and is compared in constant time.
//! - External input (tokens, password hashes, keys, sealed bytes) is checked for size and cost
//!   before any work is done on it, and no input makes this crate panic.
//! - Every derived key, token digest and audit tag has its own label, so a value created for one purpose is useless for
//!   another.
//!
//! # Example
//!
//! ```
//! use palisade_crypto::password::{self, Cost, Memory};
//! use palisade_crypto::random::OsRandom;
//! use palisade_crypto::root::RootKey;
//! use palisade_crypto::secret::SecretString;
//!
//! let password = SecretString::from("correct horse battery staple");
//! let mut memory = Memory::new();
//! let hash = password::hash(&Cost::LIGHT, &password, &OsRandom, &mut memory)?;
//!
//! // The stored form is sealed for one user, so that no other user's row can hold it.
//! let key = RootKey::generate(&OsRandom).derive("password hashes");
//! let sealed = key.seal(&OsRandom, b"user 1", hash.as_bytes());
//! assert!(key.open(b"user 2", &sealed).is_err());
//!
//! let opened = key.open(b"user 1", &sealed)?;
//! let stored = std::str::from_utf8(opened.expose())?;
//! assert!(password::verify(stored, &password, &mut memory)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
pub mod known;
pub mod mac;
pub mod opaque;
pub mod password;
pub mod random;
pub mod root;
pub mod seal;
pub mod secret;
pub mod token;
pub mod totp;
pub mod webauthn;
