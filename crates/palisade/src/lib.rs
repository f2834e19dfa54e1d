//! Palisade as a library: accounts, sign-in, sessions, tokens and an audit log, inside an axum server.
//!
//! A running Palisade is an [`App`], made by [`Builder`] from [`Settings`](settings::Settings) and a
//! list of [`Module`](module::Module)s: Palisade's own and those of the application.
//!
//! Where to look: `ARCHITECTURE.md` draws the house; each module's front page says what it is for, the
//! promises it keeps and the tables it owns.

pub mod access;
pub mod account;
pub mod api_keys;
pub mod app;
pub mod audit;
mod builder;
pub mod challenges;
pub mod clock;
pub mod compat;
pub mod credentials;
pub mod error;
pub mod feed;
pub mod grants;
pub mod hashing;
pub mod http;
pub mod id;
pub mod keys;
pub mod letter;
pub mod limits;
pub mod lockout;
pub mod login;
pub mod mail;
pub mod memory;
pub mod mfa;
pub mod module;
pub mod passwords;
pub mod recovery;
pub mod reference;
pub mod registration;
pub mod roles;
pub mod runtime;
pub mod sessions;
pub mod settings;
pub mod shape;
pub mod system;
pub mod tokens;
pub mod users;
pub mod verifiers;
pub mod visible;

pub use app::App;
pub use builder::{Builder, MODULES, Running};
