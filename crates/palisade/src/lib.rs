//! A secure application backend as a library: accounts, sign-in, sessions, tokens, audit.

pub mod settings;
