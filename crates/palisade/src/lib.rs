//! Palisade as a library: accounts, sign-in, sessions, tokens and an audit log, inside an axum server.
//!
//! A running Palisade is an [`App`], built by [`Builder`] from [`Settings`](settings::Settings) and a list of
//! [`Module`](module::Module)s: Palisade's own and those of the application.
//!
//! Where to look: `ARCHITECTURE.md` describes the structure; each module's front page states its purpose, the promises
//! it keeps and the tables it owns.

mod builder;
pub mod credentials;
mod flows;
mod frame;
mod ground;
mod operation;
mod people;
mod running;
#[cfg(feature = "testing")]
pub mod testing;

pub use credentials::{api_keys, challenges, keys, lockout, mfa, passwords, sessions, tokens};
pub use flows::{
    compat, deletion, email_change, export, factor_recovery, introspection, invitations, login,
    recovery, registration,
};
pub use frame::{
    access, actor, app, arrival, audit_log, credential, email_template, feed, http, module, pages,
    record, upkeep,
};
pub use ground::{
    cache, clock, cookie, error, files, hashing, id, limits, metrics, net, runtime, scheduling,
    settings, shape, trace, visible,
};
pub use operation::{audit, reference, system, telemetry};
pub use people::{grants, mail, roles, users};

pub use app::{App, change, ending};
pub use builder::{Builder, MODULES};
pub use running::Running;
