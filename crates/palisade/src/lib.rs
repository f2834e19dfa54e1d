//! A secure application backend as a library: accounts, sign-in, sessions, tokens, audit.

pub mod hashing;
pub mod http {
    //! How requests come in and answers go out.
    pub mod client;
    pub mod serve;
}
pub mod limits;
