//! What every slice is built with: the app, changes and their audit events, the gate, HTTP, the feed.

pub mod access;
pub mod actor;
pub mod app;
pub mod audit;
pub mod change;
pub mod credential;
pub mod ending;
pub mod feed;
mod hold;
pub mod http;
mod lasting;
pub mod letter;
pub mod module;
pub mod upkeep;
