//! The parts that every slice is built on: the app, changes and their audit events, the gate, HTTP, the feed.

pub mod access;
pub mod actor;
pub mod app;
pub mod arrival;
pub mod audit_log;
pub mod credential;
pub mod email_template;
pub mod feed;
pub mod http;
pub mod module;
pub mod pages;
pub mod record;
pub mod upkeep;
